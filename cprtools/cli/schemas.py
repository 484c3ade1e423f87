"""What ``cprtools schema`` does with its arguments: read the files, have the schema written."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from cprformats.errors import FormatError
from cprformats.schema.model import Description, Schema
from cprtools.cli.exits import Exit, Misuse
from cprtools.report.output import complain, raw_output, standard_output
from cprtools.schemas.choices import PREFIX, NeedsChoice, Options
from cprtools.schemas.opening import open_with

__all__ = ["Request", "list_builtin", "show"]


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments; see `cprtools.cli.schema`."""

    binary: str | None
    modules: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    json: bool = False
    colour: str = "auto"
    options: Options = field(default_factory=Options)


def show(request: Request) -> Exit:
    """Read the schema and show what was asked for.

    Raises:
        Misuse: there is no program, or several could be meant.
        OSError: a file can't be read, or the output can't be written.
    """
    if request.binary is None:
        raise Misuse("expected a BINARY, or --list; found none")
    try:
        schema = open_with(request.binary, request.modules, request.options)
    except NeedsChoice as error:
        raise Misuse(f"{request.binary}: {error}") from None
    except FormatError as error:
        complain(f"{request.binary}: {error}")
        return Exit.DAMAGED
    chosen = _chosen(schema, request.names)
    _show(request, schema, chosen)
    if schema.reason:
        complain(f"{request.binary}: {schema.reason}")
        return Exit.DAMAGED
    if request.names and not chosen:
        complain(f"nothing fits the pattern {' or '.join(request.names)}")
        return Exit.USAGE
    return Exit.GOOD


def list_builtin(colour: str) -> Exit:
    """Show which schemas come with cprtools.

    Raises:
        OSError: the output can't be written.
    """
    from cprtools.report.schema_text import write_list  # noqa: PLC0415 (start-up time)
    from cprtools.schemas.builtin import builtin_names  # noqa: PLC0415
    from cprtools.schemas.opening import open_schema  # noqa: PLC0415

    names = [PREFIX + name for name in builtin_names()]
    write_list(standard_output(colour), {name: open_schema(name) for name in names})
    return Exit.GOOD


def _chosen(schema: Schema, patterns: tuple[str, ...]) -> list[Description]:
    every = schema.descriptions.values()
    if not patterns:
        return list(every)
    return [one for one in every if any(fnmatchcase(one.name, each) for each in patterns)]


def _show(request: Request, schema: Schema, chosen: list[Description]) -> None:
    if request.json:
        from cprformats.schema.publish import part_of  # noqa: PLC0415
        from cprtools.report.schema_json import write_schema_json  # noqa: PLC0415

        part = part_of(schema, chosen) if request.names else schema
        write_schema_json(raw_output(), schema, part)
        return
    from cprtools.report.schema_text import write_schema  # noqa: PLC0415

    write_schema(standard_output(request.colour), schema, chosen, fields=bool(request.names))
