"""What a search has found so far, as a chain of events that alternatives share.

Each event points back to the one in front of it, so two alternatives have their
common beginning in common, as the same objects. Where two alternatives meet
again, at the same place with the same knowledge, they become one: what lies
between is a gap, undecided, and what follows is again sure for both.

From the chain comes a description as a vmdesc would have had it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import groupby
from typing import Final

from cprformats.migration.vmdesc import FieldDesc, VmsdDesc

__all__ = ["MANY", "UNDECIDED", "Gap", "Opening", "Shape", "Trail", "described"]

#: Type of a field that stands for bytes of which more than one reading fits.
UNDECIDED: Final = "undecided"
#: More readings than this are not counted.
MANY: Final = 1000


class Shape(Enum):
    """What an opening begins."""

    STRUCT = "struct"
    #: A description written straight into a field: ``tmp``, VMS_VSTRUCT.
    INLINE = "inline"
    #: A field of several elements that are each described: a list, a tree.
    LIST = "list"
    ELEMENT = "element"
    SUBSECTION = "subsection"


@dataclass(frozen=True, slots=True)
class Opening:
    """The beginning of a group.

    Attributes:
        shape: what it is.
        name: of the field; of a subsection its own.
        type: of the field.
        vmsd_name: name of the description inside.
        version: its version.
    """

    shape: Shape
    name: str
    type: str = ""
    vmsd_name: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes of which more than one reading fits.

    Attributes:
        size: in bytes.
        ways: how many readings there are.
    """

    size: int
    ways: int


class _Close(Enum):
    WHOLE = 0
    CUT = 1


_Event = FieldDesc | tuple[FieldDesc, ...] | Opening | Gap | _Close


class Trail:
    """One event, and through it all events in front of it.

    Attributes:
        before: the event in front; None of the first.
        event: what happened; None of the first.
        offset: behind it, in bytes from the body's start.
        length: events up to this one.
        depth: groups that are open behind it.
    """

    __slots__ = ("before", "depth", "event", "length", "offset")

    def __init__(
        self, before: Trail | None = None, event: _Event | None = None, offset: int = 0
    ) -> None:
        self.before = before
        self.event = event
        self.offset = offset
        self.length: int = before.length + 1 if before is not None else 0
        depth: int = before.depth if before is not None else 0
        if isinstance(event, Opening):
            depth += 1
        elif isinstance(event, _Close):
            depth -= 1
        self.depth: int = depth

    def add(self, event: FieldDesc | tuple[FieldDesc, ...] | Opening, offset: int) -> Trail:
        """The trail with one more event, `offset` being the place behind it."""
        return Trail(self, event, offset)

    def close(self, offset: int) -> Trail:
        """The trail with its innermost group closed."""
        return Trail(self, _Close.WHOLE, offset)

    def meet(self, other: Trail) -> Trail:
        """Both as one: what they share, and a gap to where both are."""
        if other is self:
            return self
        first, second = self, other
        while first is not second:
            if first.length >= second.length and first.before is not None:
                first = first.before
            elif second.before is not None:
                second = second.before
        made, size = first, self.offset - first.offset
        while made.depth > self.depth:
            if isinstance(made.event, Opening) and made.before is not None:
                made = made.before  # nothing of it is sure
                size = self.offset - made.offset
            else:
                made = Trail(made, _Close.CUT, made.offset)
        if size:
            ways = min(_ways(self, first) + _ways(other, first), MANY)
            made = Trail(made, Gap(size, ways), self.offset)
        return made

    def events(self) -> list[Trail]:
        """All events in order."""
        made = []
        node = self
        while node.before is not None:
            made.append(node)
            node = node.before
        made.reverse()
        return made


def _ways(trail: Trail, since: Trail) -> int:
    """Readings that a trail stands for since one of its events."""
    ways = 1
    while trail is not since and trail.before is not None:
        if isinstance(trail.event, Gap):
            ways *= trail.event.ways
        trail = trail.before
    return min(ways, MANY)


@dataclass(slots=True)
class _Frame:
    opening: Opening
    start: int
    fields: list[FieldDesc] = field(default_factory=list)
    inline: list[VmsdDesc] = field(default_factory=list)
    subsections: list[VmsdDesc] = field(default_factory=list)
    #: Where its first subsection or list element begins.
    tail: int | None = None
    #: Something behind `tail` is undecided.
    unsure: bool = False

    def vmsd(self, end: int) -> VmsdDesc:
        fields, subsections = self.fields, self.subsections
        if self.unsure:
            size = end - (self.tail if self.tail is not None else end)
            fields, subsections = [*fields, _undecided(size)], []
        opening = self.opening
        made = tuple(_joined(fields))
        return VmsdDesc(opening.vmsd_name, opening.version, made, tuple(subsections))

    def gap(self, size: int) -> None:
        if self.opening.shape is Shape.LIST or self.tail is not None:
            self.unsure = True
        else:
            self.fields.append(_undecided(size))


def _joined(fields: list[FieldDesc]) -> Iterator[FieldDesc]:
    """Plain values behind pointers as one array, if none of the pointers is NULL."""
    for (name, partial), group in groupby(fields, key=_array_of):
        entries = list(group)
        first = entries[0]
        if not partial:
            yield from entries
        elif len(entries) > 1 and all(
            (x.type, x.size) == (first.type, first.size) for x in entries
        ):
            yield replace(first, name=name, array_len=len(entries), partial=False)
        else:
            yield from (replace(entry, partial=False) for entry in entries)


def _array_of(field: FieldDesc) -> tuple[str, bool]:
    return field.name.rpartition("[")[0] if field.partial else "", field.partial


def _undecided(size: int) -> FieldDesc:
    return FieldDesc(UNDECIDED, UNDECIDED, size)


def described(trail: Trail, name: str, version: int) -> VmsdDesc:
    """The description that the events amount to, of a section of that name and version."""
    frames = [_Frame(Opening(Shape.STRUCT, "", "", name, version), 0)]
    before = 0
    for node in trail.events():
        frame, event = frames[-1], node.event
        if isinstance(event, FieldDesc):
            frame.fields.append(event)
        elif isinstance(event, tuple):
            frame.fields.extend(event)
        elif isinstance(event, Gap):
            frame.gap(event.size)
        elif isinstance(event, Opening):
            if frame.tail is None and event.shape in (Shape.SUBSECTION, Shape.ELEMENT):
                frame.tail = before
            frames.append(_Frame(event, before))
        else:
            frames.pop()
            if event is _Close.CUT and frame.opening.shape is Shape.LIST:
                frame.unsure = True
            _closed(frame, frames[-1], node.offset)
        before = node.offset
    return frames[0].vmsd(trail.offset)


def _closed(frame: _Frame, outer: _Frame, end: int) -> None:
    """Put a group that ends into the one around it."""
    opening, size = frame.opening, end - frame.start
    if opening.shape is Shape.SUBSECTION:
        outer.subsections.append(frame.vmsd(end))
    elif opening.shape is Shape.ELEMENT:
        outer.inline.append(frame.vmsd(end))
    elif opening.shape is Shape.STRUCT:
        vmsd = frame.vmsd(end)
        outer.fields.append(FieldDesc(opening.name, opening.type, size, struct=vmsd))
    elif opening.shape is Shape.INLINE:
        vmsd = frame.vmsd(end)
        outer.fields.append(FieldDesc(opening.name, opening.type, size, inline=(vmsd,)))
    elif frame.unsure:
        outer.fields.append(FieldDesc(opening.name, UNDECIDED, size))
    else:
        outer.fields.append(FieldDesc(opening.name, opening.type, size, inline=tuple(frame.inline)))
