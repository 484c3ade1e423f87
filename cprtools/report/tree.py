"""Fields as a tree of lines, or as ``path = value`` lines for grep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from cprformats.codecs import DataRef
from cprformats.encode import encode_leaf
from cprformats.errors import FormatError
from cprformats.fields import Field
from cprtools.inspector.parts import Part
from cprtools.inspector.select import Selection, paths
from cprtools.report.hexdump import hex_rows, hexdump
from cprtools.report.output import Output
from cprtools.report.words import count, field_words, meaning_words, value_words

__all__ = ["TreeStyle", "write_field_lines", "write_part"]

_NO_TERMINAL_WIDTH = 100
_NAME_WIDTH = 32
_RAW_ROWS = 4
_RAW_BYTES = 8


@dataclass(frozen=True, slots=True)
class TreeStyle:
    """How trees are written.

    Attributes:
        offsets: put offset and size in front of each line, and the type behind.
        raw: put the bytes in front of each line.
        full: shorten and join nothing.
    """

    offsets: bool = False
    raw: bool = False
    full: bool = False

    @property
    def whole(self) -> bool:
        """Whether heads and footers are shown: where bytes are, all of them are."""
        return self.offsets or self.raw


def write_part(out: Output, part: Part, style: TreeStyle) -> None:
    """Write a part's title, its fields, and what did not fit."""
    trees, notices = part.decode()
    out.line((part.name, "title"), (f"  {_about(part)}", "dim"))
    writer = _Tree(out, style)
    for tree in trees:
        writer.fields(_shown(part, tree, style), 1)
    for notice in notices:
        out.line("  ", ("! " + notice, "warn"))


def _about(part: Part) -> str:
    place = f"at {part.offset:#x}, {count(part.size, 'byte')}"
    section = part.section
    if section is None:
        return place
    vmsd = section.description.vmsd.vmsd_name if section.description else ""
    words = [section.type.name, place, f"instance {section.instance_id}"]
    words += [f"version {section.version}", *([f"vmsd {vmsd}"] if vmsd else [])]
    return f"{words[0]} {', '.join(words[1:])}, end by {section.located}"


def _shown(part: Part, tree: Field, style: TreeStyle) -> tuple[Field, ...]:
    """Leave out a section's head and footer: its title has said what they say."""
    if style.whole and part.what == "ram":
        return (tree,)
    if style.whole or part.section is None:
        return tree.children or (tree,)
    body = tree.get("body")
    return body.children if body is not None else ()


def write_field_lines(out: Output, part: Part, selection: Selection, style: TreeStyle) -> None:
    """Write ``section: path = value`` for each chosen leaf; a chosen group gives all its leaves."""
    trees, _ = part.decode()
    for tree in trees:
        within = ""
        for path, field in paths(tree):
            shown = path.removeprefix("body.")
            below = within and path.startswith((f"{within}.", f"{within}["))
            if not below and not selection.takes_path(shown):
                continue
            if field.codec:
                place = f"{field.offset:#010x} +{field.size:<8} " if style.offsets else ""
                text = field_words(field, full=style.full)
                out.line((place, "dim"), (part.name, "dim"), ": ", (shown, "name"), f" = {text}")
            elif not below:
                within = path


