"""The registers of the guest's CPUs, out of their sections in the stream.

==========  ==================================================================
arch        registers
==========  ==================================================================
x86_64      rax ... r15, rip, eflags; cs, ds, es, fs, gs, ss, ldt, tr (selectors)
            and gdt, idt, each also as ``_base``, ``_limit`` and ``_flags`` (the
            descriptor's upper word); cr0, cr2, cr3, cr4, efer, kernel_gs_base
i386        the same of a 32-bit build of QEMU, named as above, without r8 on
aarch64     x0 ... x30, sp, pc, pstate
arm         r0 ... r15, cpsr (xpsr of the M profile): of a CPU in a 32-bit state
==========  ==================================================================

On aarch64 the stack pointer in use is the last of ``env.xregs``; those of
the other exception levels are in ``env.sp_el``.

Source: QEMU target/i386/machine.c (vmstate_x86_cpu), target/arm/machine.c
(vmstate_arm_cpu, put_cpsr), 5.2 to 11.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cprformats.fields import Field, Kind
from cprformats.guest.sections import body_of
from cprformats.migration.model import Section
from cprformats.migration.stream import MigrationStream

__all__ = ["CpuState", "CpuStates", "cpu_states"]

#: In the order of env.regs.
_X86 = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
_X86_64 = (*_X86, *(f"r{number}" for number in range(8, 16)))
#: In the order of env.segs.
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
_TABLES = ("ldt", "tr", "gdt", "idt")
_CONTROL = {f"cr{number}": f"env.cr[{number}]" for number in (0, 2, 3, 4)}
_OPTIONAL = {"efer": "env.efer", "kernel_gs_base": "env.kernelgsbase"}
#: PSTATE.nRW: the CPU is in a 32-bit state. Those of the M profile always are.
_NARROW = 0x10
_WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class CpuState:
    """One CPU.

    Attributes:
        arch: ``x86_64``, ``i386``, ``aarch64`` or ``arm``.
        index: QEMU's number of it, from 0.
        registers: values by name, unsigned.
    """

    arch: str
    index: int
    registers: dict[str, int]


@dataclass(frozen=True, slots=True)
class CpuStates:
    """All CPUs.

    Attributes:
        states: by index.
        notes: why some are missing, in plain words.
    """

    states: tuple[CpuState, ...]
    notes: tuple[str, ...] = ()


class _Missing(Exception):
    """A register is not where it should be."""


def cpu_states(stream: MigrationStream) -> CpuStates:
    """Read the registers of all CPUs.

    A CPU that can't be read is left out, and a note says why.
    """
    states: list[CpuState] = []
    notes: list[str] = []
    sections = [section for section in stream.sections() if section.idstr == "cpu"]
    for section in sections:
        try:
            states.append(_state(stream, section))
        except _Missing as problem:
            notes.append(f"CPU {section.instance_id}: {problem}")
    if not sections:
        notes.append("the stream has no section of a CPU")
    if stream.error is not None:
        notes.append("the stream ends early: there may have been more CPUs")
    return CpuStates(tuple(sorted(states, key=lambda state: state.index)), tuple(notes))


def _state(stream: MigrationStream, section: Section) -> CpuState:
    body = body_of(stream, section)
    if body is None or all(child.kind is Kind.RAW for child in body.children):
        raise _Missing("its section can't be decoded")
    if body.get("env.eip"):
        wide = len(_numbers(body, "env.regs")) == len(_X86_64)
        return CpuState("x86_64" if wide else "i386", section.instance_id, _x86(body))
    if body.get("env.xregs"):
        narrow = _number(body, "cpsr") & _NARROW or body.get("cpu/m")
        arch, registers = ("arm", _arm(body)) if narrow else ("aarch64", _aarch64(body))
        return CpuState(arch, section.instance_id, registers)
    raise _Missing("its registers have no rule")


def _value(body: Field, name: str) -> object:
    field = body.get(name)
    if field is None or not field.codec:
        raise _Missing(f"{name} is not in its section")
    return field.value


def _number(body: Field, name: str) -> int:
    value = _value(body, name)
    if not isinstance(value, int):
        raise _Missing(f"{name} is no number")
    return value & _WORD


def _numbers(body: Field, name: str) -> Sequence[int]:
    value = _value(body, name)
    if not isinstance(value, tuple):
        raise _Missing(f"{name} is no array")
    return [number & _WORD for number in value if isinstance(number, int)]


def _named(names: Iterable[str], body: Field, field: str) -> dict[str, int]:
    numbers = _numbers(body, field)
    return dict(zip(names, numbers, strict=False))


# -- x86 ------------------------------------------------------------------------------


def _x86(body: Field) -> dict[str, int]:
    registers = _named(_X86_64, body, "env.regs")
    if len(registers) < len(_X86):
        raise _Missing("env.regs is too short")
    registers["rip"] = _number(body, "env.eip")
    registers["eflags"] = _number(body, "env.eflags")
    for index, name in enumerate(_SEGMENTS):
        registers |= _segment(name, body, f"env.segs[{index}]")
    for name in _TABLES:
        registers |= _segment(name, body, f"env.{name}")
    registers |= {name: _number(body, field) for name, field in _CONTROL.items()}
    present = {name: field for name, field in _OPTIONAL.items() if body.get(field)}
    return registers | {name: _number(body, field) for name, field in present.items()}


def _segment(name: str, body: Field, field: str) -> dict[str, int]:
    return {
        name: _number(body, f"{field}.selector"),
        f"{name}_base": _number(body, f"{field}.base"),
        f"{name}_limit": _number(body, f"{field}.limit"),
        f"{name}_flags": _number(body, f"{field}.flags"),
    }


# -- Arm ------------------------------------------------------------------------------


def _aarch64(body: Field) -> dict[str, int]:
    names = (*(f"x{number}" for number in range(31)), "sp")
    registers = _named(names, body, "env.xregs")
    if len(registers) < len(names):
        raise _Missing("env.xregs is too short")
    return registers | {"pc": _number(body, "env.pc"), "pstate": _number(body, "cpsr")}


def _arm(body: Field) -> dict[str, int]:
    registers = _named((f"r{number}" for number in range(16)), body, "env.regs")
    return registers | {"cpsr": _number(body, "cpsr")}
