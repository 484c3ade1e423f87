"""The device table: one row for each section, rounds of a live migration joined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from cprformats.migration.model import Section
from cprformats.migration.wire import SectionType

__all__ = ["DeviceRow", "device_rows"]


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One section, or PART sections of one handler that follow each other.

    Attributes:
        offset: of the first byte, absolute.
        size: in bytes, heads and footers included.
        type: START, PART, END or FULL.
        sections: how many sections the row stands for.
        idstr: name of the device or handler.
        instance_id: tells equal idstrs apart.
        version: the handler's version.
        vmsd_name: from the vmdesc; empty without one.
        located: how the end of the body was found.
    """

    offset: int
    size: int
    type: str
    sections: int
    idstr: str
    instance_id: int
    version: int
    vmsd_name: str
    located: str


def device_rows(sections: Iterable[Section]) -> Iterator[DeviceRow]:
    """Give the rows in file order.

    A long migration has thousands of PARTs, often of several handlers in
    turn; those without another section between them are joined by handler.
    """
    parts: dict[int, DeviceRow] = {}
    for section in sections:
        if section.type is not SectionType.PART:
            yield from parts.values()
            parts.clear()
            yield _row(section)
        elif (row := parts.get(section.section_id)) is not None:
            size = row.size + section.end - section.offset
            parts[section.section_id] = replace(row, size=size, sections=row.sections + 1)
        else:
            parts[section.section_id] = _row(section)
    yield from parts.values()


def _row(section: Section) -> DeviceRow:
    description = section.description
    return DeviceRow(
        section.offset,
        section.end - section.offset,
        section.type.name,
        1,
        section.idstr,
        section.instance_id,
        section.version,
        description.vmsd.vmsd_name if description is not None else "",
        section.located.value,
    )
