"""Which layouts a binary has: all are tried, the one that explains most is taken.

They are tried on descriptions that every QEMU with these devices has, known by
name; where a file has none of them (a module on its own), on all that is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from cprformats.schema.eras import DESCRIPTIONS, ENDS, FIELDS
from cprformats.schema.records import NotOne, Records
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
_MOST_TRIED_UNKNOWN: Final = 10_000
_TRY_ENTRIES: Final = 1 << 14


def choose(space: Space, places: Iterable[tuple[int, str]]) -> Records | None:
    """Find the layouts; None where no description fits any.

    Args:
        space: the relocated objects.
        places: address and text of all pointers to a text.
    """
    listed = list(places)
    known = [address for address, name in listed if name in WELL_KNOWN]
    best = _best(space, known[:_MOST_TRIED])
    if best is None:
        best = _best(space, [address for address, _ in listed[:_MOST_TRIED_UNKNOWN]])
    if best is None:
        return None
    return Records(space, best.era.description, best.era.field, best.era.end)


def _best(space: Space, places: list[int]) -> Records | None:
    found: Records | None = None
    most = 0
    for records in _layouts(space):
        score = sum(_score(records, address) for address in places)
        if score > most:
            found, most = records, score
    return found


def _layouts(space: Space) -> Iterator[Records]:
    """Newest first: of two that explain as much, the newer is likelier."""
    for end in reversed(ENDS):
        for description in reversed(DESCRIPTIONS):
            for field in reversed(FIELDS):
                yield Records(space, description, field, end, _TRY_ENTRIES)


def _score(records: Records, address: int) -> int:
    try:
        raw = records.description(address)
        return records.fit(raw) if raw.fields else 0
    except NotOne:
        return 0
