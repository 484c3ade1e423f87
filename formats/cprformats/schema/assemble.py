"""From records with pointers to the model, where keys stand for pointers.

Source: QEMU migration/vmstate.c (vmstate_n_elems, vmstate_size) for numbers and
sizes; migration/vmstate-types.c (put_gtree) for the two descriptions of a tree.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Final

from cprformats.schema.eras import flag_names
from cprformats.schema.keys import MISSING, KeyMaker
from cprformats.schema.model import CountFrom, Description, FieldFormat
from cprformats.schema.records import RawDescription, RawField, Records

__all__ = ["assemble"]

_COUNTS: Final = {0x10: "int32", 0x800: "uint32", 0x80: "uint16", 0x400: "uint8"}
_WIDTHS: Final = {1: "uint8", 2: "uint16", 8: "uint64"}
_ARRAY, _VBUFFER, _MULTIPLY, _MULTIPLY_ELEMENTS = 0x4, 0x100, 0x200, 0x4000
_INFO_SYMBOL: Final = "vmstate_info_"


def assemble(
    records: Records, found: Iterable[RawDescription], registered: AbstractSet[int]
) -> tuple[dict[str, Description], set[str]]:
    """Make the model.

    Args:
        records: what the descriptions were read with.
        found: those to take, in order of address.
        registered: addresses of those that sections can be of.

    Returns:
        The descriptions by key, and the symbols of those that no file here has.
    """
    listed = list(found)
    build = _Assembler(records, _keys(listed), registered)
    made = [build.description(raw) for raw in listed]
    return {one.key: one for one in made}, build.missing


def _keys(found: list[RawDescription]) -> dict[int, str]:
    maker = KeyMaker()
    return {raw.address: maker.key(raw.name) for raw in found}


class _Assembler:
    def __init__(
        self, records: Records, keys: dict[int, str], registered: AbstractSet[int]
    ) -> None:
        self.registered = registered
        self.records = records
        self.space = records.space
        self.keys = keys
        self.base = 0
        self.missing: set[str] = set()

    def description(self, raw: RawDescription) -> Description:
        one = self.space.object_at(raw.address)
        self.base = one.base
        fields = self.records.fields(raw.fields) if raw.fields else ()
        subsections = self.records.subsections(raw.subsections) if raw.subsections else ()
        return Description(
            key=self.keys[raw.address],
            name=raw.name,
            version_id=raw.version_id,
            minimum_version_id=raw.minimum_version_id,
            unmigratable=raw.unmigratable,
            early_setup=raw.early_setup,
            priority=raw.priority,
            hooks=tuple(raw.hooks),
            fields=tuple(map(self.field, fields)),
            subsections=tuple(map(self.key, subsections)),
            address=raw.address - one.base,
            object=one.name,
            registered=raw.address in self.registered,
        )

    def field(self, entry: RawField) -> FieldFormat:
        flags = entry["flags"]
        info = self.info(entry["info"])
        return FieldFormat(
            name=self.space.text(entry["name"]) or "",
            offset=entry["offset"],
            size=entry["size"],
            num=entry["num"] if flags & (_ARRAY | _MULTIPLY_ELEMENTS) else 0,
            count_from=_count_from(entry),
            size_from=_size_from(entry),
            start=entry["start"],
            flags=flag_names(flags, self.records.era),
            info=info,
            version_id=entry["version_id"],
            struct_version_id=entry.get("struct_version_id", 0),
            conditional=bool(entry["field_exists"]),
            nested=self.key(entry["vmsd"]) if entry["vmsd"] else "",
            nested_key=self.tree_key(entry) if info == "gtree" else "",
            err_hint=self.space.text(entry.get("err_hint", 0)) or "",
            test=entry["field_exists"] and entry["field_exists"] - self.base,
        )

    def info(self, address: int) -> str:
        name = self.records.info_name(address) if address else ""
        return (name or "").removeprefix(_INFO_SYMBOL)

    def tree_key(self, entry: RawField) -> str:
        """Description of a tree's keys: the second of two, unless keys are numbers."""
        second = entry["vmsd"] + self.records.era.description.size
        return self.key(second) if entry["start"] else ""

    def key(self, address: int) -> str:
        known = self.keys.get(address)
        if known is not None:
            return known
        symbol = self.space.import_name(address) or f"{address:#x}"
        self.missing.add(symbol)
        return MISSING + symbol


def _count_from(entry: RawField) -> CountFrom | None:
    """The first flag that QEMU asks for decides (vmstate_n_elems)."""
    flags = entry["flags"]
    if flags & _ARRAY:
        return None
    for bit, kind in _COUNTS.items():
        if flags & bit:
            times = entry["num"] if flags & _MULTIPLY_ELEMENTS else 1
            width = entry.get("num_width", 0)
            return CountFrom(_WIDTHS.get(width, kind), entry["num_offset"], times)
    return None


def _size_from(entry: RawField) -> CountFrom | None:
    flags = entry["flags"]
    if not flags & _VBUFFER:
        return None
    kind = _WIDTHS.get(entry.get("size_width", 0), "int32")
    return CountFrom(kind, entry["size_offset"], entry["size"] if flags & _MULTIPLY else 1)
