"""Count every byte of a layer, and gather what did not fit on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from cprformats.errors import FormatError
from cprformats.fields import Kind, Tally, tally
from cprformats.migration import MigrationStream
from cprformats.migration.stream import repeat_key
from cprtools.inspector.parts import Part, parts
from cprtools.statefile import Content

__all__ = ["Totals", "count_totals", "unread_bytes"]

#: Notices kept; the rest is counted.
_MAX_NOTICES = 1000


@dataclass(frozen=True, slots=True)
class Totals:
    """The bytes of a layer by kind.

    Attributes:
        tally: bytes that were read, by kind.
        unread: bytes behind the place where the reading ended; 0 if unknown.
        notices: what did not fit, for people, with offsets; at most 1000.
        more_notices: how many more there were.
        error: what ended the counting early, if something did.
    """

    tally: Tally
    unread: int
    notices: tuple[str, ...]
    more_notices: int
    error: FormatError | None


def count_totals(content: Content, progress: Callable[[int], None] | None = None) -> Totals:
    """Decode everything but the guest's pages, count, and keep nothing else."""
    counts: Counter[Kind] = Counter()
    if isinstance(content, MigrationStream):
        counts.update(content.ram.tally.by_kind)
    seen: dict[bytes, Tally] = {}
    notices: list[str] = []
    more = 0
    failed = None
    try:
        for part in parts(content):
            key = _key(content, part)
            if key is not None and key in seen:
                counts.update(seen[key].by_kind)
                continue
            trees, said = part.decode()
            found = tally(trees)
            if key is not None and not said:
                seen[key] = found
            counts.update(found.by_kind)
            room = _MAX_NOTICES - len(notices)
            notices += said[:room]
            more += len(said[room:]) if room < len(said) else 0
            if progress is not None:
                progress(part.offset)
    except FormatError as error:
        failed = error
    total = Tally(dict(counts))
    unread = unread_bytes(content, total)
    return Totals(total, unread, tuple(notices), more, content.error or failed)


def _key(content: Content, part: Part) -> bytes | None:
    if part.section is None or not isinstance(content, MigrationStream):
        return None
    return repeat_key(content.source, part.section)


def unread_bytes(content: Content, counts: Tally) -> int:
    """Give how many bytes of a damaged stream are not among those counted, if that is known."""
    if not isinstance(content, MigrationStream) or content.error is None:
        return 0
    known = content.source.known_size
    return 0 if known is None else max(known - content.offset - counts.total, 0)
