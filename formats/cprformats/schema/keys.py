"""How descriptions are named in a schema, besides by their own names."""

from __future__ import annotations

from collections import Counter
from typing import Final

__all__ = ["MISSING", "UNNAMED", "KeyMaker"]

#: Begins the key of a description that only another file has; the symbol follows.
MISSING: Final = "symbol:"
#: Key of a description that gets its name when QEMU runs.
UNNAMED: Final = "(unnamed)"


class KeyMaker:
    """Makes keys: the name for the first of that name, ``name#2`` for the second."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._used: set[str] = set()

    def key(self, name: str) -> str:
        """A key that none before had, even where a name ends like a key."""
        name = key = name or UNNAMED
        self._seen[name] += 1
        if self._seen[name] > 1:
            key = f"{name}#{self._seen[name]}"
        if key in self._used:
            return self.key(name)
        self._used.add(key)
        return key
