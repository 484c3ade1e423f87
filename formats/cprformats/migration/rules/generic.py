"""Rules for the types that any device may use.

Source: QEMU migration/vmstate-types.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cprformats.fields import Kind
from cprformats.migration.vmdesc import FieldDesc
from cprformats.reader import Reader

if TYPE_CHECKING:
    from cprformats.migration.device import Decoder

__all__ = ["bitmap", "buffer", "gtree", "inline", "null_marker", "qtailq", "undecided", "unused"]


def buffer(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """A byte array of the device: a FIFO, an NVRAM, a sector."""
    reader.blob("data", desc.size, type="uint8", kind=Kind.BUFFER)


def unused(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """Room of a field that is gone; savers write zeros, loaders skip it."""
    reader.blob("data", desc.size, type="uint8", kind=Kind.PADDING)


def undecided(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """Bytes that more than one reading by a schema fits; see `byschema.trail`."""
    reader.blob("data", desc.size, kind=Kind.RAW)


def bitmap(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """A bitmap in 64-bit words, least significant word first (put_bitmap)."""
    if desc.size % 8:
        raise reader.mismatch("bitmap size", "a multiple of 8", desc.size)
    if desc.size:
        reader.take("words", f"u64be[{desc.size // 8}]")


def inline(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """A description written straight into the field: VMS_VSTRUCT or ``tmp``."""
    for vmsd in desc.inline:
        decoder.vmsd(reader, vmsd)


def qtailq(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """A list: 1 in front of each element, 0 at the end (put_qtailq, put_qlist)."""
    for index, vmsd in enumerate(desc.inline):
        reader.expect(f"more[{index}]", "u8", 1)
        with reader.group(f"[{index}]", vmsd.vmsd_name):
            decoder.vmsd(reader, vmsd)
    reader.expect("end", "u8", 0)


def gtree(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """A tree: its count, then 1, key and value for each node, then 0 (put_gtree).

    A key is described like the value, or is a bare 64-bit number.
    """
    nodes = reader.number("nnodes", "u32be")
    direct_keys = len(desc.inline) == nodes
    parts = iter(desc.inline)
    for index in range(nodes):
        reader.expect(f"more[{index}]", "u8", 1)
        with reader.group(f"[{index}]"):
            if direct_keys:
                reader.number("key", "u64be")
            for name in ("value",) if direct_keys else ("key", "value"):
                vmsd = next(parts, None)
                if vmsd is None:
                    raise reader.damaged(f"no description for the {name} of node {index}")
                with reader.group(name, vmsd.vmsd_name):
                    decoder.vmsd(reader, vmsd)
    reader.expect("end", "u8", 0)


def null_marker(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """The byte in place of, or (since 11.1) in front of, an element: '0' NULL, '1' not."""
    marker = reader.peek(1)
    if marker not in (b"0", b"1"):
        raise reader.mismatch("pointer marker", "30 or 31", marker.hex())
    reader.number("marker", "u8", meaning="pointer-marker")
