"""Which layouts a binary has: all are tried, the one that explains most is taken.

They are tried on descriptions that every QEMU with these devices has, known by
name; where a file has none of them (a module on its own), on all that is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from cprformats.schema.eras import DESCRIPTIONS, ENDS, FIELDS, Era
from cprformats.schema.records import NotOne, RawDescription, Records
from cprformats.schema.space import Space

__all__ = ["WELL_KNOWN", "choose"]

#: Names of descriptions that are old and common; some have arrays or subsections.
WELL_KNOWN: Final = frozenset(
    {
        "PCIBUS",
        "PCIDevice",
        "USBDevice",
        "cpu",
        "cpu_common",
        "dma",
        "fw_cfg",
        "globalstate",
        "i2c_bus",
        "i8259",
        "ide_drive",
        "mc146818rtc",
        "pckbd",
        "pit",
        "serial",
        "timer",
        "vga",
        "virtio",
        "virtqueue_state",
    }
)
#: Enough to tell the layouts apart; the tries are many.
_MOST_TRIED: Final = 400
_MOST_TRIED_UNKNOWN: Final = 2_000
_TRY_ENTRIES: Final = 1 << 14


def choose(
    space: Space, places: Iterable[tuple[int, bool]], told: Sequence[Era] = ()
) -> Records | None:
    """Find the layouts; None where no description fits any.

    Args:
        space: the relocated objects.
        places: addresses of all pointers to a text, and whether it is a WELL_KNOWN one.
        told: what debug information says; taken unless it explains nothing.
    """
    listed = list(places)
    known = [address for address, is_known in listed if is_known][:_MOST_TRIED]
    for eras in (told, tuple(_eras())):
        best = _best(space, eras, known)
        if best is None and eras:
            best = _best(space, eras, _likely(space, eras, listed))
        if best is not None:
            return Records(space, best)
    return None


def _likely(space: Space, eras: Sequence[Era], places: list[tuple[int, bool]]) -> list[int]:
    """Addresses where a description can begin, by what all these eras have in common."""
    first = Records(space, eras[0])
    start = eras[0].description.name
    found = (address for address, _ in places if first.version(address - start) is not None)
    return list(islice(found, _MOST_TRIED_UNKNOWN))


def _best(space: Space, eras: Iterable[Era], places: list[int]) -> Era | None:
    found: Era | None = None
    most = 0
    bodies: dict[str, list[RawDescription]] = {}
    for era in eras:
        records = Records(space, era, _TRY_ENTRIES)
        layout = era.description.releases
        if layout not in bodies:
            bodies[layout] = list(_bodies(records, places))
        score = sum(_score(records, raw) for raw in bodies[layout])
        if score > most:
            found, most = era, score
    return found


def _bodies(records: Records, places: list[int]) -> Iterator[RawDescription]:
    """What the places are under one layout of descriptions, whatever that of fields is."""
    start = records.era.description.name
    for address in places:
        try:
            raw = records.description(address - start)
        except NotOne:
            continue
        if raw.fields:
            yield raw


def _eras() -> Iterator[Era]:
    """Newest first: of two that explain as much, the newer is likelier."""
    for end in reversed(ENDS):
        for description in reversed(DESCRIPTIONS):
            for field in reversed(FIELDS):
                yield Era(description, field, end)


def _score(records: Records, raw: RawDescription) -> int:
    try:
        return records.fit(raw) if records.fields(raw.fields) else 0
    except NotOne:
        return 0
