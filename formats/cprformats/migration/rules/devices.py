"""Rules for single devices: USB redirection, clipboards, EEPROMs, byte arrays.

Source: QEMU hw/usb/redirect.c (usbredir_put_parser, usbredir_put_bufpq,
usbredir_put_packet_id_q), ui/vdagent.c, hw/nvram/eeprom93xx.c,
hw/nvram/fw_cfg.c, migration/vmstate-types.c; 5.2 to 11.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cprformats.fields import Kind
from cprformats.migration.vmdesc import FieldDesc
from cprformats.reader import Reader

if TYPE_CHECKING:
    from cprformats.migration.device import Decoder

__all__ = ["byte_array", "file_descriptor", "usb_packet_ids", "usb_packets", "usb_parser"]

_PACKET_HEAD_BYTES = 8
_PACKET_ID_BYTES = 8


def byte_array(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """A length and that many bytes (``GByteArray``, since 10.2)."""
    size = reader.number("size", "u32be")
    reader.blob("data", size, kind=Kind.BUFFER)


def file_descriptor(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """A descriptor: its number in mode cpr-exec, else the byte that carries it (``fd``)."""
    if desc.size == 4:
        reader.take("fd", "i32be")
    elif desc.size:
        reader.take("carrier", "u8")


def usb_parser(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """What libusbredirparser made of its own state, in the host's byte order."""
    size = reader.number("size", "u32be")
    reader.blob("state", size, kind=Kind.PAYLOAD)


def usb_packets(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """Packets received for an endpoint and not yet read by the guest."""
    count = reader.number("count", "u32be")
    if count * _PACKET_HEAD_BYTES > desc.size:
        raise reader.mismatch("packets", f"at most {desc.size // _PACKET_HEAD_BYTES}", count)
    for index in range(count):
        with reader.group(f"[{index}]", "packet"):
            size = reader.number("size", "u32be")
            reader.number("status", "u32be")
            reader.blob("data", size, kind=Kind.BUFFER)


def usb_packet_ids(decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
    """Numbers of packets that were cancelled, or are in flight already."""
    count = reader.number("count", "u32be")
    if count * _PACKET_ID_BYTES > desc.size:
        raise reader.mismatch("packet ids", f"at most {desc.size // _PACKET_ID_BYTES}", count)
    if count:
        reader.take("ids", f"u64be[{count}]")
