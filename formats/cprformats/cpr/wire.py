"""Numbers of the CPR state file, apart from the logic that reads them.

Source: QEMU include/migration/cpr.h, migration/cpr.c, migration/qemu-file.c
(qemu_file_put_fd), 10.0 to 11.1; the older form: the series "Live Update" of
2022 (V9) and openEuler's QEMU 6.2.
"""

from __future__ import annotations

import construct

__all__ = [
    "FD_BYTE",
    "FILE_HEADER",
    "MAGIC",
    "MAX_ENTRIES",
    "MAX_NAME_BYTES",
    "SUBSECTION",
    "VALUE_ID",
    "VERSION",
    "VFIO_DEVICES",
]

MAGIC = b"QCPR"
VERSION = 1

FILE_HEADER = construct.Struct(
    "magic" / construct.Const(MAGIC),
    "version" / construct.Int32ub,
)

#: Stands for a descriptor that travels beside the data (SCM_RIGHTS): a space.
FD_BYTE = 0x20
#: Type byte in front of a subsection (QEMU_VM_SUBSECTION).
SUBSECTION = 0x05
#: The one subsection that there is, since 10.1.
VFIO_DEVICES = "CprState/vfio devices"
#: In the older form this id says that the number is a value and no descriptor.
VALUE_ID = 0xFFFF

#: QEMU's names are device paths with a suffix: a few dozen bytes.
MAX_NAME_BYTES = 4096
#: An entry takes a kilobyte of memory; QEMU has a few hundred, with many vCPUs and queues
#: a few thousand.
MAX_ENTRIES = 50_000
