"""What a guest says of itself, read out of its memory alone, by any process that has it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cprproto.errors import GuestError
from cprproto.machine import layout as at
from cprproto.machine.pattern import PatternVerdict, verify

__all__ = ["CpuReport", "GuestReport", "check_guest", "forget_gaps", "read_report"]


@dataclass(frozen=True, slots=True)
class CpuReport:
    """One vCPU's counters.

    Attributes:
        rounds: rounds of its loop.
        gap: the longest time between two rounds since `forget_gaps`, in ticks of its TSC.
        gap_round: the round that saw it.
        forgot: number of the last `forget_gaps` that it has followed.
        stamps: pages stamped, those that were stamped again too.
        kicks_begun, kicks_done: rings of the doorbell, counted before and after each.
        chars, lines: what it wrote to the serial port.
        checks: how often it compared its registers with their keys.
        broken: names of those that did not fit.
        timer, pit, spurious, level: interrupts taken of each source.
        devices: interrupts taken of each edge-triggered device line.
        fault: exception that stopped it; None if none did.
    """

    rounds: int
    gap: int
    gap_round: int
    forgot: int
    stamps: int
    kicks_begun: int
    kicks_done: int
    chars: int
    lines: int
    checks: int
    broken: tuple[str, ...]
    timer: int
    pit: int
    spurious: int
    level: int
    devices: tuple[int, ...]
    fault: int | None


@dataclass(frozen=True, slots=True)
class GuestReport:
    """The whole guest.

    Attributes:
        kind: ``kvm`` or ``soft``: what runs it.
        tsc_khz: ticks of the vCPUs' TSC in a millisecond.
        ram_bytes: size of the RAM block.
        cpus: its vCPUs.
        pattern: verdict over its memory; None where it was not looked at.
        findings: what is wrong, a line each; empty for a guest that is whole.
    """

    kind: str
    tsc_khz: int
    ram_bytes: int
    cpus: tuple[CpuReport, ...]
    pattern: PatternVerdict | None = None
    findings: tuple[str, ...] = ()

    @property
    def rounds(self) -> int:
        """Rounds of all vCPUs."""
        return sum(cpu.rounds for cpu in self.cpus)

    @property
    def gap_us(self) -> float:
        """The longest gap that any vCPU saw, in microseconds."""
        return max(cpu.gap for cpu in self.cpus) * 1000 / self.tsc_khz

    @property
    def interrupts(self) -> int:
        """Device interrupts taken, edge- and level-triggered, on all vCPUs."""
        return sum(sum(cpu.devices) + cpu.level for cpu in self.cpus)

    @property
    def kicks(self) -> tuple[int, int]:
        """At least, and at most, how often the doorbell was rung."""
        done = sum(cpu.kicks_done for cpu in self.cpus)
        return done, sum(cpu.kicks_begun for cpu in self.cpus)


def _global(ram: memoryview, name: str) -> int:
    value: int = at.WORD.unpack_from(ram, at.CONTROL + at.GLOBAL[name])[0]
    return value


def _cpu(ram: memoryview, number: int) -> CpuReport:
    page = at.cpu_page(number)
    word = {name: at.WORD.unpack_from(ram, page + place)[0] for name, place in at.CPU.items()}
    first = page + at.CPU["irq_device"]
    places = range(first, first + 8 * at.DEVICES, 8)
    return CpuReport(
        word["rounds"],
        word["gap"],
        word["gap_round"],
        word["gap_done"],
        word["stamps"],
        word["kicks_begun"],
        word["kicks_done"],
        word["chars"],
        word["lines"],
        word["checks"],
        tuple(name for bit, name in enumerate(at.KEYS) if word["broken"] >> bit & 1),
        word["irq_timer"],
        word["irq_pit"],
        word["irq_spurious"],
        word["irq_level"],
        tuple(at.WORD.unpack_from(ram, place)[0] for place in places),
        word["fault"] if word["faults"] else None,
    )


def read_report(ram: memoryview) -> GuestReport:
    """Read the counters of a guest that runs or stands still.

    Raises:
        GuestError: there is no guest of ours in these bytes.
    """
    if len(ram) < at.PATTERN or bytes(ram[at.CONTROL : at.CONTROL + 8]) != at.MAGIC:
        raise GuestError("the memory has no control page of this guest")
    cpus, version = _global(ram, "cpus"), _global(ram, "version")
    if version != at.VERSION:
        raise GuestError(f"the control page is of version {version}, expected {at.VERSION}")
    if not 0 < cpus <= at.MOST_CPUS or not _global(ram, "tsc_khz"):
        raise GuestError(f"the control page tells of {cpus} vCPUs, or of no clock")
    kind = _global(ram, "kind").to_bytes(8, "little").rstrip(b" \0").decode("ascii", "replace")
    return GuestReport(
        kind,
        _global(ram, "tsc_khz"),
        _global(ram, "ram"),
        tuple(_cpu(ram, number) for number in range(cpus)),
    )


def check_guest(
    ram: memoryview,
    rom: memoryview | None = None,
    vga: memoryview | None = None,
    *,
    running: bool = False,
    every: int = 1,
) -> GuestReport:
    """Read the counters and look over all memory; `running` and `every` as in `verify`.

    Raises:
        GuestError: there is no guest of ours in these bytes.
    """
    report = read_report(ram)
    pattern = verify(ram, running=running, every=every)
    found = list(pattern.findings)
    if pattern.bad > len(found):
        found.append(f"and {pattern.bad - len(found)} pages more")
    if report.ram_bytes != len(ram):
        found.append(f"the guest was told of {report.ram_bytes} bytes of RAM, there are {len(ram)}")
    for number, cpu in enumerate(report.cpus):
        found += [f"vCPU {number}: {name} was lost" for name in cpu.broken]
        if cpu.fault is not None:
            found.append(f"vCPU {number}: stopped by exception {cpu.fault}")
    if rom is not None and report.kind == "kvm":
        found += _rom_findings(rom)
    if vga is not None:
        found += _vga_findings(ram, vga, report)
    return replace(report, pattern=pattern, findings=tuple(found))


def _rom_findings(rom: memoryview) -> list[str]:
    from cprproto.machine.code import CODE  # noqa: PLC0415 -- only a KVM guest has it

    whole = bytes(rom[: len(CODE)]) == CODE and not any(rom[len(CODE) :])
    return [] if whole else ["the program in ROM was changed"]


def _vga_findings(ram: memoryview, vga: memoryview, report: GuestReport) -> list[str]:
    """Word n of the screen memory has the last line whose number ends in n."""
    places, lines = _global(ram, "vga_mask") + 1, report.cpus[0].lines
    if places * 8 != len(vga):
        return [f"the guest was told of {places * 8} bytes of VGA, there are {len(vga)}"]
    found = []
    for line in range(max(1, lines - places + 2), lines):
        (shown,) = at.WORD.unpack_from(vga, line % places * 8)
        if shown != line and shown != line + places:
            found.append(f"line {line} is not on the screen: found {shown}")
    return found[:20]


def forget_gaps(ram: memoryview) -> int:
    """Tell the vCPUs to forget the gaps that they saw; each does in its next round.

    Returns:
        The number of this command, which `CpuReport.forgot` shows once it is done.
    """
    number = _global(ram, "gap_command") + 1
    at.WORD.pack_into(ram, at.CONTROL + at.GLOBAL["gap_command"], number)
    return number
