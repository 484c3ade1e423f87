"""The same document as YAML 1.1 and 1.2: blocks for structure, one leaf a line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from cprtools.report.values import Json

__all__ = ["YamlEmitter"]

_PLAIN_KEY = re.compile(r"[a-z][a-z_-]*")
#: Words that a reader of YAML 1.1 takes for something else than text.
_NOT_TEXT = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_PAIR = re.compile(r"\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})")


class YamlEmitter:
    """Writes YAML (ASCII only) through a `write` function."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._open: list[str] = []  # "{" or "["
        self._empty: list[bool] = []

    @property
    def depth(self) -> int:
        """How many objects and arrays are open."""
        return len(self._open)

    def object(self, key: str | None = None, head: dict[str, Json] | None = None) -> None:
        """Begin an object; `head` is its first members."""
        self._begin("{", key)
        for name, value in (head or {}).items():
            self.put(value, name)

    def array(self, key: str | None = None) -> None:
        """Begin an array."""
        self._begin("[", key)

    def put(self, value: Json, key: str | None = None) -> None:
        """Write a whole value."""
        self._lead(key)
        self._write(f" {_flow(value)}\n")

    def end(self, depth: int | None = None) -> None:
        """End the innermost object or array, or all above `depth`."""
        depth = self.depth - 1 if depth is None else depth
        while self.depth > depth:
            kind = self._open.pop()
            if self._empty.pop():
                self._write(f"{' ' if self._open else ''}{'{}' if kind == '{' else '[]'}\n")

    def _begin(self, kind: str, key: str | None) -> None:
        if self._open:
            self._lead(key)
        self._open.append(kind)
        self._empty.append(True)

    def _lead(self, key: str | None) -> None:
        """Write the line break, the indent, and the key or dash."""
        first, self._empty[-1] = self._empty[-1], False
        after_dash = first and self._open[-1] == "{" and self._open[-2:-1] == ["["]
        if after_dash:
            self._write(" ")
        else:
            top = len(self._open) == 1
            if first and not top:
                self._write("\n")
            self._write("  " * (self.depth - 1))
        self._write("-" if key is None else f"{_key(key)}:")


def _key(key: str) -> str:
    plain = _PLAIN_KEY.fullmatch(key) and key not in _NOT_TEXT
    return key if plain else _flow(key)


def _flow(value: Json) -> str:
    """Give a value on one line; text always in double quotes."""
    if isinstance(value, str):
        # YAML's escapes are code points, JSON's are halves of them beyond 16 bits.
        return _PAIR.sub(_join_pair, json.dumps(value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return json.dumps(value)


def _join_pair(match: re.Match[str]) -> str:
    high, low = int(match[1], 16), int(match[2], 16)
    return f"\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"
