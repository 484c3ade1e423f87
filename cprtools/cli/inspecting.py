"""What ``cprtools inspect`` does with its arguments: open, choose, have it written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cprformats.errors import FormatError
from cprtools.cli.exits import Exit
from cprtools.files import file_size
from cprtools.inspector.select import Selection
from cprtools.report.output import complain, flush, raw_output, standard_output
from cprtools.report.progress import ProgressBar
from cprtools.statefile import StateFile, open

if TYPE_CHECKING:
    from cprformats.schema.model import Schema
    from cprtools.report.document import Emitter

__all__ = ["Request", "run"]


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments; see `cprtools.cli.inspect`."""

    file: str
    format: str = "table"
    sections: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    map: bool = False
    coverage: bool = False
    layer: str | None = None
    snapshot: str | None = None
    schema: str | None = None
    ram: bool = True
    offsets: bool = False
    raw: bool = False
    full: bool = False
    colour: str = "auto"


def run(request: Request) -> Exit:
    """Open the file and show what was asked for.

    Raises:
        OSError: the file can't be read, or the output can't be written.
    """
    if problem := _misused(request):
        complain(problem)
        return Exit.USAGE
    try:
        schema = None if request.schema is None else _schema(request.schema)
    except FormatError as problem:
        complain(f"{request.schema}: {problem}")
        return Exit.USAGE
    state = _open(request, schema)
    numbers = _layers(request, state)
    if numbers is None:
        return Exit.USAGE
    show = _page if request.format == "table" else _document
    selection = Selection(request.sections, request.fields)
    error = show(request, state, numbers, selection)
    flush()
    if error is not None:
        complain(f"{request.file}: {error}")
        return Exit.DAMAGED
    return _all_used(selection)


def _misused(request: Request) -> str | None:
    chosen = request.sections or request.fields
    if request.raw and not chosen:
        return "--raw: say which sections with --section"
    if request.raw and request.fields:
        return "--raw: shows whole sections, not single fields"
    if (request.map or request.coverage) and request.format != "table":
        return f"--map and --coverage: are part of what --format {request.format} gives"
    return None


def _schema(path: str) -> Schema:
    """Open what --schema names.

    Raises:
        FormatError: it is no schema, or one without types.
        OSError: it can't be read.
    """
    from cprformats.migration.byschema.resolve import check_schema  # noqa: PLC0415
    from cprtools.schemas.opening import open_schema  # noqa: PLC0415

    schema = open_schema(path)
    check_schema(schema)
    return schema


def _open(request: Request, schema: Schema | None) -> StateFile | FormatError:
    """Open the file, with a progress bar; what is no state at all gives an error."""
    # Runs of pages are read a second time where they are shown.
    again = request.ram and (request.format != "table" or request.map or bool(request.sections))
    with ProgressBar(file_size(request.file)) as progress:
        try:
            return open(
                request.file,
                progress=progress,
                snapshot=request.snapshot,
                keep_all=again,
                schema=schema,
            )
        except FormatError as error:
            return error


def _layers(request: Request, state: StateFile | FormatError) -> frozenset[int] | None:
    """Give the numbers of the layers to show, or None if there is no such layer."""
    if isinstance(state, FormatError):
        return frozenset()
    kinds = [layer.kind for layer in state.layers]
    if request.layer is None:
        every = request.format != "table"
        return frozenset(range(len(kinds)) if every else [len(kinds) - 1])
    found = frozenset(
        number for number, kind in enumerate(kinds) if request.layer in (kind, str(number))
    )
    if not found:
        known = ", ".join(f"{number} {kind}" for number, kind in enumerate(kinds))
        complain(f"--layer: expected one of {known}, found {request.layer}")
    return found or None


def _all_used(selection: Selection) -> Exit:
    unused = selection.unused()
    for pattern in unused:
        complain(f"nothing fits the pattern {pattern}")
    return Exit.USAGE if unused else Exit.GOOD


def _document(
    request: Request,
    state: StateFile | FormatError,
    numbers: frozenset[int],
    selection: Selection,
) -> FormatError | None:
    from cprtools.report.document import DocumentStyle, write_document  # noqa: PLC0415

    write = raw_output()
    emitter: Emitter
    if request.format == "json":
        from cprtools.report.json_out import JsonEmitter  # noqa: PLC0415

        emitter = JsonEmitter(write)
    else:
        from cprtools.report.yaml_out import YamlEmitter  # noqa: PLC0415

        emitter = YamlEmitter(write)
    style = DocumentStyle(numbers, selection, ram=request.ram, full=request.full)
    return write_document(emitter, request.file, state, style)


def _page(
    request: Request,
    state: StateFile | FormatError,
    numbers: frozenset[int],
    selection: Selection,
) -> FormatError | None:
    if isinstance(state, FormatError):
        return state
    from cprtools.report.page import PageStyle, write_page  # noqa: PLC0415

    style = PageStyle(
        numbers,
        selection,
        map=request.map,
        coverage=request.coverage,
        ram=request.ram,
        offsets=request.offsets,
        raw=request.raw,
        full=request.full,
    )
    out = standard_output(request.colour)
    with ProgressBar(file_size(request.file)) as progress:
        return write_page(out, state, style, progress)
