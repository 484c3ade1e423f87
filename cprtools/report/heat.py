"""A picture of memory in characters: one for some pages in a row, higher the more data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cprformats.memory.census import Cell
from cprtools.report.output import Part

__all__ = ["heat_lines", "legend"]

_BARS = "▁▂▃▄▅▆▇█"
_ASCII = "_.-=+*%#"
_ZERO, _ZERO_ASCII = "·", "0"
_NEVER = " "


def heat_lines(
    cells: Sequence[Cell], step: int, width: int, *, unicode: bool = True
) -> Iterator[list[Part]]:
    """Give lines of cells, each with the offset of its first page in front.

    Args:
        cells: in order, all of the same size but the last.
        step: bytes of memory that a cell stands for.
        width: cells in a line.
        unicode: whether the terminal has block characters.
    """
    digits = len(f"{step * len(cells):x}")
    for start in range(0, len(cells), width):
        row = cells[start : start + width]
        parts: list[Part] = [(f"    {start * step:#0{digits + 2}x}  ", "dim"), "|"]
        parts += [(_glyph(cell, unicode), _style(cell)) for cell in row]
        parts.append("|")
        yield parts


def legend(*, unicode: bool = True) -> str:
    """Say what the characters mean."""
    bars = _BARS if unicode else _ASCII
    zero = _ZERO if unicode else _ZERO_ASCII
    return (
        f"{bars[0]} a few pages with data … {bars[-1]} all   {zero} zero   blank: not in the file"
    )


def _glyph(cell: Cell, unicode: bool) -> str:
    pages = cell.data + cell.zero + cell.never
    if cell.data:
        bars = _BARS if unicode else _ASCII
        return bars[min(cell.data * len(bars) // pages, len(bars) - 1)]
    if cell.zero:
        return _ZERO if unicode else _ZERO_ASCII
    return _NEVER


def _style(cell: Cell) -> str:
    pages = cell.data + cell.zero + cell.never
    if not cell.data:
        return "dim"
    return ("name", "words", "warn", "bad")[min(cell.data * 4 // pages, 3)]
