"""A progress bar for long files: on standard error, if that is a terminal, and not at once."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["ProgressBar"]

_WAIT_SECONDS = 0.5
_STEP_SECONDS = 0.1


class ProgressBar:
    """Called with the offset reached; shows a bar once the file has proved long.

    Args:
        total: bytes in all, where that is known.
        speed: show the throughput too.
    """

    def __init__(self, total: int | None, *, speed: bool = False) -> None:
        self._total = total
        self._speed = speed
        self._bar: Progress | None = None
        self._next = time.monotonic() + _WAIT_SECONDS
        self._wanted = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def __call__(self, offset: int) -> None:
        """Say how far the reading has come."""
        if not self._wanted or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _STEP_SECONDS
        if self._bar is None:
            self._bar = _make(self._speed)
            self._bar.start()
            self._bar.add_task("reading", total=self._total)
        total = self._total if self._total is not None and offset <= self._total else None
        self._bar.update(self._bar.task_ids[0], completed=offset, total=total)
        self._bar.refresh()

    def stop(self) -> None:
        """Take the bar away, for good: something else is written now."""
        self._wanted = False
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _make(speed: bool) -> Progress:
    from rich.console import Console  # noqa: PLC0415 (only when a file takes long)
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = [BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn()]
    if speed:
        columns.insert(2, TransferSpeedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)
