"""What ``cprtools schema --diff`` does: open two schemas, have their differences written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from cprformats.errors import FormatError
from cprformats.schema.diff import diff_schemas
from cprformats.schema.difference import SchemaDiff
from cprformats.schema.model import Schema
from cprtools.cli.exits import Exit, Misuse
from cprtools.report.output import complain, raw_output, standard_output
from cprtools.schemas.choices import NeedsChoice, Options
from cprtools.schemas.opening import open_with

__all__ = ["DiffRequest", "compare"]


@dataclass(frozen=True, slots=True)
class DiffRequest:
    """The arguments; see `cprtools.cli.schema`.

    Attributes:
        old: what to compare.
        modules: of the old program.
        new: what to compare it with; its modules are those of its build.
        names: patterns of descriptions to tell all about.
        json: give JSON.
        colour: when to use colours.
        options: how to open both; `elf` is for the old one.
    """

    old: str
    new: str
    modules: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    json: bool = False
    colour: str = "auto"
    options: Options = field(default_factory=Options)


def compare(request: DiffRequest) -> Exit:
    """Compare two schemas and show what differs; that something differs is no error.

    Raises:
        Misuse: several programs could be meant, or no description fits a pattern.
        OSError: a file can't be read, or the output can't be written.
    """
    other = replace(request.options, elf=None)
    old = _opened(request.old, request.modules, request.options)
    new = _opened(request.new, (), other) if old is not None else None
    if old is None or new is None:
        return Exit.DAMAGED
    _check_patterns(request.names, (old, new))
    try:
        diff = _chosen(diff_schemas(old, new), request.names)
    except FormatError as error:
        complain(str(error))
        return Exit.DAMAGED
    _show(request, (old, new), diff)
    return Exit.GOOD


def _opened(name: str, modules: tuple[str, ...], options: Options) -> Schema | None:
    """A schema with descriptions; None where there is none, which was said then."""
    try:
        schema = open_with(name, modules, options)
    except NeedsChoice as error:
        raise Misuse(f"{name}: {error}") from None
    except FormatError as error:
        complain(f"{name}: {error}")
        return None
    if schema.reason:
        complain(f"{name}: {schema.reason}")
        return None
    return schema


def _check_patterns(patterns: tuple[str, ...], schemas: Iterable[Schema]) -> None:
    names = {one.name for schema in schemas for one in schema.descriptions.values()}
    if patterns and not any(_fits(name, patterns) for name in names):
        raise Misuse(f"nothing fits the pattern {' or '.join(patterns)}")


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatchcase(name, each) for each in patterns)


def _chosen(diff: SchemaDiff, patterns: tuple[str, ...]) -> SchemaDiff:
    kept = tuple(one for one in diff.differences if _fits(one.name, patterns))
    return replace(diff, differences=kept)


def _show(request: DiffRequest, schemas: tuple[Schema, Schema], diff: SchemaDiff) -> None:
    names = (request.old, request.new)
    if request.json:
        from cprtools.report.schema_diff_json import write_schema_diff_json  # noqa: PLC0415

        write_schema_diff_json(raw_output(), names, schemas, diff)
        return
    from cprtools.report.schema_diff_text import write_schema_diff  # noqa: PLC0415

    out = standard_output(request.colour)
    write_schema_diff(out, names, schemas, diff, details=bool(request.names))
