"""What reading a migration stream gives: frozen values with their places.

Offsets are absolute in the data of the layer that holds the stream, in bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cprformats.fields import Field
from cprformats.migration.commands import read_command
from cprformats.migration.vmdesc import DeviceDesc
from cprformats.migration.wire import SectionType
from cprformats.reader import Reader
from cprformats.source import Source

__all__ = ["Command", "Configuration", "Item", "Located", "Piece", "Section"]


class Located(StrEnum):
    """How the end of a section's body was found."""

    VMDESC = "vmdesc"
    #: A description of the binary's schema leads to a place where a section can end.
    SCHEMA = "schema"
    #: The handler's own format says where it ends (ram, dirty-bitmap, vfio ...).
    ITSELF = "itself"
    FOOTER = "footer"
    #: The stream breaks inside: the body goes as far as it was read.
    CUT = "cut"
    #: The section has a length of its own: streams of version 2.
    RECORD = "record"
    #: Nothing told: no description, no footer; the rest of the stream is in it.
    REST = "rest"


@dataclass(frozen=True, slots=True)
class Configuration:
    """The CONFIGURATION section.

    Attributes:
        machine: machine type name, as sent (``pc-q35-7.2``).
        target_page_bits: log2 of the target page size, if it was sent.
        capabilities: names of the capabilities that both sides must have.
        uuid: the VM's UUID, if it was sent.
    """

    machine: str
    target_page_bits: int | None = None
    capabilities: tuple[str, ...] = ()
    uuid: str | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """One START, PART, END or FULL section.

    Attributes:
        type: which of the four.
        section_id: number that ties PART and END to their START.
        idstr: name of the device or handler, from START for PART and END.
        instance_id: tells equal idstrs apart.
        version: the handler's version.
        offset: of the section's type byte.
        head_size: type byte to the version, in bytes.
        body_size: in bytes.
        footer_size: 5, or 0 where the stream has no footers.
        located: how the body's end was found.
        description: the vmdesc's entry for it, if there is one.
    """

    type: SectionType
    section_id: int
    idstr: str
    instance_id: int
    version: int
    offset: int
    head_size: int
    body_size: int
    footer_size: int
    located: Located
    description: DeviceDesc | None = None

    @property
    def body_offset(self) -> int:
        """Offset of the first byte of the body."""
        return self.offset + self.head_size

    @property
    def body_end(self) -> int:
        """Offset behind the last byte of the body."""
        return self.body_offset + self.body_size

    @property
    def end(self) -> int:
        """Offset behind the section and its footer."""
        return self.body_end + self.footer_size

    @property
    def holds_ram(self) -> bool:
        """Say whether the body is RAM records (of version 2 they are not read)."""
        return self.idstr == "ram" and self.located is not Located.RECORD

    @property
    def name(self) -> str:
        """The section's name for people: idstr, and the instance where it is not 0."""
        return f"{self.idstr}/{self.instance_id}" if self.instance_id else self.idstr


@dataclass(frozen=True, slots=True)
class Command:
    """One COMMAND section.

    Attributes:
        number: the command.
        name: QEMU's name of it, or ``UNKNOWN``.
        offset: of the type byte.
        size: in bytes, with an embedded stream.
        source: the bytes; there may be many commands, so they are decoded when asked for.
        inner: for PACKAGED, what the embedded stream holds.
    """

    number: int
    name: str
    offset: int
    size: int
    source: Source
    inner: Sequence[Item] = ()

    @property
    def field(self) -> Field:
        """The command decoded; for PACKAGED only its head."""
        reader = Reader(self.source, self.offset, self.offset + self.size)
        read_command(reader)
        return reader.finish("command").children[0]


@dataclass(frozen=True, slots=True)
class Piece:
    """A small part that was decoded at once: header, configuration, EOF, vmdesc, padding.

    Attributes:
        name: which part it is.
        field: the part decoded.
    """

    name: str
    field: Field


Item = Section | Command | Piece
