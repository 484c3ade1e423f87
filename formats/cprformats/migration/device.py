"""Decode a device section's body by its description, field by field.

The description gives names, types and sizes; a type that is a plain value
becomes a leaf, a struct a group, and a type that QEMU writes with a
hand-made function goes to the rule of that name (`rules`). What has no rule,
or a rule that does not fit, stays raw and is said in a notice: the sizes are
QEMU's own, so one odd field never shifts the next.

Source: QEMU migration/vmstate.c (vmstate_save_state_v,
vmstate_subsection_save), migration/vmstate-types.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cprformats.codecs import codec
from cprformats.errors import Damaged, FormatError, Unsupported
from cprformats.fields import Field, Kind
from cprformats.migration.model import Located, Section
from cprformats.migration.rules import find_handler, find_rule
from cprformats.migration.version2 import read_record_head
from cprformats.migration.vmdesc import FieldDesc, VmsdDesc
from cprformats.migration.wire import SectionType
from cprformats.reader import Reader
from cprformats.source import Source

__all__ = ["PRIMITIVES", "Decoder", "decode_frame", "decode_section"]

#: VMStateInfo names of plain values and how they lie on the wire. The "equal"
#: and "le" ones differ in what a loader checks, not in their bytes.
PRIMITIVES = {
    "bool": "bool",
    "int8": "i8",
    "int16": "i16be",
    "int32": "i32be",
    "int64": "i64be",
    "uint8": "u8",
    "uint16": "u16be",
    "uint32": "u32be",
    "uint64": "u64be",
    "int8 equal": "i8",
    "int16 equal": "i16be",
    "int32 equal": "i32be",
    "int32 le": "i32be",
    "uint8 equal": "u8",
    "uint16 equal": "u16be",
    "uint32 equal": "u32be",
    # vmstate_info_uint64_equal calls itself so.
    "int64 equal": "u64be",
    "uint64 equal": "u64be",
    "float64": "u64be",
    "fd": "i32be",
    "timer": "i64be",
}

#: An array longer than this stays in the file as bytes.
_MAX_ARRAY_BYTES = 1 << 16
#: Leaves of one section; real ones stay below 100,000.
_MAX_LEAVES = 400_000
_MAX_NOTICES = 100


@dataclass(slots=True)
class Decoder:
    """Decodes one section; rules get it to decode nested descriptions with.

    Attributes:
        section: the section at hand.
        page_size: the target's, in bytes.
        machine: machine type name, or empty.
        notices: what did not fit, for people, with offsets.
    """

    section: Section
    page_size: int = 4096
    machine: str = ""
    notices: list[str] = field(default_factory=list)
    _leaves: int = 0

    def vmsd(self, reader: Reader, desc: VmsdDesc) -> None:
        """Decode the fields and subsections of one description, in place."""
        for item in desc.fields:
            self.field(reader, item)
        for sub in desc.subsections:
            self.subsection(reader, sub)

    def subsection(self, reader: Reader, desc: VmsdDesc) -> None:
        """Decode a subsection: its head, then its contents."""
        with reader.group(desc.vmsd_name, desc.vmsd_name):
            with reader.group("head", "subsection", Kind.SUBSECTION_HEAD):
                reader.expect("type", "u8", int(SectionType.SUBSECTION))
                size = reader.number("idstr_len", "u8")
                name = reader.text("idstr", size)
                if name != desc.vmsd_name:
                    raise reader.mismatch("subsection", desc.vmsd_name, name)
                reader.number("version", "u32be")
            self.vmsd(reader, desc)

    def field(self, reader: Reader, desc: FieldDesc) -> None:
        """Decode one field, or all elements of an array."""
        if desc.array_len is None:
            name = desc.name if desc.index is None else f"{desc.name}[{desc.index}]"
            self._one(reader, name, desc)
        elif not self._bulk(reader, desc):
            with reader.group(desc.name, desc.type):
                for index in range(desc.array_len):
                    self._one(reader, f"[{index}]", desc)

    def _bulk(self, reader: Reader, desc: FieldDesc) -> bool:
        """Read an array of plain values as one leaf, if it is one."""
        how = PRIMITIVES.get(desc.type)
        if how is None or desc.array_len == 0 or how == "bool":
            return False
        name = f"{how}[{desc.array_len}]"
        if desc.wire_size > _MAX_ARRAY_BYTES or codec(how).size != desc.size:
            return False
        reader.take(desc.name, name, type=desc.type)
        return True

    def _one(self, reader: Reader, name: str, desc: FieldDesc) -> None:
        self._leaves += 1
        if self._leaves > _MAX_LEAVES:
            raise reader.error(Unsupported, f"a section of more than {_MAX_LEAVES} fields")
        end = reader.offset + desc.size
        if desc.struct is not None:
            with reader.group(name, desc.struct.vmsd_name):
                self.vmsd(reader, desc.struct)
            self._check_end(reader, name, end)
        elif not self._plain(reader, name, desc):
            self._by_rule(reader, name, desc)

    def _plain(self, reader: Reader, name: str, desc: FieldDesc) -> bool:
        how = PRIMITIVES.get(desc.type)
        if how is None or codec(how).size != desc.size:
            return False
        if how == "bool" and reader.peek(1) not in (b"\0", b"\1"):
            how = "u8"
        reader.take(name, how, type=desc.type)
        return True

    def _check_end(self, reader: Reader, name: str, end: int) -> None:
        if reader.offset != end:
            raise reader.mismatch(f"end of {name}", hex(end), hex(reader.offset))

    def _by_rule(self, reader: Reader, name: str, desc: FieldDesc) -> None:
        rule = find_rule(desc.type, desc)
        if rule is None:
            if desc.size:
                self.notice(f"no rule for type {desc.type!r} of {name!r}", reader)
            reader.blob(name, desc.size, type=desc.type, kind=Kind.RAW)
            return
        try:
            with self.bounded(reader, name, desc.type, desc.size):
                rule(self, reader, desc)
        except Damaged as error:
            reader.rewind()
            self.notice(f"rule for type {desc.type!r} does not fit: {error}", reader)
            reader.blob(name, desc.size, type=desc.type, kind=Kind.RAW)

    @contextmanager
    def bounded(self, reader: Reader, name: str, type: str, size: int) -> Iterator[None]:
        """Read a group of exactly `size` bytes.

        Raises:
            Damaged: the block read less, or tried to read more.
            Truncated: the stream has not that many bytes.
        """
        reader.require(name, size)
        outer, limit = reader.end, reader.offset + size
        with reader.group(name, type):
            reader.end = limit
            try:
                yield
            except FormatError as error:
                raise Damaged(error.message, offset=error.offset, path=error.path) from error
            finally:
                reader.end = outer
            self._check_end(reader, name, limit)

    def notice(self, message: str, reader: Reader) -> None:
        """Keep something that people should know, with its place."""
        if len(self.notices) < _MAX_NOTICES:
            where = " / ".join(reader.path)
            self.notices.append(f"{where}: {message}, at {reader.offset:#x}")


def decode_section(
    source: Source, section: Section, *, page_size: int = 4096, machine: str = ""
) -> tuple[Field, tuple[str, ...]]:
    """Decode a whole section, head and footer included, and what did not fit.

    A body that contradicts its description is kept raw from the contradiction
    on; the framing has already said where it ends.
    """
    reader = Reader(source, section.offset, section.end)
    decoder = Decoder(section, page_size, machine)
    with reader.group(section.name):
        _head(reader, section)
        _body(reader, section, decoder)
        _footer(reader, section)
    return reader.finish("section").children[0], tuple(decoder.notices)


def decode_frame(source: Source, section: Section) -> tuple[Field, ...]:
    """Decode a section's head, and its footer if it has one, without the body."""
    head = Reader(source, section.offset, section.body_offset)
    _head(head, section)
    footer = Reader(source, section.body_end, section.end)
    _footer(footer, section)
    return head.finish("head").children + footer.finish("footer").children


