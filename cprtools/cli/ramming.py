"""What ``cprtools ram`` does with its arguments: read once, write what was asked for."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cprformats.errors import FormatError
from cprtools.cli.exits import Exit
from cprtools.report.output import complain

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Request", "run"]

#: What needs to know where blocks are in guest-physical memory.
_BY_ADDRESS = ("physical", "elf", "read", "search")


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
    action = _action(request)
    # What was imported stays to the end: not to be searched for garbage, least of all at the exit.
    gc.freeze()
    try:
        error = action(request)
    except FormatError as found:
        if _by_hand(request, found):
            complain(str(found))
            return Exit.USAGE
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
    if request.json and request.raw:
        return "--json and --raw: expected one of them"
    if request.json and action == "plot":
        return "--json: not with --plot"
    if (request.layout or request.ram_blocks) and action not in _BY_ADDRESS:
        return f"--layout and --ram-block: go with {', '.join(f'--{name}' for name in _BY_ADDRESS)}"
    if request.blocks and action in ("physical", "elf", "read"):
        return f"--block: not with --{action}"
    return None


def _by_hand(request: Request, error: FormatError) -> bool:
    """Say whether the layout that was given does not fit the file."""
    if not (request.layout or request.ram_blocks):
        return False
    from cprformats.guest import BadLayout  # noqa: PLC0415

    return isinstance(error, BadLayout)


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
