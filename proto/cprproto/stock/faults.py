"""What can be wrong with a hand-off to a stock QEMU, each thing made on purpose.

A `Handed` is all that the old side gives: names, descriptors, the state, the stream. A fault
changes one thing of a good one. What QEMU does with each stands in docs/stock-cpr.md, and
tests/live/test_stock_plays.py holds the page to it.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cprformats.cpr.model import CprFd, CprVfioDevice
from cprproto.state.qcpr_writing import encode_state
from cprproto.state.ram import RamBlock
from cprproto.state.schema import Schema
from cprproto.state.stream import StreamWriter
from cprproto.stock.memory import make_ram

__all__ = ["BLOCK", "FAULTS", "MACHINE", "OTHER_SEED", "OUR_SEED", "Fault", "Handed", "good"]

#: QEMU's machine without a single device: nothing but RAM at address 0.
MACHINE = "none"
BLOCK = "ram0"
OUR_SEED, OTHER_SEED = 2022, 4044
_SEAL_WRITE = 0x0008  # F_SEAL_WRITE, Linux include/uapi/linux/fcntl.h
_ADD_SEALS = 1033
#: Far above what a QEMU opens by itself.
_HIGH = 200
#: A number that a QEMU takes itself when it is free.
_LOW = 3


@dataclass(frozen=True, slots=True)
class Handed:
    """What the old side hands over.

    Attributes:
        size: of guest RAM in bytes.
        entries: the names, with the numbers that the state says.
        fds: the descriptors that really go, in the same order (transfer); by exec those
            whose close-on-exec is off.
        vfio: list of VFIO devices; None leaves it out.
        stream: the migration stream.
        state: overrides the bytes made of `entries`.
        variable: overrides the value of QEMU_CPR_EXEC_STATE.
        mine: descriptors that were opened for this, to be closed afterwards.
    """

    size: int
    entries: tuple[CprFd, ...]
    fds: tuple[int, ...]
    vfio: tuple[CprVfioDevice, ...] | None
    stream: bytes
    state: bytes | None = None
    variable: str | None = None
    mine: tuple[int, ...] = ()

    def close(self) -> None:
        """Close our side of the descriptors."""
        for number in self.mine:
            os.close(number)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        name: as in the table.
        text: what is wrong, for people.
        make: changes a good hand-off.
        ways: ``exec``, ``transfer``: where it can be made.
    """

    name: str
    text: str
    make: Callable[[Handed], Handed] = field(repr=False, compare=False)
    ways: tuple[str, ...] = ("exec", "transfer")


def good(size: int, *, vfio: bool = True, machine: str = MACHINE) -> Handed:
    """Make a hand-off that is right: RAM with our contents, a minimal state and stream.

    Args:
        size: of RAM in bytes.
        vfio: with the list of VFIO devices that QEMU has since 10.1.
        machine: whose stream it is, by QEMU's full name for it.
    """
    number = make_ram(BLOCK, size, OUR_SEED)
    stream = StreamWriter(Schema(machine, ()), ram=(RamBlock(BLOCK, size),)).encode({})
    entry = CprFd(BLOCK, 0, number)
    return Handed(size, (entry,), (number,), () if vfio else None, stream, mine=(number,))


def _named(name: str, id: int = 0) -> Callable[[Handed], Handed]:
    return lambda h: replace(h, entries=(CprFd(name, id, h.fds[0]),))


def _instead(opened: Callable[[Handed], tuple[int, ...]]) -> Callable[[Handed], Handed]:
    """Hand over another descriptor under the right name."""

    def make(handed: Handed) -> Handed:
        mine = opened(handed)
        entries = (CprFd(BLOCK, 0, mine[0]),)
        return replace(handed, entries=entries, fds=mine[:1], mine=(*handed.mine, *mine))

    return make


def _twice(*, ours_first: bool) -> Callable[[Handed], Handed]:
    def make(handed: Handed) -> Handed:
        other = make_ram("other", handed.size, OTHER_SEED)
        numbers = (handed.fds[0], other) if ours_first else (other, handed.fds[0])
        entries = tuple(CprFd(BLOCK, 0, number) for number in numbers)
        return replace(handed, entries=entries, fds=numbers, mine=(*handed.mine, other))

    return make


def _missing(handed: Handed) -> Handed:
    return replace(handed, entries=(), fds=())


def _stays(number: int) -> Callable[[Handed], Handed]:
    """Leave close-on-exec on: the state says a number, and nothing is there."""

    def make(handed: Handed) -> Handed:
        copy = fcntl.fcntl(handed.fds[0], fcntl.F_DUPFD_CLOEXEC, number)
        said = number if number < _HIGH else copy
        return replace(handed, entries=(CprFd(BLOCK, 0, said),), fds=(), mine=(*handed.mine, copy))

    return make


