"""Decode well-known sections of a stream that has no description (postcopy, COLO, Xen).

A section is read by a layout of `layouts` that has its name and version. A
layout counts only if it ends exactly where the section does, and if bools are
bools and subsections known; otherwise nothing of it is kept. So a wrong one
costs time and shows nothing.

Source: QEMU migration/vmstate.c (vmstate_subsection_load: a subsection's name
begins with that of its parent and a slash, or anything else longer).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice, product
from typing import TYPE_CHECKING

from cprformats.errors import FormatError
from cprformats.fields import Kind
from cprformats.migration.rules.layouts import LAYOUTS
from cprformats.migration.rules.pci import CONFIG_SIZE, config_size, msix_vectors
from cprformats.migration.vmdesc import FieldDesc
from cprformats.migration.wire import SectionType
from cprformats.reader import Reader

if TYPE_CHECKING:
    from cprformats.migration.device import Decoder

__all__ = ["builtin", "is_known"]

_WORD = re.compile(
    r"(?P<name>[^\s:]+):(?P<type>\w*\{[^}]*\}|[^\s\[\]?]+)"
    r"(?:\[(?P<count>[^\]]*)\])?(?:\?(?P<condition>\S+))?"
)
_TYPE = re.compile(r"(?:(?P<sign>[ui])(?P<bits>\d+))?(?P<check>[=<]?)")
_SIZED = re.compile(r"(\w+)\((\d+)\)")
_INNER = re.compile(r"(\w*)\{([^}]*)\}")
#: Names of the table that differ from the VMStateInfo's.
_TYPES = {
    "unused": "unused_buffer",
    "msix_state": "msix state",
    "pci_config": "pci config",
    "pci_irq_state": "pci irq state",
}
_CHECKS = {"=": " equal", "<": " le", "": ""}
_MAX_CHOICES = 64
#: The longest array is a chipset's 16 KiB; structs come by the hundred.
_MAX_ELEMENTS = 1 << 16


@dataclass(frozen=True, slots=True)
class _Item:
    """One word of the table: a plain field, or a layout inside."""

    name: str
    type: str
    size: int
    inner: str
    count: str
    condition: str


@dataclass(frozen=True, slots=True)
class _Layout:
    name: str
    version: int
    items: tuple[_Item, ...]


def _item(match: re.Match[str]) -> _Item:
    name, word = match["name"], match["type"]
    type_name, size, inner = word, 0, ""
    if found := _INNER.fullmatch(word):
        type_name, inner = found[1] or "struct", found[2]
    elif found := _SIZED.fullmatch(word):
        type_name, size = _TYPES.get(found[1], found[1]), int(found[2])
    elif (found := _TYPE.fullmatch(word)) and found["bits"]:
        lead = "uint" if found["sign"] == "u" else "int"
        type_name = f"{lead}{found['bits']}{_CHECKS[found['check']]}"
        size = int(found["bits"]) // 8
    else:
        type_name, size = _TYPES.get(word, word), {"bool": 1, "timer": 8}.get(word, 0)
    return _Item(name, type_name, size, inner, match["count"] or "", match["condition"] or "")


@cache
def _layouts() -> dict[str, list[_Layout]]:
    """Parse the table, once: name -> the forms it has."""
    made: dict[str, list[_Layout]] = {}
    for block in re.findall(r"^\S.*\n(?: .*\n)+", LAYOUTS, re.MULTILINE):
        head, _, body = block.partition("\n")
        name, _, version = head.rpartition(" ")
        items = tuple(_item(match) for match in _WORD.finditer(body))
        made.setdefault(name, []).append(_Layout(name, int(version), items))
    return made


def _leaf_name(idstr: str) -> str:
    return idstr.rpartition("/")[2]


def is_known(idstr: str) -> bool:
    """Say whether there is a layout for a section, whatever its version."""
    return _leaf_name(idstr) in _layouts()


def builtin(decoder: Decoder, reader: Reader) -> None:
    """Read a whole section by the first layout that ends where the section ends.

    Raises:
        Damaged: none does; nothing was read then.
    """
    start, said = reader.mark(), len(decoder.notices)
    for walk in _walks(decoder, _leaf_name(decoder.section.idstr)):
        try:
            walk.layout(reader, walk.top)
        except FormatError:
            pass
        else:
            if not decoder.misfit and _at_end(decoder, reader):
                return
        decoder.misfit = False
        reader.reset(start)
        del decoder.notices[said:]
    raise reader.damaged("no known layout ends where the section does")


def _at_end(decoder: Decoder, reader: Reader) -> bool:
    """Compare with the end of the body, or, while that is looked for, with a footer."""
    if decoder.section.body_size:
        return reader.offset == decoder.section.body_end
    footer = bytes([SectionType.FOOTER]) + decoder.section.section_id.to_bytes(4)
    return reader.peek(len(footer)) == footer


def _walks(decoder: Decoder, name: str) -> Iterator[_Walk]:
    """Give a walk for each combination of the forms that layouts in this one have."""
    tops = [form for form in _layouts()[name] if form.version == decoder.section.version]
    for top in tops:
        names = sorted(_reachable(top))
        forms = product(*(_layouts()[inner] for inner in names))
        for chosen in islice(forms, _MAX_CHOICES):
            yield _Walk(decoder, top, dict(zip(names, chosen, strict=True)))


def _reachable(top: _Layout) -> set[str]:
    """Names of the layouts inside and of their subsections."""
    found: set[str] = set()
    todo = [top]
    while todo:
        layout = todo.pop()
        prefix = layout.name.rstrip("*") + "/"
        names = {item.inner for item in layout.items if item.inner}
        names |= {name for name in _layouts() if name.startswith(prefix)}
        todo += [form for name in names - found for form in _layouts()[name]]
        found |= names
    return found


class _Walk:
    """One try at one section, with one form of each layout."""

    def __init__(self, decoder: Decoder, top: _Layout, forms: dict[str, _Layout]) -> None:
        self.decoder = decoder
        self.top = top
        self.forms = forms
        self.config = b""

    def layout(self, reader: Reader, layout: _Layout) -> None:
        for item in layout.items:
            if not item.condition or self._number(reader, item.condition):
                self._item(reader, item)
        while self._is_subsection(reader, layout.name.rstrip("*")):
            self._subsection(reader)

    def _item(self, reader: Reader, item: _Item) -> None:
        if item.inner:
            self._inner(reader, item)
            return
        name, size = item.name, item.size
        if item.type == "pci config":
            size = config_size(reader)
            # Declared twice: [0] for a conventional device, [1] for PCI Express.
            name = f"{name}[{int(size > CONFIG_SIZE)}]"
            self.config = reader.peek(size)
        elif item.type == "msix state":
            vectors = msix_vectors(self.config) if self.config else 0
            size = 16 * vectors + (vectors + 7) // 8
        if item.type == "bool" and reader.peek(1) not in (b"\0", b"\1"):
            raise reader.mismatch(item.name, "0 or 1", reader.peek(1).hex())
        count = self._count(reader, item) if item.count else None
        if count != 0:
            self.decoder.field(reader, FieldDesc(name, item.type, size, count))

    def _inner(self, reader: Reader, item: _Item) -> None:
        inner = self.forms[item.inner]
        title = inner.name.rstrip("*")
        if not item.count:
            with reader.group(item.name, title):
                self.layout(reader, inner)
            return
        index = 0
        limit = _MAX_ELEMENTS if item.count == "..." else self._count(reader, item)
        while index < limit and (item.count != "..." or reader.peek(1) in (b"\0", b"\1")):
            self.decoder.count(reader)
            with reader.group(f"{item.name}[{index}]", title):
                self.layout(reader, inner)
            index += 1

    def _count(self, reader: Reader, item: _Item) -> int:
        count = int(item.count) if item.count.isdigit() else self._number(reader, item.count)
        if not 0 <= count <= _MAX_ELEMENTS:
            raise reader.mismatch(item.name, f"0 to {_MAX_ELEMENTS} elements", count)
        return count

    def _number(self, reader: Reader, name: str) -> int:
        values = [leaf.value for leaf in reader.siblings if leaf.name == name]
        if len(values) != 1 or not isinstance(values[0], int):
            raise reader.damaged(f"no number {name}")
        return values[0]

    def _is_subsection(self, reader: Reader, parent: str) -> bool:
        """Say whether a subsection of `parent` comes next; a name is known by its beginning."""
        head = reader.peek(2)
        if len(head) < 2 or head[0] != SectionType.SUBSECTION or head[1] <= len(parent):
            return False
        return reader.peek(len(parent), skip=2) == parent.encode()

    def _subsection(self, reader: Reader) -> None:
        name = reader.peek(reader.peek(2)[1], skip=2).decode(errors="replace")
        layout = self.forms.get(name)
        if layout is None:
            raise reader.damaged(f"unknown subsection {name!r}")
        with reader.group(name, name):
            with reader.group("head", "subsection", Kind.SUBSECTION_HEAD):
                reader.number("type", "u8")
                reader.counted_text("idstr")
                version = reader.number("version", "u32be")
            if version != layout.version:
                raise reader.mismatch(f"version of {name}", layout.version, version)
            self.layout(reader, layout)
