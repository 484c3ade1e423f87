"""libvirt save images from named arguments, written apart from the code that reads them."""

from __future__ import annotations

import struct

__all__ = ["XML", "save_image"]

XML = "<domain type='kvm'>\n  <name>guest</name>\n</domain>\n"
MAGIC, PARTIAL = b"LibvirtQemudSave", b"LibvirtQemudPart"


def save_image(
    rest: bytes,
    *,
    xml: str = XML,
    cookie: str = "",
    format: int = 0,
    version: int = 2,
    running: bool = True,
    partial: bool = False,
    order: str = "<",
    size: int | None = None,
    align: int = 64,
) -> bytes:
    """A save image; `align` rounds the header and what belongs to it (libvirt: 64 KiB)."""
    data = xml.encode() + b"\0"
    cookie_offset = len(data) if cookie else 0
    if cookie:
        data += cookie.encode() + b"\0"
    data += bytes(-(92 + len(data)) % align)
    words = (version, len(data) if size is None else size, running, format, cookie_offset)
    head = struct.pack(f"{order}5I", *words) + bytes(56)
    return (PARTIAL if partial else MAGIC) + head + data + rest
