"""A small language for descriptions that QEMU saves without describing them.

::

    vmsd       = parts subsections
    subsection = 05 len:u8 name version:be32 vmsd     while the name begins with the parent's
    list       = { 01 element } 00
    tree       = count:be32 { 01 key value } 00

What lies inside the opaque ``virtio`` field was written with ordinary
VMStateDescriptions, but without the JSON for them. They are declared here
as tables of parts, and `TableReader` walks them: a new device is a new table.
A count is a number, the name of a value read before (or given in `values`),
or a function of the reader of tables; `when` says whether a part is there.

Source: QEMU migration/vmstate.c (vmstate_subsection_save,
vmstate_subsection_load), migration/vmstate-types.c (put_qlist, put_gtree).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from cprformats.codecs import codec
from cprformats.errors import Unsupported
from cprformats.fields import Kind
from cprformats.reader import Reader

if TYPE_CHECKING:
    from cprformats.migration.device import Decoder

__all__ = [
    "MAX_ELEMENTS",
    "Array",
    "Code",
    "Count",
    "Item",
    "Nested",
    "Part",
    "QList",
    "Rows",
    "Struct",
    "TableReader",
    "Tree",
    "Vmsd",
]

#: An array longer than this stays in the file as bytes.
_MAX_ARRAY_BYTES = 1 << 16
#: How far an unknown subsection's end is searched for.
_SEARCH_BYTES = 1 << 18
#: Few devices have more queues; a thousand groups would only be slow.
_MAX_NAMED_ROWS = 128
_SUBSECTION = 5
#: Elements of one list; real ones have a few, with virtio-iommu perhaps thousands.
MAX_ELEMENTS = 50_000

Count = int | str | Callable[["TableReader"], int]
Condition = Callable[["TableReader"], bool]


@dataclass(frozen=True, slots=True)
class Item:
    """One value. ``{}`` in `meaning` stands for the kind of device."""

    name: str
    codec: str
    meaning: str = ""
    type: str = ""
    kind: Kind | None = None
    when: Condition | None = None


@dataclass(frozen=True, slots=True)
class Array:
    """Plain integers in one leaf, or bytes as they are (`codec` ``bytes``)."""

    name: str
    codec: str
    count: Count
    type: str = ""
    kind: Kind | None = None
    when: Condition | None = None


@dataclass(frozen=True, slots=True)
class Struct:
    """Parts as one group, or with a `count` an array of such groups."""

    name: str
    parts: tuple[Part, ...]
    count: Count | None = None
    type: str = ""
    when: Condition | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """An array of fixed length of which only the first rows are in use.

    Those (as many as the value `used`, up to 128) become groups, the rest one
    leaf. The columns are of integers, bools and arrays of two integers, all big-endian.
    """

    name: str
    columns: tuple[Item, ...]
    count: int
    used: str
    type: str = ""
    when: Condition | None = None

    @property
    def flat(self) -> str:
        """The columns as ``u16,u8,u32``, for the codec of many rows."""
        found: list[str] = []
        for column in self.columns:
            base, _, count = column.codec.replace("bool", "u8").partition("[")
            found += [base.removesuffix("be")] * int(count.rstrip("]") or 1)
        return ",".join(found)


@dataclass(frozen=True, slots=True)
class QList:
    """A list: 1 in front of each element, 0 at the end."""

    name: str
    parts: tuple[Part, ...]
    type: str = ""
    when: Condition | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree: its count, then 1, key and value for each node, then 0."""

    name: str
    key: tuple[Part, ...]
    value: tuple[Part, ...]
    type: str = ""
    when: Condition | None = None


@dataclass(frozen=True, slots=True)
class Nested:
    """A whole description in place, without a head: parts, then its own subsections."""

    name: str
    vmsd: Vmsd
    when: Condition | None = None


@dataclass(frozen=True, slots=True)
class Code:
    """Something that takes a function; it reads into the open group."""

    name: str
    read: Callable[[TableReader], None]
    when: Condition | None = None


Part = Item | Array | Struct | Rows | QList | Tree | Nested | Code


@dataclass(frozen=True)
class Vmsd:
    """A VMStateDescription: its name, its parts and the subsections that it may have."""

    name: str
    parts: tuple[Part, ...] = ()
    subsections: tuple[Vmsd, ...] = ()

    @cached_property
    def known(self) -> dict[str, Vmsd]:
        """The subsections by name."""
        return {sub.name: sub for sub in self.subsections}

    @property
    def mark(self) -> bytes:
        """The bytes that a subsection of this name begins with."""
        name = self.name.encode()
        return bytes([_SUBSECTION, len(name)]) + name


