"""``cprtools schema``: its arguments."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Exit, Option

from cprtools.cli.inspect import Colour
from cprtools.schemas.choices import Options

__all__ = ["schema"]


def schema(
    binary: Annotated[
        str | None,
        Argument(
            metavar="BINARY",
            help="A program or a folder with one, a schema file, a dump, or builtin:10.0.",
        ),
    ] = None,
    modules: Annotated[
        list[str] | None,
        Argument(metavar="[MODULE]...", help="Its loadable modules, where not those beside it."),
    ] = None,
    name: Annotated[
        list[str] | None,
        Option("--name", "-n", metavar="PATTERN", help="Show these descriptions with fields."),
    ] = None,
    run: Annotated[
        bool, Option("--run", help="Run the program too: it tells device types.")
    ] = False,
    machine: Annotated[str, Option(metavar="TYPE", help="The machine to run it with.")] = "none",
    time_limit: Annotated[
        float, Option(metavar="SECONDS", min=0.1, help="How long it may run.")
    ] = 60.0,
    elf: Annotated[
        str | None, Option(metavar="FILE", help="The program itself, where BINARY is a script.")
    ] = None,
    debug: Annotated[
        str | None, Option(metavar="FILE", help="The program's debug information, kept apart.")
    ] = None,
    no_modules: Annotated[bool, Option("--no-modules", help="Look for no modules.")] = False,
    no_cache: Annotated[
        bool, Option("--no-cache", help="Read all anew, and keep nothing for later.")
    ] = False,
    diff: Annotated[
        str | None, Option(metavar="NEW", help="Show what changed from BINARY to NEW.")
    ] = None,
    list_: Annotated[
        bool, Option("--list", help="List the schemas that come with cprtools.")
    ] = False,
    json: Annotated[bool, Option("--json", help="Give everything as JSON.")] = False,
    color: Annotated[Colour, Option("--color", help="When to use colours.")] = Colour.AUTO,
) -> None:
    """Read what a QEMU binary can load out of its file, without running it.

    Also reads what --json wrote, and what -dump-vmstate of QEMU wrote. Exits
    with 0 if there are descriptions, 1 if there are none or the file is damaged or not
    of a kind that is read, 2 for wrong usage or a file that can't be opened.
    """
    from cprtools.cli.exits import guarded  # noqa: PLC0415 (start-up time)
    from cprtools.cli.schemas import Request, list_builtin, show  # noqa: PLC0415

    if list_:
        raise Exit(guarded(lambda: list_builtin(color.value)))
    options = Options(elf, not no_modules, not no_cache, run, machine, time_limit, debug)
    if diff is not None and binary is not None:
        from cprtools.cli.schema_diff import DiffRequest, compare  # noqa: PLC0415

        asked = DiffRequest(
            binary, diff, tuple(modules or ()), tuple(name or ()), json, color.value, options
        )
        raise Exit(guarded(lambda: compare(asked)))
    request = Request(
        binary,
        tuple(modules or ()),
        names=tuple(name or ()),
        json=json,
        colour=color.value,
        options=options,
    )
    raise Exit(guarded(lambda: show(request)))
