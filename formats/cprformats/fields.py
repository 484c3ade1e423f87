"""What decoding gives: a tree of named fields whose leaves tile the bytes.

A leaf is a named span with a value and the codec that turns the value back
into its bytes; a group has children and no bytes of its own. Each byte of a
file belongs to exactly one leaf: `tally` counts them by kind, and
`cprformats.encode` writes them again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from cprformats.codecs import Value

__all__ = ["Field", "Kind", "Tally", "leaves", "tally"]


class Kind(StrEnum):
    """What sort of bytes a span holds."""

    HEADER = "header"
    CONFIGURATION = "configuration"
    SECTION_HEAD = "section-head"
    SUBSECTION_HEAD = "subsection-head"
    FOOTER = "footer"
    EOF = "eof"
    COMMAND = "command"
    VMDESC = "vmdesc"
    FIELD = "field"
    #: Bytes that the format itself calls a byte buffer: a FIFO, an NVRAM.
    BUFFER = "buffer"
    PADDING = "padding"
    RAM_HEAD = "ram-head"
    PAGE = "page"
    #: Bytes of a container file around the state (qcow2 tables, libvirt's header).
    CONTAINER = "container"
    #: Contents that belong to somebody else: disk clusters, a VFIO vendor's blob.
    PAYLOAD = "payload"
    #: Located and bounded, but no rule says what is inside.
    RAW = "raw"
    #: Not even the place is understood.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Field:
    """A named span of bytes, or a group of them.

    Attributes:
        name: as QEMU spells it on the wire or in the vmdesc, where it does.
        type: the wire's own type name (``uint32 equal``, a vmsd's name, ...).
        codec: how `value` lies in the bytes; empty for a group.
        kind: what sort of bytes these are; for a group, of most of its leaves.
        offset: absolute offset in the layer's data, in bytes.
        size: length in bytes, children included.
        value: the value of a leaf.
        children: the parts of a group, in file order.
        meaning: name of the table that gives words for the value, if any.
    """

    name: str
    type: str
    codec: str
    kind: Kind
    offset: int
    size: int
    value: Value = None
    children: tuple[Field, ...] = ()
    meaning: str = ""

    @property
    def end(self) -> int:
        """Offset of the first byte behind the field."""
        return self.offset + self.size

    def __getitem__(self, path: str) -> Field:
        """Find a descendant by its dotted path: ``field["parent_obj.config"]``.

        Names may hold dots themselves (``env.regs``, ``bus[0].ifs``).

        Raises:
            KeyError: there is none; the message says how far the path led.
        """
        found = self.get(path)
        if found is not None:
            return found
        here, rest = self, path
        while child := next((c for c in here.children if rest.startswith(f"{c.name}.")), None):
            here, rest = child, rest[len(child.name) + 1 :]
        raise KeyError(f"{path!r}: {here.name!r} has no {rest!r}")

    def get(self, path: str) -> Field | None:
        """Find a descendant by its dotted path, or None."""
        for child in self.children:
            if child.name == path:
                return child
            if path.startswith(f"{child.name}."):
                found = child.get(path[len(child.name) + 1 :])
                if found is not None:
                    return found
        return None


def leaves(field: Field) -> Iterator[Field]:
    """Walk the leaves of a tree in file order."""
    stack = [field]
    while stack:
        node = stack.pop()
        if node.codec:
            yield node
        stack.extend(reversed(node.children))


@dataclass(frozen=True, slots=True)
class Tally:
    """Bytes counted by kind.

    Attributes:
        by_kind: bytes of each kind; kinds that don't occur are absent.
    """

    by_kind: dict[Kind, int]

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(self.by_kind.values())

    @property
    def raw(self) -> int:
        """Bytes in a known place with no rule for their contents."""
        return self.by_kind.get(Kind.RAW, 0)

    @property
    def unknown(self) -> int:
        """Bytes of which not even the place is understood."""
        return self.by_kind.get(Kind.UNKNOWN, 0)

    @property
    def decoded(self) -> int:
        """Bytes that are neither raw nor unknown."""
        return self.total - self.raw - self.unknown

    def __add__(self, other: Tally) -> Tally:
        """Add two counts."""
        return Tally(dict(Counter(self.by_kind) + Counter(other.by_kind)))


def tally(fields: Iterable[Field]) -> Tally:
    """Count the bytes of trees by kind."""
    counts: Counter[Kind] = Counter()
    for field in fields:
        for leaf in leaves(field):
            counts[leaf.kind] += leaf.size
    return Tally(dict(counts))
