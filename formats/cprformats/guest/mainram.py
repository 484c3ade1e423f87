"""Which RAMBlocks are the guest's main memory, and in what order.

A machine has one block of a name of its own (``pc.ram``), or the one that
``-machine memory-backend=ID`` names, or one for each NUMA node; the stream
does not say which. Blocks are listed by size, so their order says nothing.

Source: QEMU hw/core/machine.c (create_default_memdev), hw/core/numa.c
(numa_init_memdev_container: a node's memory lies at the sum of those before),
migration/ram.c (ram_save_setup: the address of a block is its region's, in
the region that holds it), 5.2 to 11.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cprformats.guest.ranges import BadLayout, NoLayout, PhysicalRange
from cprformats.migration.ramparts import RamBlock
from cprformats.migration.stream import MigrationStream

__all__ = ["MainRam", "is_memory", "main_ram"]

#: Blocks of devices and firmware on the machines that have a rule.
_DEVICE = re.compile(
    r".*\.(rom|bios|vram|fifo|prom|mrom|flash\d*)|isa-bios|tpm-ppi|.*secure-ram"
    r"|mem(dimm|nvdimm|virtiomem)\d+"  # libvirt's names for what is plugged in
)
#: libvirt's name for the memory of a NUMA node.
_NODE = re.compile(r"ram-node(\d+)")


@dataclass(frozen=True, slots=True)
class MainRam:
    """The guest's main memory: blocks one behind the other.

    Attributes:
        blocks: in the order of the guest's addresses.
        notes: how they were told from the others, where that was not certain.
    """

    blocks: tuple[RamBlock, ...]
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all blocks."""
        return sum(block.used_length for block in self.blocks)

    @property
    def names(self) -> frozenset[str]:
        """Their idstrs."""
        return frozenset(block.idstr for block in self.blocks)

    def at(self, address: int, first: int, size: int) -> Iterator[PhysicalRange]:
        """Show `size` bytes of the memory, from its byte `first` on, at an address."""
        begin = 0
        for block in self.blocks:
            low, high = max(first, begin), min(first + size, begin + block.used_length)
            if low < high:
                start = address + low - first
                yield PhysicalRange(start, high - low, block.idstr, low - begin)
            begin += block.used_length


def is_memory(name: str) -> bool:
    """Say whether a block may be of a memory backend, by its name.

    Blocks of devices have a path in front; a backend has one too, its own, on
    machine types up to 4.0.
    """
    if "/" in name and not name.startswith("/objects/"):
        return False
    return not _DEVICE.fullmatch(name.rpartition("/")[2])


def main_ram(
    stream: MigrationStream,
    default: Sequence[str],
    ram: Sequence[str] = (),
    *,
    total: int | None = None,
) -> MainRam:
    """Find the main memory.

    Args:
        stream: what has the blocks.
        default: names that the machine gives to its only block.
        ram: names that the user gave, in the order of addresses.
        total: bytes of main memory, if the RTC says so: rounded down by less than
            128 KiB, and modulo 1 TiB.

    Raises:
        NoLayout: no block, or several that may be it.
        BadLayout: the user named a block that is not there, or one twice.
    """
    if ram:
        return MainRam(_named(stream, ram))
    for name in default:
        if name in stream.ram.blocks:
            return MainRam((stream.ram.blocks[name],))
    blocks = [block for name, block in stream.ram.blocks.items() if is_memory(name)]
    if len(blocks) == 1:
        return MainRam((blocks[0],))
    found = _by_node(blocks) or _by_address(blocks, total) or _by_total(blocks, total)
    if found is None:
        raise NoLayout(_ambiguous(blocks))
    return found


def _named(stream: MigrationStream, ram: Sequence[str]) -> tuple[RamBlock, ...]:
    for name in ram:
        if name not in stream.ram.blocks:
            known = ", ".join(stream.ram.blocks) or "none"
            raise BadLayout(f"no RAM block {name!r}; there are: {known}")
    if len(set(ram)) < len(ram):
        raise BadLayout(f"a RAM block is given twice: {', '.join(ram)}")
    return tuple(stream.ram.blocks[name] for name in ram)


def _by_node(blocks: Sequence[RamBlock]) -> MainRam | None:
    """Take libvirt's ``ram-node0``, ``ram-node1`` ... by number, if none is missing."""
    nodes = {int(match[1]): one for one in blocks if (match := _NODE.fullmatch(one.idstr))}
    if len(nodes) < len(blocks) or sorted(nodes) != list(range(len(blocks))) or not nodes:
        return None
    note = f"main memory is ram-node0 to ram-node{len(nodes) - 1}, by libvirt's numbers"
    return MainRam(tuple(nodes[index] for index in sorted(nodes)), (note,))


def _by_address(blocks: Sequence[RamBlock], total: int | None) -> MainRam | None:
    """Take blocks whose addresses in the memory follow each other from 0.

    A DIMM's address counts from elsewhere: then the sum is not the total.
    """
    at = 0
    placed = sorted(blocks, key=lambda one: -1 if one.address is None else one.address)
    for block in placed:
        if block.address != at:
            return None
        at += block.used_length
    if not placed or not (total is None or _agree(at, total)):
        return None
    names = ", ".join(block.idstr for block in placed)
    return MainRam(tuple(placed), (f"main memory by the addresses in the stream: {names}",))


def _agree(size: int, total: int) -> bool:
    return (size - total) % (1 << 40) < 1 << 17


def _by_total(blocks: Sequence[RamBlock], total: int | None) -> MainRam | None:
    """Take the only block that has the size of all main memory."""
    found = [one for one in blocks if total is not None and _agree(one.used_length, total)]
    if len(found) != 1:
        return None
    note = f"main memory is {found[0].idstr}: the only block of the size that the RTC tells"
    return MainRam((found[0],), (note,))


def _ambiguous(blocks: Sequence[RamBlock]) -> str:
    if not blocks:
        return "no RAM block can be the guest's main memory"
    names = ", ".join(block.idstr for block in blocks)
    return (
        f"several RAM blocks may be the guest's main memory: {names}; "
        "say which, in the order of addresses, with --ram-block NAME, once for each"
    )
