"""Reading VMStateDescription and VMStateField records, with a reason where one is none.

Every check here is one of structure: what a pointer leads to, which bits and
numbers can occur at all. Names and versions of QEMU play no part.

Source: QEMU include/migration/vmstate.h, migration/vmstate.c (vmstate_n_elems,
vmstate_size), migration/savevm.c (vmstate_check).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from cprformats.schema.eras import Era, packed
from cprformats.schema.space import Space

__all__ = ["MAX_ENTRIES", "NotOne", "RawDescription", "RawField", "Records"]

#: A QEMU for Arm, which has most devices, has some 3,000 fields.
MAX_ENTRIES: Final = 1 << 16
#: The eeprom of the e100 cards counts with dates: 20061112.
_MAX_VERSION: Final = 1 << 27
_MAX_FIELDS: Final = 4096
_MAX_SUBSECTIONS: Final = 256
_MAX_PRIORITY: Final = 15
_MAX_OBJECT_BYTES: Final = 1 << 32
_ARRAY: Final = 0x4
_STRUCT: Final = 0x8 | 0x8000
_VARRAY: Final = 0x10 | 0x80 | 0x400 | 0x800
_MUST_EXIST: Final = 0x1000
_HEAD: Final = ("name", "version_id", "minimum_version_id", "unmigratable", "early_setup")
_PRIORITY: Final = struct.Struct("<i")

RawField = dict[str, int]


class NotOne(Exception):
    """What was looked at is no such record; the text says why, in few words."""


@dataclass(frozen=True, slots=True)
class RawDescription:
    """A VMStateDescription with its pointers as they are.

    Attributes:
        address: where it lies.
        name: read from where it points.
        version_id, minimum_version_id, unmigratable, early_setup, priority: as stored.
        hooks: address of each function that is set, by name.
        fields: address of the fields, 0 without any.
        subsections: address of the list of subsections, 0 without one.
    """

    address: int
    name: str
    version_id: int
    minimum_version_id: int
    unmigratable: bool
    early_setup: bool
    priority: int
    hooks: dict[str, int]
    fields: int
    subsections: int


class Records:
    """Reads the records of one space under one supposed era; lists are read once.

    Args:
        space: the relocated objects.
        era: the layouts to suppose.
        budget: entries of lists to read in all; lists beyond that are none.
    """

    def __init__(self, space: Space, era: Era, budget: int = MAX_ENTRIES) -> None:
        self.space = space
        self.era = era
        self.budget = budget
        self._lists: dict[int, tuple[RawField, ...] | str] = {}
        known = 2 * (era.end or 0x10000) - 1
        for bits in era.flags:
            known |= bits
        self._no_flags = ~known | era.end
        layout = era.description
        self._head, names = packed(layout.head)
        # A member that this layout lacks is the zero that is put behind the others.
        places = (names.index(one) if one in names else len(names) for one in _HEAD)
        self._in_order = itemgetter(*places)
        self._hooks, self._hook_names = packed((name, at, "Q") for name, at in layout.hooks.items())
        self._pair, self._pair_names = packed(layout.pointers)

    def version(self, address: int) -> int | None:
        """The version of what may be a description, by its first members; None if not."""
        try:
            return self._read_head(address)[1]
        except NotOne:
            return None

    def _read_head(self, address: int) -> tuple[int, int, int, int, int]:
        """Name, version, minimum, unmigratable, early_setup."""
        found = self.space.unpack(self._head, address)
        if found is None:
            raise NotOne("outside")
        name, version, minimum, unmigratable, early_setup = self._in_order((*found, 0))
        if not (0 <= version <= _MAX_VERSION and 0 <= minimum <= _MAX_VERSION):
            raise NotOne("versions")
        if unmigratable > 1 or early_setup > 1:
            raise NotOne("versions")
        return name, version, minimum, unmigratable, early_setup

    def description(self, address: int, *, unnamed: bool = False) -> RawDescription:
        """Read the description at an address, not what it points to.

        Args:
            address: where it lies.
            unnamed: its name must be missing; QEMU sets it when it runs.

        Raises:
            NotOne: there is none.
        """
        name_at, version, minimum, unmigratable, early_setup = self._read_head(address)
        name = "" if unnamed and not name_at else self.space.text(name_at)
        if name is None or bool(name) is unnamed:
            raise NotOne("name")
        fields, subsections = self._pointers(address)
        return RawDescription(
            address,
            name,
            version,
            minimum,
            bool(unmigratable),
            bool(early_setup),
            self._priority(address),
            self._functions(address),
            fields,
            subsections,
        )

    def _pointers(self, address: int) -> tuple[int, int]:
        found = self.space.unpack(self._pair, address)
        if found is None:
            raise NotOne("outside")
        if any(pointer and not self.space.is_data(pointer) for pointer in found):
            raise NotOne("pointers to fields and subsections")
        first, second = found
        return (first, second) if self._pair_names[0] == "fields" else (second, first)

    def _functions(self, address: int) -> dict[str, int]:
        found = self.space.unpack(self._hooks, address)
        if found is None:
            raise NotOne("outside")
        hooks = {name: at for name, at in zip(self._hook_names, found, strict=True) if at}
        if not all(map(self.space.is_code, hooks.values())):
            raise NotOne("functions")
        return hooks

    def _priority(self, address: int) -> int:
        place = self.era.description.priority
        found = None if place is None else self.space.unpack(_PRIORITY, address + place)
        if found is None:
            return 0
        if not 0 <= found[0] <= _MAX_PRIORITY:
            raise NotOne("priority")
        return found[0]

    # -- fields ---------------------------------------------------------------

    def fields(self, address: int) -> tuple[RawField, ...]:
        """Read the list of fields at an address, without its end.

        Raises:
            NotOne: an entry is none, or no end comes.
        """
        known = self._lists.get(address)
        if known is None:
            try:
                known = self._read_fields(address)
            except NotOne as reason:
                known = str(reason)
            self._lists[address] = known
        if isinstance(known, str):
            raise NotOne(known)
        return known

    def _read_fields(self, address: int) -> tuple[RawField, ...]:
        layout, members = self.era.field.layout, self.era.field.members
        result: list[RawField] = []
        for at in range(address, address + _MAX_FIELDS * layout.size, layout.size):
            self._spend()
            values = self.space.unpack(layout, at)
            if values is None:
                raise NotOne("fields run out of the data")
            entry = dict(zip(members, values, strict=True))
            if not entry["name"]:
                self._check_end(entry)
                return tuple(result)
            self._check_field(entry)
            result.append(entry)
        raise NotOne("fields without an end")

    def _spend(self) -> None:
        if self.budget <= 0:
            raise NotOne("more lists than any QEMU has")
        self.budget -= 1

    def _check_end(self, entry: RawField) -> None:
        if entry["flags"] != self.era.end or any(
            value for member, value in entry.items() if member != "flags"
        ):
            raise NotOne("end of the fields")

    def _check_field(self, entry: RawField) -> None:
        space, flags = self.space, entry["flags"]
        if space.text(entry["name"]) is None:
            raise NotOne("name of a field")
        if flags & self._no_flags:
            raise NotOne("flags of a field")
        if max(entry["offset"], entry["size"], entry["num_offset"]) > _MAX_OBJECT_BYTES:
            raise NotOne("offset or size of a field")
        if not 0 <= entry["version_id"] <= _MAX_VERSION or entry["num"] < 0:
            raise NotOne("version or number of a field")
        if entry["field_exists"] and not space.is_code(entry["field_exists"]):
            raise NotOne("function of a field")
        self._check_format(entry)

    def _check_format(self, entry: RawField) -> None:
        """A field has an info or a description, but for mere checks."""
        info, nested, flags = entry["info"], entry["vmsd"], entry["flags"]
        if info and self.info_name(info) is None:
            raise NotOne("info of a field")
        if nested and not (self.space.is_data(nested) or self.space.import_name(nested)):
            raise NotOne("description of a field")
        if not info and not nested and not flags & _MUST_EXIST:
            raise NotOne("a field without format")
        if flags & _STRUCT and not nested:
            raise NotOne("a structure without description")

    def info_name(self, address: int) -> str | None:
        """Name of a VMStateInfo; that of another file, by its symbol."""
        symbol = self.space.import_name(address)
        if symbol:
            return symbol
        name_at = self.space.word(address)
        return None if name_at is None else self.space.text(name_at)

    def subsections(self, address: int) -> tuple[int, ...]:
        """Addresses of the subsections in the list at an address.

        Raises:
            NotOne: it is no list of pointers that ends with NULL.
        """
        result: list[int] = []
        for at in range(address, address + 8 * _MAX_SUBSECTIONS, 8):
            self._spend()
            pointer = self.space.word(at)
            if pointer == 0:
                return tuple(result)
            if pointer is None or not self.space.is_data(pointer):
                break
            result.append(pointer)
        raise NotOne("list of subsections")

    def targets(self, raw: RawDescription) -> tuple[int, ...]:
        """Addresses of the descriptions that one names: of fields, tree keys, subsections."""
        entries = self.fields(raw.fields) if raw.fields else ()
        found = [entry["vmsd"] for entry in entries if entry["vmsd"]]
        found += [
            entry["vmsd"] + self.era.description.size
            for entry in entries
            if entry["start"] and entry["info"] and self.info_name(entry["info"]) == "gtree"
        ]
        if raw.subsections:
            found.extend(self.subsections(raw.subsections))
        return tuple(found)

    def fit(self, raw: RawDescription) -> int:
        """How well the layouts explain a description: the more the better.

        Counts members that must go with one another: an array with its number, an
        array of variable size with where that comes from, a subsection with `needed`.

        Raises:
            NotOne: its fields or subsections are none.
        """
        score = 1
        for entry in self.fields(raw.fields) if raw.fields else ():
            score += _goes_together(entry)
        for address in self.subsections(raw.subsections) if raw.subsections else ():
            score += 2 if "needed" in self.description(address).hooks else -2
        return score


def _goes_together(entry: RawField) -> int:
    flags = entry["flags"]
    score = 1 if entry["size"] or flags & (_STRUCT | _MUST_EXIST) or entry["info"] else -1
    if flags & _ARRAY and not flags & _MUST_EXIST:
        score += 2 if entry["num"] and not entry["num_offset"] else -2
    if flags & _VARRAY:
        score += 2 if entry["num_offset"] else -2
    if not flags & (_ARRAY | _VARRAY):
        score += 0 if not entry["num_offset"] else -2
    return score
