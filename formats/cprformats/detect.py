"""Tell what a file is from its first bytes, never from its name.

::

    "QEVM"                          migration stream
    "LibvirtQemudSave" / "...Part"  libvirt save image
    "QFI" fb                        qcow2 (version 1 is the older qcow)
    "QCPR"                          CPR state file
    1f 8b, "BZh", fd "7zXZ", ...    a compression
    (no magic)                      the older CPR state form; LZMA alone

The two without a magic are told by the structure of what they hold, after all others.

Source: QEMU migration/savevm.h, include/migration/cpr.h, migration/multifd.h,
docs/interop/qcow2.rst (11.1); libvirt src/qemu/qemu_saveimage.h; RFC 1952 (gzip),
RFC 8878 (zstd), the xz and lz4 frame format descriptions, lzop's file header.
"""

from __future__ import annotations

from enum import StrEnum

from cprformats.errors import FormatError, Truncated, WrongFormat
from cprformats.source import Source

__all__ = ["COMPRESSIONS", "FileKind", "detect", "is_skippable"]


class FileKind(StrEnum):
    """Kinds of data that this library reads."""

    MIGRATION = "migration"
    LIBVIRT_SAVE = "libvirt-save"
    QCOW2 = "qcow2"
    QCPR = "qcpr"
    OLD_CPR = "cpr-2022"
    MULTIFD = "multifd-channel"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    LZMA = "lzma"
    ZSTD = "zstd"
    LZ4 = "lz4"
    LZOP = "lzop"


COMPRESSIONS = frozenset(
    {
        FileKind.GZIP,
        FileKind.BZIP2,
        FileKind.XZ,
        FileKind.LZMA,
        FileKind.ZSTD,
        FileKind.LZ4,
        FileKind.LZOP,
    }
)

_MAGICS = (
    (b"QEVM", FileKind.MIGRATION),
    (b"LibvirtQemudSave", FileKind.LIBVIRT_SAVE),
    (b"LibvirtQemudPart", FileKind.LIBVIRT_SAVE),
    (b"QFI\xfb", FileKind.QCOW2),
    (b"QCPR", FileKind.QCPR),
    (b"\x11\x22\x33\x44\0\0\0\x01", FileKind.MULTIFD),
    (b"\x1f\x8b", FileKind.GZIP),
    (b"\xfd7zXZ\x00", FileKind.XZ),
    (b"\x28\xb5\x2f\xfd", FileKind.ZSTD),
    (b"\x04\x22\x4d\x18", FileKind.LZ4),
    (b"\x89LZO\x00\r\n\x1a\n", FileKind.LZOP),
)
_BZIP2_BLOCKS = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")

#: What else a file can be, for the message only.
_STRANGERS = (
    (b"\x7fELF", "an ELF file (a program or a core dump)"),
    (b"KDUMP   ", "a kdump file (dump-guest-memory)"),
    (b"MZ", "a PE file (a Windows program)"),
    (b"{", "JSON text"),
    (b"<?xml", "XML text"),
    (b"<domain", "a libvirt domain as XML text"),
    (b"KDMV", "a VMDK image"),
    (b"vhdxfile", "a VHDX image"),
    (b"conectix", "a VHD image"),
    (b"QED\0", "a QED image"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"\x02\x21\x4c\x18", "an lz4 file of the legacy form; decompress it first with lz4 -d"),
    (b"\x1f\x9d", "a file of Unix compress; decompress it first"),
    (b"LUKS\xba\xbe", "a LUKS volume"),
    (b"#!", "a script"),
)
_HEAD_BYTES = 4096


def detect(source: Source, offset: int = 0) -> FileKind:
    """Find the kind of the data that begins at `offset`.

    Raises:
        WrongFormat: none that is read here; the message says what it looks like.
        Unsupported: a part of a migration that can't be read alone.
        Truncated: there is less than a whole magic.
    """
    head = source.read_at(offset, _HEAD_BYTES)
    for magic, kind in _MAGICS:
        if head.startswith(magic):
            return kind
    if head[:3] == b"BZh" and head[4:10] in _BZIP2_BLOCKS:
        return FileKind.BZIP2
    if is_skippable(head):
        return _behind_skippable(source, offset)
    if _looks_like_lzma(head):
        return FileKind.LZMA
    from cprformats.cpr.old import looks_like_old_state  # noqa: PLC0415 (seldom needed)

    if looks_like_old_state(source, offset):
        return FileKind.OLD_CPR
    raise _stranger(head, offset)


def is_skippable(head: bytes) -> bool:
    """Say whether a skippable frame of zstd or lz4 begins with these four bytes."""
    return head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50


def _behind_skippable(source: Source, offset: int) -> FileKind:
    """Zstd and lz4 share their skippable frames: the first real one decides."""
    here = offset
    for _ in range(64):
        head = source.read_at(here, 8)
        if len(head) < 8 or not is_skippable(head):
            break
        here += 8 + int.from_bytes(head[4:8], "little")
    magic = source.read_at(here, 4)
    return FileKind.LZ4 if magic == b"\x04\x22\x4d\x18" else FileKind.ZSTD


def _looks_like_lzma(head: bytes) -> bool:
    """LZMA alone has no magic: its usual properties, a round dictionary, a sane size."""
    if len(head) < 14 or head[0] != 0x5D or head[13] != 0:
        return False
    dictionary = int.from_bytes(head[1:5], "little")
    size = int.from_bytes(head[5:13], "little")
    top = 1 << max(dictionary.bit_length() - 1, 0)
    is_round = dictionary >= 4096 and dictionary in (top, top | top >> 1)
    return is_round and (size == (1 << 64) - 1 or size < 1 << 38)


def _stranger(head: bytes, offset: int) -> FormatError:
    if not head:
        return WrongFormat("expected VM state, found no data", offset=offset)
    if any(magic.startswith(head) for magic, _ in _MAGICS):
        magic = next(magic for magic, _ in _MAGICS if magic.startswith(head))
        return Truncated("magic", len(magic), len(head), offset=offset)
    return WrongFormat(
        "expected VM state (a migration stream, CPR state, libvirt save image or qcow2), "
        f"found {_describe(head)}",
        offset=offset,
    )


def _describe(head: bytes) -> str:
    for magic, name in _STRANGERS:
        if head.startswith(magic):
            return name
    if not head.strip(b"\0"):
        return f"zeros (the first {len(head)} bytes)"
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head[510:512] == b"\x55\xaa":
        return "a raw disk image (boot sector)"
    if _is_text(head):
        return f"text: {head[:24].decode('utf-8', 'replace')!r}"
    return f"unknown bytes {head[:8].hex(' ')}"


def _is_text(head: bytes) -> bool:
    return all(32 <= byte < 127 or byte in (9, 10, 13) for byte in head[:256])
