"""What a program says of the modules that it would load: their folder and its stamp.

A module exports a function ``qemu_stamp_HASH``; a program looks for that of its own
build and has the name as a text. The folder was compiled in too.

Source: QEMU include/qemu/module.h (DSO_STAMP_FUN), util/module.c (module_load),
meson.build (CONFIG_QEMU_MODDIR, CONFIG_STAMP).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cprformats.source import Source

__all__ = ["ModuleFacts", "module_facts", "module_stamps"]

_CHUNK_BYTES: Final = 1 << 20
_LONGEST: Final = 300
_STAMP: Final = re.compile(rb"qemu_stamp_[0-9a-f]{8,64}")
_FOLDER: Final = re.compile(rb"(?:/[!-.0-~]+)*/lib[0-9]*(?:/[!-.0-~]+)*/qemu[!-.0-~]{0,40}")
_WORDS: Final = (b"/qemu", b"qemu_stamp_")
_MOST: Final = 64


@dataclass(frozen=True, slots=True)
class ModuleFacts:
    """What a program says of its modules.

    Attributes:
        stamps: names of the function that its modules export; empty where it was
            built without modules.
        folders: absolute folders compiled in, any of which may be that of modules.
    """

    stamps: tuple[str, ...]
    folders: tuple[str, ...]


def module_facts(source: Source) -> ModuleFacts:
    """Find what a program says of its modules, by reading it once from end to end."""
    texts = set(_texts(source))
    stamps = sorted({text.decode() for text in texts if _STAMP.fullmatch(text)})
    folders = sorted({text.decode() for text in texts if _FOLDER.fullmatch(text)})
    return ModuleFacts(tuple(stamps[:_MOST]), tuple(folders[:_MOST]))


def _texts(source: Source) -> Iterator[bytes]:
    """Texts that hold one of the words, from NUL to NUL."""
    size = source.size()
    for start in range(0, size, _CHUNK_BYTES):
        first = max(start - 2 * _LONGEST, 0)
        data = source.read_at(first, start - first + _CHUNK_BYTES)
        for word in _WORDS:
            at = data.find(word)
            while at >= 0:
                begin = data.rfind(b"\0", max(at - _LONGEST, 0), at) + 1
                end = data.find(b"\0", at, at + _LONGEST)
                if begin and end >= 0:
                    yield data[begin:end]
                at = data.find(word, at + len(word))


def module_stamps(source: Source) -> tuple[str, ...]:
    """The stamps that a shared object exports; none for one that is no module of a QEMU.

    Raises:
        FormatError: it is no ELF file, or a damaged one.
    """
    from cprformats.schema.elf import read_elf  # noqa: PLC0415 (pyelftools: 30 ms)
    from cprformats.schema.symbols import exported  # noqa: PLC0415

    names = exported(read_elf(source))
    return tuple(sorted(name for name in names if _STAMP.fullmatch(name.encode())))
