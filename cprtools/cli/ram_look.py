"""``--read``, ``--search``, ``--diff`` and ``--plot``: look at memory without taking it out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cprformats.errors import FormatError
from cprtools.cli.exits import Misuse
from cprtools.files import file_size
from cprtools.memory.drafts import drafts
from cprtools.memory.looking import (
    Change,
    Match,
    changes,
    parse_length,
    parse_needle,
    parse_place,
)
from cprtools.memory.looking import (
    search as find,
)
from cprtools.memory.opening import Memory, open_memory
from cprtools.memory.physical import PhysicalMemory, find_layout
from cprtools.report import ram_looks as report
from cprtools.report.output import raw_bytes, raw_output, standard_output
from cprtools.report.progress import ProgressBar

if TYPE_CHECKING:
    from cprtools.cli.ramming import Request

__all__ = ["diff", "plot", "read", "search"]

_T = TypeVar("_T")

#: A JSON document ends somewhere.
_MOST_ROWS = 100_000


def read(request: Request) -> FormatError | None:
    """Show some memory."""
    assert request.read is not None
    words = request.read
    with _open(request) as memory:
        place = _asked("--read", lambda: parse_place(words[0], memory))
        length = _asked("--read", lambda: parse_length(words[1]))
        if place.block is None:
            layout = find_layout(memory.stream, request.ram_blocks, request.layout)
            pieces = PhysicalMemory(layout, memory).read(place.offset, length)
        else:
            pieces = report.block_pieces(memory[place.block], place.offset, length)
        if request.json:
            name, error = request.file, memory.error
            report.write_read_document(raw_output(), name, memory.stream, pieces, error)
        elif request.raw:
            report.write_raw(raw_bytes(), pieces)
        else:
            report.write_dump(standard_output(request.colour), pieces)
        return memory.error


def search(request: Request) -> FormatError | None:
    """Find bytes."""
    assert request.search is not None
    text = request.search
    needle = _asked("--search", lambda: parse_needle(text))
    with _open(request) as memory:
        physical = _physical(request, memory)
        found = (
            match
            for name, block in memory.items()
            if not request.blocks or name in request.blocks
            for match in find(block, needle)
        )
        rows = ((match, _address(physical, match)) for match in found)
        if request.json:
            listed = list(islice(rows, _MOST_ROWS + 1))
            report.write_matches_document(
                raw_output(), request.file, memory.stream, listed, _MOST_ROWS, memory.error
            )
        else:
            report.write_matches(standard_output(request.colour), rows, memory, len(needle))
        return memory.error


def diff(request: Request) -> FormatError | None:
    """List the pages that another file has changed."""
    assert request.diff is not None
    with _open(request) as first, _open_other(request) as second:
        rows = _changes(request, first, second)
        error = first.error or second.error
        only = [sorted(set(one) - set(two)) for one, two in ((first, second), (second, first))]
        if request.json:
            listed = list(islice(rows, _MOST_ROWS + 1))
            report.write_changes_document(
                raw_output(), request.file, first.stream, listed, only, _MOST_ROWS, error
            )
        else:
            report.write_changes(standard_output(request.colour), rows, only)
        return error


def plot(request: Request) -> FormatError | None:
    """Draw the picture."""
    assert request.plot is not None
    target = Path(request.plot)
    kind = target.suffix.lower().removeprefix(".")
    if kind not in ("svg", "png"):
        raise Misuse(f"--plot: expected a name that ends in .svg or .png, found {target.name}")
    from cprtools.report.plot import draw  # noqa: PLC0415 (matplotlib takes half a second)

    with _open(request) as memory, drafts() as files:
        blocks = [memory[name] for name in memory if not request.blocks or name in request.blocks]
        with Path(f"/proc/self/fd/{files.add(target).fd}").open("wb") as file:
            draw(file, kind, f"{Path(request.file).name}, {memory.stream.machine}", blocks)
        return memory.error


def _asked(option: str, parse: Callable[[], _T]) -> _T:
    """Read an option's value; what it can't be is misuse."""
    try:
        return parse()
    except ValueError as error:
        raise Misuse(f"{option}: {error}") from None


def _open(request: Request) -> Memory:
    return _memory(request, request.file, request.channels)


def _open_other(request: Request) -> Memory:
    assert request.diff is not None
    return _memory(request, request.diff, request.other_channels)


def _memory(request: Request, name: str, channels: tuple[str, ...]) -> Memory:
    with ProgressBar(file_size(name), speed=True) as progress:
        memory = open_memory(
            name,
            channels,
            keep_going=request.keep_going,
            progress=progress,
            snapshot=request.snapshot,
        )
    if missing := [block for block in request.blocks if block not in memory]:
        memory.close()
        raise Misuse(f"--block: expected one of {', '.join(memory)}, found {missing[0]}")
    return memory


def _physical(request: Request, memory: Memory) -> PhysicalMemory | None:
    """Give addresses where the machine's layout is known; a search does without."""
    try:
        layout = find_layout(memory.stream, request.ram_blocks, request.layout)
    except FormatError:
        if request.layout or request.ram_blocks:
            raise
        return None
    return PhysicalMemory(layout, memory)


def _address(physical: PhysicalMemory | None, match: Match) -> int | None:
    return None if physical is None else physical.address_of(match.block, match.offset)


def _changes(request: Request, first: Memory, second: Memory) -> Iterator[Change]:
    for name, block in first.items():
        if name in second and (not request.blocks or name in request.blocks):
            other = second[name]
            if other.page_size != block.page_size:
                raise Misuse(
                    f"--diff: {name}: expected pages of {block.page_size} bytes in both files, "
                    f"found {other.page_size}"
                )
            yield from changes(block, other)
