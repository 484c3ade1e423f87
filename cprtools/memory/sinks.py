"""Give what a stream says about RAM to two sinks at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cprformats.memory.batch import RamBatch, RamSink

if TYPE_CHECKING:
    from cprformats.migration.ramparts import RamBlock, RamContext
    from cprformats.migration.wire import RamFlag
    from cprformats.source import Source

__all__ = ["Tee"]


class Tee:
    """A `RamSink` that passes everything on to several, in their order."""

    def __init__(self, *sinks: RamSink) -> None:
        self._sinks = sinks

    def restart(self) -> None:
        """Pass on."""
        for sink in self._sinks:
            sink.restart()

    def blocks(self, blocks: Sequence[RamBlock], context: RamContext, source: Source) -> None:
        """Pass on."""
        for sink in self._sinks:
            sink.blocks(blocks, context, source)

    def pages(self, batch: RamBatch) -> None:
        """Pass on."""
        for sink in self._sinks:
            sink.pages(batch)

    def mark(self, flag: RamFlag) -> None:
        """Pass on."""
        for sink in self._sinks:
            sink.mark(flag)

    def discard(self, block: str, start: int, length: int) -> None:
        """Pass on."""
        for sink in self._sinks:
            sink.discard(block, start, length)
