"""Choose sections and fields by pattern.

In a pattern ``*`` stands for any text and ``?`` for one character; all else
stands for itself, brackets too, because names are full of them (``irq[3]``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from cprformats.fields import Field
from cprtools.inspector.parts import Part, parts
from cprtools.statefile import Content

__all__ = ["Selection", "chosen_parts", "fits", "join_path", "paths", "prune"]


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    pieces = {"*": ".*", "?": "."}
    return re.compile("".join(pieces.get(c, re.escape(c)) for c in pattern), re.DOTALL)


def fits(pattern: str, text: str) -> bool:
    """Say whether a pattern fits a whole text."""
    return _compiled(pattern).fullmatch(text) is not None


@dataclass(slots=True)
class Selection:
    """What to show of a layer, and which patterns found something.

    Attributes:
        sections: patterns for idstr, ``idstr/instance`` or vmsd name; none: all.
        fields: patterns for dotted paths, or the end of one; none: all.
    """

    sections: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    _used: set[str] = field(default_factory=set)

    def takes_part(self, part: Part) -> bool:
        """Say whether a part is chosen."""
        return not self.sections or self._any(self.sections, _names(part))

    def takes_path(self, path: str) -> bool:
        """Say whether a field is chosen: its path, or an end of it that begins at a name."""
        return not self.fields or self._any(self.fields, _ends(path))

    def unused(self) -> tuple[str, ...]:
        """Patterns that found nothing."""
        return tuple(p for p in (*self.sections, *self.fields) if p not in self._used)

    def _any(self, patterns: tuple[str, ...], texts: tuple[str, ...]) -> bool:
        found = [p for p in patterns if any(fits(p, text) for text in texts)]
        self._used.update(found)
        return bool(found)


def chosen_parts(content: Content, selection: Selection) -> Iterator[Part]:
    """Give the parts that a selection takes."""
    return (part for part in parts(content) if selection.takes_part(part))


def _names(part: Part) -> tuple[str, ...]:
    section = part.section
    if section is None:
        return (part.name,)
    names = (section.idstr, f"{section.idstr}/{section.instance_id}")
    description = section.description
    vmsd = description.vmsd.vmsd_name if description is not None else ""
    return (*names, vmsd) if vmsd else names


@lru_cache(maxsize=4096)
def _ends(path: str) -> tuple[str, ...]:
    starts = [match.end() for match in re.finditer(r"\.", path)]
    return (path, *(path[start:] for start in starts))


def join_path(path: str, name: str) -> str:
    """Give the path of a child: ``regs`` and ``[3]`` make ``regs[3]``."""
    if not path or name.startswith("["):
        return path + name
    return f"{path}.{name}"


def paths(tree: Field, path: str = "") -> Iterator[tuple[str, Field]]:
    """Walk the descendants of a tree with their dotted paths, groups before their children."""
    stack = [(join_path(path, child.name), child) for child in reversed(tree.children)]
    while stack:
        here, node = stack.pop()
        yield here, node
        stack += [(join_path(here, child.name), child) for child in reversed(node.children)]


def prune(tree: Field, selection: Selection) -> Field | None:
    """Give a tree with the chosen fields only; a group is chosen with all below it."""
    return _prune(tree, "" if tree.name == "body" else tree.name, selection)


def _prune(field: Field, path: str, selection: Selection) -> Field | None:
    if path and selection.takes_path(path):
        return field
    found = (_prune(child, join_path(path, child.name), selection) for child in field.children)
    children = tuple(child for child in found if child is not None)
    return replace(field, children=children) if children else None
