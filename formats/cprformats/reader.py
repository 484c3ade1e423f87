"""The one bounded reader: exactly n bytes or a typed error that says where.

A `Reader` walks a range of a `Source`, hands out values, and keeps each as a
leaf of the tree that it builds on the way. Nothing is allocated before it is
known to be there, and a group that an error cuts short keeps what it had.

::

    reader = Reader(source, offset, end)
    with reader.group("footer"):
        reader.take("type", "u8", kind=Kind.FOOTER)
        reader.take("section_id", "u32be", kind=Kind.FOOTER)
    root = reader.finish("tail")
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cprformats.codecs import DataRef, Value, codec
from cprformats.errors import Damaged, FormatError, Truncated
from cprformats.fields import Field, Kind
from cprformats.source import Source

__all__ = ["Reader"]

#: A reader looks at this much at first, and at twice as much each time it comes to
#: the end of it: a stream of 100,000 small sections makes 100,000 readers.
_FIRST_WINDOW_BYTES = 1 << 9
_WINDOW_BYTES = 1 << 16
#: Contents longer than this stay in the source and are read when asked for.
_REF_BYTES = 1 << 16


class Reader:
    """A cursor over a range of a source that builds the tree of what it reads.

    Args:
        source: the bytes.
        offset: where to begin, absolute.
        end: where to stop, absolute; None reads to the end of the source.
        path: names of the structures around, for error messages.
        kind: the kind of each leaf for which none is given.
    """

    def __init__(
        self,
        source: Source,
        offset: int = 0,
        end: int | None = None,
        *,
        path: tuple[str, ...] = (),
        kind: Kind = Kind.FIELD,
    ) -> None:
        self.source = source
        self.offset = offset
        self.end = end
        self.kind = kind
        self._start = offset
        self._path = list(path)
        self._levels: list[list[Field]] = [[]]
        self._window = b""
        self._window_offset = offset
        self._window_size = _FIRST_WINDOW_BYTES

    # -- where we are -------------------------------------------------------

    @property
    def path(self) -> tuple[str, ...]:
        """Names of the enclosing structures, outermost first."""
        return tuple(self._path)

    @property
    def remaining(self) -> int:
        """Bytes left; on an unbounded pipe this reads it to its end."""
        end = self.source.size() if self.end is None else min(self.end, self.source.size())
        return max(end - self.offset, 0)

    def at_end(self) -> bool:
        """Say whether no byte is left."""
        return not self.peek(1)

    # -- bytes --------------------------------------------------------------

    def peek(self, count: int, skip: int = 0) -> bytes:
        """Look at up to `count` bytes, `skip` bytes ahead, and stay here."""
        start = self.offset + skip
        if self.end is not None:
            count = min(count, self.end - start)
        if count <= 0:
            return b""
        begin = start - self._window_offset
        if begin < 0 or begin + count > len(self._window):
            wanted = max(count, self._window_size)
            if self.end is not None:
                # Behind the end may be guest pages that a pipe did not keep.
                wanted = min(wanted, self.end - start)
            self._window = self.source.read_at(start, wanted)
            self._window_size = min(2 * self._window_size, _WINDOW_BYTES)
            self._window_offset, begin = start, 0
        return self._window[begin : begin + count]

    def ahead(self, what: str, count: int) -> bytes:
        """Look at exactly `count` bytes and stay here.

        Raises:
            Truncated: fewer are left; the error names `what`.
        """
        data = self.peek(count)
        if len(data) < count:
            raise self.truncated(what, count, len(data))
        return data

    # -- leaves -------------------------------------------------------------

    def take(
        self,
        name: str,
        codec_name: str,
        *,
        type: str = "",
        kind: Kind | None = None,
        meaning: str = "",
    ) -> Value:
        """Read one value of a fixed size and keep it as a leaf.

        Raises:
            Truncated: fewer bytes are left than the codec's size.
            Damaged: the codec has no value for these bytes.
        """
        how = codec(codec_name)
        assert how.size is not None, f"codec {codec_name} has no fixed size"
        data = self.ahead(name, how.size)
        try:
            value = how.decode(data)
        except ValueError as error:
            raise self.damaged(f"{name}: {error}") from error
        self._keep(name, type or codec_name, codec_name, kind, how.size, value, meaning)
        return value

    def number(
        self,
        name: str,
        codec_name: str,
        *,
        type: str = "",
        kind: Kind | None = None,
        meaning: str = "",
    ) -> int:
        """Read one integer; see `take`."""
        value = self.take(name, codec_name, type=type, kind=kind, meaning=meaning)
        assert isinstance(value, int)
        return value

    def expect(
        self,
        name: str,
        codec_name: str,
        wanted: Value,
        *,
        type: str = "",
        kind: Kind | None = None,
        meaning: str = "",
    ) -> None:
        """Read a value that can only be `wanted`.

        Raises:
            Damaged: it is something else; the reader stays in front of it.
        """
        how = codec(codec_name)
        data = self.ahead(name, len(how.encode(wanted)))
        if data != how.encode(wanted):
            raise self.mismatch(name, how.encode(wanted).hex(" "), data.hex(" "))
        self._keep(name, type or codec_name, codec_name, kind, len(data), wanted, meaning)

    def text(self, name: str, size: int, *, type: str = "text", kind: Kind | None = None) -> str:
        """Read `size` bytes of text."""
        value = codec("text").decode(self.ahead(name, size))
        assert isinstance(value, str)
        self._keep(name, type, "text", kind, size, value, "")
        return value

    def counted_text(self, name: str, length: str = "u8", *, kind: Kind | None = None) -> str:
        """Read a length (QEMU: one byte unless said) and that many bytes of text."""
        size = self.number(f"{name}_len", length, kind=kind)
        return self.text(name, size, kind=kind)

    def blob(self, name: str, size: int, *, type: str = "bytes", kind: Kind | None = None) -> Value:
        """Read `size` bytes as they are; long ones stay in the source (`DataRef`).

        All-zero contents become ``zeros[size]``, which keeps no bytes.
        """
        if size > _REF_BYTES:
            return self._ref(name, size, type, kind)
        data = self.ahead(name, size)
        if size > 0 and not data.strip(b"\0"):
            self._keep(name, type, f"zeros[{size}]", kind, size, None, "")
            return data
        self._keep(name, type, "bytes", kind, size, data, "")
        return data

    def _ref(self, name: str, size: int, type: str, kind: Kind | None) -> Value:
        self.require(name, size)
        ref = DataRef(self.source, self.offset, size)
        self._keep(name, type, "bytes", kind, size, ref, "")
        return ref

    def require(self, what: str, size: int) -> None:
        """Check that `size` bytes are there, without holding them.

        Raises:
            Truncated: they are not.
        """
        if self.end is not None and self.offset + size > self.end:
            raise self.truncated(what, size, max(self.end - self.offset, 0))
        if size and not self.source.read_at(self.offset + size - 1, 1):
            raise self.truncated(what, size, self.remaining)

    def add(self, field: Field) -> None:
        """Take in a field made elsewhere that begins here, and go behind it."""
        assert field.offset == self.offset, (field.offset, self.offset)
        self._levels[-1].append(field)
        self.offset = field.end

    def _keep(
        self,
        name: str,
        type: str,
        codec_name: str,
        kind: Kind | None,
        size: int,
        value: Value,
        meaning: str,
    ) -> None:
        leaf = Field(
            name, type, codec_name, kind or self.kind, self.offset, size, value, (), meaning
        )
        self._levels[-1].append(leaf)
        self.offset += size

    # -- groups -------------------------------------------------------------

    @contextmanager
    def group(self, name: str, type: str = "", kind: Kind | None = None) -> Iterator[None]:
        """Gather the leaves read inside into one field, also when an error ends it."""
        start, outer_kind = self.offset, self.kind
        self._levels.append([])
        self._path.append(name)
        self.kind = kind or outer_kind
        try:
            yield
        finally:
            self._path.pop()
            children = tuple(self._levels.pop())
            size = self.offset - start
            self._levels[-1].append(Field(name, type, "", self.kind, start, size, None, children))
            self.kind = outer_kind

    @property
    def siblings(self) -> tuple[Field, ...]:
        """The fields already read in the innermost open group."""
        return tuple(self._levels[-1])

    def rewind(self, field: Field | None = None) -> None:
        """Drop the last field of this group and go back to where it began."""
        last = self._levels[-1].pop()
        assert field is None or last is field
        self.offset = last.offset

    def mark(self) -> tuple[int, int]:
        """Note this place in the innermost open group, to come back to it."""
        return self.offset, len(self._levels[-1])

    def reset(self, mark: tuple[int, int]) -> None:
        """Go back to a place noted in this group, and drop what was read since."""
        self.offset, count = mark
        del self._levels[-1][count:]

    def finish(self, name: str, type: str = "") -> Field:
        """Give all that was read as one group."""
        assert len(self._levels) == 1, "finish inside an open group"
        size = self.offset - self._start
        children = tuple(self._levels[0])
        return Field(name, type, "", self.kind, self._start, size, None, children)

    # -- errors, all with the place ------------------------------------------

    def damaged(self, message: str, offset: int | None = None) -> Damaged:
        """Make an error for this place; the caller raises it."""
        return Damaged(message, offset=self._place(offset), path=self.path)

    def mismatch(
        self, what: str, expected: object, found: object, offset: int | None = None
    ) -> Damaged:
        """Make an error that names what was expected and what was found."""
        return Damaged.mismatch(what, expected, found, offset=self._place(offset), path=self.path)

    def truncated(self, what: str, needed: int, available: int) -> Truncated:
        """Make an error for data that ends too early."""
        return Truncated(what, needed, available, offset=self.offset, path=self.path)

    def error(self, kind: type[FormatError], message: str) -> FormatError:
        """Make an error of any other kind for this place."""
        return kind(message, offset=self.offset, path=self.path)

    def _place(self, offset: int | None) -> int:
        return self.offset if offset is None else offset