@dataclass(slots=True)
class TableReader:
    """Reads tables, and remembers integers by name for counts and conditions.

    Attributes:
        decoder: of the section; takes notices.
        reader: where to read.
        device: kind of device, for meanings (``net``).
        version: of the description being read.
        values: integers read so far, the last of each name.
    """

    decoder: Decoder
    reader: Reader
    device: str = ""
    version: int = 1
    values: dict[str, int] = field(default_factory=dict)

    def vmsd(self, vmsd: Vmsd) -> None:
        """Read the parts and subsections of one description into the open group."""
        self.parts(vmsd.parts)
        self.subsections(vmsd)

    def parts(self, parts: tuple[Part, ...]) -> None:
        """Read parts in order."""
        for part in parts:
            if part.when is None or part.when(self):
                self._part(part)

    def _part(self, part: Part) -> None:
        match part:
            case Item():
                self._item(part)
            case Array():
                self._array(part)
            case Struct():
                self._struct(part)
            case Rows():
                self._rows(part)
            case QList():
                self._qlist(part)
            case Tree():
                self._tree(part)
            case Nested(name, vmsd):
                with self.reader.group(name, vmsd.name):
                    self.vmsd(vmsd)
            case Code(name, read):
                with self.reader.group(name):
                    read(self)

    # -- values -------------------------------------------------------------------

    def count(self, count: Count) -> int:
        """Work out a count."""
        if isinstance(count, int):
            return count
        return self.values.get(count, 0) if isinstance(count, str) else count(self)

    def _item(self, item: Item) -> None:
        how = item.codec
        if how == "bool" and self.reader.peek(1) > b"\1":
            how = "u8"
        meaning = item.meaning.replace("{}", self.device)
        value = self.reader.take(
            item.name, how, type=item.type or item.codec, kind=item.kind, meaning=meaning
        )
        if isinstance(value, int):
            self.values[item.name] = int(value)

    def _array(self, array: Array) -> None:
        count = self.count(array.count)
        size = count if array.codec == "bytes" else count * (codec(f"{array.codec}[1]").size or 1)
        if array.codec == "bytes" or size > _MAX_ARRAY_BYTES:
            self.reader.blob(array.name, size, type=array.type or array.codec, kind=array.kind)
        elif count:
            how = f"{array.codec}[{count}]"
            self.reader.take(array.name, how, type=array.type or array.codec, kind=array.kind)

    # -- groups -------------------------------------------------------------------

    def _struct(self, struct: Struct) -> None:
        with self.reader.group(struct.name, struct.type):
            if struct.count is None:
                self.parts(struct.parts)
                return
            for index in range(self.count(struct.count)):
                with self.reader.group(f"[{index}]", struct.type):
                    self.parts(struct.parts)

    def _rows(self, rows: Rows) -> None:
        columns = rows.flat
        size = codec(f"{{{columns}}}be[1]").size or 1
        self.reader.require(rows.name, size * rows.count)
        used = min(self.values.get(rows.used, 0), rows.count, _MAX_NAMED_ROWS)
        with self.reader.group(rows.name, rows.type):
            for index in range(used):
                with self.reader.group(f"[{index}]", rows.type):
                    for column in rows.columns:
                        self._item(column)
            self._unused(used, rows.count - used, columns, size)

    def _unused(self, first: int, count: int, columns: str, size: int) -> None:
        """Keep the rows that are not in use as one leaf."""
        if not count:
            return
        name = f"[{first}...]"
        if self.reader.peek(count * size).strip(b"\0"):
            self.reader.take(name, f"{{{columns}}}be[{count}]")
        else:
            self.reader.blob(name, count * size, type="unused")

    def more(self, index: int) -> bool:
        """Read the byte in front of an element; say whether there is one.

        Raises:
            Damaged: it is neither 1 nor 0.
            Unsupported: there are too many elements.
        """
        if index > MAX_ELEMENTS:
            raise self.reader.error(Unsupported, f"a list of more than {MAX_ELEMENTS} elements")
        here = self.reader.peek(1)
        if here not in (b"\0", b"\1"):
            raise self.reader.mismatch("list marker", "00 or 01", here.hex() or "nothing")
        self.reader.number(f"more[{index}]" if here == b"\1" else "end", "u8")
        return here == b"\1"

    def _qlist(self, part: QList) -> None:
        with self.reader.group(part.name, part.type):
            index = 0
            while self.more(index):
                with self.reader.group(f"[{index}]"):
                    self.parts(part.parts)
                index += 1

    def _tree(self, part: Tree) -> None:
        with self.reader.group(part.name, part.type):
            nodes = self.reader.number("nnodes", "u32be")
            index = 0
            while self.more(index):
                with self.reader.group(f"[{index}]"):
                    self.parts(part.key)
                    self.parts(part.value)
                index += 1
            if index != nodes:
                raise self.reader.mismatch(f"nodes of {part.name}", nodes, index)

    # -- subsections ----------------------------------------------------------------

    def subsections(self, parent: Vmsd) -> None:
        """Read the subsections that stand here and belong to `parent`."""
        while (name := self._next_name()) and _belongs(name, parent):
            outer = self.version
            with self.reader.group(name, name):
                self._head()
                known = parent.known.get(name)
                if known is not None:
                    self.vmsd(known)
                else:
                    self._unknown(name, parent)
            self.version = outer

    def _next_name(self) -> str:
        """Look at the name of the subsection that stands here; empty if none does."""
        head = self.reader.peek(2)
        if len(head) < 2 or head[0] != _SUBSECTION:
            return ""
        name = self.reader.peek(head[1], skip=2)
        return name.decode("utf-8", "surrogateescape") if len(name) == head[1] else ""

    def _head(self) -> None:
        with self.reader.group("head", "subsection", Kind.SUBSECTION_HEAD):
            self.reader.number("type", "u8", meaning="section-type")
            self.reader.counted_text("idstr")
            self.version = self.reader.number("version", "u32be")

    def _unknown(self, name: str, parent: Vmsd) -> None:
        """Keep the contents of a subsection without a table, up to the next known one."""
        left = self.reader.remaining
        ahead = self.reader.peek(min(left, _SEARCH_BYTES))
        ends = (ahead.find(sub.mark) for sub in parent.subsections)
        size = min((end for end in ends if end >= 0), default=left)
        self.decoder.notice(f"subsection {name!r} is not known, {size} bytes", self.reader)
        self.reader.blob("data", size, kind=Kind.RAW)


def _belongs(name: str, parent: Vmsd) -> bool:
    """QEMU goes by the beginning of the name; 5.2 has one that is misspelt there."""
    return name in parent.known or (name.startswith(parent.name) and name != parent.name)
