"""Count every byte of a layer, and gather what did not fit on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cprformats.errors import FormatError
from cprformats.fields import Tally, tally
from cprformats.migration import MigrationStream
from cprtools.inspector.parts import parts
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
    counts = content.ram.tally if isinstance(content, MigrationStream) else Tally({})
    notices: list[str] = []
    more = 0
    failed = None
    try:
        for part in parts(content):
            trees, said = part.decode()
            counts += tally(trees)
            room = _MAX_NOTICES - len(notices)
            notices += said[:room]
            more += len(said[room:]) if room < len(said) else 0
            if progress is not None:
                progress(part.offset)
    except FormatError as error:
        failed = error
    unread = unread_bytes(content, counts)
    return Totals(counts, unread, tuple(notices), more, content.error or failed)


def unread_bytes(content: Content, counts: Tally) -> int:
    """Give how many bytes of a damaged stream are not among those counted, if that is known."""
    if not isinstance(content, MigrationStream) or content.error is None:
        return 0
    known = content.source.known_size
    return 0 if known is None else max(known - content.offset - counts.total, 0)
