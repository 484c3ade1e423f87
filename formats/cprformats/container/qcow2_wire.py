"""Numbers of the qcow2 format, apart from the logic that reads them. All are big-endian.

Source: QEMU docs/interop/qcow2.rst (11.1); the limits: block/qcow2.h (QCOW_MAX_*).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

import construct

__all__ = [
    "BITMAPS_CONTENTS",
    "BITMAPS_EXTENSION",
    "BITMAP_ENTRY",
    "COMPRESSED",
    "ENCRYPTION_EXTENSION",
    "EXTENSIONS",
    "HEADER_V2",
    "HEADER_V3",
    "MAGIC",
    "MAX_CLUSTER_BITS",
    "MAX_L1_BYTES",
    "MAX_REFCOUNT_TABLE_BYTES",
    "MAX_SNAPSHOTS",
    "MAX_SNAPSHOT_EXTRA_BYTES",
    "MAX_SNAPSHOT_TABLE_BYTES",
    "MIN_CLUSTER_BITS",
    "OFFSET_MASK",
    "SNAPSHOT_ENTRY",
    "ZERO",
    "Compression",
    "CryptMethod",
    "Incompatible",
]

MAGIC = b"QFI\xfb"
MIN_CLUSTER_BITS, MAX_CLUSTER_BITS = 9, 21

MAX_L1_BYTES = 32 << 20
MAX_REFCOUNT_TABLE_BYTES = 8 << 20
MAX_SNAPSHOTS = 65536
MAX_SNAPSHOT_EXTRA_BYTES = 1024
MAX_SNAPSHOT_TABLE_BYTES = MAX_SNAPSHOTS * 1024

#: Bits of an L1 or L2 entry, and of a refcount table entry, that are an offset.
OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
COMPRESSED = 1 << 62
#: In an L2 entry without subclusters: reads as zeros, whatever the offset.
ZERO = 1


class Incompatible(IntFlag):
    """Features that a reader must know."""

    DIRTY = 1
    CORRUPT = 2
    DATA_FILE = 4
    COMPRESSION = 8
    EXTENDED_L2 = 16


class CryptMethod(IntEnum):
    """How clusters are encrypted."""

    NONE = 0
    AES = 1
    LUKS = 2


class Compression(IntEnum):
    """How compressed clusters are packed."""

    ZLIB = 0
    ZSTD = 1


HEADER_V2 = construct.Struct(
    "magic" / construct.Const(MAGIC),
    "version" / construct.Int32ub,
    "backing_file_offset" / construct.Int64ub,
    "backing_file_size" / construct.Int32ub,
    "cluster_bits" / construct.Int32ub,
    "size" / construct.Int64ub,
    "crypt_method" / construct.Int32ub,
    "l1_size" / construct.Int32ub,
    "l1_table_offset" / construct.Int64ub,
    "refcount_table_offset" / construct.Int64ub,
    "refcount_table_clusters" / construct.Int32ub,
    "nb_snapshots" / construct.Int32ub,
    "snapshots_offset" / construct.Int64ub,
)

#: What version 3 has behind the header of version 2.
HEADER_V3 = construct.Struct(
    "incompatible_features" / construct.Int64ub,
    "compatible_features" / construct.Int64ub,
    "autoclear_features" / construct.Int64ub,
    "refcount_order" / construct.Int32ub,
    "header_length" / construct.Int32ub,
)

BITMAPS_EXTENSION = 0x23852875
ENCRYPTION_EXTENSION = 0x0537BE77
EXTENSIONS = {
    0: "end",
    0xE2792ACA: "backing file format",
    0x6803F857: "feature name table",
    BITMAPS_EXTENSION: "bitmaps",
    ENCRYPTION_EXTENSION: "full disk encryption",
    0x44415441: "external data file",
}

#: Behind it: extra data, id, name, padding to 8 bytes.
SNAPSHOT_ENTRY = construct.Struct(
    "l1_table_offset" / construct.Int64ub,
    "l1_size" / construct.Int32ub,
    "id_str_size" / construct.Int16ub,
    "name_size" / construct.Int16ub,
    "date_sec" / construct.Int32ub,
    "date_nsec" / construct.Int32ub,
    "vm_clock_nsec" / construct.Int64ub,
    "vm_state_size" / construct.Int32ub,
    "extra_data_size" / construct.Int32ub,
)

#: Contents of the extension that names the bitmap directory.
BITMAPS_CONTENTS = construct.Struct(
    "nb_bitmaps" / construct.Int32ub,
    "reserved" / construct.Int32ub,
    "bitmap_directory_size" / construct.Int64ub,
    "bitmap_directory_offset" / construct.Int64ub,
)

#: Behind it: extra data, name, padding to 8 bytes.
BITMAP_ENTRY = construct.Struct(
    "bitmap_table_offset" / construct.Int64ub,
    "bitmap_table_size" / construct.Int32ub,
    "flags" / construct.Int32ub,
    "type" / construct.Int8ub,
    "granularity_bits" / construct.Int8ub,
    "name_size" / construct.Int16ub,
    "extra_data_size" / construct.Int32ub,
)
