"""Opens what was named as a schema: its kind is found from its bytes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cprformats.errors import Unsupported, WrongFormat
from cprformats.schema.document import FORMAT, schema_of
from cprformats.schema.dump import MACHINE, dump_of
from cprformats.schema.jsontext import MAX_JSON_BYTES, load_object
from cprformats.schema.model import Schema
from cprtools.schemas.cache import Cache, cache_folder
from cprtools.schemas.choices import PREFIX, NeedsChoice, NoProgram, Options
from cprtools.schemas.folder import program_in
from cprtools.schemas.reading import Wanted, read_files

__all__ = ["open_schema", "open_with", "schema_from_bytes"]

_DEFAULT: Final = Options()
_HEAD_BYTES: Final = 128
_ELF: Final = b"\x7fELF"
_COMPRESSED: Final = (b"\xfd7zXZ\0", b"\x1f\x8b", b"BZh", b"\x28\xb5\x2f\xfd")


def open_schema(
    path: str,
    modules: Sequence[str] = (),
    *,
    elf: str | None = None,
    find_modules: bool = True,
    cache: bool = True,
    run: bool = False,
    machine: str = "none",
    seconds: float = 60.0,
    debug: str | None = None,
) -> Schema:
    """Read the schema that a name stands for.

    Args:
        path: a QEMU program, a folder with one, a schema file or the output of
            ``-dump-vmstate`` (both also compressed, or ``-`` for standard input), or
            ``builtin:10.0`` and the like.
        modules: loadable modules of the program, taken as they are.
        elf: the ELF file of a program that is started by a script.
        find_modules: where no modules are named, look for those of the program's build.
        cache: use, and keep, schemas of the same files in the user's cache folder.
        run: run the program too, so that the schema has device types.
        machine: the machine type to run it with.
        seconds: how long it may run.
        debug: the program's debug information, where it is not in it nor where debug
            packages put it.

    Raises:
        FormatError: it is no schema, or a damaged one; `NeedsChoice` where several
            programs could be meant, `RunFailed` where the program gave no dump.
        OSError: a file can't be read.
    """
    options = Options(elf, find_modules, cache, run, machine, seconds, debug)
    return open_with(path, modules, options)


def open_with(path: str, modules: Sequence[str] = (), options: Options = _DEFAULT) -> Schema:
    """`open_schema` with its options in one object.

    Raises:
        FormatError, OSError: as `open_schema`.
    """
    if path.startswith(PREFIX):
        _only_program(modules, options)
        from cprtools.schemas.builtin import builtin_bytes  # noqa: PLC0415 (start-up time)

        return schema_from_bytes(builtin_bytes(path.removeprefix(PREFIX)))
    if path == "-":
        _only_program(modules, options)
        return schema_from_bytes(sys.stdin.buffer.read(MAX_JSON_BYTES + 1))
    place = program_in(Path(path)) if Path(path).is_dir() else Path(path)
    program = Path(options.elf) if options.elf is not None else place
    with program.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if not program.is_file():  # a pipe, which gives its bytes once
            _only_program(modules, options)
            return schema_from_bytes(head + file.read(MAX_JSON_BYTES))
    if head.startswith(_ELF):
        return _open_program(place, program, [Path(each) for each in modules], options)
    if head.startswith(b"#!"):
        if not options.run or options.elf is not None:
            raise _script(head)
        return _run(place, options)
    _only_program(modules, options)
    return _open_file(program)


def _only_program(modules: Sequence[str], options: Options) -> None:
    """Modules and --run make sense with a program only."""
    if modules or options.run or options.elf is not None or options.debug is not None:
        raise NeedsChoice(
            "expected a program with its modules or debug information, or to be run; found a file",
            (),
        )


def _open_program(place: Path, program: Path, modules: Sequence[Path], options: Options) -> Schema:
    kept = Cache(cache_folder() if options.cache else None)
    wanted = Wanted(program, tuple(modules), options.find_modules, options.debug)
    schema = read_files(wanted, kept)
    if not options.run:
        return schema
    from cprformats.schema.link import link_devices  # noqa: PLC0415 (start-up time)

    return link_devices(schema, _run(place, options))


def _run(place: Path, options: Options) -> Schema:
    from cprformats.schema.dump import read_dump  # noqa: PLC0415
    from cprtools.schemas.running import run_dump  # noqa: PLC0415

    return read_dump(run_dump(place, options.machine, options.seconds))


def _script(head: bytes) -> NoProgram:
    first = head.splitlines()[0].decode("utf-8", "replace")
    return NoProgram(
        f"expected a program, found a script ({first}) that may start one: "
        "name the ELF file itself with --elf",
    )


def _open_file(path: Path) -> Schema:
    with path.open("rb") as file:
        return schema_from_bytes(file.read(MAX_JSON_BYTES + 1))


def schema_from_bytes(data: bytes) -> Schema:
    """Read a schema file, or the output of ``-dump-vmstate``, compressed or not.

    Raises:
        FormatError: it is neither, or damaged.
    """
    if data.startswith(_COMPRESSED):
        data = _inflated(data)
    if data.startswith(_ELF):
        raise NoProgram("expected a schema file or a dump, found a program: name its file")
    if data.lstrip()[:1] != b"{":
        found = data[:4].hex(" ") or "nothing"
        raise NoProgram(
            f"expected a QEMU program, a schema file or a dump of one; found bytes {found}"
        )
    members = load_object(data)
    if MACHINE in members:
        return dump_of(members)
    if "format" not in members:
        raise WrongFormat(f'expected a member "format": "{FORMAT}", or "{MACHINE}", found neither')
    return schema_of(members)


def _inflated(data: bytes) -> bytes:
    from cprformats.container.compressed import read_compressed  # noqa: PLC0415
    from cprformats.detect import detect  # noqa: PLC0415
    from cprformats.source import BytesSource  # noqa: PLC0415

    source = BytesSource(data)
    layer = read_compressed(detect(source), source)
    try:
        inside = layer.inner.read_at(0, MAX_JSON_BYTES + 1)
    finally:
        layer.inner.close()
    if layer.error is not None:
        raise layer.error
    if len(inside) > MAX_JSON_BYTES:
        raise Unsupported(f"JSON: expected at most {MAX_JSON_BYTES} bytes inside, found more")
    return inside
