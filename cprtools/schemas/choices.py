"""How a schema is opened, and what a user must be asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cprformats.errors import FormatError, WrongFormat

__all__ = ["PREFIX", "NeedsChoice", "NoProgram", "Options"]

#: Begins the name of a schema that comes with cprtools.
PREFIX: Final = "builtin:"


@dataclass(frozen=True, slots=True)
class Options:
    """How to open a schema.

    Attributes:
        elf: the ELF file of a program that is started by something else, a script.
        find_modules: look for the modules of a program, and take those of its build.
        cache: keep what was read from ELF files, and use what was kept.
        run: run the program too, for what only a running QEMU knows.
        machine: the machine type to run it with.
        seconds: how long it may run.
        debug: the program's debug information, where it is not in it nor where debug
            packages put it.
    """

    elf: str | None = None
    find_modules: bool = True
    cache: bool = True
    run: bool = False
    machine: str = "none"
    seconds: float = 60.0
    debug: str | None = None


class NeedsChoice(FormatError):
    """What was named stands for several things, or for none that is known.

    Attributes:
        choices: what can be named instead.
    """

    def __init__(self, message: str, choices: tuple[str, ...]) -> None:
        super().__init__(message)
        self.choices = choices

    def __str__(self) -> str:
        return self.message


class NoProgram(WrongFormat):
    """What was named is no QEMU program and has none; the message says what it is."""

    def __str__(self) -> str:
        return self.message
