"""Hand what a stream says about RAM to a sink: while it is framed, or again later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cprformats.fields import Field
from cprformats.memory.batch import RamBatch, RamSink
from cprformats.migration.model import Command, Section
from cprformats.migration.ramparts import RamBlocks, RamContext, RamEvent
from cprformats.migration.wire import RamFlag
from cprformats.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from cprformats.migration.stream import MigrationStream

__all__ = ["feed", "give", "give_discard", "give_marks"]


def feed(
    stream: MigrationStream, sink: RamSink, progress: Callable[[int], None] | None = None
) -> None:
    """Read the RAM of a framed stream again and give it to a sink, in the stream's order.

    Raises:
        NotKept: the stream came through a pipe and its pages are gone.
        FormatError: the sink's own.
    """
    for item in stream.flat():
        if isinstance(item, Command) and item.name == "POSTCOPY_RAM_DISCARD":
            give_discard(sink, item.field)
        if not isinstance(item, Section) or not item.holds_ram:
            continue
        for event in stream.ram_events(item):
            give(sink, event, stream.ram.context, stream.source)
            if progress is not None and isinstance(event, RamBatch):
                progress(event.offset)


def give(sink: RamSink, event: RamEvent, context: RamContext, source: Source) -> None:
    """Give one event."""
    if isinstance(event, RamBatch):
        sink.pages(event)
    elif isinstance(event, RamBlocks):
        sink.blocks(event.blocks, context, source)
    else:
        sink.mark(event.flag)


def give_marks(sink: RamSink, source: Source, section: Section) -> None:
    """Give the records of a section that has nothing but marks."""
    body = source.read_at(section.body_offset, section.body_size)
    for at in range(0, len(body), 8):
        sink.mark(RamFlag(int.from_bytes(body[at : at + 8])))


def give_discard(sink: RamSink, command: Field) -> None:
    """Tell which pages the destination throws away; the source sends them again."""
    data = command["data"]
    block = next((str(x.value) for x in data.children if x.name == "block"), "")
    for part in data.children:
        if part.name.startswith("range["):
            start, length = part["start"].value, part["length"].value
            assert isinstance(start, int)
            assert isinstance(length, int)
            sink.discard(block, start, length)
