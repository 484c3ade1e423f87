"""The migration stream's numbers, apart from the logic that reads them.

Source: QEMU migration/savevm.h and savevm.c (section types, commands),
migration/ram.c and ram.h (RAM flags); 5.2 to 11.1. All integers are
big-endian.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

import construct

__all__ = [
    "COMMANDS",
    "FILE_HEADER",
    "MAGIC",
    "MAPPED_RAM_HEADER",
    "MULTIFD_MAGIC",
    "VERSION",
    "VERSION_COMPAT",
    "MultifdFlag",
    "RamFlag",
    "SectionType",
]

MAGIC = b"QEVM"
VERSION = 3
#: The form of QEMU 0.9 (2008); loaders answered it with an error from 1.0 on.
VERSION_COMPAT = 2

FILE_HEADER = construct.Struct(
    "magic" / construct.Const(MAGIC),
    "version" / construct.Int32ub,
)


class SectionType(IntEnum):
    """The byte in front of each part of the stream (QEMU_VM_*, savevm.h)."""

    EOF = 0x00
    START = 0x01
    PART = 0x02
    END = 0x03
    FULL = 0x04
    SUBSECTION = 0x05
    VMDESCRIPTION = 0x06
    CONFIGURATION = 0x07
    COMMAND = 0x08
    FOOTER = 0x7E


#: qemu_vm_cmd in savevm.c. 8 was sent up to 10.2; 11 is known since 10.0.
COMMANDS = {
    0: "INVALID",
    1: "OPEN_RETURN_PATH",
    2: "PING",
    3: "POSTCOPY_ADVISE",
    4: "POSTCOPY_LISTEN",
    5: "POSTCOPY_RUN",
    6: "POSTCOPY_RAM_DISCARD",
    7: "PACKAGED",
    8: "ENABLE_COLO",
    9: "POSTCOPY_RESUME",
    10: "RECV_BITMAP",
    11: "SWITCHOVER_START",
}


class RamFlag(IntFlag):
    """The low bits of the word in front of each RAM record (RAM_SAVE_FLAG_*)."""

    FULL = 0x001  #: dead since 2009
    ZERO = 0x002  #: a page of one byte's value; loaders take only 0
    MEM_SIZE = 0x004
    PAGE = 0x008
    EOS = 0x010
    CONTINUE = 0x020  #: same block as the record before, no name follows
    XBZRLE = 0x040
    HOOK = 0x080  #: RDMA
    COMPRESS_PAGE = 0x100  #: up to 9.0
    MULTIFD_FLUSH = 0x200  #: since 8.1


#: Since 9.0; in front of each block's bitmap and pages (ram.h, MappedRamHeader).
MAPPED_RAM_HEADER = construct.Struct(
    "version" / construct.Int32ub,
    "page_size" / construct.Int64ub,
    "bitmap_offset" / construct.Int64ub,
    "pages_offset" / construct.Int64ub,
)

#: In front of each multifd channel and packet (multifd.h).
MULTIFD_MAGIC = 0x11223344


class MultifdFlag(IntFlag):
    """The flags of a multifd packet (MULTIFD_FLAG_*): one bit, or none, names the compression."""

    SYNC = 0x01
    ZLIB = 0x02
    ZSTD = 0x04
    QPL = 0x08
    UADK = 0x10
    QATZIP = 0x20
    DEVICE_STATE = 0x40
