"""The layouts of VMStateDescription and VMStateField as debug information tells them.

So a build with patched structures can be read, which no era fits. What the
description must have to be one is the same as ever; members that are not known
are passed over, and pointers to functions that are not known count as hooks.

Source: QEMU include/migration/vmstate.h for the names of the members; DWARF 5,
chapter 5, for types.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from elftools.dwarf.die import DIE

from cprformats.errors import Damaged, FormatError
from cprformats.schema.dwarfdies import BAD_DWARF, Entries
from cprformats.schema.eras import ENDS, DescriptionLayout, Era, FieldLayout, packed
from cprformats.source import Source

__all__ = ["read_layouts"]

_STRUCTURE: Final = "DW_TAG_structure_type"
_POINTER: Final = "DW_TAG_pointer_type"
_ALIASES: Final = frozenset(
    f"DW_TAG_{one}_type" for one in ("const", "volatile", "atomic", "restrict")
) | {"DW_TAG_typedef"}
_MAX_ALIASES: Final = 16
_MAX_MEMBERS: Final = 128
_MAX_BYTES: Final = 4096
_SIGNED: Final = frozenset({"num", "version_id", "struct_version_id", "minimum_version_id"})
_LETTERS: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
_FIELD: Final = ("name", "offset", "size", "start", "num", "num_offset", "size_offset", "info")
_FIELD_TAIL: Final = ("flags", "vmsd", "version_id", "field_exists")
_FIELD_MAY: Final = ("err_hint", "struct_version_id", "num_width", "size_width")
_HEAD: Final = ("name", "unmigratable", "version_id", "minimum_version_id")
_HEAD_MAY: Final = ("early_setup",)


@dataclass(frozen=True, slots=True)
class _Member:
    """A member: its place and size in bytes, and its type with the file that has it."""

    name: str
    offset: int
    size: int
    home: Entries
    type: DIE

    @property
    def letter(self) -> str:
        """The format character of `struct`."""
        letter = _LETTERS.get(self.size)
        if letter is None:
            raise Damaged.mismatch(
                f"bytes of member {self.name}", "1, 2, 4 or 8", self.size, offset=0, path=("DWARF",)
            )
        return letter.lower() if self.name in _SIGNED else letter


def read_layouts(source: Source, other: Source | None = None) -> tuple[Era, ...]:
    """The layouts that a file's debug information tells; several where the end mark is open.

    Args:
        source: an ELF file with DWARF.
        other: the file of dwz that it refers to, where it does.

    Raises:
        FormatError: it has none of the two structures, or they are not understood.
    """
    try:
        common = Entries(other) if other is not None else None
        homes = [Entries(source, common), *([common] if common else [])]
        return tuple(_eras(homes))
    except BAD_DWARF as problem:
        raise Damaged(f"debug information that can't be read: {problem}", path=("DWARF",)) from None


def _eras(homes: list[Entries]) -> Iterator[Era]:
    description = _description(*_find(homes, "VMStateDescription"))
    home, entry = _find(homes, "VMStateField")
    members = {one.name: one for one in _flat(_members(home, entry))}
    field = _field(_size(entry), members)
    flags = _enumerators(members["flags"])
    ends = [flags["VMS_END"]] if "VMS_END" in flags else [0] if flags else list(ENDS)
    names = {value: name.removeprefix("VMS_") for name, value in flags.items()}
    for end in ends:
        yield Era(description, field, end, {bit: name for bit, name in names.items() if bit != end})


def _find(homes: list[Entries], name: str) -> tuple[Entries, DIE]:
    for home in homes:
        for entry in home.named(_STRUCTURE, name):
            return home, entry
    for home in homes:
        for entry in home.searched(_STRUCTURE, name):
            return home, entry
    raise Damaged(f"expected a structure {name}, found none", path=("DWARF",))


def _description(home: Entries, entry: DIE) -> DescriptionLayout:
    members = {one.name: one for one in _members(home, entry)}
    _need(members, "VMStateDescription", (*_HEAD, "fields", "subsections"))
    hooks = {one.name: one.offset for one in members.values() if _is_hook(one)}
    head = [members[name] for name in (*_HEAD, *_HEAD_MAY) if name in members]
    priority = members.get("priority")
    layout = DescriptionLayout(
        releases="DWARF",
        size=_size(entry),
        priority=priority.offset if priority else None,
        hooks=hooks,
        fields=members["fields"].offset,
        subsections=members["subsections"].offset,
        head=tuple((one.name, one.offset, one.letter) for one in head),
    )
    for part in (layout.head, layout.pointers, [(n, at, "Q") for n, at in hooks.items()]):
        packed(part, layout.size)
    return layout


def _field(size: int, members: dict[str, _Member]) -> FieldLayout:
    _need(members, "VMStateField", (*_FIELD, *_FIELD_TAIL))
    taken = [one for one in (*_FIELD, *_FIELD_TAIL, *_FIELD_MAY) if one in members]
    layout, names = packed(
        ((name, members[name].offset, members[name].letter) for name in taken), size
    )
    return FieldLayout("DWARF", layout, names, indirect="num_width" in members)


def _need(members: dict[str, _Member], structure: str, names: Iterable[str]) -> None:
    missing = [name for name in names if name not in members]
    if missing:
        raise Damaged(f"{structure}: expected members {', '.join(missing)}", path=("DWARF",))


def _members(home: Entries, entry: DIE) -> Iterator[_Member]:
    """The members of a structure that have a name and a fixed place."""
    for at, child in enumerate(home.children(entry)):
        if at >= _MAX_MEMBERS:
            raise Damaged(f"expected at most {_MAX_MEMBERS} members", path=("DWARF",))
        place = child.attributes.get("DW_AT_data_member_location")
        name = child.attributes.get("DW_AT_name")
        if child.tag == "DW_TAG_member" and name and place and isinstance(place.value, int):
            inner, kind = _bare(home, child)
            words = name.value.decode("ascii", "replace")
            yield _Member(words, place.value, _size(kind), inner, kind)


def _flat(members: Iterable[_Member]) -> Iterator[_Member]:
    """Numbers and sizes that come with their width: a structure of an offset and a width."""
    for one in members:
        stem = one.name.partition("_")[0]
        if one.type.tag != _STRUCTURE or stem not in ("num", "size"):
            yield one
            continue
        for name, part in zip(("offset", "width"), _members(one.home, one.type), strict=False):
            yield _Member(
                f"{stem}_{name}", one.offset + part.offset, part.size, part.home, part.type
            )


def _bare(home: Entries, entry: DIE) -> tuple[Entries, DIE]:
    """The type of an entry, without typedef and const."""
    for _ in range(_MAX_ALIASES):
        found = home.type_of(entry)
        if found is None:
            break
        home, entry = found
        if entry.tag not in _ALIASES:
            return home, entry
    raise Damaged("expected a type, found a chain of aliases without an end", path=("DWARF",))


def _size(entry: DIE) -> int:
    """Sizeof in bytes; DWARF may leave out that of pointers."""
    attribute = entry.attributes.get("DW_AT_byte_size")
    if attribute is None:
        return 8 if entry.tag == _POINTER else 0
    if not isinstance(attribute.value, int) or attribute.value > _MAX_BYTES:
        raise Damaged(f"expected a size up to {_MAX_BYTES} bytes", path=("DWARF",))
    return attribute.value


def _is_hook(one: _Member) -> bool:
    if one.type.tag != _POINTER or "DW_AT_type" not in one.type.attributes:
        return False
    try:
        return _bare(one.home, one.type)[1].tag == "DW_TAG_subroutine_type"
    except FormatError:
        return False


def _enumerators(flags: _Member) -> dict[str, int]:
    """VMS_* names and their bits."""
    if flags.type.tag != "DW_TAG_enumeration_type":
        return {}
    found = {}
    for at, child in enumerate(flags.home.children(flags.type)):
        name, value = (child.attributes.get(f"DW_AT_{one}") for one in ("name", "const_value"))
        if at >= _MAX_MEMBERS:
            break
        if name and value and isinstance(value.value, int) and value.value > 0:
            found[name.value.decode("ascii", "replace")] = value.value
    return found
