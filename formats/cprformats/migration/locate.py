"""Find what the stream gives no length for: the vmdesc, and the ends of sections.

A device section has no length on the wire. Its end is where its description
says; without one, where a footer with its id stands in front of something
that can follow a section. Both are searches, so both check what they found.

Source: QEMU migration/savevm.c (qemu_savevm_state_complete_precopy_non_iterable,
save_section_footer, save_section_header).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from cprformats.errors import Damaged, FormatError, Unsupported
from cprformats.migration.vmdesc import MAX_VMDESC_BYTES, VmDesc, parse_vmdesc
from cprformats.migration.wire import COMMANDS, SectionType
from cprformats.source import Source

__all__ = [
    "FOOTER_SIZE",
    "FoundVmDesc",
    "check_vmdesc",
    "find_footer",
    "find_vmdesc",
    "follows_section",
    "is_followed",
    "load_vmdesc",
]

FOOTER_SIZE = 5
_FIRST_CHUNK_BYTES = 1 << 10
_CHUNK_BYTES = 1 << 20
#: Descriptions of machines with thousands of objects stay below 20 MB.
_SEARCH_BYTES = 64 << 20
#: Searching one section for its footer goes no further than this.
_SECTION_BYTES = 256 << 20
#: A crafted file can hold millions of places that look right at first sight.
_MAX_CANDIDATES = 16
_MAX_FALSE_FOOTERS = 100_000
#: Behind the stream's end may be padding.
_BEHIND_EOF_BYTES = 1 << 16
_VMDESC_START = re.compile(rb"\x00\x06(....)\{", re.DOTALL)


@dataclass(frozen=True, slots=True)
class FoundVmDesc:
    """A description found by search.

    Attributes:
        offset: of its type byte (06).
        size: of the JSON text in bytes.
        vmdesc: the description.
    """

    offset: int
    size: int
    vmdesc: VmDesc


def find_vmdesc(source: Source, start: int, end: int) -> FoundVmDesc | None:
    """Search back from `end` for EOF, 06, a length that fits, and JSON in braces.

    JSON text holds no byte 00 or 06, so at most what stands behind the text
    can mislead; each candidate must parse.
    """
    lowest = max(start, end - _SEARCH_BYTES)
    upper, tried = end, 0
    while upper > lowest:
        lower = max(lowest, upper - _CHUNK_BYTES)
        # Six bytes more, for a match that the cut goes through.
        chunk = source.read_at(lower, min(upper - lower + 6, end - lower))
        for match in reversed(list(_VMDESC_START.finditer(chunk))):
            offset, size = lower + match.start() + 1, int.from_bytes(match[1])
            if not _fits(source, offset, size, end):
                continue
            tried += 1
            found = _parsed(source, offset, size)
            if found is not None or tried == _MAX_CANDIDATES:
                return found
        upper = lower
    return None


def _fits(source: Source, offset: int, size: int, end: int) -> bool:
    behind = offset + 5 + size
    return size > 1 and behind <= end and source.read_at(behind - 1, 1) == b"}"


def _parsed(source: Source, offset: int, size: int) -> FoundVmDesc | None:
    text_at = offset + 5
    if size > MAX_VMDESC_BYTES:
        return None
    data = source.read_at(text_at, size)
    try:
        check_vmdesc(data, text_at)
        text = data.decode("utf-8", "surrogateescape")
        return FoundVmDesc(offset, size, load_vmdesc(text, text_at))
    except FormatError:
        return None


def check_vmdesc(data: bytes, offset: int) -> None:
    """Refuse a text that would take too much memory once it is a string.

    Raises:
        Unsupported: it is too long; where it is not ASCII, characters take four bytes.
    """
    most = MAX_VMDESC_BYTES if data.isascii() else MAX_VMDESC_BYTES // 8
    if len(data) > most:
        raise Unsupported(
            f"size: expected at most {most}, found {len(data)}", offset=offset, path=("vmdesc",)
        )


def load_vmdesc(text: str, offset: int) -> VmDesc:
    """Parse the text of a description that stands at `offset`.

    Raises:
        FormatError: see `parse_vmdesc`.
        Damaged: it nests deeper than this can follow.
    """
    try:
        return parse_vmdesc(text, offset)
    except RecursionError as error:
        raise Damaged("nested too deep", offset=offset, path=("vmdesc",)) from error


def find_footer(source: Source, start: int, end: int | None, section_id: int) -> int | None:
    """Search for the footer that ends a section whose body begins at `start`.

    Gives the footer's offset, or None where none stands before `end`.
    """
    needle = bytes([SectionType.FOOTER]) + section_id.to_bytes(4)
    # The type byte that may follow is in the pattern, or a body full of footers
    # would take one read for each.
    pattern = re.compile(re.escape(needle) + rb"(?=[\x00-\x04\x08]|\Z)", re.DOTALL)
    for number, offset in enumerate(_occurrences(source, start, end, pattern)):
        if follows_section(source, offset + FOOTER_SIZE, end):
            return offset
        if number == _MAX_FALSE_FOOTERS:
            break
    return None


def _occurrences(
    source: Source, start: int, end: int | None, pattern: re.Pattern[bytes]
) -> Iterator[int]:
    position, stop = start, start + _SECTION_BYTES
    stop = stop if end is None else min(stop, end)
    size = _FIRST_CHUNK_BYTES  # most sections are small, and there may be many
    while position < stop:
        wanted = min(size, stop - position)
        chunk = source.read_at(position, wanted)
        yield from (position + match.start() for match in pattern.finditer(chunk))
        if len(chunk) < wanted or position + wanted == stop:
            return
        # What a cut may split comes again in front of the next piece.
        position += len(chunk) - FOOTER_SIZE
        size = min(2 * size, _CHUNK_BYTES)


def follows_section(source: Source, offset: int, end: int | None) -> bool:
    """Say whether what stands at `offset` can come behind a whole section."""
    count = 300 if end is None else min(300, end - offset)
    data = source.read_at(offset, count)
    if not data:
        return True
    kind = data[0]
    if kind == SectionType.EOF:
        return len(data) == 1 or data[1] in (0, SectionType.VMDESCRIPTION) or count < 300
    if kind in (SectionType.START, SectionType.FULL):
        return _is_head(data)
    if kind in (SectionType.PART, SectionType.END):
        return _is_small_id(data)
    if kind == SectionType.COMMAND:
        return len(data) < 3 or int.from_bytes(data[1:3]) in COMMANDS
    return False


def is_followed(source: Source, offset: int, end: int | None) -> bool:
    """Say the same where nothing but the bytes tells: zeros that go on prove nothing."""
    if not follows_section(source, offset, end):
        return False
    if source.read_at(offset, 1) not in (b"", bytes([SectionType.EOF])):
        return True
    behind = source.read_at(offset + 1, _BEHIND_EOF_BYTES)
    return behind[:1] == bytes([SectionType.VMDESCRIPTION]) or not behind.strip(b"\0")


def _is_head(data: bytes) -> bool:
    """Check a head of START or FULL; one that the end of the data cuts may be one."""
    if not _is_small_id(data) or len(data) < 6:
        return _is_small_id(data)
    return data[5] > 0 and all(0x20 <= byte < 0x7F for byte in data[6 : 6 + data[5]])


def _is_small_id(data: bytes) -> bool:
    return int.from_bytes(data[1:5].ljust(4, b"\0")) < 1 << 20
