"""Where text goes out: escaped, coloured on a terminal only, as wide as it is.

A part of a line is text, or text and the name of a style. All text is escaped
here, once, so no caller can forget it; colour codes are put around it after.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import TextIO

from cprtools.report.words import escape

__all__ = [
    "Column",
    "Output",
    "Part",
    "abandon",
    "complain",
    "flush",
    "raw_bytes",
    "raw_output",
    "standard_output",
]

Part = str | tuple[str, str]

_INDENT = "  "
_NO_LIMIT = 4096

#: Style names and their ANSI codes; rich takes the same names in `_RICH`.
_CODES = {
    "title": "1",
    "head": "1",
    "name": "36",
    "value": "",
    "words": "32",
    "dim": "2",
    "warn": "33",
    "bad": "31;1",
}
_RICH = {
    "title": "bold",
    "head": "bold",
    "name": "cyan",
    "value": "",
    "words": "green",
    "dim": "dim",
    "warn": "yellow",
    "bad": "bold red",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        right: numbers stand at the right.
        style: name of a style.
        fold: may be broken into lines where the terminal is narrow.
    """

    title: str
    right: bool = False
    style: str = ""
    fold: bool = False


class Output:
    """A text file to write to.

    Args:
        file: where to.
        colour: whether to use colour codes.
        width: columns of the terminal; None for no limit.
    """

    def __init__(self, file: TextIO, *, colour: bool = False, width: int | None = None) -> None:
        self.file = file
        self.colour = colour
        self.width = width

    def line(self, *parts: Part) -> None:
        """Write one line."""
        self.file.write("".join(map(self._paint, parts)).rstrip(" ") + "\n")

    def lines(self, lines: Iterable[Sequence[Part]]) -> None:
        """Write several."""
        for parts in lines:
            self.line(*parts)

    def raw(self, text: str) -> None:
        """Write text that is already safe: JSON, YAML."""
        self.file.write(text)

    def flush(self) -> None:
        """Let the reader see what was written."""
        self.file.flush()

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
        """Write a table, two blanks in front, folded where the terminal is too narrow."""
        from rich.console import Console  # noqa: PLC0415 (50 ms, and JSON needs none of it)
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=_RICH["head"])
        for column in columns:
            table.add_column(
                column.title,
                justify="right" if column.right else "left",
                style=_RICH.get(column.style, ""),
                no_wrap=not column.fold,
                overflow="fold",
            )
        for row in rows:
            table.add_row(*(Text(escape(cell)) for cell in row))
        console = Console(
            file=io.StringIO(),
            width=max((self.width or _NO_LIMIT) - len(_INDENT), 20),
            force_terminal=self.colour,
            color_system="standard" if self.colour else None,
            no_color=not self.colour,
            legacy_windows=False,
            _environ={},
        )
        with console.capture() as captured:
            console.print(table)
        for line in captured.get().splitlines():
            self.file.write(f"{_INDENT}{line.rstrip()}\n")

    def _paint(self, part: Part) -> str:
        if isinstance(part, str):
            return escape(part)
        text, style = part
        code = _CODES.get(style, "")
        return f"\x1b[{code}m{escape(text)}\x1b[0m" if self.colour and code else escape(text)


def standard_output(colour: str = "auto") -> Output:
    """Make the output for standard output; `colour` is ``auto``, ``always`` or ``never``."""
    file = sys.stdout
    terminal = file.isatty()
    if colour == "auto":
        wanted = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    else:
        wanted = colour == "always"
    reconfigure = getattr(file, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    return Output(file, colour=wanted, width=get_terminal_size().columns if terminal else None)


def raw_output() -> Callable[[str], object]:
    """Give the function that writes a document as it is; JSON and YAML escape on their own."""
    return sys.stdout.write


def raw_bytes() -> Callable[[bytes], object]:
    """Give the function that writes bytes as they are."""
    sys.stdout.flush()
    return sys.stdout.buffer.write


def flush() -> None:
    """Write out what is held back.

    Raises:
        BrokenPipeError: nobody reads it any more.
    """
    sys.stdout.flush()


def abandon() -> None:
    """Let the flush at the interpreter's end go nowhere instead of failing again."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):  # no real file, in a test
        pass


def complain(message: str) -> None:
    """Write one line to standard error."""
    try:
        sys.stderr.write(f"cprtools: {escape(message)}\n")
        sys.stderr.flush()
    except OSError:
        pass
