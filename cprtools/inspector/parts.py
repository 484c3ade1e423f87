"""The parts of a layer in file order, whatever its format: names, extents, trees when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cprformats.fields import Field, Kind
from cprformats.migration import MigrationStream
from cprformats.migration.device import decode_frame
from cprformats.migration.model import Command, Item, Piece, Section
from cprtools.statefile import Content

__all__ = ["Part", "parts"]

#: A section's tree and the notices of what did not fit in it.
Decoded = tuple[tuple[Field, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a layer.

    Attributes:
        name: section name, name of the command, of the piece or of the tree.
        what: ``section``, ``ram``, ``command``, ``piece`` or ``tree``.
        offset: of the first byte, absolute.
        size: in bytes; for PACKAGED without the stream inside.
        kind: kind of its bytes, for those that have one.
        section: the section, if it is one.
        embedded: inside the stream of a PACKAGED command.
        decode: gives the trees and the notices; for RAM, only head and footer.
    """

    name: str
    what: str
    offset: int
    size: int
    kind: Kind | None
    section: Section | None
    embedded: bool
    decode: Callable[[], Decoded]


def parts(content: Content) -> Iterator[Part]:
    """Give the parts; those embedded in a command follow it."""
    if isinstance(content, MigrationStream):
        yield from _stream_parts(content, content.items, embedded=False)
    else:
        for tree in content.walk():
            yield _tree(tree, "tree", tree.name)


def _stream_parts(
    stream: MigrationStream, items: Sequence[Item], *, embedded: bool
) -> Iterator[Part]:
    for item in items:
        if isinstance(item, Piece):
            yield _tree(item.field, "piece", item.name, embedded=embedded)
        elif isinstance(item, Command):
            yield _tree(item.field, "command", item.name, embedded=embedded)
            yield from _stream_parts(stream, item.inner, embedded=True)
        else:
            yield _section(stream, item, embedded=embedded)


def _tree(field: Field, what: str, name: str, *, embedded: bool = False) -> Part:
    def decode() -> Decoded:
        return (field,), ()

    return Part(name, what, field.offset, field.size, field.kind, None, embedded, decode)


def _section(stream: MigrationStream, section: Section, *, embedded: bool) -> Part:
    def decode() -> Decoded:
        if section.holds_ram:
            return decode_frame(stream.source, section), ()
        tree, notices = stream.decode(section)
        return (tree,), notices

    size = section.end - section.offset
    what = "ram" if section.holds_ram else "section"
    return Part(section.name, what, section.offset, size, None, section, embedded, decode)
