"""JSON as it is written part by part: one leaf a line, so that it can be read and compared."""

from __future__ import annotations

import json
from collections.abc import Callable

from cprtools.report.values import Json

__all__ = ["JsonEmitter"]

_dumps = json.JSONEncoder(ensure_ascii=True, allow_nan=False).encode


class JsonEmitter:
    """Writes JSON (ASCII only) through a `write` function."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._open: list[str] = []  # what ends each
        self._empty = [True]  # of each, and of the document

    @property
    def depth(self) -> int:
        """How many objects and arrays are open."""
        return len(self._open)

    def object(self, key: str | None = None, head: dict[str, Json] | None = None) -> None:
        """Begin an object; `head` is its first members."""
        self._begin("{", "}", key)
        if head:
            self._write(_dumps(head)[1:-1])
            self._empty[-1] = False

    def array(self, key: str | None = None) -> None:
        """Begin an array."""
        self._begin("[", "]", key)

    def put(self, value: Json, key: str | None = None) -> None:
        """Write a whole value."""
        self._lead(key)
        self._write(_dumps(value))

    def end(self, depth: int | None = None) -> None:
        """End the innermost object or array, or all above `depth`."""
        depth = self.depth - 1 if depth is None else depth
        while self.depth > depth:
            self._empty.pop()
            self._write(self._open.pop())
        if not self._open:
            self._write("\n")

    def _begin(self, start: str, end: str, key: str | None) -> None:
        self._lead(key)
        self._write(start)
        self._open.append(end)
        self._empty.append(True)

    def _lead(self, key: str | None) -> None:
        """Write what stands in front of a value: comma, line break, key."""
        comma = "" if self._empty[-1] else ","
        self._empty[-1] = False
        if self._open:
            self._write(f"{comma}\n{' ' * self.depth}")
        if key is not None:
            self._write(f"{_dumps(key)}: ")
