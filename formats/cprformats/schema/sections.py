"""The sections of an ELF file, also compressed ones, each as a source of its own.

Only debug information needs them: all else is found by segments. pyelftools is
not asked, for it reads a section whole into memory, and a QEMU's may have
hundreds of MB.

Source: the System V ABI, generic part (section headers, Elf64_Chdr); for the
older .zdebug_ sections, GNU binutils (bfd/compress.c).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Final, Protocol, cast

import zstandard

from cprformats.errors import Damaged, Truncated, Unsupported
from cprformats.source import Source, SpoolSource

__all__ = ["Section", "Window", "read_sections", "section_source"]

_HEADER: Final = struct.Struct("<IIQQQQIIQQ")
_MAX_SECTIONS: Final = 4096
_MAX_NAMES_BYTES: Final = 1 << 20
_MAX_NAME_BYTES: Final = 64
_NOBITS: Final = 8
_COMPRESSED: Final = 0x800
_ZLIB, _ZSTD = 1, 2
_CHUNK_BYTES: Final = 1 << 18
_MAX_WINDOW_BYTES: Final = 1 << 27
#: Of one section, unpacked: it goes to a temporary file.
_MAX_UNPACKED_BYTES: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class Section:
    """A section with contents: its place in the file in bytes, and whether it is packed."""

    name: str
    offset: int
    size: int
    packed: bool


class Window:
    """A part of a source as a source."""

    def __init__(self, source: Source, offset: int, size: int) -> None:
        self._source = source
        self._offset = offset
        self._size = size

    @property
    def known_size(self) -> int | None:
        """Size in bytes."""
        return self._size

    def size(self) -> int:
        """Size in bytes."""
        return self._size

    def read_at(self, offset: int, count: int) -> bytes:
        """Give up to `count` bytes from `offset`."""
        count = min(count, self._size - offset)
        return self._source.read_at(self._offset + offset, count) if count > 0 else b""

    def drop(self, offset: int, count: int) -> None:
        """Nothing to do: the source stays as it is."""


def read_sections(source: Source, header: bytes) -> dict[str, Section]:
    """The sections by name; none where their tables are cut off or unreadable.

    Args:
        source: the ELF file.
        header: its first 64 bytes.
    """
    (table,) = struct.unpack_from("<Q", header, 0x28)
    entry_bytes, count, names_index = struct.unpack_from("<HHH", header, 0x3A)
    if entry_bytes != _HEADER.size or not names_index < count <= _MAX_SECTIONS:
        return {}
    if table + count * entry_bytes > source.size():
        return {}
    entries = list(_HEADER.iter_unpack(source.read_at(table, count * entry_bytes)))
    at, size = entries[names_index][4:6]
    if at + size > source.size() or size > _MAX_NAMES_BYTES:
        return {}
    names = source.read_at(at, size)
    found: dict[str, Section] = {}
    for name_at, kind, flags, _, offset, size, *_ in entries:
        if kind != _NOBITS:
            name = _name_at(names, name_at)
            found.setdefault(name, Section(name, offset, size, bool(flags & _COMPRESSED)))
    return found


def _name_at(names: bytes, at: int) -> str:
    end = names.find(b"\0", at, at + _MAX_NAME_BYTES)
    return names[at : max(end, at)].decode("ascii", "replace")


def section_source(source: Source, section: Section) -> Source:
    """The contents of a section, unpacked as they are asked for.

    Raises:
        Truncated: the file ends before the section does.
        Damaged: a packed section has no head.
        Unsupported: it is packed in an unknown way, or too large.
    """
    if section.offset + section.size > source.size():
        raise Truncated(
            f"section {section.name}",
            section.size,
            max(source.size() - section.offset, 0),
            offset=section.offset,
            path=("ELF",),
        )
    window = Window(source, section.offset, section.size)
    if section.name.startswith(".zdebug"):
        head = window.read_at(0, 12)
        size = int.from_bytes(head[4:], "big")
        return _unpacked(section, Window(source, section.offset + 12, section.size - 12), 1, size)
    if not section.packed:
        return window
    head = window.read_at(0, 24)
    if len(head) < 24:
        raise Damaged("a packed section without a head", offset=section.offset, path=("ELF",))
    way, _, size, _ = struct.unpack("<IIQQ", head)
    return _unpacked(section, Window(source, section.offset + 24, section.size - 24), way, size)


def _unpacked(section: Section, packed: Window, way: int, size: int) -> Source:
    if way not in (_ZLIB, _ZSTD) or size > _MAX_UNPACKED_BYTES:
        raise Unsupported(
            f"section {section.name}: expected packing 1 or 2 and at most "
            f"{_MAX_UNPACKED_BYTES} bytes, found {way} and {size}",
            offset=section.offset,
            path=("ELF",),
        )
    opened = _Inflating(packed) if way == _ZLIB else _zstd(packed)
    return SpoolSource(_limited(section, opened.read, size), keep_all=True)


class _Reader(Protocol):
    def read(self, count: int, /) -> bytes: ...


class _Stream:
    """The packed bytes, one after the other."""

    def __init__(self, packed: Window) -> None:
        self._packed = packed
        self._at = 0

    def read(self, count: int = -1) -> bytes:
        data = self._packed.read_at(self._at, _CHUNK_BYTES if count < 0 else count)
        self._at += len(data)
        return data


class _Inflating:
    """zlib, a bounded piece at a time."""

    def __init__(self, packed: Window) -> None:
        self._stream = _Stream(packed)
        self._inflate = zlib.decompressobj()

    def read(self, count: int, /) -> bytes:
        made = b""
        while not made and not self._inflate.eof:
            data = self._inflate.unconsumed_tail or self._stream.read()
            made = self._inflate.decompress(data, count)
            if not data and not made:
                break
        return made


def _zstd(packed: Window) -> _Reader:
    unpack = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    return unpack.stream_reader(cast(IO[bytes], _Stream(packed)))


def _limited(section: Section, read: Callable[[int], bytes], size: int) -> Callable[[int], bytes]:
    """Give the next bytes, in all never more than the head of the section says."""
    left = size

    def limited(count: int) -> bytes:
        nonlocal left
        try:
            data = read(min(count, left)) if left else b""
        except (zlib.error, zstandard.ZstdError) as problem:
            raise Damaged(
                f"section {section.name}: {problem}", offset=section.offset, path=("ELF",)
            ) from None
        left -= len(data)
        return data

    return limited
