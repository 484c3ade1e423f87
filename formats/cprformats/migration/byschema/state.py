"""One reading of a body so far, and why one came to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cprformats.migration.byschema.trail import Trail
from cprformats.schema.model import Description

__all__ = ["Failure", "Here", "Known", "Reason", "State", "versions"]

#: ("n", object, offset) -> a number; ("t", level, test) -> 0 or 1.
Known = dict[tuple[str, int, int], int]


class State:
    """One reading so far, or several that are the same from here on; never changed.

    Attributes:
        trail: what was read; its offset is where this is.
        known: numbers and tests that later fields may go by.
        config: offset and size of the last PCI configuration space.
    """

    __slots__ = ("config", "known", "trail")

    def __init__(self, trail: Trail, known: Known, config: tuple[int, int] | None = None) -> None:
        self.trail = trail
        self.known = known
        self.config = config

    @property
    def offset(self) -> int:
        """Where the reading is, in bytes from the body's start."""
        return self.trail.offset

    def at(self, trail: Trail) -> State:
        """The reading with another trail."""
        return State(trail, self.known, self.config)

    def knowing(self, key: tuple[str, int, int], value: int) -> State:
        """The reading with one thing more known."""
        return State(self.trail, {**self.known, key: value}, self.config)

    def without(self, key: tuple[str, int, int]) -> State:
        """The reading with one thing less known."""
        if key not in self.known:
            return self
        known = dict(self.known)
        del known[key]
        return State(self.trail, known, self.config)

    def forgetting(self, kind: str, number: int) -> State:
        """Without what is known of an object ("n"), or of a level ("t"), that is left."""
        kept = {key: value for key, value in self.known.items() if key[:2] != (kind, number)}
        if len(kept) == len(self.known):
            return self
        return State(self.trail, kept, self.config)


@dataclass(frozen=True, slots=True)
class Here:
    """Where in the objects a description is applied.

    Attributes:
        level: how deep in descriptions.
        base: offset of the structure in its object.
        object: number of the object.
        wanted: offsets in the object of numbers to remember, and for how many fields.
    """

    level: int
    base: int
    object: int
    wanted: Mapping[int, int]


class Reason(StrEnum):
    """Why a description does not fit."""

    DESCRIPTION = "description"
    VERSION = "version"
    SUBSECTION = "subsection"
    SIZE = "size"
    VALUE = "value"
    FIELD = "field"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class Failure:
    """What ended the reading that got furthest.

    Attributes:
        offset: in the body.
        reason: why, in one word.
        what: the description or field.
        expected: in words.
        found: in words.
    """

    offset: int
    reason: Reason
    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        place = f", {self.offset:#x} behind its start" if self.offset else ""
        return f"{self.what}: expected {self.expected}, found {self.found}{place}"


def versions(one: Description) -> str:
    """The versions that a description loads, in words."""
    low, high = one.minimum_version_id, one.version_id
    return f"{low}" if low == high else f"{low} to {high}"