def _said(number: int) -> Callable[[Handed], Handed]:
    return lambda h: replace(h, entries=(CprFd(BLOCK, 0, number),))


def _state(change: Callable[[bytes], bytes]) -> Callable[[Handed], Handed]:
    return lambda h: replace(h, state=change(encode_state(h.entries, h.vfio)))


def _stream(change: Callable[[bytes], bytes]) -> Callable[[Handed], Handed]:
    return lambda h: replace(h, stream=change(h.stream))


def _other_stream(machine: str, block: str, factor: int = 1) -> Callable[[Handed], Handed]:
    def make(handed: Handed) -> Handed:
        block_list = (RamBlock(block, handed.size * factor),)
        return replace(handed, stream=StreamWriter(Schema(machine, ()), ram=block_list).encode({}))

    return make


def _memfd(factor_of: Callable[[int], int], seed: int) -> Callable[[Handed], tuple[int, ...]]:
    return lambda h: (make_ram("other", factor_of(h.size), seed),)


def _sealed(handed: Handed) -> tuple[int, ...]:
    number = make_ram("sealed", handed.size, OUR_SEED, seals=True)
    fcntl.fcntl(number, _ADD_SEALS, _SEAL_WRITE)
    return (number,)


def _socket(_: Handed) -> tuple[int, ...]:
    one, other = socket.socketpair()
    return one.detach(), other.detach()


def _read_only(handed: Handed) -> tuple[int, ...]:
    return (os.open(f"/proc/self/fd/{handed.fds[0]}", os.O_RDONLY | os.O_CLOEXEC),)


_EXEC = ("exec",)
_TRANSFER = ("transfer",)
_ALL = (
    Fault("none", "nothing is wrong", lambda h: h),
    Fault("wrong-name", "the entry is called ram1", _named("ram1")),
    Fault("wrong-id", "the entry has id 1", _named(BLOCK, 1)),
    Fault("missing", "there is no entry", _missing),
    Fault("twice-ours-first", "two entries of one name, ours in front", _twice(ours_first=True)),
    Fault("twice-ours-last", "two entries of one name, ours behind", _twice(ours_first=False)),
    Fault("eventfd", "the descriptor is an eventfd", _instead(lambda _: (os.eventfd(0),))),
    Fault("pipe", "the descriptor is a pipe", _instead(lambda _: os.pipe())),
    Fault("socket", "the descriptor is a socket", _instead(_socket)),
    Fault("read-only", "our memfd, open for reading only", _instead(_read_only)),
    Fault("sealed", "our memfd, sealed against writing", _instead(_sealed)),
    Fault("too-short", "a memfd of half the size", _instead(_memfd(lambda x: x // 2, OUR_SEED))),
    Fault("too-long", "a memfd of twice the size", _instead(_memfd(lambda x: x * 2, OUR_SEED))),
    Fault("other-memfd", "a memfd of other contents", _instead(_memfd(lambda x: x, OTHER_SEED))),
    Fault("no-vfio-list", "no list of VFIO devices, as 10.0", lambda h: replace(h, vfio=None)),
    Fault("vfio-list", "an empty list of VFIO devices, as 10.1 on", lambda h: replace(h, vfio=())),
    Fault("cloexec-high", "close-on-exec is on, the number is free then", _stays(_HIGH), _EXEC),
    Fault("cloexec-low", "close-on-exec is on, QEMU reuses the number", _stays(_LOW), _EXEC),
    Fault("negative", "the number is -1", _said(-1), _EXEC),
    Fault("variable-word", "the variable is no number", lambda h: replace(h, variable="x"), _EXEC),
    Fault("variable-closed", "it names nothing open", lambda h: replace(h, variable="250"), _EXEC),
    Fault("state-cut", "the state ends inside an entry", _state(lambda data: data[:20])),
    Fault("state-empty", "the state has no byte", _state(lambda _: b"")),
    Fault("state-magic", "the state begins with other letters", _state(lambda x: b"QEVM" + x[4:])),
    Fault("state-version", "the state is of version 2", _state(lambda x: x[:7] + b"\2" + x[8:])),
    Fault("stream-machine", "the stream is of machine microvm", _other_stream("microvm", BLOCK)),
    Fault("stream-block", "the stream's block is called pc.ram", _other_stream(MACHINE, "pc.ram")),
    Fault("stream-size", "the stream's block is twice as large", _other_stream(MACHINE, BLOCK, 2)),
    Fault("stream-cut", "the stream ends inside the RAM section", _stream(lambda x: x[:40])),
    Fault("fd-lost", "the byte is there, and no descriptor with it", lambda h: h, _TRANSFER),
    Fault("old-dies", "the old side closes inside the state", lambda h: h, _TRANSFER),
)
#: All faults by name; ``none`` is among them.
FAULTS = {fault.name: fault for fault in _ALL}
