"""Who uses a description, and how."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from cprformats.schema.difference import Role
from cprformats.schema.model import Schema

__all__ = ["Uses"]

#: Steps upwards through users, in all; only a hostile file needs more.
_MOST_STEPS: Final = 1 << 20


class Uses:
    """Who uses what in one schema.

    Args:
        schema: the schema.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._nested: dict[str, set[str]] = defaultdict(set)
        self._subsections: dict[str, set[str]] = defaultdict(set)
        self._left = _MOST_STEPS
        for one in schema.descriptions.values():
            for key in one.subsections:
                self._subsections[key].add(one.key)
            for field in one.fields:
                for key in filter(None, (field.nested, field.nested_key)):
                    self._nested[key].add(one.key)

    def roles(self, key: str) -> set[Role]:
        """All roles of a description."""
        nested = {Role.NESTED} if key in self._nested else set()
        subsection = {Role.SUBSECTION} if key in self._subsections else set()
        return nested | subsection or {Role.TOP}

    def role(self, key: str) -> Role:
        """The first of them."""
        found = self.roles(key)
        return next(one for one in (Role.NESTED, Role.SUBSECTION, Role.TOP) if one in found)

    def by(self, key: str) -> list[str]:
        """Keys of the descriptions that use one directly."""
        found = self._nested.get(key, set()) | self._subsections.get(key, set())
        return sorted(found)

    def users(self, key: str) -> tuple[str, ...]:
        """Names of the top-level descriptions that reach one, itself left out."""
        seen, waiting, tops = {key}, [key], set()
        while waiting and self._left > 0:
            at = waiting.pop()
            above = self.by(at)
            self._left -= 1 + len(above)
            if not above and at != key:
                tops.add(self.schema.descriptions[at].name)
            waiting.extend(one for one in above if one not in seen)
            seen.update(above)
        return tuple(sorted(tops))
