"""Memory blocks: what they are made of, that they are the same bytes for all, where they lie."""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path

import pytest

from cprproto.errors import AddressTaken, HostError, ProtoError
from cprproto.kvm.mapping import map_shared
from cprproto.machine.fixed import map_at
from cprproto.machine.ram import Block, Memory, file_block, free_huge_pages, memfd_block

SIZE = 1 << 20


def test_a_memfd_block() -> None:
    block = memfd_block("ram", SIZE)
    assert not block.sealed
    assert not os.get_inheritable(block.fd)
    block.view[5] = 7
    assert os.pread(block.fd, 1, 5) == b"\x07"
    assert str(Path(f"/proc/self/fd/{block.fd}").readlink()).startswith("/memfd:cpr-ram")
    block.close()
    block.close()


def test_seals() -> None:
    block = memfd_block("ram", SIZE, seal=True)
    assert block.sealed
    with pytest.raises(PermissionError):
        os.ftruncate(block.fd, SIZE * 2)
    with pytest.raises(PermissionError):
        fcntl.fcntl(block.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    block.close()


def test_a_file_block(tmp_path: Path) -> None:
    block = file_block("ram", str(tmp_path / "ram"), SIZE)
    block.view[0] = 9
    block.close()
    assert (tmp_path / "ram").read_bytes()[:1] == b"\x09"
    again = file_block("ram", str(tmp_path / "ram"), SIZE)
    assert (again.view[0], again.kind, again.sealed) == (9, "file", False)
    again.close()


def test_a_file_that_can_not_be(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="No such file"):
        file_block("ram", str(tmp_path / "none" / "ram"), SIZE)
    with pytest.raises(HostError, match="block ram"):
        file_block("ram", str(tmp_path / "big"), 1 << 62)


def test_huge_pages_are_there_or_missed() -> None:
    want = 2 << 20
    if free_huge_pages():
        block = memfd_block("ram", want, huge=True)
        assert (block.kind, len(block.view)) == ("hugetlb", want)
        block.close()
    with pytest.raises(HostError, match=r"huge pages wanted, \d+ of 2 MiB free"):
        memfd_block("ram", want * (free_huge_pages() + 1), huge=True)
    with pytest.raises(HostError, match="huge pages wanted"):
        memfd_block("ram", 4096, huge=True)


def test_adopting_what_was_inherited() -> None:
    block = memfd_block("ram", SIZE)
    assert Block("ram", block.fd, SIZE).size == SIZE
    with pytest.raises(HostError, match=f"expected 4096 bytes, descriptor {block.fd} has {SIZE}"):
        Block("ram", block.fd, 4096)
    number = block.fd
    block.close()
    with pytest.raises(HostError, match=f"block ram: descriptor {number}: Bad file descriptor"):
        Block("ram", number, SIZE)


def test_the_address_is_the_kernels() -> None:
    block = memfd_block("ram", SIZE)
    first, second = map_shared(block.fd, SIZE), map_shared(block.fd, SIZE, writable=False)
    assert first.address != second.address
    lines = Path("/proc/self/maps").read_text().splitlines()
    starts = {int(line.split("-")[0], 16) for line in lines if "memfd:cpr-ram" in line}
    assert starts == {first.address, second.address}
    first.view[1] = 3
    assert second.view[1] == 3
    with pytest.raises(TypeError):
        second.view[1] = 4
    for mapping in (first, second):
        mapping.close()
    block.close()


def test_what_can_not_be_mapped() -> None:
    read, write = os.pipe()
    with pytest.raises(HostError):
        map_shared(read, 4096)
    with pytest.raises(HostError):
        map_at(read, 4096, 1 << 40)
    os.close(read)
    os.close(write)


def test_at_the_same_address_again() -> None:
    block = memfd_block("ram", SIZE)
    address = block.map().address
    block.view[77] = 77
    again = Block("ram", os.dup(block.fd), SIZE)
    with pytest.raises(AddressTaken) as caught:
        again.map(address)
    assert (caught.value.address, caught.value.size) == (address, SIZE)
    assert caught.value.holder.startswith("/memfd:cpr-ram")
    assert isinstance(caught.value, ProtoError)
    block.close()
    assert again.map(address).address == address
    assert again.view[77] == 77
    again.close()


def test_an_address_taken_by_something_without_a_name() -> None:
    block = memfd_block("ram", SIZE)
    other = mmap.mmap(-1, 4096)
    place = memfd_block("rom", 4096)
    address = place.map().address
    place.close()
    mapping = map_at(block.fd, 4096, address)
    with pytest.raises(AddressTaken, match="is there already"):
        map_at(block.fd, SIZE, address)
    mapping.close()
    other.close()
    block.close()


def test_slots_of_a_guest_above_the_hole() -> None:
    memory = Memory.make(4 << 30)
    low, high, vga, rom = memory.slots()
    assert low == (0, 3 << 30, memory.ram.map().address, False)
    assert high == (4 << 30, 1 << 30, memory.ram.map().address + (3 << 30), False)
    assert (vga[3], rom[3]) == (False, True)
    memory.close()


@pytest.mark.parametrize("size", [0, 4096, (2 << 20) + 1, (128 << 30) + 4096])
def test_sizes_that_no_guest_has(size: int) -> None:
    with pytest.raises(HostError, match=f"can't have {size} bytes"):
        Memory.make(size)


def test_sealed_memory() -> None:
    memory = Memory.make(2 << 20, seal=True)
    assert all(block.sealed for block in memory.blocks)
    memory.close()
