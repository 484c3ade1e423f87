"""Names of the numbers in libvirt's header and in that of qcow2.

Source: libvirt src/qemu/qemu_saveimage.h; QEMU docs/interop/qcow2.rst (11.1).
"""

from __future__ import annotations

from cprformats.container.libvirt import FORMATS
from cprformats.container.qcow2_wire import Compression, CryptMethod, Incompatible
from cprformats.names import Bits, Enum, Table

__all__ = ["TABLES"]

TABLES: tuple[Table, ...] = (
    Enum("libvirt-format", FORMATS),
    Bits(
        "qcow2-incompatible",
        {
            int(flag).bit_length() - 1: (flag.name or "").lower().replace("_", " ")
            for flag in Incompatible
        },
    ),
    Enum("qcow2-crypt", {int(x): x.name.lower() for x in CryptMethod}),
    Enum("qcow2-compression", {int(x): x.name.lower() for x in Compression}),
)
