"""Where the debug information of a binary is kept, apart from it.

Source: GDB's manual, "Debugging Information in Separate Files"; the DWARF
extension of dwz (.gnu_debugaltlink: a path, a zero byte, a build id).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cprformats.errors import Damaged
from cprformats.schema.identity import gnu_build_id
from cprformats.schema.sections import read_sections, section_source
from cprformats.source import Source

__all__ = ["AlternateLink", "alternate_link", "build_id_of", "debug_path"]

_HEADER_BYTES: Final = 64
_MAX_LINK_BYTES: Final = 4096
_FOLDER: Final = "usr/lib/debug/.build-id"


@dataclass(frozen=True, slots=True)
class AlternateLink:
    """The file that dwz moved common parts to.

    Attributes:
        path: from the folder of the referring file, where it is relative.
        build_id: in hexadecimal.
    """

    path: str
    build_id: str


def debug_path(build_id: str, root: Path = Path("/")) -> Path:
    """Where a debug package puts the file of a build id (hexadecimal), below a root."""
    return root / _FOLDER / build_id[:2] / f"{build_id[2:]}.debug"


def alternate_link(source: Source) -> AlternateLink | None:
    """The file of dwz that an ELF file refers to, None without one.

    Raises:
        Damaged: the reference has no end.
    """
    data = _section(source, ".gnu_debugaltlink")
    if not data:
        return None
    path, zero, build_id = data.partition(b"\0")
    if not zero:
        raise Damaged("expected a path with an end in .gnu_debugaltlink", path=("DWARF",))
    return AlternateLink(path.decode("utf-8", "surrogateescape"), build_id.hex())


def build_id_of(source: Source) -> str:
    """Build id of a debug file in hexadecimal, "" without one.

    Its segments have no contents, so it is looked up by the name of the section.
    """
    return gnu_build_id(_section(source, ".note.gnu.build-id"))


def _section(source: Source, name: str) -> bytes:
    header = source.read_at(0, _HEADER_BYTES)
    if len(header) < _HEADER_BYTES or header[:6] != b"\x7fELF\x02\x01":
        return b""
    section = read_sections(source, header).get(name)
    return section_source(source, section).read_at(0, _MAX_LINK_BYTES) if section else b""
