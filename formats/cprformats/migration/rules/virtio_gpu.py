"""virtio-gpu: the resources and scanouts behind the ``virtio`` field.

::

    virtio-gpu = { resource } 0:be32 enable:be32 max_outputs:be32 scanout...
    resource   = id:be32 width:be32 height:be32 format:be32 iov_cnt:be32 iov... pixels
    iov        = address:be64 length:be32
    blob       = { id:be32 size:be32 iov_cnt:be32 iov... } 0:be32

Pixels are 4 bytes each in every format that 2D mode has. A scanout has 40
bytes; with machine types from 9.0 on, 64 with the framebuffer's layout.

Source: QEMU hw/display/virtio-gpu.c (virtio_gpu_save, virtio_gpu_blob_save,
vmstate_virtio_gpu_scanout), 5.2 to 11.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cprformats.errors import Unsupported
from cprformats.fields import Kind
from cprformats.migration.rules.virtio_table import MAX_ELEMENTS
from cprformats.migration.vmdesc import FieldDesc
from cprformats.reader import Reader

if TYPE_CHECKING:
    from cprformats.migration.device import Decoder

__all__ = ["blob", "resources"]

_SCANOUT = (
    ("resource_id", "u32be"),
    ("width", "u32be"),
    ("height", "u32be"),
    ("x", "i32be"),
    ("y", "i32be"),
    ("cursor.resource_id", "u32be"),
    ("cursor.hot_x", "u32be"),
    ("cursor.hot_y", "u32be"),
    ("cursor.pos.x", "u32be"),
    ("cursor.pos.y", "u32be"),
)
_FRAMEBUFFER = (
    ("fb.format", "u32be"),
    ("unused", "u32be"),
    ("fb.width", "u32be"),
    ("fb.height", "u32be"),
    ("fb.stride", "u32be"),
    ("fb.offset", "u32be"),
)
_SHORT, _LONG = 40, 64


def resources(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """2D resources with their contents, then the scanouts (``virtio-gpu``)."""
    end = reader.offset + desc.size
    index = 0
    while _more(reader, index):
        with reader.group(f"resource[{index}]", "virtio_gpu_simple_resource"):
            reader.number("resource_id", "u32be")
            width = reader.number("width", "u32be")
            height = reader.number("height", "u32be")
            reader.number("format", "u32be", meaning="virtio-gpu-format")
            _iov(reader)
            reader.blob("pixels", 4 * width * height, kind=Kind.BUFFER)
        index += 1
    reader.number("end", "u32be")
    with reader.group("scanouts", "virtio-gpu-scanouts"):
        _scanouts(reader, end)


def _more(reader: Reader, index: int) -> bool:
    """Say whether a resource follows; their list ends with the id 0."""
    if index > MAX_ELEMENTS:
        raise reader.error(Unsupported, f"more than {MAX_ELEMENTS} resources")
    ahead = reader.peek(4)
    if len(ahead) < 4:
        raise reader.truncated("resource_id", 4, len(ahead))
    return ahead != b"\0\0\0\0"


def _iov(reader: Reader) -> None:
    count = reader.number("iov_cnt", "u32be")
    reader.require("iov", 12 * count)
    if count:
        reader.take("iov", f"{{u64,u32}}be[{count}]", type="address, length")


def _scanouts(reader: Reader, end: int) -> None:
    reader.number("enable", "i32be")
    count = reader.number("max_outputs", "u32be")
    left = end - reader.offset
    if left not in (_SHORT * count, _LONG * count):
        raise reader.mismatch("scanouts", f"{_SHORT} or {_LONG} bytes each", f"{left} for {count}")
    for index in range(count):
        with reader.group(f"scanout[{index}]", "virtio-gpu-one-scanout"):
            for name, how in _SCANOUT:
                reader.number(name, how)
            for name, how in _FRAMEBUFFER if left == _LONG * count else ():
                kind = Kind.PADDING if name == "unused" else None
                reader.number(name, how, kind=kind)


def blob(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """Blob resources: where they lie in guest memory (``blob``, since 9.0)."""
    index = 0
    while _more(reader, index):
        with reader.group(f"blob[{index}]", "virtio_gpu_simple_resource"):
            reader.number("resource_id", "u32be")
            reader.number("blob_size", "u32be")
            _iov(reader)
        index += 1
    reader.number("end", "u32be")
