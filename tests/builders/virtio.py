"""The ``virtio`` field of a section from named arguments, apart from the code that reads it.

::

    virtio(pci(vectors=3), features=1 << 5, config=b"...", queues=[queue(256, vector=1)],
           part=net(), tail=subsection("virtio/started", b"\\x01"))
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from builders.migration import subsection

__all__ = [
    "QUEUE_MAX",
    "ccw",
    "element",
    "features64",
    "mmio",
    "mmio_state",
    "modern_state",
    "net",
    "packed_virtqueues",
    "pci",
    "queue",
    "virtio",
    "virtqueues",
]

QUEUE_MAX = 1024


def pci(
    device: int = 0x1041, *, vectors: int = 0, express: bool = False, config_vector: int = 0xFFFF
) -> bytes:
    """What a PCI device sends in front: with MSI-X if there are vectors."""
    config = bytearray(4096 if express else 256)
    struct.pack_into("<HHHH", config, 0, 0x1AF4, device, 7, 0x10 if vectors or express else 0)
    config[0x34] = 0x40 if vectors else 0x60 if express else 0
    if vectors:
        struct.pack_into("<BBH", config, 0x40, 0x11, 0x60 if express else 0, vectors - 1)
    if express:
        struct.pack_into("<BBH", config, 0x60, 0x10, 0, 2)
    data = struct.pack(">I", 2) + bytes(config) + bytes(16)
    if vectors:
        data += bytes(16 * vectors + (vectors + 7) // 8) + struct.pack(">H", config_vector)
    return data


def mmio() -> bytes:
    return struct.pack(">III", 0, 1, 12)


def ccw(devno: int = 1, *, orb: bool = True, summary_offset: bool = True) -> bytes:
    """A whole s390_virtio_ccw_dev; both subsections are in the middle of it."""
    data = struct.pack(">BBHHB", 0xFE, 0, 0, devno, 0)
    data += bytes(28 + 12 + 8 + 4 + 32 + 8 + 8 + 1) + bytes(8 + 62 * 4) + bytes(2)
    if orb:
        data += subsection("s390_subch_dev/orb", bytes(12))
    data += bytes(3 * 12) + struct.pack(">HQ", 0xFFFF, 0)
    if summary_offset:
        data += subsection("s390_adapter_info/summary_offset", bytes(4))
    return data + struct.pack(">Bi", 3, -1)


def queue(
    num: int,
    desc: int = 0,
    last_avail: int = 0,
    *,
    align: int | None = None,
    vector: int | None = None,
) -> bytes:
    """One virtqueue; `align` with MMIO, `vector` with CCW, and PCI that has MSI-X."""
    data = struct.pack(">I", num) + (b"" if align is None else struct.pack(">I", align))
    data += struct.pack(">QH", desc, last_avail)
    return data + (b"" if vector is None else struct.pack(">H", vector))


def virtio(
    transport: bytes,
    *,
    status: int = 0,
    isr: int = 0,
    features: int = 0,
    config: bytes = b"",
    queues: Sequence[bytes] = (),
    part: bytes = b"",
    tail: bytes = b"",
) -> bytes:
    """The whole field."""
    head = struct.pack(">BBHII", status, isr, 0, features & 0xFFFFFFFF, len(config))
    count = struct.pack(">I", len(queues))
    return transport + head + config + count + b"".join(queues) + part + tail


# -- subsections ------------------------------------------------------------------


def features64(value: int) -> bytes:
    return subsection("virtio/64bit_features", struct.pack(">Q", value))


def virtqueues(*addresses: tuple[int, int]) -> bytes:
    rows = b"".join(struct.pack(">QQ", *pair) for pair in addresses)
    return subsection("virtio/virtqueues", rows.ljust(16 * QUEUE_MAX, b"\0"))


def packed_virtqueues() -> bytes:
    row = struct.pack(">HBHBI", 0, 1, 0, 1, 0)
    return subsection("virtio/packed_virtqueues", row * QUEUE_MAX)


def modern_state(low: int = 0, high: int = 0, *, words: tuple[int, int] | None = None) -> bytes:
    """A modern PCI device's extra state with one queue; `words` are features from bit 64 on."""
    row = struct.pack(">HBB6I", 256, 0, 1, 0x1000, 1, 0x2000, 1, 0x3000, 1)
    data = struct.pack(">4I", 0, 0, low, high) + row.ljust(28 * QUEUE_MAX, b"\0")
    if words is not None:
        name = "virtio_pci/modern_state/features128"
        data += subsection(name, struct.pack(">II", *words))
    return subsection("virtio/extra_state", subsection("virtio_pci/modern_state", data))


def mmio_state() -> bytes:
    row = struct.pack(">HB6I", 128, 1, 0x1000, 0, 0x2000, 0, 0x3000, 0)
    data = struct.pack(">II", 0, 1) + row.ljust(27 * QUEUE_MAX, b"\0")
    return subsection("virtio/extra_state", subsection("virtio_mmio/state", data))


# -- parts of devices --------------------------------------------------------------


def net(
    macs: Sequence[bytes] = (),
    *,
    pairs: tuple[int, int] | None = None,
    offloads: int | None = None,
    tail: bytes = b"",
) -> bytes:
    """virtio-net's part; `pairs` are the greatest and the present number of queue pairs."""
    data = b"\x52\x54\0\0\0\1" + struct.pack(">IIHBBI", 0, 1, 1, 0, 0, len(macs)) + b"".join(macs)
    data += bytes(512) + struct.pack(">I", 0) + bytes(7)
    if pairs is not None:
        data += struct.pack(">HH", *pairs) + bytes(4 * max(pairs[1] - 1, 0))
    return data + (b"" if offloads is None else struct.pack(">Q", offloads)) + tail


def element(
    ins: Sequence[tuple[int, int]],
    outs: Sequence[tuple[int, int]],
    *,
    index: int = 7,
    order: str = "<",
    ndescs: int | None = None,
) -> bytes:
    """A request as it lies in the source's memory: buffers are (guest address, length)."""
    data = struct.pack(f"{order}4I", index, len(outs), len(ins), 0)
    for buffers in (ins, outs):
        data += b"".join(struct.pack(f"{order}Q", at) for at, _ in buffers).ljust(8192, b"\0")
    for buffers in (ins, outs):
        data += b"".join(struct.pack(f"{order}QQ", 0, n) for _, n in buffers).ljust(16384, b"\0")
    return (b"" if ndescs is None else struct.pack(">I", ndescs)) + data
