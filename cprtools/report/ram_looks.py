"""What ``--read``, ``--search`` and ``--diff`` of ``cprtools ram`` write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from cprtools.report.hexdump import hexdump
from cprtools.report.output import Output
from cprtools.report.ram_json import write_ram
from cprtools.report.values import Json, plain_row, plain_text
from cprtools.report.words import count, size_words

if TYPE_CHECKING:
    from cprformats.errors import FormatError
    from cprformats.memory.block import MemoryBlock
    from cprformats.migration import MigrationStream
    from cprtools.memory.looking import Change, Match

__all__ = [
    "Pieces",
    "block_pieces",
    "write_changes",
    "write_changes_document",
    "write_dump",
    "write_matches",
    "write_matches_document",
    "write_raw",
    "write_read_document",
]

#: Address, size, contents; None where there is no memory.
Pieces = Iterable[tuple[int, int, bytes | None]]

_PIECE_BYTES = 1 << 20
_AROUND_BYTES = 16


def block_pieces(
    block: MemoryBlock, offset: int, length: int
) -> Iterator[tuple[int, int, bytes | None]]:
    """Give a part of a block in pieces; what is behind the block's end is no memory."""
    end = offset + length
    for at in range(offset, min(end, block.size), _PIECE_BYTES):
        size = min(_PIECE_BYTES, end - at, block.size - at)
        yield at, size, block.read(at, size)
    if end > block.size:
        start = max(offset, block.size)
        yield start, end - start, None


def write_dump(out: Output, pieces: Pieces) -> None:
    """Write a hexdump."""
    for start, data in _joined(pieces):
        if isinstance(data, int):
            out.line((f"{start:08x}  no memory here: {size_words(data)}", "warn"))
        else:
            for line in hexdump(data, start):
                out.line(line)


def _joined(pieces: Pieces) -> Iterator[tuple[int, Iterator[bytes] | int]]:
    """Join pieces that follow each other, so that a dump's rows go on over them."""
    held: list[bytes] = []
    start = end = 0
    for address, size, data in pieces:
        if data is not None and held and address == end and len(held) < 2:
            held.append(data)
        else:
            if held:
                yield start, iter(held)
            held = [] if data is None else [data]
            start = address
            if data is None:
                yield address, size
        end = address + size
    if held:
        yield start, iter(held)


def write_raw(write: Callable[[bytes], object], pieces: Pieces) -> None:
    """Write the bytes; zeros where no memory is."""
    for _, size, data in pieces:
        if data is not None:
            write(data)
            continue
        for at in range(0, size, _PIECE_BYTES):
            write(bytes(min(_PIECE_BYTES, size - at)))


def write_read_document(
    write: Callable[[str], object],
    name: str,
    stream: MigrationStream,
    pieces: Pieces,
    error: FormatError | None,
) -> None:
    """Write the bytes as hex."""
    rows: list[Json] = [
        {"address": address, "size": size, "hex": None if data is None else data.hex()}
        for address, size, data in pieces
    ]
    write_ram(write, name, stream, {"memory": rows}, error)


def write_matches(
    out: Output,
    rows: Iterable[tuple[Match, int | None]],
    blocks: Mapping[str, MemoryBlock],
    size: int,
) -> None:
    """Write where a search found something, with what is around it."""
    number = 0
    for match, address in rows:
        number += 1
        block = blocks[match.block]
        start = max(match.offset - _AROUND_BYTES, 0)
        before = _printable(block.read(start, match.offset - start))
        found = _printable(block.read(match.offset, min(size, 4 * _AROUND_BYTES)))
        after = _printable(block.read(match.offset + size, _AROUND_BYTES))
        where = "" if address is None else f"{address:#x}  "
        place = (f"{match.block}+{match.offset:#x}", "name")
        out.line((where, "value"), place, "  ", (before, "dim"), found, (after, "dim"))
    out.line((count(number, "match", "matches") if number else "not found", "head"))


def _printable(data: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)


def write_matches_document(
    write: Callable[[str], object],
    name: str,
    stream: MigrationStream,
    rows: Sequence[tuple[Match, int | None]],
    most: int,
    error: FormatError | None,
) -> None:
    """Write the matches, at most so many."""
    listed: list[Json] = [
        {"block": plain_text(match.block), "offset": match.offset, "address": address}
        for match, address in rows[:most]
    ]
    write_ram(write, name, stream, {"matches": listed, "more": len(rows) > most}, error)


def write_changes(out: Output, rows: Iterable[Change], only: Sequence[Sequence[str]]) -> None:
    """Write the ranges that differ, then how much of each block."""
    totals: Counter[tuple[str, str]] = Counter()
    for row in rows:
        totals[row.block, row.kind] += row.size
        end = row.address + row.size - 1
        out.line("  ", (row.block, "name"), f"  {row.address:#x} to {end:#x}  {row.kind}")
    for (block, kind), size in totals.items():
        out.line((f"{block}: {size_words(size)} {kind}", "head"))
    for which, names in zip(("first", "second"), only, strict=True):
        for name in names:
            out.line((f"{name}: a block of the {which} file only", "warn"))
    if not totals and not any(only):
        out.line(("no page differs", "head"))


def write_changes_document(
    write: Callable[[str], object],
    name: str,
    stream: MigrationStream,
    rows: Sequence[Change],
    only: Sequence[Sequence[str]],
    most: int,
    error: FormatError | None,
) -> None:
    """Write the ranges that differ, at most so many."""
    parts: dict[str, Json] = {
        "changes": [plain_row(row) for row in rows[:most]],
        "more": len(rows) > most,
        "first_only": [plain_text(block) for block in only[0]],
        "second_only": [plain_text(block) for block in only[1]],
    }
    write_ram(write, name, stream, parts, error)
