"""Walk a migration stream and find where each part of it lies.

::

    stream        = "QEVM" version:be32 [CONFIGURATION] part* EOF [VMDESCRIPTION] padding
    part          = START | PART | END | FULL | COMMAND
    START, FULL   = type id:be32 len:u8 idstr instance:be32 version:be32 body [footer]
    PART, END     = type id:be32 body [footer]
    footer        = 7e id:be32
    COMMAND       = 08 number:be16 len:be16 data   (PACKAGED: then a stream without header)
    VMDESCRIPTION = 06 len:be32 json

Framing finds extents only; fields are decoded when asked for
(`MigrationStream.decode`). A stream that breaks keeps all that came before,
and the error beside it.

Source: QEMU migration/savevm.c (qemu_loadvm_state_main,
qemu_savevm_state_complete_precopy), 5.2 to 11.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cprformats.errors import FormatError
from cprformats.fields import Field, Tally, tally
from cprformats.memory.batch import RamBatch, RamSink
from cprformats.migration.device import decode_frame, decode_section
from cprformats.migration.framing import Framer
from cprformats.migration.model import Command, Configuration, Item, Piece, Section
from cprformats.migration.ram import RamWalker
from cprformats.migration.ramfields import run_fields
from cprformats.migration.ramparts import RamEvent, RamPart, RamRun, merge_runs
from cprformats.migration.ramstats import RamStats
from cprformats.migration.resync import Gap
from cprformats.migration.vmdesc import VmDesc
from cprformats.migration.wire import SectionType
from cprformats.source import Source

if TYPE_CHECKING:
    from cprformats.migration.byschema.resolve import Resolver
    from cprformats.schema.model import Schema

__all__ = ["MigrationStream", "read_stream", "repeat_key"]

#: A section that repeats holds an end mark and little else.
_REPEAT_BYTES = 96

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class MigrationStream:
    """A migration stream, framed.

    Attributes:
        source: its bytes.
        offset: of the magic, absolute.
        end: offset behind the last byte that belongs to it.
        version: 3, or 2 for the form of 2008.
        configuration: what the CONFIGURATION section says, if there is one.
        items: all parts in file order.
        vmdesc: the description at the end, if there is one.
        page_size: target page size in bytes.
        ram: RAM blocks and how their pages were sent.
        footers: whether sections end in footers; None without any section.
        warnings: oddities that don't stop a reader.
        error: what ended the reading early, if something did.
        gaps: what was passed over; only where the reader was told to go on.
        resolver: describes sections that no vmdesc describes, by a schema.
    """

    source: Source
    offset: int
    end: int
    version: int
    configuration: Configuration | None
    items: Sequence[Item]
    vmdesc: VmDesc | None
    page_size: int
    ram: RamStats
    footers: bool | None
    warnings: tuple[str, ...]
    error: FormatError | None
    gaps: tuple[Gap, ...] = ()
    resolver: Resolver | None = field(default=None, repr=False, compare=False)

    @property
    def machine(self) -> str:
        """Machine type name, or empty."""
        return self.configuration.machine if self.configuration else ""

    def sections(self) -> Iterator[Section]:
        """Give all sections in file order, those inside PACKAGED too."""
        for item in self.flat():
            if isinstance(item, Section):
                yield item

    def flat(self) -> Iterator[Item]:
        """Give all parts in file order, those inside PACKAGED behind their command."""
        yield from _flat(self.items)

    def decode(self, section: Section) -> tuple[Field, tuple[str, ...]]:
        """Decode a device section: its tree, and notices of what did not fit.

        For a RAM section see `ram_parts` and `walk`.
        """
        said: tuple[str, ...] = ()
        if self.resolver is not None and section.description is None:
            section, said = self.resolver.describe(section)
        elif self.resolver is not None:
            said = self._disagreements(self.resolver, section)
        tree, notices = decode_section(
            self.source, section, page_size=self.page_size, machine=self.machine
        )
        return tree, (*said, *notices)

    def _disagreements(self, resolver: Resolver, section: Section) -> tuple[str, ...]:
        """What the schema says otherwise than the stream's own description."""
        from cprformats.migration.byschema.disagree import compared  # noqa: PLC0415 (start-up)

        return tuple(map(str, compared(self, resolver, section)))

    def ram_parts(self, section: Section) -> Iterator[RamPart]:
        """Give the parts of one RAM section: block list, runs of pages, marks.

        Raises:
            NotKept: the stream came through a pipe and its pages are gone.
        """
        return merge_runs(self.ram_events(section), self.page_size)

    def ram_events(self, section: Section) -> Iterator[RamEvent]:
        """Give the same with the pages in batches, as they are read.

        Raises:
            NotKept: the stream came through a pipe and its pages are gone.
        """
        walker = self.ram_walker(section)
        events, block = walker.events(), walker.block
        while walker.offset < section.body_end:
            try:
                event = next(events)
            except FormatError as error:
                start = walker.record_at(error)
                gap = next((gap for gap in self.gaps if gap.offset == start), None)
                if gap is None:
                    raise
                walker.offset, walker.block = gap.offset + gap.size, block
                events = walker.events()
                continue
            block = event.block if isinstance(event, RamBatch) else block
            yield event

    def ram_walker(self, section: Section) -> RamWalker:
        """Make a walker over the body of one RAM section; of one that is cut it raises."""
        blocks = dict(self.ram.blocks)
        block = self.ram.block_at(section.offset)
        return RamWalker(self.source, section.body_offset, self.ram.context, blocks, block)

    def walk(self) -> Iterator[Field]:
        """Give the whole stream as trees in file order; no byte is left out.

        A RAM section comes in several trees of bounded size.
        """
        yield from self._walk(self.items)

    def _walk(self, items: Sequence[Item]) -> Iterator[Field]:
        for item in items:
            if isinstance(item, Piece):
                yield item.field
            elif isinstance(item, Command):
                yield item.field
                yield from self._walk(item.inner)
            elif item.holds_ram:
                yield from self._walk_ram(item)
            else:
                yield self.decode(item)[0]

    def _walk_ram(self, section: Section) -> Iterator[Field]:
        head, *footer = decode_frame(self.source, section)
        yield head
        for part in self.ram_parts(section):
            if isinstance(part, RamRun):
                yield from run_fields(self.source, part, self.page_size)
            else:
                yield part.field
        yield from footer

    def tally(self) -> Tally:
        """Count the bytes of the stream by kind.

        RAM is counted from the framing; devices are decoded for it.
        """
        counts = Counter(self.ram.tally.by_kind)
        seen: dict[bytes, Tally] = {}
        for item in self.flat():
            key = repeat_key(self.source, item)
            found = None if key is None else seen.get(key)
            if found is None:
                found = tally(self._all_but_ram(item))
            if key is not None:
                seen[key] = found
            counts.update(found.by_kind)
        return Tally(dict(counts))

    def _all_but_ram(self, item: Item) -> tuple[Field, ...]:
        if isinstance(item, Section):
            if item.holds_ram:
                return decode_frame(self.source, item)
            return (self.decode(item)[0],)
        return (item.field,)


