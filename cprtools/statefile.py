"""Open any file that holds VM state: peel off what it is wrapped in, layer by layer.

A file is a stack of layers, outermost first: ``zstd``, then ``libvirt-save``,
then ``migration``. Each layer's bytes are its own: offsets are absolute in the
data of that layer, and its trees tile just that data. The kind of each is
found from its bytes, never from the file's name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from cprformats.errors import FormatError, WrongFormat
from cprformats.fields import Field, Tally
from cprformats.migration import MigrationStream, read_stream
from cprformats.source import FileSource, Source, SpoolSource

__all__ = ["Content", "Layer", "StateFile", "open"]

Progress = Callable[[int], None]


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
class StateFile:
    """An opened file.

    Attributes:
        name: path, or ``-`` for standard input.
        layers: outermost first; the last holds the state.
    """

    name: str
    layers: tuple[Layer, ...]

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
    def error(self) -> FormatError | None:
        """The first layer's error, if any has one."""
        return next((x.content.error for x in self.layers if x.content.error), None)


def open(path: str | Path, *, progress: Progress | None = None) -> StateFile:
    """Open a file, or standard input for ``-``.

    Raises:
        OSError: it can't be opened or read.
        FormatError: no layer of it is of a kind that we read.
    """
    name = str(path)
    file = sys.stdin.buffer if name == "-" else Path(path).open("rb")  # noqa: SIM115
    source = _source(file)
    return StateFile(name, (Layer("migration", read_stream(source, progress=progress)),))


def _source(file: IO[bytes]) -> Source:
    return FileSource(file) if file.seekable() else SpoolSource(file.read)
