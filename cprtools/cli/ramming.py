"""What ``cprtools ram`` does with its arguments: read once, write what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cprformats.errors import FormatError
from cprtools.cli.exits import Exit
from cprtools.report.output import complain

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Request", "run"]


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments; see `cprtools.cli.ram`."""

    file: str
    extract: str | None = None
    physical: str | None = None
    elf: str | None = None
    read: tuple[str, str] | None = None
    search: str | None = None
    diff: str | None = None
    plot: str | None = None
    blocks: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    other_channels: tuple[str, ...] = ()
    ram_blocks: tuple[str, ...] = ()
    layout: tuple[str, ...] = ()
    snapshot: str | None = None
    keep_going: bool = False
    map: bool = True
    raw: bool = False
    json: bool = False
    colour: str = "auto"

    @property
    def actions(self) -> tuple[str, ...]:
        """Names of what was asked for besides the table."""
        names = ("extract", "physical", "elf", "read", "search", "diff", "plot")
        return tuple(name for name in names if getattr(self, name) is not None)


def run(request: Request) -> Exit:
    """Do what was asked for.

    Raises:
        OSError: a file can't be read or written.
    """
    if problem := _misused(request):
        complain(problem)
        return Exit.USAGE
    try:
        error = _action(request)(request)
    except FormatError as found:
        error = found
    if error is not None:
        complain(f"{request.file}: {error}")
        return Exit.DAMAGED
    return Exit.GOOD


def _misused(request: Request) -> str | None:
    actions = request.actions
    if len(actions) > 1:
        return f"one at a time: expected one of --{' and --'.join(actions)}"
    action = actions[0] if actions else "the table"
    if request.raw and action != "read":
        return "--raw: goes with --read"
    if request.other_channels and action != "diff":
        return "--other-channel: goes with --diff"
    if request.json and action in ("read", "plot") and request.raw:
        return "--json and --raw: expected one of them"
    return None


def _action(request: Request) -> Callable[[Request], FormatError | None]:
    """Give the function for what was asked; each is imported when it is used."""
    name = request.actions[0] if request.actions else "table"
    if name in ("extract", "physical", "elf"):
        from cprtools.cli import ram_out  # noqa: PLC0415

        return getattr(ram_out, name)  # type: ignore[no-any-return]
    if name == "table":
        from cprtools.cli.ram_table import table  # noqa: PLC0415

        return table
    from cprtools.cli import ram_look  # noqa: PLC0415

    return getattr(ram_look, name)  # type: ignore[no-any-return]
