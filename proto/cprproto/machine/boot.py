"""Make a guest out of empty memory: control pages, program, page tables, first registers.

The guest starts in 64-bit mode on every vCPU at once, as if firmware had been there. After a
hand-off nothing of this is needed, so nothing of it is imported.

Facts: Intel SDM volume 3 (4.5 paging, 5.8 gates, 10.5 local APIC), 82093AA (IOAPIC entries),
8254 (PIT).
"""

from __future__ import annotations

from dataclasses import dataclass
from fcntl import ioctl
from struct import pack_into

from cprproto.errors import GuestError, HostError
from cprproto.kvm import ioctls as k
from cprproto.kvm.vcpu import VCpu
from cprproto.machine import layout as at
from cprproto.machine.code import CODE, PLACES
from cprproto.machine.pattern import FACTORS, fill, share
from cprproto.machine.ram import Memory

__all__ = ["BootConfig", "keys_of", "start_cpu", "write_control", "write_program"]

_GIB, _HUGE = 1 << 30, 2 << 20
_PRESENT_WRITABLE = 0x3
_HUGE_PAGE = 0x80
_UNCACHED = 0x18  # PCD and PWT
_PIT_HZ = 1193182
_TIMER_HZ = 1_000_000_000  # KVM's local APIC ticks once a nanosecond (arch/x86/kvm/lapic.h)
_MASKED = 1 << 16
_LEVEL = 1 << 15
_NEVER = (1 << 64) - 1
_MASK = (1 << 64) - 1
_CODE, _DATA, _TASK = 0x08, 0x10, 0x18
_GDT = (0, 0x00AF9A000000FFFF, 0x00CF92000000FFFF)


@dataclass(frozen=True, slots=True)
class BootConfig:
    """What the guest is told when it starts.

    Attributes:
        salt: mixed into every check, so that no other guest's memory passes for this one's.
        kick_every, line_every: rounds between doorbell rings and serial lines: powers of two, or
            0 for never.
        timer_hz, pit_hz: ticks a second of each vCPU's local APIC timer and of the PIT; 0: off.
        idle: sleep after each round until the next interrupt.
        fill: write all of RAM first.
        devices: count of edge-triggered device lines, 0 to 7.
    """

    salt: int = 0x5EED
    kick_every: int = 1024
    line_every: int = 64
    timer_hz: int = 250
    pit_hz: int = 100
    idle: bool = False
    fill: bool = False
    devices: int = 2


def _mask(every: int) -> int:
    if every & (every - 1) or every < 0:
        raise GuestError(f"{every} is no power of two")
    return every - 1 if every else _NEVER


def keys_of(salt: int, number: int) -> dict[str, int]:
    """Give the values that a vCPU has in registers which it never changes."""
    word = (salt * FACTORS[0] ^ (number + 1) * FACTORS[1]) & _MASK
    return {
        "key_low": word,
        "key_high": word ^ _MASK,
        "key_debug": 0x1000 * (number + 1) + 8,  # an address, never enabled
        "key_gs": word & 0x7FFFFFFFF000 | number,  # canonical
    }


