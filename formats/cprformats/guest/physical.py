"""Where in the guest's physical address space each RAMBlock lies.

A stream has RAM by block; the guest's own pointers, page tables and crash
dumps count in physical addresses. The machine type says how the two go
together, and registers in the stream say what the guest changed.

Source: see `rules_pc` and `rules_virt`; hw/core/machine.c for names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cprformats.guest.ranges import (
    BadLayout,
    NoLayout,
    PhysicalLayout,
    PhysicalRange,
    joined,
    overlap,
)
from cprformats.guest.rules_pc import PcKind, pc_layout
from cprformats.guest.rules_virt import FLAT, flat_layout, virt_kind
from cprformats.migration.stream import MigrationStream

__all__ = ["layout_by_hand", "physical_layout"]

_3G, _3_5G = 0xC0000000, 0xE0000000
_PC, _OLD_PC = PcKind(_3_5G, _3G), PcKind(_3_5G, _3_5G)
_Q35, _OLD_Q35 = PcKind(0xB0000000, 0x80000000), PcKind(0xB0000000, 0xB0000000)
_ISAPC = PcKind(_3_5G, _3_5G, bridge=False)
_MICROVM = PcKind(_3G, _3G, ("microvm.ram", "pc.ram"), bridge=False)
#: A machine type's family, and what follows it: a version, a vendor's name, or nothing.
_NAME = re.compile(
    r"(pc-i440fx|pc-q35|q35|pc|isapc|microvm|virt|s390-ccw-virtio|pseries)(?:-(.+))?"
)
_VERSION = re.compile(r"(\d+)\.(\d+)(\.\d+)?")
_HAND = re.compile(r"(?:\+(\w+))?(?::(\w+))?")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_HELP = "extract the blocks one by one, or give the layout by hand"


def physical_layout(stream: MigrationStream, ram: Sequence[str] = ()) -> PhysicalLayout:
    """Say which guest-physical addresses show which bytes of which block.

    It is what the CPUs saw, outside of SMM and of the secure world, when the VM
    was saved: where ROM hid RAM, the ROM. Addresses that are not RAM or ROM (the
    VGA window, registers of devices) are in no range.

    Args:
        stream: the saved VM.
        ram: idstrs of the main memory's blocks in the order of addresses, where
            the stream does not tell.

    Raises:
        NoLayout: the machine type has no rule, or several blocks may be the main
            memory.
        BadLayout: `ram` names a block that is not there, or one twice.
    """
    family, version = _family(stream)
    if family == "virt":
        kind = virt_kind(stream)
        if kind is None:
            raise NoLayout(f"nothing tells which target's machine 'virt' it is; {_HELP}")
        return flat_layout(stream, kind, ram)
    if family in ("s390-ccw-virtio", "pseries"):
        return flat_layout(stream, FLAT[family.partition("-")[0]], ram)
    return pc_layout(stream, _pc_kind(family, version), ram, _name_notes(stream, version))


def _family(stream: MigrationStream) -> tuple[str, str]:
    """Split the machine type's name; before 2.4 it is not sent, and the host bridge tells."""
    if match := _NAME.fullmatch(stream.machine):
        return match[1], match[2] or ""
    if stream.machine:
        raise NoLayout(f"no rule where machine type {stream.machine!r} has its memory; {_HELP}")
    bridges = {section.idstr.rpartition("/")[2] for section in stream.sections()}
    for bridge, family in (("I440FX", "pc-i440fx"), ("mch", "pc-q35")):
        if bridge in bridges:
            return family, ""
    raise NoLayout(f"the stream does not name the machine type; {_HELP}")


def _pc_kind(family: str, version: str) -> PcKind:
    """Choose by age: machine types before 2.0 don't align the split to 1 GiB."""
    if family in ("isapc", "microvm"):
        return _ISAPC if family == "isapc" else _MICROVM
    old = re.match(r"[01]\.", version) is not None
    if "q35" in family:
        return _OLD_Q35 if old else _Q35
    return _OLD_PC if old else _PC


def _name_notes(stream: MigrationStream, version: str) -> tuple[str, ...]:
    if not stream.machine:
        return ("the stream does not name the machine type: taken as a PC by its host bridge",)
    if not version or _VERSION.fullmatch(version):
        return ()
    return (f"{stream.machine} is a vendor's machine type: taken as QEMU's of that family",)


# -- by hand ------------------------------------------------------------------------


def layout_by_hand(specs: Sequence[str], stream: MigrationStream) -> PhysicalLayout:
    """Make a layout of ``ADDRESS=BLOCK[+OFFSET][:SIZE]`` texts.

    Numbers are decimal or 0x..., and may end in K, M, G or T. OFFSET is 0 if
    left out, SIZE the rest of the block.

    Raises:
        BadLayout: a text is none of these, its block is not there, or is too
            small for it, or two overlap.
    """
    ranges = sorted((_by_hand(spec, stream) for spec in specs), key=lambda one: one.start)
    if clash := overlap(ranges):
        first, second = clash
        raise BadLayout(
            f"{first.block} at {first.start:#x} to {first.end:#x} and "
            f"{second.block} at {second.start:#x} to {second.end:#x} overlap"
        )
    return PhysicalLayout(stream.machine, joined(ranges), ("the layout was given by hand",))


def _by_hand(spec: str, stream: MigrationStream) -> PhysicalRange:
    address, equals, rest = spec.partition("=")
    if not equals:
        raise BadLayout(f"{spec!r}: expected ADDRESS=BLOCK[+OFFSET][:SIZE]")
    name, offset_word, size_word = _parts(spec, rest, stream)
    length = stream.ram.blocks[name].used_length
    start = _number(spec, address)
    offset = _number(spec, offset_word or "0")
    size = length - offset if size_word is None else _number(spec, size_word)
    if offset + size > length or size <= 0:
        raise BadLayout(f"{spec!r}: the block {name} has {length:#x} bytes")
    if start + size > 1 << 64:
        raise BadLayout(f"{spec!r}: ends behind the last address")
    return PhysicalRange(start, size, name, offset, "ram")


def _parts(spec: str, rest: str, stream: MigrationStream) -> tuple[str, str | None, str | None]:
    """Split off a block's name, which may have colons and plus signs itself."""
    for name in sorted(stream.ram.blocks, key=len, reverse=True):
        if rest.startswith(name) and (match := _HAND.fullmatch(rest, len(name))):
            return name, match[1], match[2]
    known = ", ".join(stream.ram.blocks) or "none"
    raise BadLayout(f"{spec!r}: no RAM block of that name; there are: {known}")


def _number(spec: str, word: str) -> int:
    match = re.fullmatch(r"(0[xX][0-9a-fA-F]+|\d+)([KMGT]?)", word)
    if match is None:
        raise BadLayout(f"{spec!r}: {word!r} is no number")
    return int(match[1], 0 if match[1][:2] in ("0x", "0X") else 10) * _UNITS[match[2]]
