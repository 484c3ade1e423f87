"""What is said of one channel of a multifd migration."""

from __future__ import annotations

from collections.abc import Iterator

from cprformats.migration.multifd import MultifdChannel
from cprtools.report.output import Column, Output
from cprtools.report.text import write_facts
from cprtools.report.words import size_words

__all__ = ["write_multifd"]


def write_multifd(out: Output, channel: MultifdChannel) -> None:
    """Write what the channel carries of each block; whole pages are the main channel's to tell."""
    out.line()
    write_facts(out, _facts(channel))
    out.line()
    out.line(("Blocks", "title"), f"  {len(channel.blocks)}")
    columns = [
        Column("block", style="name", fold=True),
        Column("packets", right=True),
        Column("normal pages", right=True),
        Column("zero pages", right=True),
        Column("contents", right=True),
    ]
    out.table(
        columns,
        (
            [
                block.idstr,
                str(block.packets),
                str(block.normal_pages),
                str(block.zero_pages),
                size_words(block.contents_bytes),
            ]
            for block in channel.blocks
        ),
    )


def _facts(channel: MultifdChannel) -> Iterator[tuple[str, str]]:
    yield "channel", str(channel.channel)
    if channel.uuid.strip("0"):
        yield "uuid", channel.uuid
    yield "packets", f"{channel.packets}, each with room for {channel.pages_per_packet} pages"
