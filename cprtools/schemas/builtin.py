"""Schemas that come with cprtools: of the QEMU releases that its tests know.

Made by fixtures/recipes/schemas.py, which also says where each is from.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from cprtools.schemas.choices import PREFIX, NeedsChoice

__all__ = ["builtin_bytes", "builtin_names"]

#: Beside this module; importlib.resources would take 25 ms to say so.
_FOLDER: Final = Path(__file__).parent / "data"
_SUFFIX: Final = ".json.xz"


def builtin_names() -> list[str]:
    """The releases whose schemas come with cprtools, oldest first."""
    names = [path.name.removesuffix(_SUFFIX) for path in _FOLDER.glob("*" + _SUFFIX)]
    return sorted(names, key=_order)


def _order(name: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", name)]


def builtin_bytes(name: str) -> bytes:
    """The schema file of a release, still compressed.

    Raises:
        NeedsChoice: there is none of that name.
    """
    known = builtin_names()
    if name not in known:
        shown = ", ".join(PREFIX + each for each in known)
        raise NeedsChoice(f"expected one of {shown}, found {PREFIX}{name}", tuple(known))
    return (_FOLDER / (name + _SUFFIX)).read_bytes()
