"""Requests in flight: virtqueue elements, as virtio-blk and virtio-serial send them.

::

    element  = [ ndescs:be32 if the host offers packed rings ] VirtQueueElementOld
    blk      = { 01 [ queue:be32 if there are several ] element } 00
    serial   = cols:be16 rows:be16 max_nr_ports:be32 ports_map:be32... count:be32 port...
    port     = id:be32 guest_connected:u8 host_connected:u8 popped:be32
               [ iov_idx:be32 iov_offset:be64 element if popped ]

VirtQueueElementOld is the memory of a C structure, in the byte order of the
source host, with room for 1024 buffers each way: ::

    index out_num in_num pad:u32 in_addr:u64[1024] out_addr:u64[1024]
    in_sg:{base len}[1024] out_sg:{base len}[1024]                      49168 bytes

Source: QEMU hw/virtio/virtio.c (VirtQueueElementOld,
qemu_put_virtqueue_element: ndescs stands in front, though the reading side
looks for it behind), hw/block/virtio-blk.c (virtio_blk_save_device),
hw/char/virtio-serial-bus.c (virtio_serial_save_device), 5.2 to 11.1.
"""

from __future__ import annotations

from cprformats.fields import Kind
from cprformats.migration.rules.virtio_table import TableReader
from cprformats.reader import Reader

__all__ = ["ELEMENT_SIZE", "blk_requests", "read_element", "serial_ports"]

ELEMENT_SIZE = 16 + 2 * 8 * 1024 + 2 * 16 * 1024
_MAX_BUFFERS = 1024
#: Half of VIRTIO_QUEUE_MAX.
_MAX_PORTS = 512


def read_element(reader: Reader, *, packed: bool) -> None:
    """Read one element as a group.

    Args:
        reader: stands at its first byte.
        packed: whether the host offers packed rings.

    Raises:
        Truncated: it is cut.
        Damaged: the numbers of buffers cannot be.
    """
    with reader.group("element", "VirtQueueElement"):
        if packed:
            reader.number("ndescs", "u32be")
        reader.require("element", ELEMENT_SIZE)
        order = _host_order(reader)
        reader.number("index", f"u32{order}")
        outs = reader.number("out_num", f"u32{order}")
        ins = reader.number("in_num", f"u32{order}")
        reader.blob("pad", 4, kind=Kind.PADDING)
        for name, used in (("in_addr", ins), ("out_addr", outs)):
            _slots(reader, name, used, 1, order)
        for name, used in (("in_sg", ins), ("out_sg", outs)):
            _slots(reader, name, used, 2, order)


def _host_order(reader: Reader) -> str:
    """Tell the source host's byte order: only one of them gives possible numbers."""
    head = reader.peek(12)
    for order, python in (("le", "little"), ("be", "big")):
        outs, ins = (int.from_bytes(head[at : at + 4], python) for at in (4, 8))  # type: ignore[arg-type]
        if outs <= _MAX_BUFFERS and ins <= _MAX_BUFFERS:
            return order
    raise reader.mismatch("buffers of an element", f"up to {_MAX_BUFFERS}", head[4:].hex(" "))


def _slots(reader: Reader, name: str, used: int, words: int, order: str) -> None:
    """Read one array of the structure; `words` is 2 for pairs of base and length."""
    if used and words == 1:
        reader.take(name, f"u64{order}[{used}]")
    elif used:
        reader.take(name, f"{{u64,u64}}{order}[{used}]", type="iovec")
    if used < _MAX_BUFFERS:
        reader.blob(f"{name}_unused", 8 * words * (_MAX_BUFFERS - used), kind=Kind.PADDING)


def blk_requests(tables: TableReader) -> None:
    """Requests of virtio-blk that wait for a restart."""
    index = 0
    while tables.more(index):
        with tables.reader.group(f"[{index}]", "VirtIOBlockReq"):
            if tables.values["queues"] > 1:
                tables.reader.number("vq_index", "u32be")
            read_element(tables.reader, packed=bool(tables.values["packed"]))
        index += 1


def serial_ports(tables: TableReader) -> None:
    """The ports of virtio-serial; their greatest number follows from that of queues.

    There are two queues for each port and two for control.
    """
    reader = tables.reader
    reader.number("cols", "u16be")
    reader.number("rows", "u16be")
    reader.number("max_nr_ports", "u32be")
    ports = max(tables.values["queues"] // 2 - 1, 0)
    words = (ports + 31) // 32
    if words:
        reader.take("ports_map", f"u32be[{words}]")
    count = reader.number("nr_active_ports", "u32be")
    if count > _MAX_PORTS:
        raise reader.mismatch("nr_active_ports", f"at most {_MAX_PORTS}", count)
    for index in range(count):
        with reader.group(f"port[{index}]", "VirtIOSerialPort"):
            _port(tables)


def _port(tables: TableReader) -> None:
    reader = tables.reader
    reader.number("id", "u32be")
    reader.number("guest_connected", "u8")
    reader.number("host_connected", "u8")
    if reader.number("elem_popped", "u32be"):
        reader.number("iov_idx", "u32be")
        reader.number("iov_offset", "u64be")
        read_element(reader, packed=bool(tables.values["packed"]))
