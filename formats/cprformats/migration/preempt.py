"""The channel of postcopy-preempt, and what a stream lacks without its other channels.

The channel has no magic: RAM records as in a RAM section, with a CONTINUE state
of its own, up to the file's end or an end mark. Its pages are those that the
destination was waiting for after the switch; none of them is in the main
channel afterwards, so they are read last.

Source: QEMU migration/ram.c (ram_save_host_page_urgent, postcopy_preempt_thread), since 7.1.
"""

from __future__ import annotations

from cprformats.errors import Damaged, FormatError
from cprformats.memory.batch import RamBatch, RamSink
from cprformats.memory.channels import ChannelFile
from cprformats.migration.ram import RamWalker
from cprformats.migration.ramfeed import give
from cprformats.migration.stream import MigrationStream

__all__ = ["check_alone", "feed_preempt"]


def feed_preempt(stream: MigrationStream, file: ChannelFile, number: int, sink: RamSink) -> None:
    """Give the pages of the channel to a sink.

    Args:
        stream: the main channel, framed.
        file: the channel.
        number: of the file among the sources.
        sink: is given the pages.

    Raises:
        FormatError: a record is damaged or cut; the path names the file.
    """
    context = stream.ram.context
    walker = RamWalker(file.source, file.offset, context, dict(stream.ram.blocks))
    try:
        for event in walker.events():
            if isinstance(event, RamBatch):
                event.source = number
            give(sink, event, context, file.source)
    except FormatError as error:
        if not file.source.read_at(walker.offset, 1):
            return  # from 8.2 on there is no end mark
        error.path = (f"channel {file.name}", *error.path)
        raise


def check_alone(stream: MigrationStream) -> None:
    """Check that the main channel is not all that was sent.

    Raises:
        Damaged: it has marks of multifd, and records of fewer pages than there are.
    """
    size = stream.page_size
    pages = sum(-(-block.used_length // size) for block in stream.ram.blocks.values())
    records = sum(sum(stats.pages.values()) for stats in stream.ram.per_block)
    if stream.ram.flushes and records < pages:
        raise Damaged.mismatch(
            "pages of a multifd migration without its other channels (--channel)",
            pages,
            records,
            offset=stream.offset,
            path=("ram",),
        )
