"""Look up what a device's section says, by the device's name."""

from __future__ import annotations

from collections.abc import Iterator

from cprformats.errors import FormatError
from cprformats.fields import Field
from cprformats.migration.model import Section
from cprformats.migration.stream import MigrationStream

__all__ = ["body_of", "bytes_of", "config_space", "device_body", "device_config", "walk"]


def body_of(stream: MigrationStream, section: Section) -> Field | None:
    """Decode the body of a device section; None if nothing of it can be read."""
    try:
        return stream.decode(section)[0].get("body")
    except FormatError:
        return None


def device_body(stream: MigrationStream, *names: str) -> Field | None:
    """Decode the first section whose idstr is one of the names, or ends in ``/NAME``."""
    for section in stream.sections():
        if section.idstr.rpartition("/")[2] in names:
            return body_of(stream, section)
    return None


def bytes_of(stream: MigrationStream, field: Field | None) -> bytes | None:
    """Read the bytes of a decoded field as they lie in the stream."""
    return stream.source.read_at(field.offset, field.size) if field else None


def walk(field: Field) -> Iterator[Field]:
    """Give a field and all that is in it, in file order."""
    yield field
    for child in field.children:
        yield from walk(child)


def config_space(stream: MigrationStream, body: Field | None) -> bytes | None:
    """Find the PCI configuration space in a decoded device: 256 or 4096 bytes."""
    if body is None:
        return None
    found = (field for field in walk(body) if field.type == "pci config" and field.children)
    data = bytes_of(stream, next(found, None))
    return data if data is not None and len(data) >= 0x100 else None


def device_config(stream: MigrationStream, path: str) -> tuple[str, bytes] | None:
    """Give the vmsd's name and configuration space of the PCI device at ``0000:00:02.0``."""
    for section in stream.sections():
        if section.idstr.startswith(f"{path}/") and section.idstr.count("/") == 1:
            data = config_space(stream, body_of(stream, section))
            if data is not None:
                return section.idstr.rpartition("/")[2], data
    return None
