"""Registers out of the sections of CPUs."""

from __future__ import annotations

import pytest

import cprtools
from builders import migration as m
from builders.guest import aarch64_cpu, machine, section, x86_cpu
from checks import fixture_path, read
from cprformats.guest import CpuStates, cpu_states


def states(*parts: tuple, **more: bool) -> CpuStates:
    return cpu_states(read(machine("q35", {"pc.ram": 4096}, *parts, **more)))


def of_fixture(name: str) -> CpuStates:
    with cprtools.open(fixture_path(f"migration/{name}.sav.xz")) as state:
        assert state.stream is not None
        return cpu_states(state.stream)


def test_x86_64() -> None:
    found = states(x86_cpu(rip=1 << 63, cr3=0x1000, cr0=0x80000001, efer=0xD01, kernel_gs_base=9))
    assert found.notes == ()
    (cpu,) = found.states
    assert (cpu.arch, cpu.index) == ("x86_64", 0)
    registers = cpu.registers
    names = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"]
    names += [f"r{n}" for n in range(8, 16)]
    assert list(registers)[:18] == [*names, "rip", "eflags"]
    assert [registers[name] for name in names] == [0x1000 * (n + 1) for n in range(16)]
    assert (registers["rip"], registers["eflags"]) == (1 << 63, 2)
    segments = ["es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr", "gdt", "idt"]
    assert [registers[name] for name in segments] == list(range(10))
    assert registers["gs_base"] == 0x50000
    assert (registers["fs_limit"], registers["fs_flags"]) == (0xFFFF, 0x9300)
    assert (registers["cr0"], registers["cr3"]) == (0x80000001, 0x1000)
    assert (registers["efer"], registers["kernel_gs_base"]) == (0xD01, 9)


def test_i386() -> None:
    (cpu,) = states(x86_cpu(registers=8, cr4=0x20)).states
    assert cpu.arch == "i386"
    assert (cpu.registers["rdi"], cpu.registers["cr4"]) == (0x8000, 0x20)
    assert not {"r8", "efer", "kernel_gs_base"} & cpu.registers.keys()


def test_many_cpus_are_in_the_order_of_their_numbers() -> None:
    found = states(x86_cpu(2), x86_cpu(0), x86_cpu(1))
    assert [cpu.index for cpu in found.states] == [0, 1, 2]
    assert [cpu.registers["rax"] for cpu in found.states] == [0x1000, 0x1001, 0x1002]


def test_aarch64() -> None:
    (cpu,) = states(aarch64_cpu()).states
    assert cpu.arch == "aarch64"
    assert list(cpu.registers) == [*(f"x{n}" for n in range(31)), "sp", "pc", "pstate"]
    assert [cpu.registers[name] for name in ("x0", "x30", "sp")] == [0x100, 0x11E, 0x11F]
    assert (cpu.registers["pc"], cpu.registers["pstate"]) == (0x40000200, 0x3C5)


def test_an_arm_cpu_in_a_32_bit_state() -> None:
    (cpu,) = states(aarch64_cpu(cpsr=0x400001D3)).states
    assert cpu.arch == "arm"
    assert cpu.registers == {f"r{n}": 0x10 + n for n in range(16)} | {"cpsr": 0x400001D3}


# -- what can't be read -----------------------------------------------------------------


def test_no_cpu() -> None:
    assert states() == CpuStates((), ("the stream has no section of a CPU",))


def test_a_cpu_of_another_target() -> None:
    cpu = section("cpu", ("env.gpr", "uint64", 8, bytes(256)), ("env.nip", "uint64", 8, bytes(8)))
    assert states(cpu).notes == ("CPU 0: its registers have no rule",)


