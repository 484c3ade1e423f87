"""The RAM section of a CPR stream: the list of blocks, and no page.

In the modes cpr-exec and cpr-transfer QEMU hands the memory itself over, and the stream names the
blocks only, so that the loader can compare names and sizes with its own.

Source: QEMU migration/ram.c (ram_save_setup, ram_save_complete, ram_load_precopy), 10.0; all
streams in fixtures/cpr.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cprformats.encode import encode
from cprformats.fields import Field, Kind
from cprformats.migration.wire import RamFlag, SectionType

__all__ = ["RamBlock", "cpr_ram"]

#: Version of the section, the same since 2010.
_VERSION = 4


@dataclass(frozen=True, slots=True)
class RamBlock:
    """A block of guest memory.

    Attributes:
        name: the RAM block's, as QEMU's `info ramblock` shows it.
        size: used length in bytes, whole pages.
    """

    name: str
    size: int


def cpr_ram(blocks: Sequence[RamBlock], section_id: int) -> bytes:
    """Give the section's first and last part."""
    total = sum(block.size for block in blocks)
    leaves = [
        *_part(SectionType.START, section_id),
        ("idstr_len", "u8", 3),
        ("idstr", "bytes", b"ram"),
        ("instance_id", "u32be", 0),
        ("version_id", "u32be", _VERSION),
        ("total", "u64be", total | int(RamFlag.MEM_SIZE)),
    ]
    for block in blocks:
        name = block.name.encode()
        leaves += [("idstr_len", "u8", len(name)), ("idstr", "bytes", name)]
        leaves.append(("used_length", "u64be", block.size))
    eos = ("eos", "u64be", int(RamFlag.EOS))
    footer = _part(SectionType.FOOTER, section_id)
    leaves += [eos, *footer, *_part(SectionType.END, section_id), eos, *footer]
    return b"".join(
        encode(Field(name, "", codec, Kind.RAM_HEAD, 0, 0, value) for name, codec, value in leaves)
    )


def _part(kind: SectionType, section_id: int) -> list[tuple[str, str, int | bytes]]:
    return [("type", "u8", int(kind)), ("section_id", "u32be", section_id)]
