"""The document of ``--json`` and ``--format yaml``: what is in it, in which order.

It is described in docs/json.md and docs/inspect.schema.json; a change that
breaks a reader of it raises `SCHEMA_VERSION`. It is written part by part, so
no more than one section is held in memory, and it is whole also when the
input is damaged in the middle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from cprformats.codecs import DataRef
from cprformats.container.libvirt import LibvirtSave
from cprformats.container.qcow2 import Qcow2
from cprformats.cpr import CprState
from cprformats.encode import encode_leaf
from cprformats.errors import FormatError
from cprformats.fields import Field, Kind, Tally, tally
from cprformats.migration import MigrationStream
from cprformats.migration.model import Section
from cprformats.migration.ramparts import RamBlocks, RamRun
from cprformats.migration.ramstats import BlockStats
from cprtools.files import file_size
from cprtools.inspector.parts import Part, parts
from cprtools.inspector.select import Selection, prune
from cprtools.inspector.totals import unread_bytes
from cprtools.report.values import Json, error_value, is_text, plain_row, plain_text
from cprtools.report.words import meaning_words
from cprtools.statefile import Layer, StateFile

__all__ = ["SCHEMA_VERSION", "DocumentStyle", "Emitter", "write_document"]

SCHEMA_VERSION = 1

#: Buffers up to this size are written as hex; longer ones as a size and a digest.
_HEX_BYTES = 4096
_FULL_HEX_BYTES = 1 << 20
#: Contents of these kinds are not ours to look into, and long: no digest.
_NO_DIGEST = frozenset({Kind.PAGE, Kind.PAYLOAD, Kind.PADDING})


class Emitter(Protocol):
    """Writes a document from its parts; `json_out` and `yaml_out` have one each."""

    @property
    def depth(self) -> int:
        """How many objects and arrays are open."""

    def object(self, key: str | None = None, head: dict[str, Json] | None = None) -> None:
        """Begin an object; `head` is its first members."""

    def array(self, key: str | None = None) -> None:
        """Begin an array."""

    def put(self, value: Json, key: str | None = None) -> None:
        """Write a whole value."""

    def end(self, depth: int | None = None) -> None:
        """End the innermost object or array, or all above `depth`."""


@dataclass(frozen=True, slots=True)
class DocumentStyle:
    """What is left out or shortened.

    Attributes:
        layers: numbers of the layers to write; None for all.
        selection: sections and fields to write.
        ram: write the runs of pages.
        full: write buffers up to 1 MiB as hex.
    """

    layers: frozenset[int] | None
    selection: Selection
    ram: bool = True
    full: bool = False

    @property
    def filtered(self) -> bool:
        """Whether sections or fields are left out."""
        return bool(self.selection.sections or self.selection.fields)


def write_document(
    emitter: Emitter, name: str, state: StateFile | FormatError, style: DocumentStyle
) -> FormatError | None:
    """Write the document of an opened file, or of one that could not be opened.

    Gives the first error that is said in it.
    """
    writer = _Writer(emitter, style)
    error = state if isinstance(state, FormatError) else None
    emitter.object()
    emitter.put(SCHEMA_VERSION, "schema_version")
    emitter.put({"name": plain_text(name), "size": file_size(name)}, "file")
    emitter.array("layers")
    if isinstance(state, StateFile):
        for number, layer in enumerate(state.layers):
            if style.layers is None or number in style.layers:
                found = writer.layer(number, layer)
                error = error or found
        error = state.error or error
    emitter.end()
    emitter.put(error_value(error), "error")
    emitter.end()
    return error


class _Writer:
    """Writes layers through an emitter."""

    def __init__(self, emitter: Emitter, style: DocumentStyle) -> None:
        self.emitter = emitter
        self.style = style

    def layer(self, number: int, layer: Layer) -> FormatError | None:
        """Write one layer; gives its error."""
        emitter, content = self.emitter, layer.content
        emitter.object(head={"layer": number, "kind": layer.kind})
        counts = Tally({})
        if isinstance(content, MigrationStream):
            emitter.put(_stream(content), "stream")
            emitter.array("ram_blocks")
            for stats in content.ram.per_block:
                emitter.put(_block(stats))
            emitter.end()
            counts = content.ram.tally
        elif isinstance(content, CprState):
            emitter.put(_cpr(content), "cpr")
        elif isinstance(content, Qcow2):
            emitter.put([plain_row(row) for row in content.snapshots], "snapshots")
        elif isinstance(content, LibvirtSave):
            emitter.put(_libvirt(content), "libvirt")
        failed = None
        emitter.array("items")
        depth = emitter.depth
        try:
            for part in parts(content):
                found = self._part(part, content)
                failed = failed or found[0]
                counts += found[1]
        except FormatError as error:
            emitter.end(depth)
            failed = error
        emitter.end()
        if not self.style.filtered:
            emitter.put(_tally(counts), "bytes_by_kind")
            emitter.put(_totals(counts, unread_bytes(content, counts)), "bytes")
        emitter.put([plain_text(text) for text in content.warnings], "warnings")
        error_ = content.error or failed
        emitter.put(error_value(error_), "error")
        emitter.end()
        return error_

    def _part(self, part: Part, content: object) -> tuple[FormatError | None, Tally]:
        if not self.style.selection.takes_part(part):
            return None, Tally({})
        emitter, failed = self.emitter, None
        trees, notices = part.decode()
        emitter.object(head=_part_head(part))
        depth = emitter.depth
        try:
            self._fields(_top(part, trees))
            if isinstance(content, MigrationStream) and part.what == "ram" and part.section:
                self._ram(content, part.section)
        except FormatError as error:
            emitter.end(depth)
            failed = error
            emitter.put(error_value(error), "error")
        if notices:
            emitter.put([plain_text(text) for text in notices], "notices")
        emitter.end()
        return failed, tally(trees)

    def _fields(self, fields: Sequence[Field], key: str = "fields") -> None:
        self.emitter.array(key)
        for field in fields:
            if chosen := self._chosen(field):
                self._field(chosen)
        self.emitter.end()

    def _chosen(self, field: Field) -> Field | None:
        return prune(field, self.style.selection) if self.style.selection.fields else field

    def _field(self, field: Field) -> None:
        head: dict[str, Json] = {
            "name": plain_text(field.name),
            "type": plain_text(field.type),
            "kind": field.kind.value,
            "offset": field.offset,
            "size": field.size,
        }
        if field.codec:
            head["codec"] = field.codec
            head["value"] = self._value(field)
            if words := meaning_words(field):
                head["words"] = words
            self.emitter.put(head)
            return
        self.emitter.object(head=head)
        self.emitter.array("children")
        for child in field.children:
            self._field(child)
        self.emitter.end()
        self.emitter.end()

    def _value(self, field: Field) -> Json:
        value = field.value
        if isinstance(value, str) and len(value) <= self._limit and is_text(value):
            return value
        if isinstance(value, (str, bytes, DataRef)):
            return self._buffer(field)
        return value

    @property
    def _limit(self) -> int:
        return _FULL_HEX_BYTES if self.style.full else _HEX_BYTES

    def _buffer(self, field: Field) -> dict[str, Json]:
        found: dict[str, Json] = {"bytes": field.size}
        try:
            if field.size <= self._limit and field.kind is not Kind.PAGE:
                found["hex"] = b"".join(encode_leaf(field)).hex()
            elif field.kind not in _NO_DIGEST:
                digest = hashlib.sha256()
                for piece in encode_leaf(field):
                    digest.update(piece)
                found["sha256"] = digest.hexdigest()
        except FormatError:  # a pipe's pages are not kept: the size must do
            pass
        return found

    # -- RAM ---------------------------------------------------------------------

    def _ram(self, stream: MigrationStream, section: Section) -> None:
        if not self.style.ram:
            return
        emitter = self.emitter
        emitter.array("parts")
        for part in stream.ram_parts(section):
            if isinstance(part, RamRun):
                emitter.put(_run(part))
                continue
            field = part.field
            head: dict[str, Json] = {"part": "blocks"}
            if not isinstance(part, RamBlocks):
                head = {"part": "mark", "flag": part.flag.name}
            emitter.object(head={**head, "offset": field.offset, "size": field.size})
            self._fields(field.children or (field,))
            emitter.end()
        emitter.end()


def _part_head(part: Part) -> dict[str, Json]:
    head: dict[str, Json] = {"item": part.what, "name": plain_text(part.name)}
    head |= {"offset": part.offset, "size": part.size}
    if part.embedded:
        head["embedded"] = True
    section = part.section
    if section is not None:
        description = section.description
        head |= {
            "type": section.type.name,
            "section_id": section.section_id,
            "idstr": plain_text(section.idstr),
            "instance_id": section.instance_id,
            "version": section.version,
            "vmsd_name": plain_text(description.vmsd.vmsd_name) if description else None,
            "located": section.located.value,
        }
    return head


def _top(part: Part, trees: tuple[Field, ...]) -> tuple[Field, ...]:
    """Leave out the root of a section: the item says what it would say."""
    return trees[0].children if part.what == "section" else trees


def _run(run: RamRun) -> dict[str, Json]:
    return {
        "part": "run",
        "block": plain_text(run.block),
        "address": run.address,
        "count": run.count,
        "kind": run.kind.value,
        "offset": run.offset,
        "size": run.size,
    }


def _stream(stream: MigrationStream) -> dict[str, Json]:
    configuration = stream.configuration
    return {
        "offset": stream.offset,
        "size": stream.end - stream.offset,
        "version": stream.version,
        "machine": plain_text(configuration.machine) if configuration else None,
        "target_page_bits": configuration.target_page_bits if configuration else None,
        "page_size": stream.page_size,
        "uuid": configuration.uuid if configuration else None,
        "capabilities": [plain_text(c) for c in configuration.capabilities]
        if configuration
        else [],
        "section_footers": stream.footers,
        "vmdesc": stream.vmdesc is not None,
    }


def _block(stats: BlockStats) -> dict[str, Json]:
    block = stats.block
    return {
        "idstr": plain_text(block.idstr),
        "used_length": block.used_length,
        "page_size": block.page_size,
        "address": block.address,
        "mapped": asdict(block.mapped) if block.mapped else None,
        "pages": {kind.value: number for kind, number in sorted(stats.pages.items())},
        "stream_bytes": stats.stream_bytes,
    }


def _cpr(state: CprState) -> dict[str, Json]:
    return {
        "version": state.version,
        "mode": state.mode,
        "passed": state.passed or None,
        "entries": [plain_row(row) for row in state.entries],
        "memfds": [plain_row(row) for row in state.memfds],
        "vfio_devices": [plain_row(row) for row in state.vfio_devices],
    }


def _libvirt(save: LibvirtSave) -> dict[str, Json]:
    return {
        "version": save.version,
        "byte_order": save.byte_order,
        "complete": save.complete,
        "was_running": save.was_running,
        "format": save.format,
        "xml": plain_text(save.xml),
        "cookie": plain_text(save.cookie),
    }


def _tally(counts: Tally) -> dict[str, Json]:
    return {kind.value: size for kind, size in sorted(counts.by_kind.items())}


def _totals(counts: Tally, unread: int) -> dict[str, Json]:
    return {
        "total": counts.total,
        "decoded": counts.decoded,
        "raw": counts.raw,
        "unknown": counts.unknown,
        "unread": unread,
    }
