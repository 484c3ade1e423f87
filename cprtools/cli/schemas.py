"""What ``cprtools schema`` does with its arguments: read the files, have the schema written."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from cprformats.errors import FormatError
from cprformats.schema.model import Description, Schema
from cprtools.cli.exits import Exit
from cprtools.report.output import complain, raw_output, standard_output
from cprtools.schemas.opening import open_schema

__all__ = ["Request", "run"]


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments; see `cprtools.cli.schema`."""

    files: tuple[str, ...]
    names: tuple[str, ...] = ()
    json: bool = False
    colour: str = "auto"


def run(request: Request) -> Exit:
    """Read the schema and show what was asked for.

    Raises:
        OSError: a file can't be read, or the output can't be written.
    """
    try:
        schema = open_schema(request.files[0], request.files[1:])
    except FormatError as error:
        complain(f"{request.files[0]}: {error}")
        return Exit.DAMAGED
    chosen = _chosen(schema, request.names)
    _show(request, schema, chosen)
    if schema.reason:
        complain(f"{request.files[0]}: {schema.reason}")
        return Exit.DAMAGED
    if request.names and not chosen:
        complain(f"nothing fits the pattern {' or '.join(request.names)}")
        return Exit.USAGE
    return Exit.GOOD


def _chosen(schema: Schema, patterns: tuple[str, ...]) -> list[Description]:
    every = schema.descriptions.values()
    if not patterns:
        return list(every)
    return [one for one in every if any(fnmatchcase(one.name, each) for each in patterns)]


def _show(request: Request, schema: Schema, chosen: list[Description]) -> None:
    if request.json:
        from cprtools.report.schema_json import write_schema_json  # noqa: PLC0415

        write_schema_json(raw_output(), schema, chosen)
        return
    from cprtools.report.schema_text import write_schema  # noqa: PLC0415

    write_schema(standard_output(request.colour), schema, chosen, fields=bool(request.names))