def test_one_cpu_of_two() -> None:
    odd = section("cpu", ("env.eip", "uint64", 8, bytes(8)), instance=1)
    found = states(x86_cpu(), odd)
    assert [cpu.index for cpu in found.states] == [0]
    assert found.notes == ("CPU 1: env.regs is not in its section",)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([("env.eip", "uint64", 8, bytes(8)), ("env.regs", "uint64", 8, bytes(8))], "no array"),
        ([("env.eip", "uint64", 8, bytes(8)), ("env.regs", "uint64", 8, bytes(32))], "too short"),
        ([("env.xregs", "uint64", 8, bytes(256))], "cpsr is not in its section"),
        (
            [("env.xregs", "uint64", 8, bytes(64)), ("cpsr", "cpsr", 4, bytes(4))],
            "env.xregs is too short",
        ),
        (
            [("env.xregs", "uint64", 8, bytes(256)), ("cpsr", "uint8", 1, bytes(4))],
            "cpsr is no number",
        ),
    ],
)
def test_a_cpu_with_odd_fields(fields: list[tuple[str, str, int, bytes]], words: str) -> None:
    (note,) = states(section("cpu", *fields)).notes
    assert note.startswith("CPU 0: ")
    assert words in note


def test_a_section_that_can_not_be_decoded() -> None:
    """No description, and no layout that fits."""
    found = states((m.device("cpu"), b"\x01" * 100), described=False)
    assert found == CpuStates((), ("CPU 0: its section can't be decoded",))


def test_a_cut_cpu_is_left_out() -> None:
    whole = machine("q35", {"pc.ram": 4096}, x86_cpu(0), x86_cpu(1))
    second = whole.index(b"\x03cpu", whole.index(b"\x03cpu") + 1)
    found = cpu_states(read(whole[: second + 60]))
    assert found.states == ()
    assert found.notes[0] == "CPU 0: its section can't be decoded"
    assert found.notes[-1] == "the stream ends early: there may have been more CPUs"


@pytest.mark.parametrize(
    "name", ["10.0-q35-base", "10.0-q35-no-vmdesc", "10.0-q35-postcopy", "11.1-pc-smp4-max"]
)
def test_cutting_a_real_stream_anywhere_is_no_error(name: str) -> None:
    with cprtools.open(fixture_path(f"migration/{name}.sav.xz")) as state:
        assert state.stream is not None
        cpus = [one for one in state.stream.sections() if one.idstr == "cpu"]
        end = cpus[-1].end
        data = state.stream.source.read_at(0, end)
    for cut in range(cpus[0].offset, end, 97):
        found = cpu_states(read(data[:cut]))
        assert len(found.states) <= len(cpus)
        assert found.notes or len(found.states) == len(cpus)


# -- real ones ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["5.2-pc-base", "7.2-q35-no-vmdesc", "8.2-pc-postcopy", "11.1-q35-kvm"]
)
def test_real_x86(name: str) -> None:
    found = of_fixture(name)
    assert found.notes == ()
    assert {cpu.arch for cpu in found.states} == {"x86_64"}
    for cpu in found.states:
        assert cpu.registers["eflags"] & 2
        assert cpu.registers["cr0"] & 0x10


@pytest.mark.parametrize("release", ["5.2", "7.2", "8.2", "10.0", "11.1"])
def test_a_real_linux_is_in_long_mode(release: str) -> None:
    for cpu in of_fixture(f"{release}-q35-linux-virtio-io").states:
        assert cpu.registers["efer"] & 0x400
        assert cpu.registers["cr0"] >> 31
        assert cpu.registers["cr3"]


@pytest.mark.parametrize("release", ["7.2", "10.0", "11.1"])
def test_real_arm(release: str) -> None:
    (first, *_) = of_fixture(f"{release}-aarch64-virt-neoverse").states
    assert (first.arch, first.registers["x1"]) == ("aarch64", 0x1234)
    assert first.registers["pc"] >> 28 == 4
    for name in ("arm-versatilepb-base", "arm-mps2-an385-base", "arm-virt-mix"):
        assert {cpu.arch for cpu in of_fixture(f"{release}-{name}").states} == {"arm"}
