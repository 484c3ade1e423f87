"""Send descriptors over a UNIX socket, and take them without losing or leaking one.

The kernel lets 253 descriptors pass in one message (SCM_MAX_FD). What does not fit into the
receiver's room it drops, says so with MSG_CTRUNC, and keeps the rest open in the receiver: each
error here closes what came first. On a stream socket a read ends behind a message with
descriptors, so one message is one read if sender and receiver agree on the sizes.

Source: Linux net/core/scm.c, include/net/scm.h; man 7 unix.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from cprproto.errors import PassingError
from cprproto.fds.evidence import look
from cprproto.fds.kinds import LOOKS

__all__ = ["MAX_FDS", "MAX_MESSAGE", "Passed", "receive", "send"]

MAX_FDS = 253
MAX_MESSAGE = 1 << 20
_INT = array.array("i").itemsize


@dataclass(frozen=True, slots=True)
class Passed:
    """What one message brought. The descriptors belong to who received it.

    Attributes:
        data: its bytes; empty when the other side has closed.
        fds: numbers of the descriptors, close-on-exec.
    """

    data: bytes
    fds: tuple[int, ...]

    def close(self) -> None:
        """Close all descriptors."""
        for number in self.fds:
            os.close(number)


def send(link: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send one message, with descriptors beside it.

    Raises:
        PassingError: too many descriptors or bytes, none of data, one is not open, or
            the other side is gone.
        TimeoutError: it did not take the message within the socket's time-out.
    """
    if not data or len(data) > MAX_MESSAGE:
        raise PassingError(f"a message has 1 to {MAX_MESSAGE} bytes, this one {len(data)}")
    if len(fds) > MAX_FDS:
        raise PassingError(f"{len(fds)} descriptors: one message takes {MAX_FDS}")
    try:
        sent = socket.send_fds(link, [data], list(fds)) if fds else link.send(data)
        if sent < len(data):  # the descriptors went with the first byte
            link.sendall(data[sent:])
    except TimeoutError:
        raise
    except OSError as problem:
        text = f"can't send {len(fds)} descriptors: {problem.strerror or problem}"
        raise PassingError(text) from None


def receive(
    link: socket.socket, *, size: int, most: int = MAX_FDS, kinds: Sequence[str] | None = None
) -> Passed:
    """Take one message.

    Args:
        link: a connected UNIX socket.
        size: room for its bytes.
        most: room for descriptors.
        kinds: what the descriptors must be, in order; None for anything.

    Raises:
        PassingError: something was dropped, there are more or other descriptors than
            expected, or the connection broke. Nothing stays open then.
        TimeoutError: nothing came within the socket's time-out.
    """
    room = min(most, MAX_FDS)
    flags = socket.MSG_CMSG_CLOEXEC
    try:
        # One more than allowed, so that too many are counted and not just cut.
        data, ancillary, told, _ = link.recvmsg(size, socket.CMSG_SPACE((room + 1) * _INT), flags)
    except TimeoutError:
        raise
    except OSError as problem:
        raise PassingError(f"can't receive: {problem.strerror or problem}") from None
    passed = Passed(data, _numbers(ancillary))
    try:
        _check(passed, told, room, kinds)
    except PassingError:
        passed.close()
        raise
    return passed


def _numbers(ancillary: Sequence[tuple[int, int, bytes]]) -> tuple[int, ...]:
    numbers = array.array("i")
    for level, what, payload in ancillary:
        if level == socket.SOL_SOCKET and what == socket.SCM_RIGHTS:
            # A cut message may end inside a number.
            numbers.frombytes(payload[: len(payload) - len(payload) % _INT])
    return tuple(numbers)


def _check(passed: Passed, told: int, room: int, kinds: Sequence[str] | None) -> None:
    if told & socket.MSG_CTRUNC or len(passed.fds) > room:
        raise PassingError(f"more than {room} descriptors came, or the limit of open files is hit")
    if told & socket.MSG_TRUNC:
        raise PassingError("the message is longer than its receiver expects")
    if kinds is None or not (passed.data or passed.fds):
        return  # nothing is asked for, or the other side has closed
    if len(kinds) != len(passed.fds):
        raise PassingError(f"expected {len(kinds)} descriptors, {len(passed.fds)} came")
    for place, (number, kind) in enumerate(zip(passed.fds, kinds, strict=True)):
        seen = look(number)
        looks = seen.looks if seen else "not open"
        if looks not in LOOKS.get(kind, ()):
            raise PassingError(f"descriptor {place} should be {kind}, and is {looks}")
