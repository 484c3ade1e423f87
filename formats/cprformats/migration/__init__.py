"""The QEMU migration stream: framing, device fields, RAM records."""

from cprformats.migration.model import Command, Configuration, Located, Piece, Section
from cprformats.migration.stream import MigrationStream, read_stream

__all__ = [
    "Command",
    "Configuration",
    "Located",
    "MigrationStream",
    "Piece",
    "Section",
    "read_stream",
]