def write_control(
    memory: Memory, cpus: int, config: BootConfig, *, kind: str, tsc_khz: int
) -> None:
    """Fill the control pages, and the pattern if asked to.

    Raises:
        GuestError: a configuration that no guest can have.
    """
    ram = memory.ram.view
    if not 1 <= cpus <= at.MOST_CPUS or not 0 <= config.devices <= at.DEVICES:
        raise GuestError(f"no guest has {cpus} vCPUs and {config.devices} devices")
    if share(len(ram), cpus, 0)[1] <= share(len(ram), cpus, 0)[0]:
        raise GuestError(f"{len(ram)} bytes of RAM are too few for {cpus} vCPUs")
    words = {
        "magic": int.from_bytes(at.MAGIC, "little"),
        "version": at.VERSION,
        "cpus": cpus,
        "ram": len(ram),
        "salt": config.salt & _MASK,
        "tsc_khz": tsc_khz,
        "doorbell": at.DOORBELL,
        "kick_mask": _mask(config.kick_every),
        "line_mask": _mask(config.line_every),
        "timer_count": _TIMER_HZ // config.timer_hz if config.timer_hz else 0,
        "pit_divisor": min(_PIT_HZ // config.pit_hz, 0xFFFF) if config.pit_hz else 0,
        "vga": at.VGA,
        "vga_mask": memory.vga.size // 8 - 1,
        "idle": int(config.idle),
        "kind": int.from_bytes(kind.encode().ljust(8), "little"),
        "pattern_end": len(ram) // at.PAGE,
        "filled": int(config.fill),
    }
    for name, value in words.items():
        at.WORD.pack_into(ram, at.CONTROL + at.GLOBAL[name], value)
    for line, entry in enumerate(_redirections(cpus, config.devices)):
        at.WORD.pack_into(ram, at.CONTROL + at.GLOBAL["redirections"] + 8 * line, entry)
    for number in range(cpus):
        _write_cpu_page(ram, cpus, number, config.salt)
    if config.fill:
        fill(ram, config.salt & _MASK)


def _write_cpu_page(ram: memoryview, cpus: int, number: int, salt: int) -> None:
    first, end = share(len(ram), cpus, number)
    words = {"number": number, "first": first, "end": end, "column": at.LINE_CHARS}
    words |= keys_of(salt, number)
    for name, value in words.items():
        at.WORD.pack_into(ram, at.cpu_page(number) + at.CPU[name], value)


def _redirections(cpus: int, devices: int) -> list[int]:
    """Give the IOAPIC's 24 entries: vector, trigger, mask, and the vCPU that is told."""
    entries = [_MASKED] * at.REDIRECTIONS
    entries[0] = at.VECTORS["pit"]
    for device in range(devices):
        entries[16 + device] = at.VECTORS["device"] + device | (device % cpus) << 56
    entries[at.LEVEL_LINE] = at.VECTORS["level"] | _LEVEL
    return entries


# -- what only a real CPU needs ----------------------------------------------------------


def write_program(memory: Memory) -> None:
    """Write the program, its page tables and its descriptor tables."""
    memory.rom.view[: len(CODE)] = CODE
    ram = memory.ram.view
    _write_page_tables(ram)
    pack_into("<QQQ", ram, at.DESCRIPTORS, *_GDT)
    handlers = {vector: PLACES["faults"] + 16 * vector for vector in range(32)}
    handlers |= {
        at.VECTORS[name]: PLACES["irq_" + name] for name in ("pit", "timer", "level", "spurious")
    }
    for device in range(at.DEVICES):
        handlers[at.VECTORS["device"] + device] = PLACES["irq_device"] + 32 * device
    for vector, offset in handlers.items():
        target = at.ROM + offset
        halves = (target & 0xFFFF, _CODE, 0, 0x8E, target >> 16 & 0xFFFF, target >> 32, 0)
        pack_into("<HHBBHII", ram, at.INTERRUPTS + 16 * vector, *halves)


def _write_page_tables(ram: memoryview) -> None:
    """Map the first 4 GiB as they are, and all RAM in one piece at RAM_WINDOW, by 2 MiB pages."""
    top, low, window, next_table = (at.TABLES + n * at.PAGE for n in range(4))
    at.WORD.pack_into(ram, top, low | _PRESENT_WRITABLE)
    at.WORD.pack_into(ram, top + 8 * (at.RAM_WINDOW >> 39), window | _PRESENT_WRITABLE)
    # Where each piece of linear memory is: upper table, guest address.
    pieces = [(low + 8 * gib, gib * _GIB) for gib in range(4)]
    for gib in range(-(-len(ram) // _GIB)):
        start = gib * _GIB
        moved = at.HIGH_RAM - at.LOW_RAM_LIMIT if start >= at.LOW_RAM_LIMIT else 0
        pieces.append((window + 8 * gib, start + moved))
    for upper, physical in pieces:
        at.WORD.pack_into(ram, upper, next_table | _PRESENT_WRITABLE)
        for entry in range(512):
            address = physical + entry * _HUGE
            device = _UNCACHED if at.LOW_RAM_LIMIT <= address < at.ROM & -_HUGE else 0
            value = address | _HUGE_PAGE | _PRESENT_WRITABLE | device
            at.WORD.pack_into(ram, next_table + 8 * entry, value)
        next_table += at.PAGE


def start_cpu(cpu: VCpu, salt: int, first_page: int) -> None:
    """Set the registers that a vCPU starts with; `first_page` is where its share begins.

    Raises:
        HostError: KVM refuses them.
    """
    keys = keys_of(salt, cpu.number)
    try:
        ioctl(cpu.fd, k.SET_SREGS, _special_registers(cpu.fd))
        ioctl(cpu.fd, k.SET_REGS, _registers(cpu.number, first_page))
        ioctl(cpu.fd, k.SET_XSAVE, _float_registers(cpu.fd, keys))
        ioctl(cpu.fd, k.SET_XCRS, _extended_control(cpu.fd))
        debug = bytearray(128)
        ioctl(cpu.fd, k.GET_DEBUGREGS, debug)
        at.WORD.pack_into(debug, 0, keys["key_debug"])
        ioctl(cpu.fd, k.SET_DEBUGREGS, debug)
        ioctl(cpu.fd, k.SET_MP_STATE, k.MP_RUNNABLE.to_bytes(4, "little"))
    except OSError as error:
        text = f"vCPU {cpu.number} can't start: {error.strerror}"
        raise HostError(text, error.errno or 0) from None


def _special_registers(fd: int) -> bytearray:
    """Segments and control registers of 64-bit mode with paging (asm, struct kvm_sregs)."""
    sregs = bytearray(312)
    ioctl(fd, k.GET_SREGS, sregs)
    flat = 0xFFFFFFFF
    # base, limit, selector, type, present, dpl, db, s, l, g, avl, unusable
    k.SEGMENT.pack_into(sregs, 0, 0, flat, _CODE, 0xB, 1, 0, 0, 1, 1, 1, 0, 0)
    for place in range(1, 6):
        k.SEGMENT.pack_into(sregs, 24 * place, 0, flat, _DATA, 3, 1, 0, 1, 1, 0, 1, 0, 0)
    task = at.DESCRIPTORS + 0x100
    k.SEGMENT.pack_into(sregs, 144, task, 0x67, _TASK, 0xB, 1, 0, 0, 0, 0, 0, 0, 0)
    k.SEGMENT.pack_into(sregs, 168, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1)
    k.DTABLE.pack_into(sregs, 192, at.DESCRIPTORS, 8 * len(_GDT) - 1)
    k.DTABLE.pack_into(sregs, 208, at.INTERRUPTS, 256 * 16 - 1)
    # CR0: PG AM WP NE ET MP PE; CR4: PAE OSFXSR OSXMMEXCPT; EFER: LME LMA
    pack_into("<QQQQQQ", sregs, 224, 0x80050033, 0, at.TABLES, 0x620, 0, 0x500)
    return sregs


def _registers(number: int, first_page: int) -> bytes:
    """Set up what the listing finds in its registers (asm, struct kvm_regs, by place)."""
    values = dict.fromkeys(range(18), 0)
    values |= {1: at.cpu_page(number), 6: at.STACKS + (number + 1) * at.PAGE, 7: at.CONTROL}
    values |= {8: FACTORS[0], 9: FACTORS[1], 10: at.RAM_WINDOW, 11: 0xFEE00000}
    values |= {13: first_page, 14: 1, 16: at.ROM, 17: 0x2}
    return k.REGS.pack(*values.values())


def _float_registers(fd: int, keys: dict[str, int]) -> bytearray:
    """Set x87 control word and xmm7 in an XSAVE area (Intel SDM volume 1, 10.5 and 13.4).

    KVM_SET_FPU will not do: it leaves XSTATE_BV, so that the CPU takes the registers for untouched
    and loads what a reset leaves (seen on Linux 6.18).
    """
    area = bytearray(4096)
    ioctl(fd, k.GET_XSAVE, area)
    pack_into("<H", area, 0, at.FCW)
    pack_into("<I", area, 24, 0x1F80)
    pack_into("<QQ", area, 160 + 16 * 7, keys["key_low"], keys["key_high"])
    area[512] |= 0x3
    return area


def _extended_control(fd: int) -> bytearray:
    """XCR0 with x87 and SSE: not the value that a reset leaves."""
    xcrs = bytearray(392)
    ioctl(fd, k.GET_XCRS, xcrs)
    pack_into("<IIIIQ", xcrs, 0, 1, 0, 0, 0, 3)
    return xcrs
