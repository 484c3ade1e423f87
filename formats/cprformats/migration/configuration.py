"""The CONFIGURATION section: machine type and what both sides must agree on.

::

    configuration = 07 len:be32 machine subsection*
    subsection    = 05 len:u8 "configuration/..." version:be32 contents

It has no section id, no length and no footer. Which subsections follow can
only be seen by peeking: a type byte 05 and a name that begins with the
section's own.

Source: QEMU migration/savevm.c (vmstate_configuration and its subsections:
target-page-bits since 2.8, capabilities since 4.0, uuid since 4.2).
"""

from __future__ import annotations

from cprformats.errors import Unsupported
from cprformats.fields import Kind
from cprformats.migration.model import Configuration
from cprformats.migration.wire import SectionType
from cprformats.reader import Reader

__all__ = ["read_configuration"]

_PREFIX = b"configuration/"
#: Machine types have names of 20 letters; a length of 4 GB is not one.
_MAX_NAME_BYTES = 4096
#: QEMU 11.1 has 27 capabilities, two of which are ever listed.
_MAX_CAPABILITIES = 256


def read_configuration(reader: Reader) -> Configuration:
    """Read the section at the reader's place as one group.

    Raises:
        Truncated: it is cut.
        Damaged: lengths or counts that no QEMU writes.
        Unsupported: a subsection of a name that QEMU 5.2 to 11.1 doesn't have.
    """
    bits: int | None = None
    capabilities: tuple[str, ...] = ()
    uuid: str | None = None
    with reader.group("configuration", "configuration", Kind.CONFIGURATION):
        reader.number("type", "u8", meaning="section-type")
        size = reader.number("name_len", "u32be")
        if size > _MAX_NAME_BYTES:
            raise reader.mismatch("name_len", f"at most {_MAX_NAME_BYTES}", size)
        machine = reader.text("name", size)
        while _subsection_here(reader):
            size = reader.peek(1, 1)[0]
            name = reader.peek(size, 2).decode("utf-8", "surrogateescape")
            with reader.group(name, name):
                _subsection_head(reader)
                if name == "configuration/target-page-bits":
                    bits = reader.number("target_page_bits", "u32be")
                elif name == "configuration/capabilities":
                    capabilities = _capabilities(reader)
                elif name == "configuration/uuid":
                    uuid = str(reader.take("uuid", "uuid"))
                else:
                    raise reader.error(Unsupported, f"unknown subsection {name!r}")
    return Configuration(machine, bits, capabilities, uuid)


def _subsection_here(reader: Reader) -> bool:
    if reader.peek(1) != bytes([SectionType.SUBSECTION]):
        return False
    return reader.peek(len(_PREFIX), 2) == _PREFIX


def _subsection_head(reader: Reader) -> None:
    with reader.group("head", "subsection", Kind.SUBSECTION_HEAD):
        reader.number("type", "u8", meaning="section-type")
        reader.counted_text("idstr")
        reader.number("version", "u32be")


def _capabilities(reader: Reader) -> tuple[str, ...]:
    count = reader.number("caps_count", "u32be")
    if count > _MAX_CAPABILITIES:
        raise reader.mismatch("caps_count", f"at most {_MAX_CAPABILITIES}", count)
    return tuple(reader.counted_text(f"capability[{index}]") for index in range(count))
