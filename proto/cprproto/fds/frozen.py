"""A base for small frozen values that costs no import.

`dataclasses` takes 15 ms to import and `typing` 10 (docs/fds.md), more than all else that a new
process does before its guest runs. What is made inside the pause uses this instead; what is only
looked at afterwards (findings, reports) is a dataclass as everywhere.
"""

from __future__ import annotations

__all__ = ["Frozen"]


class Frozen:
    """Slots that are filled once, compared and shown by value."""

    __slots__: tuple[str, ...] = ()

    def _fill(self, *values: object) -> None:
        for name, value in zip(self.__slots__, values, strict=True):
            object.__setattr__(self, name, value)

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} can't be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} can't be deleted")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        pairs = (f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({', '.join(pairs)})"
