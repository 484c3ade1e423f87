"""The head of a core file, read by readelf and by nothing of ours."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from builders.guest import aarch64_cpu, machine, section, x86_cpu
from checks import read
from cprformats.errors import Unsupported
from cprformats.guest import (
    CpuState,
    ElfCore,
    PhysicalLayout,
    PhysicalRange,
    cpu_states,
    elf_core,
    vmcoreinfo_note,
)
from cprformats.guest.notes import note

MIB = 1 << 20
RANGES = (
    PhysicalRange(0, 0xA0000, "ram", 0),
    PhysicalRange(0xA0000, 0x1000, "ram", 0xA0000),
    PhysicalRange(0xC0000, 0x1801, "pc.rom", 0, "rom"),
    PhysicalRange(1 << 32, MIB, "ram", 0xC0000),
)
LAYOUT = PhysicalLayout("pc", RANGES)


def cpus(*parts: tuple) -> tuple[CpuState, ...]:
    found = cpu_states(read(machine("pc", {"pc.ram": 4096}, *parts)))
    assert found.notes == ()
    return found.states


def headers(core: ElfCore) -> list[tuple[int, ...]]:
    at, size, count = struct.unpack_from("<Q14xHH", core.head, 32)
    return [struct.unpack_from("<IIQQQQQQ", core.head, at + n * size) for n in range(count)]


def notes(core: ElfCore) -> list[tuple[str, int, bytes]]:
    kind, _, at, _, _, size, *_ = headers(core)[0]
    assert kind == 4
    data, result = core.head[at : at + size], []
    while data:
        name_size, length, what = struct.unpack_from("<III", data)
        start = 12 + name_size + -name_size % 4
        result.append((data[12 : 11 + name_size].decode(), what, data[start : start + length]))
        data = data[start + length + -length % 4 :]
    return result


def test_segments() -> None:
    core = elf_core(LAYOUT, cpus(x86_cpu()))
    assert len(core.head) % 4096 == 0
    loads = headers(core)[1:]
    found = [(flags, start, size) for _, flags, _, start, _, size, *_ in loads]
    assert found == [(7, 0, 0xA1000), (5, 0xC0000, 0x1801), (7, 1 << 32, MIB)]
    for (kind, _, offset, virtual, physical, size, memory, align), segment in zip(
        loads, core.segments, strict=True
    ):
        assert (kind, virtual, memory, align) == (1, physical, size, 0)
        assert (offset, physical, size) == (
            segment.file_offset,
            segment.range.start,
            segment.range.size,
        )
        assert offset % 4096 == 0
    assert core.segments[0].file_offset == len(core.head)
    assert core.segments[2].file_offset == len(core.head) + 0xA1000 + 0x2000
    assert core.size == core.segments[-1].file_offset + MIB


def test_x86_64_notes() -> None:
    core = elf_core(LAYOUT, cpus(x86_cpu(0, rip=0x1234, cr3=0x5000), x86_cpu(1)))
    found = notes(core)
    assert [one[:2] for one in found] == [("CORE", 1), ("CORE", 1), ("QEMU", 0), ("QEMU", 0)]
    status, state = found[0][2], found[2][2]
    assert (len(status), len(state)) == (336, 440)
    assert struct.unpack_from("<I", status, 32) == (1,)
    assert struct.unpack_from("<I", found[1][2], 32) == (2,)
    words = struct.unpack_from("<27Q", status, 112)
    # r15 ... r10, rbp and rbx between; rax is the first register of env.regs
    assert words[:6] == (0x10000, 0xF000, 0xE000, 0xD000, 0x6000, 0x4000)
    assert words[10:16] == (0x1000, 0x2000, 0x3000, 0x7000, 0x8000, 0)
    assert words[16:21] == (0x1234, 1, 2, 0x5000, 2)
    assert words[21:] == (0x40000, 0x50000, 3, 0, 4, 5)
    assert struct.unpack_from("<II", state) == (1, 440)
    assert struct.unpack_from("<4Q", state, 8) == (0x1000, 0x4000, 0x2000, 0x3000)
    assert struct.unpack_from("<IIIIQ", state, 152) == (1, 0xFFFF, 0x9300, 0, 0x10000)
    assert struct.unpack_from("<6Q", state, 392) == (0, 0, 0, 0x5000, 0, 0)


def test_registers_of_odd_types_fit() -> None:
    """A description may call a register signed, and number a CPU as it likes."""
    part = section(
        "cpu",
        ("env.regs", "uint32", 4, bytes(64)),
        ("env.xregs", "int64", 8, b"\xff" * 256),
        ("env.pc", "int64", 8, b"\xff" * 8),
        ("cpsr", "int32", 4, b"\xff\xff\xff\xef"),
        instance=0xFFFFFFFF,
    )
    status = notes(elf_core(LAYOUT, cpus(part)))[0][2]
    assert struct.unpack_from("<I", status, 32) == (0,)
    assert set(status[112:384]) == {0xFF, 0xEF}


def test_32_bit_x86_is_written_as_64() -> None:
    core = elf_core(LAYOUT, cpus(x86_cpu(registers=8)))
    assert struct.unpack_from("<HH", core.head, 16) == (4, 62)
    assert struct.unpack_from("<Q", notes(core)[0][2], 112 + 80) == (0x1000,)


def test_aarch64_notes() -> None:
    core = elf_core(LAYOUT, cpus(aarch64_cpu()))
    assert struct.unpack_from("<HH", core.head, 16) == (4, 183)
    ((name, kind, status),) = notes(core)
    assert (name, kind, len(status)) == ("CORE", 1, 392)
    words = struct.unpack_from("<34Q", status, 112)
    assert words == (*range(0x100, 0x120), 0x40000200, 0x3C5)


def test_extra_notes() -> None:
    extra = [("VMCOREINFO", 0, b"OSRELEASE=6\n"), ("X", 7, b"")]
    core = elf_core(LAYOUT, (), arch="x86_64", extra_notes=extra)
    assert notes(core) == extra


def test_a_core_without_memory() -> None:
    core = elf_core(PhysicalLayout("pc", ()), cpus(x86_cpu()))
    assert core.segments == ()
    assert core.size == len(core.head) == 4096


def test_many_ranges_and_too_many() -> None:
    def layout(count: int) -> PhysicalLayout:
        ranges = (PhysicalRange(n * 8192, 4096, "ram", n * 4096) for n in range(count))
        return PhysicalLayout("pc", tuple(ranges))

    core = elf_core(layout(65533), cpus(x86_cpu()))
    assert len(headers(core)) == 65534
    with pytest.raises(Unsupported, match="65534 ranges of memory: ELF has 65533 at most"):
        elf_core(layout(65534), cpus(x86_cpu()))


@pytest.mark.parametrize(
    ("parts", "arch", "words"),
    [
        ((), "", "a guest whose CPUs are unknown"),
        ((), "riscv", "CPUs of riscv"),
        ((aarch64_cpu(cpsr=0x10),), "x86_64", "CPUs of arm"),
    ],
)
def test_cpus_that_have_no_core(parts: tuple, arch: str, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        elf_core(LAYOUT, cpus(*parts) if parts else (), arch=arch)


@pytest.mark.parametrize(
    ("part", "name"),
    [(x86_cpu(), "Advanced Micro Devices X86-64"), (aarch64_cpu(), "AArch64")],
    ids=["x86_64", "aarch64"],
)
def test_readelf(part: tuple, name: str, tmp_path: Path) -> None:
    """Binutils take it without a word."""
    if shutil.which("readelf") is None:
        pytest.skip("no readelf")
    core = elf_core(LAYOUT, cpus(part), extra_notes=[("VMCOREINFO", 0, b"OSRELEASE=6\n")])
    path = tmp_path / "core"
    with path.open("wb") as file:
        file.write(core.head)
        file.truncate(core.size)
    run = subprocess.run(
        ["readelf", "-aW", str(path)], check=True, capture_output=True, text=True, timeout=60
    )
    assert run.stderr == ""
    assert re.search(rf"Machine: +{name}", run.stdout)
    assert re.search(r"Type: +CORE", run.stdout)
    assert len(re.findall(r"^ +LOAD ", run.stdout, re.MULTILINE)) == 3
    assert "NT_PRSTATUS" in run.stdout
    assert "VMCOREINFO" in run.stdout


# -- Linux's own note -----------------------------------------------------------------

TEXT = b"OSRELEASE=6.1.0\nPAGESIZE=4096\n"


def test_vmcoreinfo_is_found_in_memory() -> None:
    memory = bytes(4096) + b"VMCOREINFO\0 a false one" + note("VMCOREINFO", 0, TEXT) + bytes(64)
    assert vmcoreinfo_note(memory) == TEXT


@pytest.mark.parametrize(
    "memory",
    [
        b"",
        b"VMCOREINFO\0",
        note("VMCOREINFO", 0, TEXT)[:-4],
        note("VMCOREINFO", 1, TEXT),
        note("VMCOREINFO", 0, b"PAGESIZE=4096\n"),
        note("VMCOREINFOS", 0, TEXT),
        note("VMCOREINFO", 0, b"OSRELEASE=" + bytes(1 << 16)),
    ],
    ids=["empty", "no head", "cut", "type", "text", "name", "too long"],
)
def test_what_is_no_vmcoreinfo(memory: bytes) -> None:
    assert vmcoreinfo_note(memory) is None
