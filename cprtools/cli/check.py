"""``cprtools check``: its arguments."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from typer import Argument, Context, Exit, Option
from typer.core import TyperCommand

from cprtools.cli.inspect import Colour

__all__ = ["CheckCommand", "check"]

_ARGUMENTS = "cprtools.check.arguments"


class CheckCommand(TyperCommand):
    """Keeps what stands behind ``--`` apart: it is the target's command line."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Split the arguments first."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[_ARGUMENTS] = tuple(args[at + 1 :])
            args = args[:at]
        return super().parse_args(ctx, args)


class EngineName(StrEnum):
    """Engines by name; see `cprtools.check.engines`."""

    STATIC = "static"
    PROBE = "probe"
    DRY_RUN = "dry-run"
    AUTO = "auto"


class Format(StrEnum):
    """Forms of the output."""

    TABLE = "table"
    JSON = "json"
    JUNIT = "junit"


_Words = list[str] | None


def check(
    context: Context,
    state: Annotated[
        _Words, Argument(metavar="STATE...", help="Files with VM state.", show_default=False)
    ] = None,
    target: Annotated[
        _Words,
        Option("--target", "-t", metavar="QEMU", help="The QEMU that is to load it; repeatable."),
    ] = None,
    elf: Annotated[
        str | None, Option(metavar="FILE", help="The ELF file that a wrapper runs.")
    ] = None,
    machine: Annotated[
        str | None, Option(metavar="TYPE", help="The target's machine type.")
    ] = None,
    target_capability: Annotated[
        _Words,
        Option(
            metavar="NAME=VALUE",
            help="A migration capability (on, off) or parameter, set before it loads; repeatable.",
        ),
    ] = None,
    engine: Annotated[EngineName, Option(help="How to decide it.")] = EngineName.AUTO,
    no_exec: Annotated[bool, Option("--no-exec", help="Don't run the target.")] = False,
    timeout: Annotated[
        float, Option(metavar="SECONDS", min=0.1, help="How long each run of the target may take.")
    ] = 60.0,
    format_: Annotated[Format, Option("--format", help="Form of the output.")] = Format.TABLE,
    json: Annotated[bool, Option("--json", help="The same as --format json.")] = False,
    explain: Annotated[str | None, Option(metavar="CODE", help="Explain a finding's code.")] = None,
    color: Annotated[Colour, Option("--color", help="When to use colours.")] = Colour.AUTO,
) -> None:
    """Say whether a state loads in a QEMU: cprtools check STATE --target QEMU -- ARGUMENTS.

    ARGUMENTS are the target's command line. Of several states and targets each is tried with
    each. Exits with 0 if it loads, 1 if it fails, 3 if that is undecided, 2 for wrong
    usage or a file that can't be read; of several, with the worst.
    """
    from cprtools.cli.checking import Request, explain_code, run  # noqa: PLC0415 (start-up time)
    from cprtools.cli.exits import guarded  # noqa: PLC0415

    if explain is not None:
        raise Exit(guarded(lambda: explain_code(explain)))
    request = Request(
        tuple(state or ()),
        tuple(target or ()),
        elf=elf,
        machine=machine or "",
        capabilities=tuple(target_capability or ()),
        arguments=context.meta.get(_ARGUMENTS),
        engine=engine.value,
        may_run=not no_exec,
        seconds=timeout,
        format="json" if json else format_.value,
        colour=color.value,
    )
    raise Exit(guarded(lambda: run(request)))
