"""Debug information of a program that is kept apart from it, as debug packages install it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cprformats.source import FileSource

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["debug_files", "debug_identity"]


def debug_files(named: str | None, build_id: str, root: Path = Path("/")) -> list[Path]:
    """The debug file of a program, then the file of dwz that it refers to, if it does.

    Args:
        named: the file that the user named; None to look where packages put it.
        build_id: of the program, in hexadecimal; "" without one.
        root: the file system below which packages are installed.

    Raises:
        OSError: the file that was named can't be read.
        FormatError: it is damaged.
    """
    from cprformats.schema.debugfiles import debug_path  # noqa: PLC0415 (start-up time)

    if named is not None:
        return [Path(named), *_alternate(Path(named))]
    found = debug_path(build_id, root) if build_id else None
    if found is None or not found.is_file():
        return []
    return [found, *_alternate(found)]


def debug_identity(files: Sequence[Path]) -> list[str]:
    """What tells these files from others, for a cache.

    Raises:
        OSError: a file can't be read.
    """
    known = [(path, path.stat()) for path in files]
    return [f"{path} {one.st_size} {one.st_mtime_ns}" for path, one in known]


def _alternate(debug: Path) -> list[Path]:
    from cprformats.schema.debugfiles import alternate_link  # noqa: PLC0415

    with debug.open("rb") as file:
        link = alternate_link(FileSource(file))
    place = debug.resolve().parent / link.path if link else None
    return [place] if place is not None and place.is_file() else []
