"""Open any file that holds VM state: peel off what it is wrapped in, layer by layer.

A file is a stack of layers, outermost first: ``zstd``, then ``libvirt-save``,
then ``migration``. Each layer's bytes are its own: offsets are absolute in the
data of that layer, and its trees tile just that data. What lies inside is one
span of the outer layer. The kind of each is found from its bytes, never from
the file's name.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, Self

from cprformats.codecs import DataRef
from cprformats.detect import COMPRESSIONS, FileKind, detect
from cprformats.errors import FormatError, Unsupported, WrongFormat
from cprformats.fields import Field, Kind, Tally, tally
from cprformats.migration import MigrationStream, read_stream
from cprformats.source import FileSource, Source, SpoolSource

if TYPE_CHECKING:
    from cprformats.container.compressed import Compressed
    from cprformats.memory.batch import RamSink
    from cprformats.schema.model import Schema

__all__ = ["Content", "Layer", "StateFile", "Unreadable", "open", "unpacked"]

Progress = Callable[[int], None]

#: A stream in qcow2 in gzip in zstd is three; more is made to annoy.
_MAX_LAYERS = 8


class Content(Protocol):
    """What every decoded layer offers, whatever its format."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Oddities that don't stop a reader."""

    @property
    def error(self) -> FormatError | None:
        """What ended the reading early, if something did."""

    def walk(self) -> Iterator[Field]:
        """Give the layer's own bytes as trees in file order; none is left out."""

    def tally(self) -> Tally:
        """Count the layer's own bytes by kind."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a file.

    Attributes:
        kind: ``migration``, ``qcpr``, ``libvirt-save``, ``qcow2``, ``xz``, ...
        content: what it decodes to.
    """

    kind: str
    content: Content


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What is inside a layer and of no kind that we read.

    Attributes:
        source: its bytes.
        offset: of the first one, absolute.
        error: what is wrong with it.
    """

    source: Source
    offset: int
    error: FormatError | None
    warnings: tuple[str, ...] = ()

    def walk(self) -> Iterator[Field]:
        """Give all bytes as one unknown span."""
        size = self.source.size() - self.offset
        if size > 0:
            ref = DataRef(self.source, self.offset, size)
            yield Field("data", "", "bytes", Kind.UNKNOWN, self.offset, size, ref)

    def tally(self) -> Tally:
        """Count the bytes, all of them unknown."""
        return tally(self.walk())


@dataclass(frozen=True, slots=True)
class StateFile:
    """An opened file; a context manager that closes it.

    Without `with` the file is closed once neither this nor any layer's content
    is in use any more.

    Attributes:
        name: path, or ``-`` for standard input.
        layers: outermost first; the last holds the state.
    """

    name: str
    layers: tuple[Layer, ...]
    _closers: tuple[Callable[[], object], ...] = field(default=(), repr=False, compare=False)

    @property
    def kind(self) -> str:
        """Kind of the innermost layer."""
        return self.layers[-1].kind

    @property
    def stream(self) -> MigrationStream:
        """The migration stream.

        Raises:
            WrongFormat: the file holds none.
        """
        content = self.layers[-1].content
        if not isinstance(content, MigrationStream):
            raise WrongFormat(f"expected a migration stream, found {self.kind}")
        return content

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of all layers, outermost first."""
        return tuple(text for layer in self.layers for text in layer.content.warnings)

    @property
    def error(self) -> FormatError | None:
        """The first layer's error, if any has one."""
        return next((x.content.error for x in self.layers if x.content.error), None)

    def close(self) -> None:
        """Close the file and what was unpacked from it; contents can't be read any more."""
        for closer in self._closers:
            closer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def open(  # noqa: A001 (cprtools.open reads as it should)
    path: str | Path,
    *,
    progress: Progress | None = None,
    snapshot: str | None = None,
    keep_all: bool = False,
    sink: RamSink | None = None,
    keep_going: bool = False,
    schema: Schema | None = None,
) -> StateFile:
    """Open a file, or standard input for ``-``.

    Args:
        path: of the file.
        progress: called now and then with the bytes of the outermost layer read so far.
        snapshot: id or name of the snapshot to read in a qcow2 image; by default the
            last one that has a VM state.
        keep_all: keep guest pages too where the data flows only once (a pipe), in a
            temporary file: then they can be read and written again.
        sink: is given the RAM of a migration stream while it is read; see
            `cprformats.memory`.
        keep_going: behind damage in RAM go on with what can still be read of it.
        schema: of a QEMU binary (`cprtools.open_schema`); sections that the stream has no
            description of are read by it.

    Raises:
        OSError: it can't be opened or read, or is a directory or a character device.
        FormatError: its outermost layer is of no kind that we read, or it has no such
            snapshot.
    """
    opener = _Opener(progress, snapshot, keep_all, sink, keep_going, schema)
    try:
        opener.run(opener.source(str(path)))
    except BaseException:
        opener.close()
        raise
    return StateFile(str(path), tuple(opener.layers), tuple(opener.closers))


@contextmanager
def unpacked(path: str | Path, *, keep_all: bool = False) -> Iterator[Source]:
    """Give the bytes of a file, unpacked if it is compressed, whatever they are.

    Raises:
        OSError: it can't be opened or read.
        FormatError: its compression is damaged.
    """
    opener = _Opener(keep_all=keep_all)
    try:
        yield opener.unpacked(opener.source(str(path)))
    finally:
        opener.close()


