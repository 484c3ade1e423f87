"""The command ``cprtools``: its commands, each in a module of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from cprtools.cli.check import CheckCommand, check
from cprtools.cli.inspect import inspect
from cprtools.cli.ram import ram
from cprtools.cli.schema import schema

__all__ = ["app"]

app = typer.Typer(
    name="cprtools",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _cprtools(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Inspect, check and rehearse QEMU live upgrades."""


app.command("check", cls=CheckCommand)(check)
app.command("inspect")(inspect)
app.command("ram")(ram)
app.command("schema")(schema)
