"""The loadable modules of a program, found where QEMU itself would look for them.

Source: QEMU util/module.c (module_load) for the order of the folders, util/cutils.c
(get_relocated_path): a folder below the prefix is moved along with the program.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from cprformats.errors import FormatError
from cprformats.schema.stamps import ModuleFacts, module_stamps
from cprformats.source import FileSource

__all__ = ["candidates", "module_folders", "taken"]

_LIB: Final = re.compile(r"/(lib[0-9]*/.*)")
#: Where distributions have them, for a program whose own folder is none of them.
_USUAL: Final = ("lib/qemu", "lib64/qemu", "lib64/qemu-kvm", "lib/*-linux-gnu*/qemu")
#: A module that is taken for one of another build must be one, and QEMU has some 100.
_MAX_MODULES: Final = 250


def module_folders(
    program: Path, facts: ModuleFacts, environment: Mapping[str, str] = os.environ
) -> list[Path]:
    """Folders that can hold the modules of a program, in QEMU's order; all exist.

    Args:
        program: the ELF file.
        facts: what it says of its modules.
        environment: for QEMU_MODULE_DIR.
    """
    if not facts.stamps:
        return []
    named = environment.get("QEMU_MODULE_DIR")
    folders = [Path(named)] if named else []
    folders += _beside(program.resolve().parent, facts.folders)
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _beside(folder: Path, compiled_in: Iterable[str]) -> Iterator[Path]:
    """Folders that lie to the program's as those compiled in lie to PREFIX/bin."""
    for text in compiled_in:
        below_prefix = _LIB.search(text)
        if below_prefix:
            yield folder.parent / below_prefix[1]
        yield folder / "qemu-bundle" / text.lstrip("/")  # where it was built, before `make install`
    for pattern in _USUAL:
        yield from sorted(folder.parent.glob(pattern))


def candidates(folders: Iterable[Path]) -> list[Path]:
    """The shared objects in the folders; of two with one name, that of the earlier folder."""
    found: dict[str, Path] = {}
    for folder in folders:
        try:
            listed = sorted(folder.glob("*.so"))
        except OSError:
            continue
        for path in listed:
            if path.is_file():
                found.setdefault(path.name, path)
    return list(found.values())[:_MAX_MODULES]


def taken(found: Sequence[Path], stamps: Iterable[str]) -> tuple[list[Path], dict[str, str]]:
    """Sort candidates.

    Args:
        found: shared objects.
        stamps: of the program.

    Returns:
        The modules of the program's build; and why others were left out, by file
        name. What is no module of any QEMU is in neither.
    """
    ours = set(stamps)
    modules, others = [], {}
    for path in found:
        try:
            with path.open("rb") as file:
                theirs = module_stamps(FileSource(file))
        except (FormatError, OSError) as problem:
            others[path.name] = f"can't be read: {problem}"
            continue
        if ours.intersection(theirs):
            modules.append(path)
        elif theirs:
            others[path.name] = "of another build"
    return modules, others
