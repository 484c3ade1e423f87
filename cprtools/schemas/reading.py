"""A schema out of ELF files: from the cache where these builds were read before.

Two kinds of entries are kept: what a program says of its modules, by the
program's build, and the schema, by the builds of program and modules. A hit reads
a few pages of each file and never the program from end to end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

import cprformats.schema
from cprformats.errors import FormatError
from cprformats.schema.document import read_document
from cprformats.schema.identity import build_id
from cprformats.schema.model import Schema
from cprformats.schema.publish import write_document
from cprformats.schema.stamps import ModuleFacts, module_facts
from cprformats.source import FileSource
from cprtools.schemas.cache import Cache
from cprtools.schemas.debug import debug_files, debug_identity
from cprtools.schemas.modules import candidates, module_folders, taken

__all__ = ["Wanted", "read_files"]

#: Changes when entries of older cprtools can't be used any more.
_FORMAT: Final = "1"
_HEAD_BYTES: Final = 4096
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be read.

    Attributes:
        program: an ELF file.
        modules: those that were named.
        find_modules: look for modules where none were named.
        debug: the file with the program's debug information; None to look for one.
    """

    program: Path
    modules: tuple[Path, ...] = ()
    find_modules: bool = True
    debug: str | None = None


def read_files(wanted: Wanted, kept: Cache) -> Schema:
    """Read a program and its modules, or what was kept of them.

    Args:
        wanted: which.
        kept: what earlier calls have read.

    Raises:
        FormatError: the program, a module or a debug file that was named can't be read.
        OSError: a file can't be opened.
    """
    program, modules = wanted.program, wanted.modules
    identity = _identity(program)
    found = [] if modules or not wanted.find_modules else _candidates(program, identity, kept)
    files = [program, *modules, *found]
    parts = [f"{path.name} {_identity(path)}" for path in files]
    debug = debug_files(wanted.debug, _build_id(program))
    name = _key("schema", f"{len(modules)}", *parts, *debug_identity(debug))
    schema = _kept_schema(kept.get(name))
    if schema is None:
        try:
            schema = _read(program, modules, found, _Known(identity, tuple(debug)), kept)
        except FormatError:
            if wanted.debug is not None or not debug:
                raise
            # Nobody named it: without it the layouts are found by structure.
            schema = _read(program, modules, found, _Known(identity), kept)
        kept.put(name, write_document(schema))
    return schema


@dataclass(frozen=True, slots=True)
class _Known:
    """The program's identity, and the files with its debug information."""

    identity: str
    debug: tuple[Path, ...] = ()


def _kept_schema(body: bytes | None) -> Schema | None:
    if body is None:
        return None
    try:
        return read_document(body)
    except FormatError:
        return None


# -- which build -----------------------------------------------------------------


def _identity(path: Path) -> str:
    """What tells a file from others: its build id with its size, or the sum of all its bytes.

    The size too: stripping a file, or adding debug information, leaves its build id.
    """
    with path.open("rb") as file:
        source = FileSource(file)
        found = build_id(source)
        if found:
            head = hashlib.sha256(source.read_at(0, _HEAD_BYTES)).hexdigest()[:16]
            return f"{found} {source.size()} {head}"
        whole = hashlib.sha256()
        for start in range(0, source.size(), _CHUNK_BYTES):
            whole.update(source.read_at(start, _CHUNK_BYTES))
        return whole.hexdigest()


def _build_id(path: Path) -> str:
    with path.open("rb") as file:
        return build_id(FileSource(file))


def _key(kind: str, *parts: str) -> str:
    text = "\n".join((_FORMAT, _reader(), *parts))
    return f"{kind}-{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:40]}"


@cache
def _reader() -> str:
    """Which version of our own reader this is: with another one, schemas may be others."""
    found = []
    for folder in cprformats.schema.__path__:
        for path in sorted(Path(folder).glob("*.py")):
            known = path.stat()
            found.append(f"{path.name} {known.st_size} {known.st_mtime_ns}")
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


# -- modules -------------------------------------------------------------------------


def _candidates(program: Path, identity: str, kept: Cache) -> list[Path]:
    return candidates(module_folders(program, _facts(program, identity, kept)))


def _facts(program: Path, identity: str, kept: Cache) -> ModuleFacts:
    """What the program says of its modules, from the cache where it was asked before."""
    name = _key("modules", identity)
    body = kept.get(name)
    if body is not None:
        try:
            found = json.loads(body)
            return ModuleFacts(tuple(map(str, found["stamps"])), tuple(map(str, found["folders"])))
        except (ValueError, KeyError, TypeError):
            pass
    with program.open("rb") as file:
        facts = module_facts(FileSource(file))
    kept.put(name, json.dumps({"stamps": facts.stamps, "folders": facts.folders}).encode())
    return facts


# -- reading in earnest -----------------------------------------------------------------


def _read(
    program: Path, modules: Sequence[Path], found: Sequence[Path], known: _Known, kept: Cache
) -> Schema:
    others: dict[str, str] = {}
    if found:
        good, others = taken(found, _facts(program, known.identity, kept).stamps)
        try:
            return replace(_read_elf([program, *good], known.debug), left_out=others)
        except FormatError:
            good, more = _readable(good)
            others |= more
            modules = good
    return replace(_read_elf([program, *modules], known.debug), left_out=others)


def _readable(found: Sequence[Path]) -> tuple[list[Path], dict[str, str]]:
    """A module that nobody named may be damaged: tell those that can be read by themselves."""
    good, bad = [], {}
    for path in found:
        try:
            _read_elf([path])
            good.append(path)
        except FormatError as problem:
            bad[path.name] = f"can't be read: {problem}"
    return good, bad


def _read_elf(files: Sequence[Path], debug: Sequence[Path] = ()) -> Schema:
    from cprformats.schema.walk import read_schema  # noqa: PLC0415 (pyelftools: 30 ms)

    with ExitStack() as stack:

        def source(path: Path) -> FileSource:
            return FileSource(stack.enter_context(path.open("rb")))

        return read_schema([(path.name, source(path)) for path in files], list(map(source, debug)))
