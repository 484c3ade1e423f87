"""``cprtools schema``: its arguments."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Exit, Option

from cprtools.cli.inspect import Colour

__all__ = ["schema"]


def schema(
    binary: Annotated[str, Argument(metavar="BINARY", help="The program, qemu-system-... .")],
    modules: Annotated[
        list[str] | None,
        Argument(metavar="[MODULE]...", help="Its loadable modules, hw-*.so and the like."),
    ] = None,
    name: Annotated[
        list[str] | None,
        Option("--name", "-n", metavar="PATTERN", help="Show these descriptions with fields."),
    ] = None,
    json: Annotated[bool, Option("--json", help="Give everything as JSON.")] = False,
    colour: Annotated[Colour, Option(help="When to use colours.")] = Colour.AUTO,
) -> None:
    """Read what a QEMU binary can load out of its file, without running it."""
    from cprtools.cli.exits import guarded  # noqa: PLC0415 (start-up time)
    from cprtools.cli.schemas import Request, run  # noqa: PLC0415

    request = Request(
        (binary, *(modules or ())), names=tuple(name or ()), json=json, colour=colour.value
    )
    raise Exit(guarded(lambda: run(request)))
