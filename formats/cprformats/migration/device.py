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
from dataclasses import dataclass, field, replace

from cprformats.codecs import codec
from cprformats.errors import Damaged, FormatError, Unsupported
from cprformats.fields import Field, Kind
from cprformats.migration.elastic import Elastic
from cprformats.migration.model import Located, Section
from cprformats.migration.rules import find_handler, find_rule
from cprformats.migration.version2 import read_record_head
from cprformats.migration.vmdesc import FieldDesc, VmsdDesc
from cprformats.migration.wire import SectionType
from cprformats.reader import Reader
from cprformats.source import Source

__all__ = ["BY_SIZE", "PRIMITIVES", "Decoder", "decode_frame", "decode_section"]

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
    "CPU_Double_U": "u64be",
    "timer": "i64be",
}
#: VMStateInfo names of one unsigned integer whose width differs by target or
#: release: registers of CPUs, and members that changed their width.
#:
#: Source: target/*/machine.c, target/*/cpu.c, hw/nvram/fw_cfg.c, eeprom93xx.c.
# fmt: off
BY_SIZE = frozenset({
    "cpsr", "cpu/altivec/vscr", "eind", "fpcr", "fpr", "fpscr", "fpsr", "fsr",
    "int32_as_uint16", "msr", "powered_off", "psr", "pstate64", "psw", "rampD", "rampX",
    "rampY", "rampZ", "sr", "sreg", "uint16_from_uint8", "vsr", "xcc",
})
# fmt: on
_UNSIGNED = {1: "u8", 2: "u16be", 4: "u32be", 8: "u64be"}

#: An array longer than this is read in pieces.
_MAX_ARRAY_BYTES = 1 << 18
#: Leaves of one section; real ones stay below 100,000.
_MAX_LEAVES = 400_000
_MAX_NOTICES = 100
#: Since 11.1 some arrays have a marker in front of every element.
_POINTER_FOLLOWS = b"1"


def _plain_codec(desc: FieldDesc) -> str | None:
    """Give the codec of one element of a plain type, if it is one and has its size."""
    if desc.type in BY_SIZE:
        return _UNSIGNED.get(desc.size)
    how = PRIMITIVES.get(desc.type)
    return how if how is not None and codec(how).size == desc.size else None


