"""What readers of RAM hand over: many pages at once, and to whom.

Page by page would cost more than reading the file; so a batch is as many
pages of one block as follow each other in the stream and lie in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cprformats.migration.ramparts import RamBlock, RamContext
    from cprformats.migration.wire import RamFlag
    from cprformats.source import Source

__all__ = ["PageCode", "RamBatch", "RamSink"]


class PageCode(IntEnum):
    """How a page was sent, as one byte."""

    ZERO = ord("z")
    DATA = ord("p")
    XBZRLE = ord("x")
    COMPRESSED = ord("c")
    #: A page of one byte's value that is not 0: loaders of today refuse it.
    FILL = ord("f")


@dataclass(slots=True)
class RamBatch:
    """Records that follow each other in a file, of pages that follow each other in a block.

    Attributes:
        block: idstr.
        address: of the first page in the block, in bytes.
        kinds: one `PageCode` for each page; of the last three kinds only one.
        offset: absolute, of the first record.
        size: bytes of all records.
        head: bytes of the first record before its contents.
        data: the records.
        stride_head: bytes of each other record before its contents.
        source: which file the offset is in: 0 the stream, n the n-th multifd channel.
        kept: whether the bytes can be read again at the offset; not if they were unpacked.
    """

    block: str
    address: int
    kinds: bytes
    offset: int
    size: int
    head: int
    data: memoryview
    stride_head: int = 8
    source: int = 0
    kept: bool = True


class RamSink(Protocol):
    """Takes what a stream says about RAM, in the order in which it counts."""

    def restart(self) -> None:
        """Forget everything: the stream is read again from its beginning."""

    def blocks(self, blocks: Sequence[RamBlock], context: RamContext, source: Source) -> None:
        """Take a block list; under mapped-ram the blocks say where in the source their pages are.

        QEMU sends the list once; a list that comes again names blocks anew.
        """

    def pages(self, batch: RamBatch) -> None:
        """Take pages; `batch.data` is valid during the call only."""

    def mark(self, flag: RamFlag) -> None:
        """Take EOS, HOOK or MULTIFD_FLUSH."""

    def discard(self, block: str, start: int, length: int) -> None:
        """Take a range in bytes that postcopy throws away at the destination."""
