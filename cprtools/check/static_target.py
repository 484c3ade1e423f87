"""What the target's file says without being run: machine types, release, schema.

QEMU's machine types are classes of the name ``TYPE-machine``, a literal in the program.
Aliases are not literals: they are measured (`static_facts`), or the newest type of a family.
"""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cprformats.schema.model import Schema
from cprtools.check.model import Target
from cprtools.schemas.choices import PREFIX, Options
from cprtools.schemas.opening import open_with

__all__ = ["TargetFile", "elf_of"]

_MACHINE = re.compile(rb"[A-Za-z0-9][A-Za-z0-9_.+-]{0,60}$")
_SUFFIX = b"-machine\0"
_BEFORE = 64
_NUMBERED = re.compile(r"(?:pc-i440fx|pc-q35|virt)-(\d+)\.(\d+)$")
_SCRIPT_BYTES = 1 << 16


@dataclass(frozen=True)
class TargetFile:
    """The file that a target runs.

    Attributes:
        path: of the ELF file, or the schema.
    """

    path: str

    @property
    def schema(self) -> Schema:
        """Its state descriptions.

        Raises:
            OSError, FormatError: as `open_with`.
        """
        return _schema(self.path)

    @property
    def machines(self) -> frozenset[str]:
        """Names of its machine types; none where the file does not tell."""
        return _machines(self.path)

    @property
    def release(self) -> str:
        """``major.minor`` of QEMU, by its newest machine type; "" where that is not known."""
        if self.path.startswith(PREFIX):
            return self.path.removeprefix(PREFIX)
        numbers = [
            tuple(map(int, found.groups()))
            for found in map(_NUMBERED.match, self.machines)
            if found
        ]
        return "{}.{}".format(*max(numbers)) if numbers else ""

    def says(self, text: bytes) -> bool:
        """Say whether the program has a text."""
        return _says(self.path, text)


def elf_of(target: Target) -> str:
    """Give the path of what the target runs; a wrapper that names a QEMU program is read.

    Raises:
        OSError: it can't be read.
    """
    path = target.elf or target.program
    if str(path).startswith(PREFIX) or path.is_dir():
        return str(path)
    with path.open("rb") as file:
        head = file.read(_SCRIPT_BYTES)
    if not head.startswith(b"#!"):
        return str(path)
    for word in re.findall(rb"/[^\s\"']*qemu-[^\s\"']*", head):
        named = Path(word.decode(errors="surrogateescape"))
        if named.is_file() and named != path:
            with named.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    return str(named)
    return str(path)


@lru_cache(maxsize=8)
def _schema(path: str) -> Schema:
    return open_with(path, (), Options())


@lru_cache(maxsize=8)
def _machines(path: str) -> frozenset[str]:
    with _mapped(path) as data:
        names, at = set[str](), data.find(_SUFFIX)
        while at >= 0:
            found = _MACHINE.search(data[max(at - _BEFORE, 0) : at])
            if found is not None:
                names.add(found[0].decode())
            at = data.find(_SUFFIX, at + 1)
        return frozenset(names)


@lru_cache(maxsize=64)
def _says(path: str, text: bytes) -> bool:
    with _mapped(path) as data:
        return data.find(text) >= 0


def _mapped(path: str) -> mmap.mmap:
    """Map a file; something empty for what is no ELF file."""
    with (
        Path(path).open("rb")
        if not path.startswith(PREFIX)
        else Path("/dev/null").open("rb") as file
    ):
        if file.read(4) != b"\x7fELF":
            return mmap.mmap(-1, 1)
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
