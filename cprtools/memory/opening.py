"""Open a state file for its guest memory, with the channels of a multifd migration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cprformats.errors import FormatError, WrongFormat
from cprformats.memory.batch import RamSink
from cprformats.memory.channels import ChannelFile, ChannelJoin, is_multifd
from cprformats.migration import MigrationStream
from cprformats.migration.preempt import check_alone, feed_preempt
from cprformats.migration.ramfeed import feed
from cprtools.statefile import Progress, StateFile, open, unpacked

if TYPE_CHECKING:
    from cprformats.memory.block import MemoryBlock
    from cprformats.memory.contents import BadPage
    from cprformats.memory.image import MemoryImage
    from cprformats.source import Source

__all__ = ["Memory", "RamFile", "open_memory"]


class RamFile:
    """A state file and the other channels of its migration; a context manager.

    Args:
        path: of the main channel's file; ``-`` for standard input.
        channels: paths of the other channels' files, in any order: those of multifd, and
            the one of postcopy-preempt.
        keep_all: keep guest pages too where the data flows only once.

    Attributes:
        state: the file, once it was read.
        error: what ended the reading early, if something did.
        channel_left: a damaged channel was left, and pages of it are old or not there.
    """

    def __init__(
        self, path: str | Path, channels: Sequence[str | Path] = (), *, keep_all: bool = False
    ) -> None:
        self._path = path
        self._stack = ExitStack()
        self._keep_all = keep_all
        self.error: FormatError | None = None
        self.channel_left = False
        self.state: StateFile | None = None
        try:
            files = [
                ChannelFile(str(name), self._stack.enter_context(unpacked(name, keep_all=keep_all)))
                for name in channels
            ]
        except BaseException:
            self._stack.close()
            raise
        self._files = files
        self._multifd = [file for file in files if is_multifd(file)]
        self._late = [file for file in files if file not in self._multifd]

    @property
    def stream(self) -> MigrationStream:
        """The migration stream, once the file was read."""
        assert self.state is not None, "read() comes first"
        return self.state.stream

    @property
    def channel_sources(self) -> list[Source]:
        """The channels' bytes: those of multifd first, in the order in which they are numbered."""
        return [file.source for file in (*self._multifd, *self._late)]

    def read(
        self,
        sink: RamSink,
        *,
        progress: Progress | None = None,
        snapshot: str | None = None,
        keep_going: bool = False,
    ) -> MigrationStream:
        """Read the file once, and give its RAM to the sink.

        Damage does not raise: it is kept in `error`.

        Raises:
            OSError: a file can't be read.
            FormatError: it holds no migration stream.
        """
        joined = self._joined(sink, keep_going=keep_going)
        state = open(
            self._path,
            progress=progress,
            snapshot=snapshot,
            keep_all=self._keep_all,
            sink=joined,
            keep_going=keep_going,
        )
        self.state = self._stack.enter_context(state)
        if state.kind != "migration":
            raise state.error or WrongFormat(f"expected a migration stream, found {state.kind}")
        self.error = state.error
        self._finish(joined, sink)
        return state.stream

    def read_again(
        self, sink: RamSink, progress: Progress | None = None, *, keep_going: bool = False
    ) -> None:
        """Give the RAM to another sink, from the files that were read.

        Raises:
            FormatError: the sink's own; or the pages of a pipe were not kept.
        """
        joined = self._joined(sink, keep_going=keep_going)
        feed(self.stream, joined, progress)
        self._finish(joined, sink)

    def _joined(self, sink: RamSink, *, keep_going: bool) -> RamSink:
        if not self._multifd:
            return sink
        return ChannelJoin(sink, self._multifd, keep_going=keep_going)

    def _finish(self, joined: RamSink, sink: RamSink) -> None:
        """Read what comes behind the main channel, and check that nothing is missing."""
        if isinstance(joined, ChannelJoin) and joined.error is not None:
            self.channel_left = True
            self.error = self.error or joined.error
        if self.error is not None:
            return
        try:
            if isinstance(joined, ChannelJoin):
                joined.finish()
                joined.check_complete()
            elif not self._files:
                check_alone(self.stream)
            for number, file in enumerate(self._late, len(self._multifd) + 1):
                feed_preempt(self.stream, file, number, sink)
        except FormatError as error:
            self.error = error

    def close(self) -> None:
        """Close all files."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class Memory(Mapping[str, "MemoryBlock"]):
    """The guest memory in a file, block by block; a context manager.

    Attributes:
        file: what it comes from.
        image: the blocks.
    """

    def __init__(self, file: RamFile, image: MemoryImage) -> None:
        self.file = file
        self.image = image

    def __getitem__(self, idstr: str) -> MemoryBlock:
        return self.image[idstr]

    def __iter__(self) -> Iterator[str]:
        return iter(self.image)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def stream(self) -> MigrationStream:
        """The migration stream."""
        return self.file.stream

    @property
    def error(self) -> FormatError | None:
        """What ended the reading early; what came before it is there."""
        return self.file.error

    @property
    def bad(self) -> tuple[BadPage, ...]:
        """Pages that could not be decoded; only with `keep_going`."""
        return self.image.bad

    def close(self) -> None:
        """Close the files; nothing can be read any more."""
        self.image.close()
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def open_memory(
    path: str | Path,
    channels: Sequence[str | Path] = (),
    *,
    keep_going: bool = False,
    progress: Progress | None = None,
    snapshot: str | None = None,
) -> Memory:
    """Open a state file and find where each page of guest memory lies.

    A pipe and a compressed file are unpacked to a temporary file.

    Args:
        path: of the file, or of the main channel; ``-`` for standard input.
        channels: files of the other channels of a multifd or postcopy migration.
        keep_going: note pages that can't be decoded in `Memory.bad`, and go on behind
            damage with what can still be read.
        progress: called now and then with the bytes read so far.
        snapshot: of a qcow2 image, id or name.

    Raises:
        OSError: a file can't be read.
        FormatError: the file holds no migration stream. Damage inside it does not
            raise: see `Memory.error`.
    """
    from cprformats.memory.image import MemoryImage  # noqa: PLC0415 (the table needs none)

    file = RamFile(path, channels, keep_all=True)
    try:
        image = MemoryImage(file.channel_sources, keep_going=keep_going)
        file.read(image, progress=progress, snapshot=snapshot, keep_going=keep_going)
    except BaseException:
        file.close()
        raise
    return Memory(file, image)
