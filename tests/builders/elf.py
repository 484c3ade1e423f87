"""Tiny ELF images with state descriptions in them, made by hand: no compiler needed.

A program has two segments, code at CODE and data at DATA, and a dynamic table that
leads to relocations and symbols in the data::

    image = Image()
    name = image.text("dev")
    image.description(name="dev", fields=image.fields([field(image, "x", size=4)]))
    data = image.build("relr")
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cprformats.schema.eras import DESCRIPTIONS, FIELDS, DescriptionLayout, FieldLayout

CODE, DATA = 0x1000, 0x100000
MACHINES = {"x86_64": 62, "aarch64": 183, "riscv": 243}
RELATIVE = {"x86_64": 8, "aarch64": 1027}
ABSOLUTE = {"x86_64": 1, "aarch64": 257}
_POINTERS = ("name", "err_hint", "info", "vmsd", "field_exists")


@dataclass
class Image:
    """A program or module in the making; addresses are final as soon as they are given."""

    description_layout: DescriptionLayout = DESCRIPTIONS[4]
    field_layout: FieldLayout = FIELDS[1]
    end: int = 0x10000
    arch: str = "x86_64"
    kind: str = "dyn"
    code: bytearray = field(default_factory=lambda: bytearray(b"\xc3" * 16))
    data: bytearray = field(default_factory=lambda: bytearray(16))
    slots: dict[int, int] = field(default_factory=dict)
    imports: dict[int, str] = field(default_factory=dict)
    exports: dict[str, int] = field(default_factory=dict)

    # -- parts ----------------------------------------------------------------

    def reserve(self, size: int) -> int:
        """Give the address of some zeros."""
        self.data += bytes(-len(self.data) % 8)
        address = DATA + len(self.data)
        self.data += bytes(size)
        return address

    def text(self, words: str) -> int:
        address = DATA + len(self.data)
        self.data += words.encode() + b"\0"
        return address

    def function(self) -> int:
        self.code += b"\xc3" * 16
        return CODE + len(self.code) - 16

    def write(self, address: int, data: bytes) -> None:
        self.data[address - DATA : address - DATA + len(data)] = data

    def point(self, slot: int, target: int | str) -> None:
        """Put a pointer somewhere, to an address or an imported symbol."""
        if isinstance(target, str):
            self.imports[slot] = target
        elif target:
            self.slots[slot] = target
            self.write(slot, struct.pack("<Q", target))

    def refer(self, address: int) -> None:
        """Form an address in code: lea, adrp and add, or mov."""
        place = CODE + len(self.code)
        if self.arch == "aarch64":
            pages = ((address & ~0xFFF) - (place & ~0xFFF)) >> 12
            low = 0x90000000 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5 | 3
            self.code += struct.pack("<II", low, 0x91000000 | (address & 0xFFF) << 10 | 3 << 5)
        elif self.kind == "exec":
            self.code += b"\xbf" + struct.pack("<I", address)
        else:
            self.code += b"\x48\x8d\x05" + struct.pack("<i", address - place - 7)
        self.code += b"\xc3" * (-len(self.code) % 16)

    # -- QEMU's structures ------------------------------------------------------

    def info(self, name: str) -> int:
        address = self.reserve(40)
        self.point(address, self.text(name))
        return address

    def fields(self, entries: Sequence[Mapping[str, Any]], *, ended: bool = True) -> int:
        layout = self.field_layout
        address = self.reserve(layout.size * (len(entries) + ended))
        listed = [*entries, {"flags": self.end}] if ended else list(entries)
        for at, entry in enumerate(listed):
            self.write_field(address + at * layout.size, entry)
        return address

    def write_field(self, address: int, entry: Mapping[str, Any]) -> None:
        members = self.field_layout.members
        plain = [0 if one in _POINTERS else entry.get(one, 0) for one in members]
        self.write(address, self.field_layout.layout.pack(*plain))
        for one in _POINTERS:
            if one in members and entry.get(one):
                self.point(address + self.place(one), entry[one])

    def place(self, member: str) -> int:
        """Offset of a pointer in a VMStateField, found by packing a mark."""
        members = self.field_layout.members
        packed = self.field_layout.layout.pack(*(int(one == member) for one in members))
        return packed.index(1)

    def description(
        self,
        name: str | int = "dev",
        *,
        fields: int = 0,
        subsections: Sequence[int] = (),
        version: int = 1,
        minimum: int = 1,
        unmigratable: int = 0,
        early_setup: int = 0,
        priority: int = 0,
        hooks: Sequence[str] = (),
        address: int = 0,
    ) -> int:
        layout = self.description_layout
        address = address or self.reserve(layout.size)
        head = struct.pack("<BB2xii", unmigratable, early_setup, version, minimum)
        self.write(address + 8, head)
        self.point(address, self.text(name) if isinstance(name, str) and name else name or 0)
        if layout.priority is not None:
            self.write(address + layout.priority, struct.pack("<i", priority))
        for hook in hooks:
            self.point(address + layout.hooks[hook], self.function())
        self.point(address + layout.fields, fields)
        if subsections:
            self.point(address + layout.fields + 8, self.pointers(subsections))
        return address

    def pointers(self, targets: Sequence[int]) -> int:
        address = self.reserve(8 * len(targets) + 8)
        for at, target in enumerate(targets):
            self.point(address + 8 * at, target)
        return address

    # -- the file ---------------------------------------------------------------

    def build(self, relocations: str = "rela", *, gnu_hash: bool = False) -> bytes:
        """Make the file; relocations are "rela", "rel", "relr" or "none"."""
        symbols, strings = self._symbols()
        tags = self._relocations(relocations)
        tags |= {5: self._append(strings), 10: len(strings), 6: self._append(symbols)}
        count = len(symbols) // 24
        if gnu_hash:
            tags[0x6FFFFEF5] = self._append(gnu_hash_table(count, len(self.exports)))
        else:
            tags[4] = self._append(struct.pack("<II", 1, count) + bytes(4 + 4 * count))
        table = b"".join(struct.pack("<QQ", *pair) for pair in tags.items()) + bytes(16)
        dynamic = self._append(table)
        return self._file(dynamic, len(table))

    def _append(self, data: bytes) -> int:
        address = self.reserve(len(data))
        self.write(address, data)
        return address

    def _symbols(self) -> tuple[bytes, bytes]:
        entries, strings = [bytes(24)], b"\0"
        for name in dict.fromkeys(self.imports.values()):
            entries.append(struct.pack("<IBBHQQ", len(strings), 0x11, 0, 0, 0, 0))
            strings += name.encode() + b"\0"
        for name, address in self.exports.items():
            entries.append(struct.pack("<IBBHQQ", len(strings), 0x11, 0, 1, address, 8))
            strings += name.encode() + b"\0"
        return b"".join(entries), strings

    def _relocations(self, kind: str) -> dict[int, int]:
        relative, absolute = RELATIVE.get(self.arch, 0), ABSOLUTE.get(self.arch, 0)
        names = list(dict.fromkeys(self.imports.values()))
        named = b"".join(
            struct.pack("<QQq", slot, names.index(name) + 1 << 32 | absolute, 0)
            for slot, name in self.imports.items()
        )
        tags = {}
        slots = sorted(self.slots.items()) if kind != "none" else []
        if kind == "rela":
            named += b"".join(struct.pack("<QQQ", slot, relative, to) for slot, to in slots)
        elif kind == "rel":
            table = b"".join(struct.pack("<QQ", slot, relative) for slot, _ in slots)
            tags |= {17: self._append(table), 18: len(table)}
        elif kind == "relr":
            table = relr([slot for slot, _ in slots])
            tags |= {36: self._append(table), 35: len(table)}
        if named:
            for slot, to in slots if kind == "rela" else ():
                self.write(slot, bytes(8))
                assert to
            tags |= {7: self._append(named), 8: len(named)}
        return tags

    def _file(self, dynamic: int, dynamic_bytes: int) -> bytes:
        data_at = 0x1000 + len(self.code) + -len(self.code) % 16
        note = struct.pack("<III4s4s", 4, 4, 3, b"GNU\0", b"\xab\xcd\xef\x01")
        headers = [
            (1, 5, 0x1000, CODE, len(self.code)),
            (1, 6, data_at, DATA, len(self.data)),
            (2, 6, data_at + dynamic - DATA, dynamic, dynamic_bytes),
            (4, 4, 0x800, 0, len(note)),
        ]
        head = b"\x7fELF\x02\x01\x01" + bytes(9)
        kind = {"exec": 2, "dyn": 3, "rel": 1}[self.kind]
        head += struct.pack("<HHIQQQ", kind, MACHINES[self.arch], 1, CODE, 64, 0)
        head += struct.pack("<IHHHHHH", 0, 64, 56, len(headers), 64, 0, 0)
        for type_, flags, offset, address, size in headers:
            head += struct.pack(
                "<IIQQQQQQ", type_, flags, offset, address, address, size, size, 0x1000
            )
        head = head.ljust(0x800, b"\0") + note
        return head.ljust(0x1000, b"\0") + bytes(self.code).ljust(data_at - 0x1000) + self.data


def relr(slots: Sequence[int]) -> bytes:
    """Encode addresses, each a multiple of 8, with bitmaps where they lie close."""
    words: list[int] = []
    base = None
    bits = 0
    for slot in sorted(slots):
        if base is not None and 0 <= slot - base < 63 * 8:
            bits |= 1 << (slot - base) // 8
            continue
        if bits:
            words.append(bits << 1 | 1)
        words.append(slot)
        base, bits = slot + 8, 0
    if bits:
        words.append(bits << 1 | 1)
    return struct.pack(f"<{len(words)}Q", *words)


def gnu_hash_table(symbols: int, exported: int) -> bytes:
    """One bucket with one chain of all exported symbols, which come last."""
    first = symbols - exported
    chain = [2 * at for at in range(exported - 1)] + [1] * bool(exported)
    head = struct.pack("<IIIIQI", 1, first, 1, 6, 0, first if exported else 0)
    return head + struct.pack(f"<{len(chain)}I", *chain)


def field_entry(image: Image, name: str, **more: Any) -> dict[str, Any]:
    """A plain field of four bytes, or whatever `more` makes of it."""
    made: dict[str, Any] = {"name": image.text(name), "size": 4, "flags": 1, **more}
    if "vmsd" not in made and "info" not in made:
        made["info"] = image.info("uint32")
    return made
