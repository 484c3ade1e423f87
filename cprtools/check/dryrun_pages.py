"""Which pages of guest RAM a device reads while its state is loaded.

A load hardly looks at guest memory. What does, in QEMU 5.2 to 11.1:

================= ==========================================================================
virtio            the indices of each ring, and the buffers of requests in flight
                  (hw/virtio/virtio.c: virtio_load; hw/scsi/virtio-scsi.c)
kvm-tpr-opt       the option ROM below 1 MiB (hw/i386/vapic.c: vapic_post_load)
xhci              the context of each slot (hw/usb/hcd-xhci.c: usb_xhci_post_load)
ahci              command lists (hw/ide/ahci.c: ahci_state_post_load)
hda               descriptor lists (hw/audio/intel-hda.c: intel_hda_post_load)
qxl               its own video memory (hw/display/qxl.c: qxl_post_load)
erst              the head of its store (hw/acpi/erst.c: erst_post_load)
an IOMMU, ITS,    tables anywhere in memory: all of it is given
VMBus
================= ==========================================================================

The pages are a superset that is cheap to make: what any number in such a
section can be an address of, small blocks, and the first 1 MiB of a PC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from cprformats.errors import FormatError
from cprformats.fields import Field, leaves
from cprformats.guest import NoLayout, physical_layout
from cprformats.migration import MigrationStream
from cprformats.migration.model import Section
from cprformats.migration.wire import SectionType
from cprtools.memory.opening import Memory

__all__ = ["wanted_pages"]

#: Sections whose numbers may be addresses of memory that is read.
_READERS = re.compile(r"virtio|vhost|xhci|ahci|hda|scsi|kvm-tpr-opt|megasas|mptsas|vmxnet3|nvme")
#: Sections whose devices follow tables through all of memory.
_WALKERS = re.compile(r"iommu|smmu|arm_gicv3_its|vmbus")
_SMALL_BLOCK = 1 << 20
_LOW_MEMORY = 1 << 20
_MOST_PAGES = 1 << 14
_FIRST_ADDRESS = 0x1000
_XHCI_SLOTS = 64

Pages = dict[str, set[int]]


def wanted_pages(memory: Memory) -> tuple[Pages | None, str]:
    """Choose pages by the stream's devices.

    Returns:
        Page numbers by block, or None for all pages; and why.
    """
    # A long migration has 100,000 sections of RAM; nobody here wants to see them.
    devices = [one for one in memory.stream.sections() if one.type is SectionType.FULL]
    stream = replace(memory.stream, items=devices)
    for section in devices:
        if _WALKERS.search(section.idstr):
            return None, f"{section.name} follows tables in guest memory"
    pages = _whole_blocks(memory)
    readers = [one for one in devices if _READERS.search(one.idstr)]
    if not readers:
        return pages, ""
    try:
        chooser = _Chooser(memory, stream, pages)
    except (NoLayout, FormatError) as error:
        return None, str(error)
    for section in readers:
        chooser.take(section)
    return (None, "too many pages may be read") if chooser.count > _MOST_PAGES else (pages, "")


def _whole_blocks(memory: Memory) -> Pages:
    pages: Pages = {}
    for name, block in memory.items():
        if block.size <= _SMALL_BLOCK or "qxl" in name:
            pages[name] = set(range(block.pages))
    return pages


class _Chooser:
    """Finds the pages behind guest-physical addresses."""

    def __init__(self, memory: Memory, stream: MigrationStream, pages: Pages) -> None:
        self.memory = memory
        self.stream = stream
        self.pages = pages
        self.count = 0
        self.ranges = physical_layout(stream).ranges
        if self.ranges and self.ranges[0].start == 0:
            for address in range(0, _LOW_MEMORY, stream.page_size):
                self.add(address)

    def take(self, section: Section) -> None:
        """Take what the numbers of a section lead to."""
        tree, _ = self.stream.decode(section)
        for address in _addresses(tree):
            self.add(address)
            self.add(address + self.stream.page_size)
        if "xhci" in section.idstr:
            self._contexts(tree)

    def add(self, address: int) -> None:
        """Take the page at an address, if there is RAM."""
        place = self._place(address)
        if place is None or self.count > _MOST_PAGES:
            return
        block, offset = place
        if block in self.memory:
            chosen = self.pages.setdefault(block, set())
            before = len(chosen)
            chosen.add(offset // self.memory[block].page_size)
            self.count += len(chosen) - before

    def _place(self, address: int) -> tuple[str, int] | None:
        for one in self.ranges:
            if one.start <= address < one.end:
                return one.block, one.offset + address - one.start
        return None

    def _contexts(self, tree: Field) -> None:
        """Follow the table of slots to the contexts."""
        found = {leaf.name: leaf.value for leaf in leaves(tree) if "dcbaap" in leaf.name}
        low, high = found.get("dcbaap_low"), found.get("dcbaap_high")
        if not isinstance(low, int) or not isinstance(high, int):
            return
        place = self._place(high << 32 | low)
        if place is None or place[0] not in self.memory:
            return
        table = self.memory[place[0]].read(place[1], 8 * (_XHCI_SLOTS + 1))
        for at in range(0, len(table) - 7, 8):
            context = int.from_bytes(table[at : at + 8], "little")
            if context:
                self.add(context)
                self.add(context + self.stream.page_size)


def _addresses(tree: Field) -> Iterator[int]:
    """Give every number that can be an address; of two halves both as one, too."""
    before = 0
    for leaf in leaves(tree):
        for value in _numbers(leaf.value):
            if value >= _FIRST_ADDRESS:
                yield value
            if 0 < value < 1 << 16 and before >= _FIRST_ADDRESS:
                yield value << 32 | before
            before = value if value < 1 << 32 else 0
    yield from _legacy_rings(tree)


def _numbers(value: object) -> Iterator[int]:
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        yield value
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _numbers(one)


def _legacy_rings(tree: Field) -> Iterator[int]:
    """Give where the rings of a legacy queue lie: behind its descriptors, used ones aligned."""
    size = 0
    for leaf in leaves(tree):
        if leaf.name == "vring.num" and isinstance(leaf.value, int):
            size = leaf.value
        elif leaf.name == "vring.desc" and isinstance(leaf.value, int) and leaf.value:
            available = leaf.value + 16 * size
            yield available
            yield -(-(available + 6 + 2 * size) // 4096) * 4096
