"""A folder as a QEMU: an unpacked package, an installation. Its program is found in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cprtools.schemas.choices import NeedsChoice, NoProgram

__all__ = ["program_in"]

_ELF: Final = b"\x7fELF"
_USUAL: Final = ("bin", "libexec", "usr/bin", "usr/libexec", "usr/local/bin")
_MAX_DEPTH: Final = 6
_MAX_FILES: Final = 20_000
_MAX_SHOWN: Final = 40
#: RHEL's program for its one target has no target in its name.
_NAMES: Final = ("qemu-system-", "qemu-kvm")


def program_in(folder: Path) -> Path:
    """The one QEMU program in a folder: where programs are installed, or else anywhere below.

    Raises:
        NoProgram: there is none.
        NeedsChoice: there are several, or far too many files.
        OSError: the folder can't be read.
    """
    places = [folder, *(one for one in map(folder.joinpath, _USUAL) if not one.is_symlink())]
    usual = [place for place in places if place.is_dir()]
    found = sorted(path for place in usual for path in _programs(_files(place, 0)))
    found = found or sorted(_programs(_files(folder, _MAX_DEPTH)))
    if not found:
        raise NoProgram("expected a program qemu-system-... in this folder, found none")
    if len(found) > 1:
        names = tuple(map(str, found))
        shown = ", ".join(names[:_MAX_SHOWN]) + (", ..." if len(names) > _MAX_SHOWN else "")
        raise NeedsChoice(f"expected one program in this folder, name one of: {shown}", names)
    return found[0]


def _programs(files: Iterator[Path]) -> Iterator[Path]:
    """ELF files that are named like a QEMU; links are not followed."""
    for number, path in enumerate(files):
        if number >= _MAX_FILES:
            raise NeedsChoice(
                f"expected at most {_MAX_FILES} files in this folder, found more: "
                "name the program in it",
                (),
            )
        if path.name.startswith(_NAMES) and _is_elf(path):
            yield path


def _files(folder: Path, depth: int) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        yield Path(entry.path)
        if depth and entry.is_dir(follow_symlinks=False):
            try:
                yield from _files(Path(entry.path), depth - 1)
            except PermissionError:
                continue


def _is_elf(path: Path) -> bool:
    try:
        if path.is_symlink() or not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(4) == _ELF
    except OSError:
        return False