@dataclass(slots=True)
class Decoder:
    """Decodes one section; rules get it to decode nested descriptions with.

    Attributes:
        section: the section at hand.
        page_size: the target's, in bytes.
        machine: machine type name, or empty.
        notices: what did not fit, for people, with offsets.
        elastic: reads arrays that are not as described, while that is tried.
        misfit: whether a field was not as its rule wants it.
    """

    section: Section
    page_size: int = 4096
    machine: str = ""
    notices: list[str] = field(default_factory=list)
    elastic: Elastic | None = None
    misfit: bool = False
    _leaves: int = 0

    def vmsd(self, reader: Reader, desc: VmsdDesc) -> None:
        """Decode the fields and subsections of one description, in place."""
        array, number = "", 0
        for item in desc.fields:
            if not item.partial:
                self.field(reader, item)
                continue
            if item.name != array:
                array, number = item.name, 0
            number += self._elements(reader, item, number)
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
            self._one(reader, desc.name, desc)
        elif not self._bulk(reader, desc.name, desc):
            self._elements(reader, desc, 0)

    def _elements(self, reader: Reader, desc: FieldDesc, number: int) -> int:
        """Decode the elements of one entry, the first being `number`; say how many they are."""
        if desc.is_marker and reader.peek(1) == _POINTER_FOLLOWS:
            self._one(reader, f"{desc.name}[{number}]_marker", desc)
            return 0
        if self.elastic is not None and desc.struct is not None and not desc.partial:
            self.elastic.array(self, reader, desc, desc.count)
            return desc.count
        for index in range(number, number + desc.count):
            self._one(reader, f"{desc.name}[{index}]", desc)
        return desc.count

    def _bulk(self, reader: Reader, name: str, desc: FieldDesc) -> bool:
        """Read an array of plain values as one leaf, if it is one; a huge one as several."""
        how = _plain_codec(desc)
        if how is None or not desc.count:
            return False
        how = "u8" if how == "bool" else how
        limit = _MAX_ARRAY_BYTES // desc.size
        if desc.count <= limit:
            reader.take(name, f"{how}[{desc.count}]", type=desc.type)
            return True
        with reader.group(name, desc.type):
            for start in range(0, desc.count, limit):
                count = min(limit, desc.count - start)
                reader.take(f"[{start}]", f"{how}[{count}]", type=desc.type)
        return True

    def count(self, reader: Reader) -> None:
        """Count one more field, or record of a handler.

        Raises:
            Unsupported: there are more than any real section has.
        """
        self._leaves += 1
        if self._leaves > _MAX_LEAVES:
            raise reader.error(Unsupported, f"a section of more than {_MAX_LEAVES} fields")

    def _one(self, reader: Reader, name: str, desc: FieldDesc) -> None:
        self.count(reader)
        if desc.struct is None:
            if not self._plain(reader, name, desc):
                self._by_rule(reader, name, desc)
            return
        if desc.size == 1 and not desc.struct.fields and not desc.struct.subsections:
            # Before 10.0 a NULL pointer is described as a struct of nothing.
            self._by_rule(reader, name, replace(desc, type="nullptr"))
            return
        end = reader.offset + desc.size
        with reader.group(name, desc.struct.vmsd_name):
            self.vmsd(reader, desc.struct)
        self._check_end(reader, name, end)

    def _plain(self, reader: Reader, name: str, desc: FieldDesc) -> bool:
        how = _plain_codec(desc)
        if how is None:
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
            self._without_rule(reader, name, desc)
            return
        try:
            with self.bounded(reader, name, desc.type, desc.size):
                rule(self, reader, desc)
        except Damaged as error:
            reader.rewind()
            self.misfit = True
            self.notice(f"rule for type {desc.type!r} does not fit: {error}", reader)
            reader.blob(name, desc.size, type=desc.type, kind=Kind.RAW)

    def _without_rule(self, reader: Reader, name: str, desc: FieldDesc) -> None:
        if desc.size:
            self.notice(f"no rule for type {desc.type!r} of {name!r}", reader)
            reader.blob(name, desc.size, type=desc.type, kind=Kind.RAW)
            return
        with reader.group(name, desc.type):
            pass  # described, but without a byte of its own

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
    vmsd = None if desc is None or desc.old_style else desc.vmsd
    handler = None if vmsd is not None else find_handler(section.idstr)
    outer, reader.end = reader.end, section.body_end
    with reader.group("body", section.idstr if vmsd is None else vmsd.vmsd_name):
        try:
            if handler is not None:
                handler(decoder, reader)
            elif vmsd is not None:
                _described(reader, section, decoder, vmsd)
        except FormatError as error:
            decoder.notice(f"decoding stops: {error}", reader)
        _keep_rest(reader, section, decoder, has_rule=not (handler is None and vmsd is None))
    reader.end = outer


def _described(reader: Reader, section: Section, decoder: Decoder, vmsd: VmsdDesc) -> None:
    """Decode by the description; if that does not fit, try to read arrays by their data."""
    start, said = reader.mark(), len(decoder.notices)
    ways = (None, Elastic(nulls=False), Elastic(nulls=True))
    for decoder.elastic in ways:
        if _fits(reader, section, decoder, vmsd):
            if decoder.elastic is not None:
                decoder.notice("array elements differ in size and were read by their data", reader)
            return
        reader.reset(start)
        del decoder.notices[said:]
    decoder.elastic = None
    decoder.vmsd(reader, vmsd)


def _fits(reader: Reader, section: Section, decoder: Decoder, vmsd: VmsdDesc) -> bool:
    decoder.misfit = False
    try:
        decoder.vmsd(reader, vmsd)
    except FormatError:
        return False
    return reader.offset == section.body_end and not decoder.misfit


def _keep_rest(reader: Reader, section: Section, decoder: Decoder, *, has_rule: bool) -> None:
    left = section.body_end - reader.offset
    if not left:
        return
    if has_rule:
        why = "they do not fit what is known of this section"
    else:
        why = "no description" if section.description is None else "a hand-made function wrote it"
    decoder.notice(f"{left} bytes kept raw: {why}", reader)
    reader.blob("rest" if reader.siblings else "data", left, kind=Kind.RAW)