class _Opener:
    """Peels layer after layer; `layers` grows, also when one of them can't be read."""

    def __init__(
        self,
        progress: Progress | None = None,
        snapshot: str | None = None,
        keep_all: bool = False,
        sink: RamSink | None = None,
        keep_going: bool = False,
        schema: Schema | None = None,
    ) -> None:
        self.layers: list[Layer] = []
        self.closers: list[Callable[[], object]] = []
        self._progress = progress
        self._snapshot = snapshot
        self._keep_all = keep_all
        self._sink = sink
        self._keep_going = keep_going
        self._schema = schema

    def close(self) -> None:
        for closer in self.closers:
            closer()

    # -- the file ---------------------------------------------------------------

    def source(self, name: str) -> Source:
        if name == "-":
            return self._of_file(sys.stdin.buffer)
        mode = Path(name).stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        if stat.S_ISCHR(mode) and not name.startswith("/dev/std"):
            raise OSError(errno.EINVAL, "A character device holds no state", name)
        file = Path(name).open("rb")  # noqa: SIM115 (as long as the source)
        self.closers.append(file.close)
        source = self._of_file(file)
        # Whoever holds a content holds its source; the file goes when they are done.
        weakref.finalize(source, file.close)
        return source

    def _of_file(self, file: IO[bytes]) -> FileSource | SpoolSource:
        if file.seekable():
            return FileSource(file)
        spool = SpoolSource(file.read, keep_all=self._keep_all)
        self.closers.append(spool.close)
        return spool

    # -- the layers -------------------------------------------------------------

    def run(self, source: Source) -> None:
        inner: tuple[Source, int] | None = (source, 0)
        while inner is not None:
            source, offset = inner
            try:
                inner = self._peel(source, offset)
            except FormatError as error:
                if not self.layers:
                    raise
                self.layers.append(Layer("unknown", Unreadable(source, offset, error)))
                return
        if self._snapshot is not None and not any(x.kind == "qcow2" for x in self.layers):
            raise WrongFormat(
                f"snapshot {self._snapshot!r}: expected a qcow2 image, found {self.layers[-1].kind}"
            )

    def unpacked(self, source: Source) -> Source:
        """Peel off compressions only."""
        for _ in range(_MAX_LAYERS):
            try:
                kind = detect(source, 0)
            except (WrongFormat, Unsupported):  # the channel of postcopy-preempt has no magic
                return source
            if kind not in COMPRESSIONS:
                return source
            source = self._compressed(kind, source, 0)[0]
        raise Unsupported(f"more than {_MAX_LAYERS} layers")

    def _peel(self, source: Source, offset: int) -> tuple[Source, int] | None:
        """Read one layer; give where the next one lies."""
        kind = detect(source, offset)
        if len(self.layers) >= _MAX_LAYERS:
            raise Unsupported(f"more than {_MAX_LAYERS} layers", offset=offset)
        if kind in COMPRESSIONS:
            return self._compressed(kind, source, offset)
        if kind is FileKind.QCOW2:
            return self._qcow2(source, offset)
        if kind is FileKind.LIBVIRT_SAVE:
            return self._libvirt(source, offset)
        if kind is FileKind.MIGRATION:
            content: Content = read_stream(
                source,
                offset,
                progress=self._progress,
                sink=self._sink,
                keep_going=self._keep_going,
                schema=self._schema,
            )
        elif kind is FileKind.MULTIFD:
            content = _multifd(source, offset)
        else:
            content = _cpr_state(kind, source, offset)
        self.layers.append(Layer(kind.value, content))
        return None

    # Readers of what surrounds a stream are imported when one is met: most files
    # are bare streams, and each import costs a part of the start-up.

    def _compressed(self, kind: FileKind, source: Source, offset: int) -> tuple[Source, int]:
        from cprformats.container.compressed import read_compressed  # noqa: PLC0415

        content = read_compressed(kind, source, offset, keep_all=self._keep_all)
        self.layers.append(Layer(kind.value, content))
        self.closers.append(content.inner.close)
        if self._progress is not None:
            self._progress = _outer_progress(self._progress, content)
        return content.inner, 0

    def _libvirt(self, source: Source, offset: int) -> tuple[Source, int] | None:
        from cprformats.container.libvirt import read_libvirt  # noqa: PLC0415

        save = read_libvirt(source, offset)
        self.layers.append(Layer("libvirt-save", save))
        return None if save.error else (source, save.inner_offset)

    def _qcow2(self, source: Source, offset: int) -> tuple[Source, int] | None:
        from cprformats.container.qcow2 import read_qcow2  # noqa: PLC0415

        if offset:
            raise Unsupported("a qcow2 image inside another file", offset=offset)
        image = read_qcow2(source, self._snapshot)
        self.layers.append(Layer("qcow2", image))
        return None if image.state is None else (image.state, 0)


def _multifd(source: Source, offset: int) -> Content:
    from cprformats.migration.multifd import read_channel  # noqa: PLC0415

    return read_channel(source, offset)


def _cpr_state(kind: FileKind, source: Source, offset: int) -> Content:
    from cprformats.cpr import read_old_state, read_state  # noqa: PLC0415

    return (read_state if kind is FileKind.QCPR else read_old_state)(source, offset)


def _outer_progress(progress: Progress, content: Compressed) -> Progress:
    """Make a progress function that counts what the decompressor has read."""

    def report(_offset: int) -> None:
        progress(content.consumed)

    return report
