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
from cprformats.migration.resync import BETWEEN, INSIDE, Gap, Resume, Resync
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
        self._lost: tuple[Gap, tuple[int, ...]] | None = None

    def section(self, head: Section, context: RamContext, limit: int | None) -> tuple[int, bool]:
        """Read one body; give its end, and whether it had nothing but marks.

        Raises:
            FormatError: it is damaged; `done` says how far it was read.
        """
        self._head, self.done, self._marks_only = head, head.body_offset, True
        self._settle(context, limit)
        self._counter.enter(head.offset, self._block)
        walker = RamWalker(
            self._source, head.body_offset, context, self._counter.blocks, self._block, limit
        )
        self._walk(walker, context, limit)
        return self.done, self._marks_only

    def _walk(self, walker: RamWalker, context: RamContext, limit: int | None) -> None:
        events = walker.events()
        while True:
            try:
                event = next(events)
            except StopIteration:
                return
            except FormatError as error:
                start = walker.record_at(error)
                resume = self._resume(error, start, context, limit, INSIDE)
                if resume is None:
                    raise
                self.done = resume.offset
                if resume.footer:
                    return
                # The damaged record may have named any block.
                walker.offset, walker.block = resume.offset, self._block
                events = walker.events()
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
            self._block = event.block
            self._next_address = event.address + len(event.kinds) * context.page_size
        self._marks_only = self._marks_only and isinstance(event, RamMark)

    # -- behind damage ------------------------------------------------------------------

    def resume(
        self, error: FormatError, start: int, context: RamContext, limit: int | None
    ) -> Resume | None:
        """Look for RAM behind damage between sections, if that was asked for; note the gap."""
        if self._head is None or self._head.type is SectionType.END:
            return None
        return self._resume(error, start, context, limit, BETWEEN)

    def _resume(
        self,
        error: FormatError,
        start: int,
        context: RamContext,
        limit: int | None,
        others: tuple[int, ...],
    ) -> Resume | None:
        if not self._keep_going or self._head is None:
            return None
        resync = self._resync(context, limit, others)
        found = resync.find(start, self._block, self._next_address)
        if found is not None:
            size, address = found.offset - start, self._next_address
            self.gaps.append(Gap(start, size, self._block, address, found.pages, error))
            if found.footer and size:
                self._lost = self.gaps[-1], others
        return found

    def _resync(self, context: RamContext, limit: int | None, others: tuple[int, ...]) -> Resync:
        assert self._head is not None
        section_id, blocks = self._head.section_id, self._counter.blocks
        return Resync(self._source, limit, context.page_size, blocks, section_id, others)

    def _settle(self, context: RamContext, limit: int | None) -> None:
        """Decide what CONTINUE means behind a section whose last records are lost.

        They may have named another block: unless all fits, it means none.
        """
        if self._lost is None or self._head is None:
            return
        (gap, others), self._lost = self._lost, None
        resync = self._resync(context, limit, others)
        pages = resync.follows(gap.offset, gap.block, gap.address, self._head.body_offset)
        if pages is None:
            self._block = ""
        else:
            self.gaps[-1] = replace(gap, pages=pages)

    def head_at(self, offset: int) -> Section:
        """Give the head of a section whose own head is lost."""
        assert self._head is not None
        return replace(self._head, type=SectionType.PART, offset=offset, head_size=0, footer_size=0)