def _head(reader: Reader, section: Section) -> None:
    if section.located is Located.RECORD:
        with reader.group("head", "record", Kind.SECTION_HEAD):
            read_record_head(reader)
        return
    with reader.group("head", section.type.name, Kind.SECTION_HEAD):
        reader.number("type", "u8", meaning="section-type")
        reader.number("section_id", "u32be")
        if section.type in (SectionType.START, SectionType.FULL):
            reader.counted_text("idstr")
            reader.number("instance_id", "u32be")
            reader.number("version", "u32be")


def _footer(reader: Reader, section: Section) -> None:
    if section.footer_size:
        with reader.group("footer", "footer", Kind.FOOTER):
            reader.number("type", "u8", meaning="section-type")
            reader.number("section_id", "u32be")


def _body(reader: Reader, section: Section, decoder: Decoder) -> None:
    desc = section.description
    described = desc is not None and not desc.old_style
    handler = None if described else find_handler(section.idstr)
    outer, reader.end = reader.end, section.body_end
    with reader.group("body", desc.vmsd.vmsd_name if desc is not None else section.idstr):
        try:
            if handler is not None:
                handler(decoder, reader)
            elif desc is not None and described:
                decoder.vmsd(reader, desc.vmsd)
        except FormatError as error:
            decoder.notice(f"decoding stops: {error}", reader)
        _keep_rest(reader, section, decoder, has_rule=handler is not None or described)
    reader.end = outer


def _keep_rest(reader: Reader, section: Section, decoder: Decoder, *, has_rule: bool) -> None:
    left = section.body_end - reader.offset
    if not left:
        return
    if not has_rule:
        why = "no description" if section.description is None else "a hand-made function wrote it"
        decoder.notice(f"{left} bytes kept raw: {why}", reader)
    reader.blob("rest" if reader.siblings else "data", left, kind=Kind.RAW)
