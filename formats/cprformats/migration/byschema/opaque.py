"""How long a field is that a hand-written function wrote: its rule, or its bytes, tell.

Some rules read up to an end of their own; of other types the bytes hold what
the length comes from. What is not known at all may have any length that
leaves room for the rest.

Source: QEMU hw/pci/msix.c (msix_save), hw/pci/shpc.c (shpc_save),
hw/scsi/scsi-bus.c (put_scsi_requests), hw/display/virtio-gpu.c
(virtio_gpu_save), target/mips and hw/intc for the counted ones; 5.2 to 11.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from cprformats.errors import FormatError
from cprformats.migration.device import Decoder
from cprformats.migration.model import Section
from cprformats.migration.rules import RULES, find_rule
from cprformats.migration.rules.pci import CONFIG_SIZE, msix_vectors
from cprformats.migration.vmdesc import FieldDesc
from cprformats.reader import Reader
from cprformats.source import Source

if TYPE_CHECKING:
    from cprformats.migration.byschema.plan import Bounds, Step
    from cprformats.migration.byschema.search import Search
    from cprformats.migration.byschema.state import State

__all__ = ["Opaque"]

#: Lengths that are tried where nothing tells.
_MAX_TRIES: Final = 4096
_SHPC_HEAD: Final = 0x24
_SHPC_COUNT: Final = 12
_MAX_SLOTS: Final = 31
_SCANOUTS: Final = (40, 64)
#: Rules that go by no size and read to an end of their own.
_SELF_ENDING: Final = frozenset(
    {
        "GByteArray",
        "blob",
        "usb-redir-bufpq",
        "usb-redir-packet-id-q",
        "usb-redir-parser",
        "virtio",
        "virtio-fs back-end state",
    }
)
#: The first subsection of ``virtio`` begins so.
_VIRTIO: Final = re.compile(rb"\x05[\x08-\xff]virtio/")
#: What another section, or the stream's end, begins with.
_SECTION: Final = re.compile(
    rb"[\x01\x04]\x00[\x00-\x0f]..[\x01-\xff][ -~]|\x00(?:\x06....\{|\Z)", re.DOTALL
)
_MAX_HEADS: Final = 64
#: From there its rule looks for others this far.
_TAIL_BYTES: Final = (1 << 17) - 64


@dataclass(frozen=True, slots=True)
class Opaque:
    """Sizes of such fields, in one section.

    Attributes:
        source: the stream's bytes.
        section: whose body is read; its body size is 0 while that is not known.
        page_size: the target's, in bytes.
        machine: machine type name, or empty.
    """

    source: Source
    section: Section
    page_size: int = 4096
    machine: str = ""

    def sizes(self, search: Search, step: Step, state: State, rest: Bounds) -> Iterable[int]:
        """The lengths that a field may have, in bytes; none if its bytes are no such field."""
        kind = step.type
        counted = _COUNTED.get(kind)
        if counted is not None:
            return counted(search, state)
        if kind == "scsi-requests":
            return self._by_end(search, step, state, rest)
        if kind == "virtio" and search.end is None:
            return self._before_sections(search, step, state)
        if kind in _SELF_ENDING:
            found = self._read(step, state, _virtio_end(search, state, rest, kind))
            if found is not None:
                return (found,)
            # Its start is no such thing as the rule knows: then all there is room for.
            return self._range(search, state, rest)[-1:]
        if kind == "virtio-gpu":
            return _gpu(search, state)
        return self._range(search, state, rest)

    def _range(self, search: Search, state: State, rest: Bounds) -> range:
        """All lengths that leave room for the rest."""
        most = search.limit - rest[0] - state.offset
        least = search.least(state.offset, rest)
        return range(max(least, most - _MAX_TRIES + 1), most + 1)

    def _read(self, step: Step, state: State, end: int, *, whole: bool = False) -> int | None:
        """Read it by its rule, and say how long it was.

        Args:
            step: the field.
            state: where it begins.
            end: where it ends at most.
            whole: with nothing in it that the rule has to keep as it is.
        """
        base = self.section.body_offset
        reader = Reader(self.source, base + state.offset, base + end)
        decoder = Decoder(self.section, self.page_size, self.machine)
        desc = FieldDesc(step.name, step.type, end - state.offset)
        rule = find_rule(step.type, desc) if step.type in RULES else None
        if rule is None:
            return None
        try:
            with reader.group(step.name):
                rule(decoder, reader, desc)
        except FormatError:
            return None
        if whole and decoder.notices:
            return None
        return reader.offset - base - state.offset

    def _before_sections(self, search: Search, step: Step, state: State) -> Iterator[int]:
        """The lengths with which it ends where another section, or nothing, begins.

        Its rule looks for subsections at the end, so it can't tell the end itself.
        """
        heads = _SECTION.finditer(search.data, state.offset, search.limit)
        for at in (*(match.start() for match in islice(heads, _MAX_HEADS)), search.limit):
            if self._read(step, state, at, whole=True) == at - state.offset:
                yield at - state.offset

    def _by_end(self, search: Search, step: Step, state: State, rest: Bounds) -> Iterator[int]:
        """The lengths with which a list of requests is one; it ends with a byte 0."""
        data = search.data
        if data[state.offset : state.offset + 1] == b"\0":
            yield 1
            return
        for size in self._range(search, state, rest):
            end = state.offset + size
            if size and data[end - 1] == 0 and self._read(step, state, end) == size:
                yield size


def _virtio_end(search: Search, state: State, rest: Bounds, kind: str) -> int:
    """How far to read; behind the state of virtio-gpu come its pictures, many megabytes."""
    if kind != "virtio" or rest == (0, 0, 0):
        return search.limit
    head = _VIRTIO.search(search.data, state.offset, search.limit)
    return search.limit if head is None else min(search.limit, head.start() + _TAIL_BYTES)


def _msix(search: Search, state: State) -> Iterator[int]:
    """Nothing without MSI-X, of which configuration space in front of it tells."""
    if state.config is None or state.config[1] < CONFIG_SIZE:
        return
    start, size = state.config
    vectors = msix_vectors(search.data[start : start + size])
    yield 16 * vectors + (vectors + 7) // 8


def _shpc(search: Search, state: State) -> Iterator[int]:
    slots = search.data[state.offset + _SHPC_COUNT : state.offset + _SHPC_COUNT + 1]
    if slots and slots[0] <= _MAX_SLOTS:
        yield _SHPC_HEAD + 4 * slots[0]


def _counter(width: int, each: int, failed: int = -1) -> Callable[[Search, State], Iterator[int]]:
    """A count of `width` bytes, then so many records of `each` bytes."""

    def sizes(search: Search, state: State) -> Iterator[int]:
        count = int.from_bytes(search.data[state.offset : state.offset + width])
        yield width + each * (0 if count == failed else count)

    return sizes


def _gpu(search: Search, state: State) -> Iterator[int]:
    """Resources with their pixels up to an id 0, then scanouts of one of two sizes."""
    at = state.offset

    def number(offset: int) -> int:
        return int.from_bytes(search.data[offset : offset + 4])

    while number(at):
        if at + 20 > search.limit:
            return
        width, height, entries = number(at + 4), number(at + 8), number(at + 16)
        at += 20 + 12 * entries + 4 * width * height
    count = number(at + 8)
    for each in _SCANOUTS:
        yield at + 12 + each * count - state.offset


_COUNTED: Final = {
    "irqs": _counter(8, 72, (1 << 64) - 1),
    "msix state": _msix,
    "octeon_llm_tree": _counter(4, 16),
    "shpc": _shpc,
}