class _Tree:
    """Writes the lines of one tree."""

    def __init__(self, out: Output, style: TreeStyle) -> None:
        self.out = out
        self.style = style
        self.width = out.width or _NO_TERMINAL_WIDTH

    def fields(self, fields: Sequence[Field], depth: int) -> None:
        """Write siblings."""
        pad = max((len(f.name) for f in fields if f.codec), default=0)
        for field, last in self._joined(fields):
            self.field(field, depth, min(pad, _NAME_WIDTH))
            if last is not field:
                self._line(None, depth, (f"… {_index(last.name)}", "name"), ("  the same", "dim"))

    def field(self, field: Field, depth: int, pad: int) -> None:
        """Write one field and all below it."""
        if field.codec:
            self._leaf(field, depth, pad)
            return
        self._line(field, depth, (field.name, "name"), (f"  {_group_words(field)}", "dim"))
        children = field.children
        if not self.style.whole:
            children = tuple(c for c in children if not _is_subsection_head(c))
        self.fields(children, depth + 1)

    def _joined(self, fields: Sequence[Field]) -> Iterator[tuple[Field, Field]]:
        """Give (first, last) of each run of elements that differ in nothing but the index."""
        index = 0
        while index < len(fields):
            first = last = fields[index]
            index += 1
            while not (self.style.whole or self.style.full) and index < len(fields):
                if not _is_next_alike(first, fields[index]):
                    break
                last = fields[index]
                index += 1
            yield first, last

    def _leaf(self, field: Field, depth: int, pad: int) -> None:
        name = field.name.ljust(pad)
        used = self._left_width() + 2 * depth + len(name) + 2
        *more, last = _wrap(self._items(field), max(self.width - used, 24))
        type_ = f"  {field.type}" if self.style.offsets else ""
        words = " | ".join(meaning_words(field))
        tail = ((f"  {words}" if words else "", "words"), (type_, "dim"))
        if not more:
            self._line(field, depth, (name, "name"), f"  {last}", *tail)
        else:
            self._line(field, depth, (name, "name"), f"  {more[0]}")
            for text in more[1:]:
                self.out.line(" " * used, text)
            self.out.line(" " * used, last, *tail)
        self._contents(field, depth)

    def _items(self, field: Field) -> list[str]:
        text = value_words(field.value, field.codec, field.size, full=self.style.full)
        if not isinstance(field.value, tuple):
            return [text]
        items = text.split(", ")
        return [f"{item}, " for item in items[:-1]] + items[-1:]

    def _contents(self, field: Field, depth: int) -> None:
        """Write a buffer out, where all is wanted and it did not fit on the line."""
        if not self.style.full or self.style.raw or field.size <= 32:
            return
        if isinstance(field.value, (bytes, DataRef)):
            for line in hexdump(encode_leaf(field), field.offset):
                self.out.line(" " * (self._left_width() + 2 * depth + 2), (line, "value"))

    # -- what stands on the left -------------------------------------------------

    def _left_width(self) -> int:
        raw = 10 + 3 * _RAW_BYTES + 1 if self.style.raw else 0
        return raw or (22 if self.style.offsets else 0)

    def _line(self, field: Field | None, depth: int, *parts: str | tuple[str, str]) -> None:
        rows = self._raw_rows(field) if self.style.raw and field is not None else []
        left = rows[0] if rows else ""
        if self.style.offsets and not self.style.raw and field is not None:
            left = f"{field.offset:#010x} +{field.size}"
        self.out.line((left.ljust(self._left_width()), "dim"), "  " * depth, *parts)
        for row in rows[1:]:
            self.out.line((row, "dim"))

    def _raw_rows(self, field: Field) -> list[str]:
        if not field.codec or not field.size:
            return []
        limit = None if self.style.full else _RAW_ROWS
        try:
            rows = list(islice(hex_rows(encode_leaf(field), _RAW_BYTES), limit))
        except FormatError:  # a pipe's pages are not kept
            return [f"{field.offset:08x}  (not kept)"]
        shown = [
            f"{field.offset + _RAW_BYTES * number:08x}  {row.hex(' ')}"
            for number, row in enumerate(rows)
        ]
        left = field.size - sum(map(len, rows))
        return [*shown, f"{'':8}  … {count(left, 'byte')} more"] if left else shown


def _group_words(field: Field) -> str:
    if field.children and _is_subsection_head(field.children[0]):
        version = field.children[0].get("version")
        return f"subsection, version {version.value!r}" if version else "subsection"
    words = "" if field.type == field.name else field.type
    return words if field.children else f"{words}  empty".strip()


def _is_subsection_head(field: Field) -> bool:
    return field.name == "head" and field.type == "subsection"


def _index(name: str) -> str:
    return name[name.rfind("[") :]


def _is_next_alike(first: Field, other: Field) -> bool:
    """Say whether two siblings are elements of one array with the same contents."""
    cut, other_cut = first.name.rfind("["), other.name.rfind("[")
    same_array = cut >= 0 and first.name[:cut] == other.name[:other_cut] and other_cut >= 0
    return same_array and _alike(first, other)


def _alike(one: Field, other: Field) -> bool:
    mine = (one.codec, one.type, one.value, len(one.children))
    if mine != (other.codec, other.type, other.value, len(other.children)):
        return False
    return all(
        a.name == b.name and _alike(a, b) for a, b in zip(one.children, other.children, strict=True)
    )


def _wrap(items: Iterable[str], width: int) -> list[str]:
    """Put items into lines of at most `width`, where an item is not longer itself."""
    lines = [""]
    for item in items:
        if lines[-1] and len(lines[-1]) + len(item.rstrip()) > width:
            lines.append("")
        lines[-1] += item
    return lines
