"""Where each byte lies: spans of a layer in file order, and those without a rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cprformats.fields import Field, Kind
from cprformats.migration import MigrationStream
from cprformats.migration.ramparts import RamRun
from cprtools.inspector.parts import Part, parts
from cprtools.inspector.select import Selection, paths
from cprtools.statefile import Content

__all__ = ["Span", "ram_spans", "raw_spans", "spans"]


@dataclass(frozen=True, slots=True)
class Span:
    """A span of bytes.

    Attributes:
        offset: absolute, in bytes.
        size: in bytes.
        kind: a `Kind`, a section type, or how pages were sent.
        name: what lies there.
        inner: lies inside the span before it that is not inner.
    """

    offset: int
    size: int
    kind: str
    name: str
    inner: bool = False


def spans(content: Content, selection: Selection, *, ram: bool = True) -> Iterator[Span]:
    """Give the top-level spans in file order, and inside RAM sections the runs of pages.

    Raises:
        FormatError: pages of a pipe that can't be read again.
    """
    for part in parts(content):
        if not selection.takes_part(part):
            continue
        section = part.section
        kind = section.type.name if section is not None else f"{part.kind}"
        yield Span(part.offset, part.size, kind, part.name)
        if ram:
            yield from ram_spans(content, part)
    if isinstance(content, MigrationStream) and content.error is not None:
        yield from _unread(content)


def _unread(stream: MigrationStream) -> Iterator[Span]:
    end = stream.source.known_size
    if end is not None and end > stream.end:
        yield Span(stream.end, end - stream.end, "unread", "damaged, or behind the damage")


def ram_spans(content: Content, part: Part) -> Iterator[Span]:
    """Give what lies inside the body of a RAM section; nothing for any other part.

    Raises:
        FormatError: pages of a pipe that can't be read again.
    """
    section = part.section
    if section is None or not section.holds_ram or not isinstance(content, MigrationStream):
        return
    for inner in content.ram_parts(section):
        if isinstance(inner, RamRun):
            pages = "1 page" if inner.count == 1 else f"{inner.count} pages"
            name = f"{inner.block} +{inner.address:#x}, {pages}"
            yield Span(inner.offset, inner.size, inner.kind.value, name, inner=True)
        else:
            field = inner.field
            yield Span(field.offset, field.size, field.kind.value, field.name, inner=True)


def raw_spans(content: Content, selection: Selection) -> Iterator[Span]:
    """Give each leaf that is raw or unknown, named by its section and dotted path."""
    for part in parts(content):
        if selection.takes_part(part):
            trees, _ = part.decode()
            for tree in trees:
                yield from _raw_leaves(part, tree)


def _raw_leaves(part: Part, tree: Field) -> Iterator[Span]:
    if tree.codec and tree.kind in (Kind.RAW, Kind.UNKNOWN):
        yield Span(tree.offset, tree.size, tree.kind.value, part.name)
    for path, field in paths(tree):
        if field.codec and field.kind in (Kind.RAW, Kind.UNKNOWN):
            name = f"{part.name}: {path.removeprefix('body.')} ({field.type})"
            yield Span(field.offset, field.size, field.kind.value, name)
