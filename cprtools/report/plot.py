"""A picture of memory: what is zero, what is data and how random it is, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from cprformats.memory.block import RunKind

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from cprformats.memory.block import MemoryBlock

__all__ = ["MissingLibrary", "draw"]

_COLUMNS, _MOST_ROWS = 128, 96
#: Pages that are looked at in a cell: more change the picture little.
_SAMPLES = 4
_LEAST_BYTES = 1 << 20
_MOST_BLOCKS = 8
_NEVER, _ZERO = -2.0, -1.0
_NEVER_COLOUR = (0.98, 0.93, 0.88, 1.0)
_ZERO_COLOUR = (0.85, 0.85, 0.87, 1.0)


class MissingLibrary(OSError):
    """matplotlib is not installed."""


def draw(file: IO[bytes], kind: str, title: str, blocks: Sequence[MemoryBlock]) -> None:
    """Draw the blocks of a MiB and more, or all if there is none.

    Args:
        file: to write to.
        kind: ``svg`` or ``png``.
        title: of the picture.
        blocks: the blocks.

    Raises:
        MissingLibrary: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise MissingLibrary("--plot needs matplotlib: pip install 'cprtools[plot]'") from error
    chosen = [block for block in blocks if block.size >= _LEAST_BYTES] or list(blocks)
    grids = [_grid(block) for block in chosen[:_MOST_BLOCKS]]
    heights = [max(len(grid), 6) for grid in grids]
    figure = Figure(figsize=(9, 1.4 + sum(heights) / 16), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(len(grids), squeeze=False, height_ratios=heights)[:, 0]
    for axis, block, grid in zip(axes, chosen, grids, strict=False):
        _panel(axis, block, grid)
    _legend(figure, list(axes))
    figure.savefig(file, format=kind, dpi=120)


def _panel(axes: Axes, block: MemoryBlock, grid: NDArray[np.float64]) -> None:
    import numpy as np  # noqa: PLC0415
    from matplotlib import colormaps  # noqa: PLC0415

    colours = colormaps["viridis"](np.clip(grid, 0, None) / 8)
    colours[grid == _ZERO] = _ZERO_COLOUR
    colours[grid == _NEVER] = _NEVER_COLOUR
    colours[np.isnan(grid)] = (1, 1, 1, 0)
    axes.imshow(colours, aspect="auto", interpolation="nearest")
    cell = max(-(-block.pages // (_COLUMNS * _MOST_ROWS)), 1) * block.page_size
    axes.set_title(
        f"{block.idstr}   {block.size:#x} bytes, {cell:#x} a cell", fontsize=8, loc="left"
    )
    axes.set_xticks([])
    rows = len(grid)
    ticks = range(0, rows, max(rows // 6, 1))
    axes.set_yticks(list(ticks), [f"{row * _COLUMNS * cell:#x}" for row in ticks], fontsize=6)


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    from matplotlib.cm import ScalarMappable  # noqa: PLC0415
    from matplotlib.colors import Normalize  # noqa: PLC0415
    from matplotlib.patches import Patch  # noqa: PLC0415

    scale = ScalarMappable(Normalize(0, 8), "viridis")
    bar = figure.colorbar(scale, ax=axes, fraction=0.03)
    bar.set_label("data: entropy, bits a byte", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    patches = [
        Patch(facecolor=_ZERO_COLOUR, edgecolor="grey", label="zero"),
        Patch(facecolor=_NEVER_COLOUR, edgecolor="grey", label="not in the file"),
    ]
    figure.legend(handles=patches, loc="outside lower left", fontsize=7, ncols=2, frameon=False)


def _grid(block: MemoryBlock) -> NDArray[np.float64]:
    """Give a value for each cell: entropy in bits a byte, or that it is zero or missing."""
    import numpy as np  # noqa: PLC0415

    step = max(-(-block.pages // (_COLUMNS * _MOST_ROWS)), 1)
    cells = -(-block.pages // step)
    rows = -(-cells // _COLUMNS)
    grid = np.full(rows * _COLUMNS, np.nan)
    for cell in range(cells):
        grid[cell] = _value(block, cell * step, min((cell + 1) * step, block.pages))
    return grid.reshape(rows, _COLUMNS)


def _value(block: MemoryBlock, first: int, end: int) -> float:
    runs = list(block.runs(first, end))
    data = [run for run in runs if run.kind is RunKind.DATA]
    if not data:
        return _ZERO if any(run.kind is RunKind.ZERO for run in runs) else _NEVER
    pages = [run.start + n for run in data for n in range(min(run.count, _SAMPLES))]
    chosen = pages[:: max(len(pages) // _SAMPLES, 1)][:_SAMPLES]
    return _entropy(b"".join(block.read(n * block.page_size, block.page_size) for n in chosen))


def _entropy(data: bytes) -> float:
    """Give Shannon's entropy in bits a byte."""
    import numpy as np  # noqa: PLC0415

    shares = np.bincount(np.frombuffer(data, np.uint8), minlength=256) / len(data)
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum())
