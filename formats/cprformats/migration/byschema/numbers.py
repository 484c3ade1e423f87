"""How many elements a field has, and how large they are: known, or what is possible.

Source: QEMU migration/vmstate.c (vmstate_n_elems, vmstate_size).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from cprformats.migration.byschema.infos import SIZES, wire_size
from cprformats.migration.byschema.plan import Bounds, Step
from cprformats.migration.byschema.state import Here, State
from cprformats.schema.model import CountFrom

if TYPE_CHECKING:
    from cprformats.migration.byschema.search import Search

__all__ = ["numbers", "room", "supposing"]

_WIDTHS: Final = {"int32": 4, "uint32": 4, "uint16": 2, "uint8": 1, "uint64": 8}

Numbers = tuple[int | None, int | None, State]


def numbers(
    search: Search, step: Step, state: State, here: Here, rest: Bounds
) -> Iterator[Numbers]:
    """Number and size of elements, each possibility with what it supposes.

    The number is None where only reading the elements shows it, the size where
    they differ.
    """
    count, size = step.count, step.size
    source, sized = step.field.count_from, step.field.size_from
    if source is not None:
        count = _read_before(state, here, source)
        if count is None and search.strict:
            count = step.usual
    if sized is not None:
        found = _read_before(state, here, sized)
        if found is None:
            yield from _unknown_sizes(search, step, state, rest, count)
            return
        size = _wire_bytes(step.type, found)
    if count is not None or source is None:
        for one in (size,) if size is not None else SIZES.get(step.type, (None,)):
            yield count, one, state
    elif size is None or step.of_pointers:
        yield None, size, state
    else:
        yield from _unknown_counts(search, step, state, size, here, rest)


def _read_before(state: State, here: Here, source: CountFrom) -> int | None:
    """What the object holds, times its factor; None if the stream did not say."""
    found = state.known.get(("n", here.object, here.base + source.offset))
    if found is None:
        return None
    width = 8 * _WIDTHS[source.kind]
    found &= (1 << width) - 1
    if source.kind == "int32" and found >> 31:
        return 0
    return found * source.times


def supposing(state: State, here: Here, source: CountFrom, value: int) -> State:
    """The reading with a number supposed, if another field goes by it too."""
    place = here.base + source.offset
    if here.wanted.get(place, 0) < 2:
        return state
    return state.knowing(("n", here.object, place), value)


def room(search: Search, step: Step) -> int:
    """The most that a count can be."""
    source = step.field.count_from
    if source is None:
        return 0
    most: int = min((1 << 8 * _WIDTHS[source.kind]) - 1, search.limit)
    if search.strict and step.room is not None:
        most = min(most, step.room // max(source.times, 1))
    return most


def _unknown_counts(
    search: Search, step: Step, state: State, size: int, here: Here, rest: Bounds
) -> Iterator[Numbers]:
    source = step.field.count_from
    assert source is not None
    found = _possible(search, state.offset, size * source.times, rest)
    found = range(found.start, min(found.stop, room(search, step) + 1))
    search.spend(len(found))
    for number in found:
        yield number * source.times, size, supposing(state, here, source, number)


def _unknown_sizes(
    search: Search, step: Step, state: State, rest: Bounds, count: int | None
) -> Iterator[Numbers]:
    sized = step.field.size_from
    if sized is None or count != 1:
        return
    unit = 8 if step.type == "bitmap" else max(sized.times, 1)
    found = _possible(search, state.offset, unit, rest)
    search.spend(len(found))
    for number in found:
        yield count, number * unit, state


def _possible(search: Search, offset: int, unit: int, rest: Bounds) -> range:
    """How many units of bytes there may be here."""
    if unit <= 0:
        return range(1)
    stop = search.limit - rest[0]
    at = bisect_left(search.heads, offset)
    if search.strict and at < len(search.heads):
        stop = min(stop, search.heads[at])
    return range(-(-search.least(offset, rest) // unit), max(stop - offset, -1) // unit + 1)


def _wire_bytes(info: str, size: int) -> int | None:
    """Bytes of a value whose size the object says; a bitmap's is in bits."""
    if info == "bitmap":
        return (size + 63) // 64 * 8
    return size if info in ("buffer", "unused_buffer") else wire_size(info, size)
