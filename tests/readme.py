"""The README's commands, for the tests and for CI: what is promised there is what runs.

Commands stand in ``console`` blocks behind ``$ ``; a comment ``<!-- test -->`` or
``<!-- main -->`` in front of a block names it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
_BLOCK = re.compile(r"(?:<!-- (?P<name>[\w-]+) -->\n)?```console\n(?P<text>.*?)```", re.DOTALL)


def blocks(text: str | None = None) -> list[tuple[str, list[str]]]:
    """Give each console block: its name, or "", and its commands."""
    found = []
    for match in _BLOCK.finditer(README.read_text() if text is None else text):
        joined = match["text"].replace("\\\n", "")
        commands = [line[2:] for line in joined.splitlines() if line.startswith("$ ")]
        found.append((match["name"] or "", commands))
    return found


def named(name: str) -> str:
    """Give the one command of the block of this name."""
    (command,) = next(commands for found, commands in blocks() if found == name)
    return command


if __name__ == "__main__":
    print(named(sys.argv[1]))
