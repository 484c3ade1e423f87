"""A small CPU in software that runs the same guest: same control pages, pattern and counters.

Its instructions are those of `PROGRAM`, one Python function each. A pause falls between any two of
them, so that registers and program counter must be carried over as those of a real CPU.
Its TSC is CLOCK_MONOTONIC in nanoseconds, which all processes of the machine share.
"""

from __future__ import annotations

import os
from struct import Struct
from time import monotonic_ns

from cprproto.errors import StateError
from cprproto.machine import layout as at
from cprproto.machine.pattern import FACTORS

TYPE_CHECKING = False  # `typing` takes 10 ms to import
if TYPE_CHECKING:
    from collections.abc import Callable

    from cprproto.machine.wiring import Wiring

__all__ = ["PROGRAM", "TSC_KHZ", "SoftCpu"]

TSC_KHZ = 1_000_000
#: pc, count, page, turn, tsc, next timer tick, next PIT tick, keys: low high debug gs fcw
_REGISTERS = Struct("<12Q")
_MASK = (1 << 64) - 1
_KEYS = ("key_low", "key_high", "key_debug", "key_gs")
_WORD = {name: place // 8 for name, place in at.CPU.items()}
_SHARED = {name: (at.CONTROL + place) // 8 for name, place in at.GLOBAL.items()}
_CHECK_EVERY = 64
#: Interrupts are looked for every so many rounds: each look is a system call a line.
_LOOK_EVERY = 8


class SoftCpu:
    """One software CPU.

    Attributes:
        number: its number.
        words: the RAM block as 64-bit words.
    """

    __slots__ = (
        "base",
        "count",
        "keys",
        "lines",
        "number",
        "page",
        "pc",
        "pit_at",
        "ring",
        "screen",
        "send",
        "timer_at",
        "tsc",
        "turn",
        "words",
    )

    def __init__(
        self,
        number: int,
        ram: memoryview,
        vga: memoryview,
        wiring: Wiring,
        send: Callable[[bytes], object],
        cpus: int,
    ) -> None:
        self.number = number
        self.words = ram.cast("Q")
        self.screen = vga.cast("Q")
        self.base = at.cpu_page(number) // 8
        self.send = send
        self.ring = wiring.kick
        # Device n tells vCPU n modulo their count, the level line vCPU 0: as the IOAPIC does.
        places = ("irq_device",) * len(wiring.devices) + ("irq_level",)
        self.lines = [
            (fd, self.base + _WORD[place] + (line - 16) * (place == "irq_device"), resample)
            for (fd, line, resample), place in zip(wiring.lines(), places, strict=False)
            if (line - 16) % cpus == number or (place == "irq_level" and number == 0)
        ]
        self.pc = self.count = self.page = self.turn = self.tsc = self.timer_at = self.pit_at = 0
        self.keys: tuple[int, ...] = (0,) * 5

    def start(self) -> None:
        """Set the registers as the listing's start does."""
        words, base, now = self.words, self.base, monotonic_ns()
        self.pc = self.count = 0
        self.page, self.turn, self.tsc = words[base + _WORD["first"]], 1, now
        self.timer_at = now + words[_SHARED["timer_count"]]
        self.pit_at = now + self._pit_period()
        self.keys = (*(words[base + _WORD[name]] for name in _KEYS), at.FCW)

    def registers(self) -> bytes:
        """Give all registers: 96 bytes."""
        ticks = (self.timer_at, self.pit_at)
        return _REGISTERS.pack(
            self.pc, self.count, self.page, self.turn, self.tsc, *ticks, *self.keys
        )

    @staticmethod
    def check_registers(name: str, data: bytes) -> None:
        """See that a part can be registers.

        Raises:
            StateError: not 96 bytes, or a program counter outside of the program.
        """
        if len(data) != _REGISTERS.size:
            text = f"expected {_REGISTERS.size} bytes, found {len(data)}"
            raise StateError(f"part {name}: {text}")
        pc = int.from_bytes(data[:8], "little")
        if pc >= len(PROGRAM):
            raise StateError(f"part {name}: there is no instruction {pc}")

    def set_registers(self, data: bytes) -> None:
        """Take back registers that were checked."""
        self.pc, self.count, self.page, self.turn, self.tsc, *rest = _REGISTERS.unpack(data)
        self.timer_at, self.pit_at, *keys = rest
        self.keys = tuple(keys)

    def sleep_until(self) -> int:
        """Give when the next tick is due, in ns of CLOCK_MONOTONIC; 0 without timers."""
        due = [self.timer_at] if self.words[_SHARED["timer_count"]] else []
        if self.number == 0 and self.words[_SHARED["pit_divisor"]]:
            due.append(self.pit_at)
        return min(due, default=0)

    def _pit_period(self) -> int:
        return self.words[_SHARED["pit_divisor"]] * 1_000_000_000 // 1193182

    def release(self) -> None:
        """Let go of the memory."""
        self.words.release()
        self.screen.release()

    # -- the instructions --------------------------------------------------------------

    def measure(self) -> None:
        """See how long the last round is ago, and keep the longest."""
        words, base, now = self.words, self.base, monotonic_ns()
        gap = now - self.tsc
        self.tsc = now
        if gap > words[base + _WORD["gap"]]:
            words[base + _WORD["gap"]] = gap
            words[base + _WORD["gap_round"]] = self.count
        command = words[_SHARED["gap_command"]]
        if command != words[base + _WORD["gap_done"]]:
            words[base + _WORD["gap"]] = 0
            words[base + _WORD["gap_done"]] = command

    def add(self) -> None:
        """Count the round in memory and in the register."""
        place = self.base + _WORD["rounds"]
        self.count += 1
        self.words[place] += 1
        if self.words[place] != self.count:
            self.words[self.base + _WORD["broken"]] |= 0x20
            self.count = self.words[place]

    def stamp_number(self) -> None:
        """Write the page's number."""
        self.words[self.page * 512] = self.page

    def stamp_turn(self) -> None:
        """Write the round of the pattern."""
        self.words[self.page * 512 + 1] = self.turn

    def _check(self) -> int:
        salt = self.words[_SHARED["salt"]]
        return (self.page * FACTORS[0] ^ self.turn * FACTORS[1] ^ salt) & _MASK

    def stamp_check(self) -> None:
        """Write the check."""
        self.words[self.page * 512 + 2] = self._check()

    def stamp_tail(self) -> None:
        """Write the check at the page's end."""
        self.words[self.page * 512 + 511] = self._check()

    def next_page(self) -> None:
        """Say in memory that the page is done, and take the next."""
        self.words[self.base + _WORD["stamps"]] += 1
        self.page += 1
        if self.page >= self.words[self.base + _WORD["end"]]:
            self.page = self.words[self.base + _WORD["first"]]
            self.turn += 1

    def kick(self) -> None:
        """Ring the doorbell when it is time."""
        if self.count & self.words[_SHARED["kick_mask"]]:
            return
        self.words[self.base + _WORD["kicks_begun"]] += 1
        if self.ring is not None:
            os.eventfd_write(self.ring, 1)
        self.words[self.base + _WORD["kicks_done"]] += 1

    def serial(self) -> None:
        """Print one character, or begin a line when it is time; vCPU 0 only."""
        if self.number:
            return
        words, column, line = self.words, self.base + _WORD["column"], self.base + _WORD["line"]
        if words[column] >= at.LINE_CHARS:
            if not self.count & words[_SHARED["line_mask"]]:
                words[line] += 1
                words[column] = 0
            return
        self.send(f"{words[line]:016x}\n".encode()[words[column] :][:1])
        words[self.base + _WORD["chars"]] += 1
        words[column] += 1
        if words[column] == at.LINE_CHARS:
            words[self.base + _WORD["lines"]] += 1
            self.screen[words[line] & words[_SHARED["vga_mask"]]] = words[line]

    def compare(self) -> None:
        """Compare the registers that never change with their keys."""
        if self.count % _CHECK_EVERY:
            return
        wanted = (*(self.words[self.base + _WORD[name]] for name in _KEYS), at.FCW)
        for bit, (now, key) in enumerate(zip(self.keys, wanted, strict=True)):
            if now != key:
                self.words[self.base + _WORD["broken"]] |= 1 << bit
        self.words[self.base + _WORD["checks"]] += 1

    def interrupts(self) -> None:
        """Take the interrupts that are due: timers by the clock, devices from their eventfds."""
        words, base = self.words, self.base
        period = words[_SHARED["timer_count"]]
        while period and self.tsc >= self.timer_at:
            words[base + _WORD["irq_timer"]] += 1
            self.timer_at += period
        period = 0 if self.number else self._pit_period()
        while period and self.tsc >= self.pit_at:
            words[base + _WORD["irq_pit"]] += 1
            self.pit_at += period
        if not self.count % _LOOK_EVERY:
            self._devices()

    def _devices(self) -> None:
        for fd, place, resample in self.lines:
            try:
                os.eventfd_read(fd)
            except BlockingIOError:
                continue
            # Events that came together are one interrupt, as they are for a real line.
            self.words[place] += 1
            if resample is not None:
                os.eventfd_write(resample, 1)


PROGRAM: tuple[Callable[[SoftCpu], None], ...] = (
    SoftCpu.measure,
    SoftCpu.add,
    SoftCpu.stamp_number,
    SoftCpu.stamp_turn,
    SoftCpu.stamp_check,
    SoftCpu.stamp_tail,
    SoftCpu.next_page,
    SoftCpu.kick,
    SoftCpu.serial,
    SoftCpu.compare,
    SoftCpu.interrupts,
)
