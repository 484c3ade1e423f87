"""The first page: what kind of file it is, which VM is in it, what it holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cprformats.errors import FormatError
from cprformats.migration import MigrationStream
from cprformats.migration.model import Command, Configuration, Item
from cprformats.migration.ramstats import BlockStats
from cprtools.files import file_size
from cprtools.inspector.devices import DeviceRow, device_rows
from cprtools.statefile import Content, Layer, StateFile

__all__ = ["CommandRow", "LayerSummary", "StreamSummary", "Summary", "summarize"]


@dataclass(frozen=True, slots=True)
class CommandRow:
    """A COMMAND section.

    Attributes:
        name: QEMU's name of it.
        offset: absolute, in bytes.
    """

    name: str
    offset: int


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """What a migration stream says of itself and of the VM.

    Attributes:
        version: of the stream's format.
        configuration: machine type and what both sides must agree on, if sent.
        page_size: target page size in bytes.
        footers: whether sections end in footers; None without any section.
        has_vmdesc: whether a description of the devices stands at the end.
        commands: in file order, those of embedded streams too.
        ram: RAM blocks in the order of the block list.
        devices: the device table.
    """

    version: int
    configuration: Configuration | None
    page_size: int
    footers: bool | None
    has_vmdesc: bool
    commands: tuple[CommandRow, ...]
    ram: tuple[BlockStats, ...]
    devices: tuple[DeviceRow, ...]

    @property
    def ram_bytes(self) -> int:
        """Guest RAM of all blocks, in bytes."""
        return sum(stats.block.used_length for stats in self.ram)


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """One layer.

    Attributes:
        kind: as in `cprtools.Layer`.
        size: bytes of its data, where they are known without decoding.
        content: the layer itself.
        stream: more of it, for a migration stream.
        warnings: oddities that don't stop a reader.
        error: what ended the reading early, if something did.
    """

    kind: str
    size: int | None
    content: Content
    stream: StreamSummary | None
    warnings: tuple[str, ...]
    error: FormatError | None


@dataclass(frozen=True, slots=True)
class Summary:
    """The first page.

    Attributes:
        name: path, or ``-``.
        size: of the file in bytes; None for a pipe.
        layers: outermost first.
    """

    name: str
    size: int | None
    layers: tuple[LayerSummary, ...]


def summarize(state: StateFile) -> Summary:
    """Summarize an opened file; nothing is decoded for it."""
    return Summary(state.name, file_size(state.name), tuple(map(_layer, state.layers)))


def _layer(layer: Layer) -> LayerSummary:
    content = layer.content
    stream = _stream(content) if isinstance(content, MigrationStream) else None
    return LayerSummary(
        layer.kind, _size(content), content, stream, content.warnings, content.error
    )


def _size(content: Content) -> int | None:
    if not isinstance(content, MigrationStream):
        return None
    known = content.source.known_size
    if content.error is not None and known is not None:
        return known - content.offset
    return content.end - content.offset


def _stream(stream: MigrationStream) -> StreamSummary:
    return StreamSummary(
        stream.version,
        stream.configuration,
        stream.page_size,
        stream.footers,
        stream.vmdesc is not None,
        tuple(_commands(stream.items)),
        stream.ram.per_block,
        tuple(device_rows(stream.sections())),
    )


def _commands(items: Sequence[Item]) -> Iterator[CommandRow]:
    for item in items:
        if isinstance(item, Command):
            yield CommandRow(item.name, item.offset)
            yield from _commands(item.inner)
