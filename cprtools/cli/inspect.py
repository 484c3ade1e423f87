"""``cprtools inspect``: its arguments."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from typer import Argument, Exit, Option

__all__ = ["Colour", "Format", "inspect"]


class Format(StrEnum):
    """Forms of the output."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class Colour(StrEnum):
    """When to use colours."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


_Patterns = list[str] | None


def inspect(
    file: Annotated[str, Argument(metavar="FILE", help="The file; - for standard input.")],
    section: Annotated[
        _Patterns,
        Option("--section", "-s", metavar="PATTERN", help="Show the fields of these sections."),
    ] = None,
    field: Annotated[
        _Patterns,
        Option("--field", "-f", metavar="PATTERN", help="Show these fields, one a line."),
    ] = None,
    map_: Annotated[bool, Option("--map", help="List what lies where, in file order.")] = False,
    coverage: Annotated[bool, Option("--coverage", help="List the bytes without a rule.")] = False,
    layer: Annotated[
        str | None,
        Option(metavar="KIND|N", help="Show this layer, not the innermost; 0 is the outermost."),
    ] = None,
    snapshot: Annotated[
        str | None, Option(metavar="NAME", help="Read this snapshot of a qcow2 image.")
    ] = None,
    schema: Annotated[
        str | None,
        Option(
            metavar="BINARY|FILE",
            help="Read sections without a description by what this QEMU can load.",
        ),
    ] = None,
    no_ram: Annotated[bool, Option("--no-ram", help="Leave out blocks and pages.")] = False,
    offsets: Annotated[bool, Option("--offsets", help="Add offset, size and type.")] = False,
    raw: Annotated[bool, Option("--raw", help="Add the bytes beside the fields.")] = False,
    full: Annotated[bool, Option("--full", help="Shorten no array and no buffer.")] = False,
    json: Annotated[bool, Option("--json", help="Same as --format json.")] = False,
    format_: Annotated[Format, Option("--format", help="Form of the output.")] = Format.TABLE,
    color: Annotated[Colour, Option("--color", help="When to use colours.")] = Colour.AUTO,
) -> None:
    """Show what a VM state file holds: migration stream, CPR state, save image, snapshot.

    Compressed files are read as they are. A PATTERN is matched with a section's
    idstr, idstr/instance or vmsd name, or with a field's dotted path or the end
    of one; * stands for any text. Exits with 0 if the file is good, 1
    if it is damaged or not of a kind that is read, 2 for wrong usage or a file
    that can't be opened.
    """
    from cprtools.cli.exits import guarded  # noqa: PLC0415
    from cprtools.cli.inspecting import Request, run  # noqa: PLC0415

    request = Request(
        file,
        format=(Format.JSON if json else format_).value,
        sections=tuple(section or ()),
        fields=tuple(field or ()),
        map=map_,
        coverage=coverage,
        layer=layer,
        snapshot=snapshot,
        schema=schema,
        ram=not no_ram,
        offsets=offsets,
        raw=raw,
        full=full,
        colour=color.value,
    )
    raise Exit(guarded(lambda: run(request)))
