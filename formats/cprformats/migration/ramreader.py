"""Read RAM sections one after the other: what carries over from each to the next.

That is the block that CONTINUE stands for, and, for who goes on behind damage,
which page should come next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cprformats.errors import FormatError
from cprformats.memory.batch import RamBatch, RamSink
from cprformats.migration.model import Section
from cprformats.migration.ram import RamWalker
from cprformats.migration.ramfeed import give
from cprformats.migration.ramparts import RamContext, RamEvent, RamMark
from cprformats.migration.ramstats import RamCounter
from cprformats.migration.resync import Gap, Resume, Resync
from cprformats.migration.wire import SectionType
from cprformats.source import Source

__all__ = ["RamReader"]


class RamReader:
    """Reads the bodies of a stream's RAM sections.

    Args:
        source: the stream.
        counter: counts all that is read, and knows the blocks.
        sink: is given all that is read.
        progress: called with the offset reached.
        keep_going: behind damage go on with what can only be RAM.

    Attributes:
        done: offset behind the last record that was read whole.
        gaps: what was passed over.
    """

    def __init__(
        self,
        source: Source,
        counter: RamCounter,
        sink: RamSink | None,
        progress: Callable[[int], None] | None,
        *,
        keep_going: bool,
    ) -> None:
        self.done = 0
        self.gaps: list[Gap] = []
        self._source = source
        self._counter = counter
        self._sink = sink
        self._progress = progress
        self._keep_going = keep_going
        self._block = ""
        self._next_address = 0
        self._head: Section | None = None
        self._marks_only = True

    def section(self, head: Section, context: RamContext, limit: int | None) -> tuple[int, bool]:
        """Read one body; give its end, and whether it had nothing but marks.

        Raises:
            FormatError: it is damaged; `done` says how far it was read.
        """
        self._counter.enter(head.offset, self._block)
        self._head, self.done, self._marks_only = head, head.body_offset, True
        walker = RamWalker(
            self._source, head.body_offset, context, self._counter.blocks, self._block, limit
        )
        try:
            self._walk(walker, context, limit)
        finally:
            self._block = walker.block
        return self.done, self._marks_only

    def _walk(self, walker: RamWalker, context: RamContext, limit: int | None) -> None:
        events = walker.events()
        while True:
            try:
                event = next(events)
            except StopIteration:
                return
            except FormatError as error:
                self._block = walker.block
                resume = self.resume(error, error.offset, context, limit)
                if resume is None:
                    raise
                self.done = resume.offset
                if resume.footer:
                    return
                walker.offset, events = resume.offset, walker.events()
                continue
            self._take(event, context)
            self.done = walker.offset
            if self._progress is not None:
                self._progress(self.done)

    def _take(self, event: RamEvent, context: RamContext) -> None:
        self._counter.add(event)
        if self._sink is not None:
            give(self._sink, event, context, self._source)
        if isinstance(event, RamBatch):
            self._next_address = event.address + len(event.kinds) * context.page_size
        self._marks_only = self._marks_only and isinstance(event, RamMark)

    # -- behind damage ------------------------------------------------------------------

    def resume(
        self, error: FormatError, start: int, context: RamContext, limit: int | None
    ) -> Resume | None:
        """Look for RAM behind damage at `start`, if that was asked for; note the gap."""
        head = self._head
        if not self._keep_going or head is None or head.type is SectionType.END:
            return None
        resync = Resync(
            self._source, limit, context.page_size, self._counter.blocks, head.section_id
        )
        found = resync.find(start, self._block, self._next_address)
        if found is not None:
            size, address = found.offset - start, self._next_address
            self.gaps.append(Gap(start, size, self._block, address, found.pages, error))
        return found

    def head_at(self, offset: int) -> Section:
        """Give the head of a section whose own head is lost."""
        assert self._head is not None
        return replace(self._head, type=SectionType.PART, offset=offset, head_size=0, footer_size=0)