def _resolver(schema: Schema, source: Source) -> Resolver:
    from cprformats.migration.byschema.resolve import Resolver  # noqa: PLC0415 (start-up time)

    return Resolver(schema, source)


def repeat_key(source: Source, item: Item) -> bytes | None:
    """Give a small PART section's bytes: a stream can have 100,000 that are the same.

    Those of the same bytes decode to the same tree, but for the offsets.
    """
    if not isinstance(item, Section) or item.type is not SectionType.PART:
        return None
    size = item.end - item.offset
    return source.read_at(item.offset, size) if size <= _REPEAT_BYTES else None


def _flat(items: Sequence[Item]) -> Iterator[Item]:
    for item in items:
        yield item
        if isinstance(item, Command):
            yield from _flat(item.inner)


def read_stream(
    source: Source,
    offset: int = 0,
    end: int | None = None,
    *,
    progress: Progress | None = None,
    sink: RamSink | None = None,
    keep_going: bool = False,
    schema: Schema | None = None,
) -> MigrationStream:
    """Frame the stream that begins at `offset`.

    Damage inside does not raise: it ends the reading and is kept as `error`.

    Args:
        source: the bytes.
        offset: of the magic.
        end: where the data that may belong to the stream ends; None for the
            source's end.
        progress: called now and then with the offset reached.
        sink: is given the RAM as it is read; what it raises passes through, but a
            `FormatError` counts as damage of the stream.
        keep_going: behind damage in RAM go on with the next record that can't be taken
            for something else; `gaps` has what is between. The trees of such a
            stream do not tile its bytes.
        schema: of a QEMU binary that can load the stream; describes the sections that
            no vmdesc describes.

    Raises:
        WrongFormat: there is no magic.
        Unsupported: a version that is neither 2 nor 3, or a schema without types.
    """
    resolver = None if schema is None else _resolver(schema, source)
    framer = Framer(source, offset, end, progress, sink, resolver, keep_going=keep_going)
    framer.run()
    if framer.error is not None and framer.missed_page_size():
        if sink is not None:
            sink.restart()
        framer = Framer(source, offset, end, progress, sink, resolver, keep_going=keep_going)
        framer.run()
    return MigrationStream(
        source,
        offset,
        framer.offset,
        framer.version,
        framer.configuration,
        framer.items,
        framer.vmdesc,
        framer.context.page_size,
        framer.ram.freeze(),
        framer.footers,
        tuple(framer.warnings),
        framer.error,
        tuple(framer.pages.gaps),
        resolver,
    )
