"""The state machine behind `read_stream`: part after part, until EOF or an error.

What later parts depend on is learnt here once: page size and capabilities
from the CONFIGURATION section or the vmdesc, whether sections have footers
from the first one, which idstr a section id stands for from its START.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from cprformats.errors import FormatError, Unsupported, WrongFormat
from cprformats.fields import Field, Kind
from cprformats.layout import read_record
from cprformats.memory.batch import RamSink
from cprformats.migration.commands import read_command
from cprformats.migration.configuration import read_configuration
from cprformats.migration.device import Decoder
from cprformats.migration.itemlist import ItemList, Repeats
from cprformats.migration.locate import (
    FOOTER_SIZE,
    FoundVmDesc,
    check_vmdesc,
    find_footer,
    find_vmdesc,
    follows_section,
    load_vmdesc,
)
from cprformats.migration.model import Command, Configuration, Located, Piece, Section
from cprformats.migration.ramfeed import give_discard, give_marks
from cprformats.migration.ramparts import RamContext
from cprformats.migration.ramreader import RamReader
from cprformats.migration.ramstats import RamCounter
from cprformats.migration.rules import find_handler
from cprformats.migration.version2 import read_records, read_total
from cprformats.migration.vmdesc import MAX_VMDESC_BYTES, DeviceDesc, VmDesc
from cprformats.migration.wire import (
    FILE_HEADER,
    MAGIC,
    VERSION,
    VERSION_COMPAT,
    SectionType,
)
from cprformats.reader import Reader
from cprformats.source import Source

if TYPE_CHECKING:
    from cprformats.migration.byschema.resolve import Resolver

__all__ = ["Framer"]

#: Each item takes a few hundred bytes of memory; a day of live migration has
#: fewer sections than this.
_MAX_ITEMS = 250_000
#: Those that repeat one before take 24 bytes and next to no time.
_MAX_REPEATS = 1_000_000
#: QEMU sends one stream inside the stream (postcopy) and none in that.
_MAX_PACKAGES = 4
#: The legacy minimum of most targets; others send target-page-bits or a vmdesc.
_DEFAULT_PAGE_SIZE = 4096
#: log2 of the smallest and the largest target page that makes sense.
_PAGE_BITS = range(8, 21)


class Framer:
    """Frames one stream; see `stream.read_stream` for what comes out."""

    def __init__(
        self,
        source: Source,
        offset: int,
        end: int | None,
        progress: Callable[[int], None] | None,
        sink: RamSink | None = None,
        resolver: Resolver | None = None,
        *,
        keep_going: bool = False,
    ) -> None:
        self.source = source
        self.offset = offset
        self.limit = end  # of the stream, or of the package that is being read
        self._stream_end = end
        self.progress = progress
        self.sink = sink
        self.resolver = resolver
        self.version = VERSION
        self.configuration: Configuration | None = None
        self.items = ItemList()
        self.vmdesc: VmDesc | None = None
        self.context = RamContext(_DEFAULT_PAGE_SIZE)
        self.ram = RamCounter(source, self.context)
        self.pages = RamReader(source, self.ram, sink, progress, keep_going=keep_going)
        self.footers: bool | None = None
        self.warnings: list[str] = []
        self.error: FormatError | None = None
        self._found: FoundVmDesc | None = None
        self._devices: dict[tuple[str, int], DeviceDesc] = {}
        self._searched = False
        self._ids: dict[int, Section] = {}
        self._repeats = Repeats(source)
        self._stateless = False
        self._count = 0
        self._packages = 0

    def run(self) -> None:
        """Frame everything; damage behind the header is kept in `error`."""
        self._header()
        try:
            if self.version == VERSION_COMPAT:
                self._version_2()
            else:
                self._search_vmdesc(only_if_known=True)
                self._parts(self.items, self.limit)
                self._tail()
        except FormatError as error:
            self.error = error
        if self.pages.gaps:
            self.error = self.pages.gaps[0].error

    def missed_page_size(self) -> bool:
        """Say whether the description tells another page size than RAM was read with.

        A source that flows shows its description only at the end; targets whose pages
        never change (Alpha, SPARC64, AVR) tell their size nowhere else.
        """
        before = self.context.page_size
        self._search_vmdesc()
        return self.context.page_size != before

    # -- the beginning ----------------------------------------------------------

    def _header(self) -> None:
        reader = self._reader()
        magic = reader.peek(4)
        if magic != MAGIC:
            raise reader.error(
                WrongFormat, f"no migration stream: expected {MAGIC!r}, found {magic!r}"
            )
        values = read_record(reader, "header", FILE_HEADER, kind=Kind.HEADER)
        version = values["version"]
        assert isinstance(version, int)
        if version not in (VERSION, VERSION_COMPAT):
            raise Unsupported(f"stream version: expected 3, found {version}", offset=self.offset)
        self.version = version
        self._piece("header", reader.finish("header").children[0])

    def _search_vmdesc(self, *, only_if_known: bool = False) -> None:
        """Look for the description at the end, once; it tells sizes in advance."""
        if self._searched or (only_if_known and self.source.known_size is None):
            return
        self._searched = True
        size = self.source.size()
        end = size if self._stream_end is None else min(self._stream_end, size)
        self._found = find_vmdesc(self.source, self.offset, end)
        if self._found is None:
            return
        for device in reversed(self._found.vmdesc.devices):
            self._devices[device.name, device.instance_id] = device
        page_size = self._found.vmdesc.page_size
        if page_size.bit_count() == 1 and page_size.bit_length() - 1 in _PAGE_BITS:
            self._set(page_size=page_size)

    def _configuration(self) -> None:
        reader = self._reader()
        self.configuration = read_configuration(reader)
        self._piece("configuration", reader.finish("configuration").children[0])
        bits = self.configuration.target_page_bits
        capabilities = self.configuration.capabilities
        if bits is not None and bits in _PAGE_BITS:
            self._set(page_size=1 << bits)
        self._set(
            ignore_shared="x-ignore-shared" in capabilities,
            mapped_ram="mapped-ram" in capabilities,
        )

    def _set(self, **changes: int | bool) -> None:
        self.context = replace(self.context, **changes)  # type: ignore[arg-type]
        if self.resolver is not None:
            self.resolver.learn(self.context.page_size, self.configuration)
        self.ram.context = self.context

    def _version_2(self) -> None:
        reader = self._reader(Kind.HEADER)
        total = read_total(reader)
        self._piece("total_len", reader.finish("total_len").children[0])
        self.footers = False
        for section in read_records(self._reader(), total):
            self._count_item()
            self.items.append(section)
            self.offset = section.end
        self._padding()

    # -- the parts --------------------------------------------------------------

    def _parts(self, items: ItemList, end: int | None) -> None:
        """Read parts into `items` up to EOF, or up to `end` inside PACKAGED."""
        while end is None or self.offset < end:
            if self._repeated(items, end):
                continue
            kind = self._reader().peek(1)
            if not kind and self._in_rest(items):
                return
            if not kind:
                raise self._reader().truncated("stream", 1, 0)
            if kind[0] == SectionType.EOF and items is self.items:
                return
            if kind[0] == SectionType.EOF:
                raise self._reader().damaged("EOF inside a packaged stream")
            self._count_item()
            try:
                self._part(kind[0], items)
            except FormatError as error:
                if not self._skip_to_ram(error, items):
                    raise
            if self.progress is not None:
                self.progress(self.offset)

    def _repeated(self, items: ItemList, end: int | None) -> bool:
        """Take a section that is the same to the byte as one before."""
        section = self._repeats.find(self.offset)
        if section is None:
            return False
        size = section.end - section.offset
        if (end is not None and self.offset + size > end) or len(items) >= _MAX_REPEATS:
            return False
        items.append(replace(section, offset=self.offset))
        if section.holds_ram:
            self.ram.add_marks(section.body_size)
            if self.sink is not None:
                give_marks(self.sink, self.source, section)
        self.offset += size
        return True

    def _count_item(self) -> None:
        self._count += 1
        if self._count > _MAX_ITEMS:
            raise self._reader().error(Unsupported, f"more than {_MAX_ITEMS} sections")

    def _part(self, kind: int, items: ItemList) -> None:
        if kind == SectionType.CONFIGURATION and self.configuration is None:
            self._configuration()
        elif kind in (SectionType.START, SectionType.FULL):
            self._section(self._new_head(SectionType(kind)), items)
        elif kind in (SectionType.PART, SectionType.END):
            self._section(self._known_head(SectionType(kind)), items)
        elif kind == SectionType.COMMAND:
            self._command(items)
        else:
            known = ", ".join(f"{kind.value:#04x}" for kind in SectionType)
            raise self._reader().mismatch("section type", f"one of {known}", f"{kind:#04x}")

    def _command(self, items: ItemList) -> None:
        reader = self._reader()
        number, name, packaged = read_command(reader)
        field = reader.finish("command").children[0]
        self.offset = reader.offset
        if name == "POSTCOPY_ADVISE" and field.size > FOOTER_SIZE:
            self._set(postcopy=True)
        if name == "POSTCOPY_RAM_DISCARD" and self.sink is not None:
            give_discard(self.sink, field)
        size = field.size + packaged
        command = Command(number, name, field.offset, size, self.source)
        items.append(command)
        if not packaged:
            return
        inner = ItemList()
        try:
            self._package(inner, field.end + packaged)
        finally:
            items.replace_last(replace(command, inner=inner))

    def _package(self, items: ItemList, end: int) -> None:
        """Read the stream inside PACKAGED; nothing in it reaches behind its end."""
        if self._packages == _MAX_PACKAGES:
            raise self._reader().error(Unsupported, f"more than {_MAX_PACKAGES} nested packages")
        outer, self.limit = self.limit, end
        self._packages += 1
        self._parts(items, end)
        self._packages -= 1
        self.limit = outer

    # -- sections ---------------------------------------------------------------

    def _new_head(self, kind: SectionType) -> Section:
        reader = self._reader()
        reader.number("type", "u8")
        section_id = reader.number("section_id", "u32be")
        idstr = reader.counted_text("idstr")
        instance_id = reader.number("instance_id", "u32be")
        version = reader.number("version", "u32be")
        size = reader.offset - self.offset
        head = Section(
            kind, section_id, idstr, instance_id, version, self.offset, size, 0, 0, Located.REST
        )
        if kind is SectionType.START:
            self._ids[section_id] = head
        return head

    def _known_head(self, kind: SectionType) -> Section:
        reader = self._reader()
        reader.number("type", "u8")
        section_id = reader.number("section_id", "u32be")
        start = self._ids.get(section_id)
        if start is None:
            known = ", ".join(map(str, islice(self._ids, 10))) or "none"
            raise reader.mismatch(
                f"section id of {kind.name}", f"one that a START opened ({known})", section_id
            )
        return replace(start, type=kind, offset=self.offset, head_size=5)

    def _section(self, head: Section, items: ItemList) -> None:
        """Append a section as far as it can be found, also when an error follows."""
        if head.idstr == "ram":
            found = self._ram_section(head, items)
        else:
            self._stateless = True
            end, located, desc = self._device_body(head)
            size = end - head.body_offset
            found = replace(head, body_size=size, located=located, description=desc)
        items.append(found)
        self.offset = found.end
        footer = self._footer(found, found.end, required=found.located is not Located.REST)
        found = replace(found, footer_size=footer)
        items.replace_last(found)
        self.offset += footer
        if self._stateless:
            self._repeats.learn(found)

    def _ram_section(self, head: Section, items: ItemList) -> Section:
        try:
            end, self._stateless = self.pages.section(head, self.context, self.limit)
        except FormatError:
            size = self.pages.done - head.body_offset
            items.append(replace(head, body_size=size, located=Located.CUT))
            self.offset = self.pages.done
            raise
        return replace(head, body_size=end - head.body_offset, located=Located.ITSELF)

    def _skip_to_ram(self, error: FormatError, items: ItemList) -> bool:
        """Go on with RAM behind a part that can't be read; say whether there is any."""
        resume = self.pages.resume(error, self.offset, self.context, self.limit)
        if resume is None:
            return False
        self.offset = resume.offset + (FOOTER_SIZE if resume.footer else 0)
        if not resume.footer:
            self._section(self.pages.head_at(resume.offset), items)
        return True

    def _device_body(self, head: Section) -> tuple[int, Located, DeviceDesc | None]:
        self._search_vmdesc()
        desc = self._devices.get((head.idstr, head.instance_id))
        if desc is not None and head.type is SectionType.FULL:
            end = head.body_offset + desc.vmsd.wire_size
            if self._plausible_end(head, end):
                return end, Located.VMDESC, desc
        by_itself = self._self_describing(head)
        if by_itself is not None:
            return by_itself, Located.ITSELF, desc
        if self.footers is not False:
            footer = find_footer(self.source, head.body_offset, self.limit, head.section_id)
            if footer is not None:
                return footer, Located.FOOTER, desc
            if self.footers and desc is not None and head.type is SectionType.FULL:
                # The place where the footer has to be; the check there says what it is not.
                end = head.body_offset + desc.vmsd.wire_size
                if end <= self.source.size():
                    return end, Located.VMDESC, desc
        if self.resolver is not None and not self.footers:
            by_schema = self.resolver.end(head, self.limit)
            if by_schema is not None:
                return by_schema, Located.SCHEMA, desc
        return self._rest(head), Located.REST, desc

    def _plausible_end(self, head: Section, end: int) -> bool:
        if self.footers is not False and self._is_footer(head, end):
            return True
        if self.footers is True or self._is_false_eof(end):
            return False
        return follows_section(self.source, end, self.limit)

    def _is_false_eof(self, offset: int) -> bool:
        """Zeros are everywhere; the EOF is where the description was found behind it."""
        if self._found is None or offset == self._found.offset - 1:
            return False
        return self.source.read_at(offset, 1) == bytes([SectionType.EOF])

    def _self_describing(self, head: Section) -> int | None:
        handler = find_handler(head.idstr)
        if handler is None:
            return None
        reader = Reader(self.source, head.body_offset, self.limit, path=(head.name,))
        try:
            handler(Decoder(head, self.context.page_size), reader)
        except FormatError:
            return None
        return reader.offset if self._plausible_end(head, reader.offset) else None

    def _rest(self, head: Section) -> int:
        """Without description and footer a section can't be told from what follows."""
        reader = self._reader()
        end = self.source.size() if self.limit is None else min(self.limit, self.source.size())
        found = self._found
        end = min(end, found.offset - 1) if found is not None else end
        if self.footers:
            raise reader.mismatch(
                f"section {head.name}",
                f"its footer, {_footer_bytes(head).hex(' ')}",
                "none in the rest of the stream",
                head.offset,
            )
        self.warnings.append(
            f"{head.name}: neither description nor footer; {end - head.body_offset} bytes "
            f"to the end of the stream are in it, at {head.offset:#x}"
        )
        return end

    def _is_footer(self, head: Section, offset: int) -> bool:
        return self.source.read_at(offset, FOOTER_SIZE) == _footer_bytes(head)

    def _footer(self, head: Section, offset: int, *, required: bool) -> int:
        """Check the footer at `offset`, or learn from the first section that there is none."""
        if not required:
            return 0
        found = self._is_footer(head, offset)
        if self.footers is None:
            self.footers = found
        if found == self.footers:
            return FOOTER_SIZE if found else 0
        reader = Reader(self.source, offset, self.limit, path=(head.name,))
        wanted = _footer_bytes(head).hex(" ")
        seen = reader.peek(FOOTER_SIZE)
        if len(seen) < FOOTER_SIZE:
            raise reader.truncated("footer", FOOTER_SIZE, len(seen))
        raise reader.mismatch("footer", wanted, seen.hex(" "))

    # -- the end ----------------------------------------------------------------

    def _in_rest(self, items: ItemList) -> bool:
        """Say whether the last section swallowed all that stood behind it."""
        last = items[-1] if items else None
        return isinstance(last, Section) and last.located is Located.REST

    def _tail(self) -> None:
        reader = self._reader()
        if reader.at_end() and self._in_rest(self.items):
            return
        reader.number("EOF", "u8", kind=Kind.EOF, meaning="section-type")
        self._piece("eof", reader.finish("eof").children[0])
        if reader.peek(1) == bytes([SectionType.VMDESCRIPTION]):
            self._read_vmdesc()
        self._padding()

    def _read_vmdesc(self) -> None:
        reader = self._reader(Kind.VMDESC)
        with reader.group("vmdesc"):
            reader.number("type", "u8", meaning="section-type")
            size = reader.number("size", "u32be")
            reader.require("vmdesc", size)
            if size > MAX_VMDESC_BYTES:
                raise reader.error(
                    Unsupported, f"vmdesc: expected at most {MAX_VMDESC_BYTES}, found {size}"
                )
            check_vmdesc(reader.ahead("json", size), reader.offset)
            text = reader.text("json", size, type="json")
        field = reader.finish("vmdesc").children[0]
        self._piece("vmdesc", field)
        if self._found is not None and self._found.offset == field.offset:
            self.vmdesc = self._found.vmdesc
        else:
            self.vmdesc = load_vmdesc(text, field.offset + FOOTER_SIZE)

    def _padding(self) -> None:
        """Zeros behind the stream are padding; anything else is said."""
        reader = self._reader(Kind.PADDING)
        left = reader.remaining
        if not left:
            return
        end = self.offset + left
        only_zeros = all(
            not self.source.read_at(at, min(1 << 20, end - at)).strip(b"\0")
            for at in range(self.offset, end, 1 << 20)
        )
        if not only_zeros:
            self.warnings.append(f"{left} bytes behind the stream, at {self.offset:#x}")
        reader.blob("padding", left, kind=Kind.PADDING if only_zeros else Kind.UNKNOWN)
        self._piece("padding", reader.finish("padding").children[0])

    def _piece(self, name: str, field: Field) -> None:
        self.items.append(Piece(name, field))
        self.offset = field.end

    def _reader(self, kind: Kind = Kind.FIELD) -> Reader:
        return Reader(self.source, self.offset, self.limit, kind=kind)


def _footer_bytes(section: Section) -> bytes:
    return bytes([SectionType.FOOTER]) + section.section_id.to_bytes(4)
