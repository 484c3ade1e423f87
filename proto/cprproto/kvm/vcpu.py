"""One vCPU: the loop around KVM_RUN, what the guest asks of us in it, and how it is stopped.

A vCPU is stopped only between two instructions: `run` goes back into KVM_RUN with
`immediate_exit` set after the last exit, so that KVM completes a port or memory access that it
handed to us. Saved before that, an `out` would be done twice: its byte is out and the instruction
pointer may still be in front of it (Documentation/virt/kvm/api.rst, note in section 5 on
KVM_EXIT_IO: userspace must re-enter before it saves).
"""

from __future__ import annotations

# Not `signal`: it imports enum, 5 ms of the pause.
import _signal  # type: ignore[import-not-found]
import _thread
import mmap
import os
from fcntl import ioctl

from cprproto.errors import GuestError, HostError
from cprproto.kvm import ioctls as k

TYPE_CHECKING = False  # `typing` takes 10 ms to import
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KICK_SIGNAL", "VCpu", "catch_kicks"]

#: Its only work is to make KVM_RUN return with EINTR; QEMU uses SIGUSR1 for the same.
KICK_SIGNAL: int = _signal.SIGUSR1
_EXIT_IO, _EXIT_MMIO, _EXIT_INTR = 2, 6, 10


def _ignore(_number: int, _frame: object) -> None:
    pass


def catch_kicks() -> None:
    """Give the kick signal a handler that does nothing; to be called in the main thread.

    A handler that somebody else set is left: any will do.
    """
    if _signal.getsignal(KICK_SIGNAL) in {_signal.SIG_DFL, _signal.SIG_IGN}:
        _signal.signal(KICK_SIGNAL, _ignore)


class VCpu:
    """A vCPU and the page that it shares with the kernel.

    Attributes:
        number: the vCPU's and its local APIC's number.
        fd: its descriptor, close-on-exec.
        exits: how often the guest left KVM_RUN with something for us to do.
        write_port: takes what the guest writes to a port: port, bytes.
        read_port: gives what it reads from one: port, count of bytes.
    """

    __slots__ = ("_page", "_thread", "exits", "fd", "number", "read_port", "write_port")

    def __init__(self, number: int, fd: int, run_bytes: int) -> None:
        self.number = number
        self.fd = fd
        self.exits = 0
        self._page = mmap.mmap(fd, run_bytes)
        self._thread = 0
        self.write_port: Callable[[int, bytes], None] = _nobody
        self.read_port: Callable[[int, int], bytes] = _all_ones

    def run(self) -> None:
        """Run the guest until `kick`; to be called in a thread of its own.

        Raises:
            GuestError: the guest can't go on: it shut down, or did what nobody here understands.
        """
        self._thread = _thread.get_ident()
        fd, request, page = self.fd, k.RUN, self._page
        while True:
            try:
                ioctl(fd, request, 0)
            except InterruptedError:
                if page[k.RUN_IMMEDIATE_EXIT]:
                    return
            except OSError as error:
                text = f"vCPU {self.number}: KVM_RUN: {os.strerror(error.errno or 0)}"
                raise GuestError(text) from None
            else:
                self.exits += 1
                self._serve()

    def tsc_khz(self) -> int:
        """Give the rate of the guest's TSC.

        Raises:
            HostError: KVM does not say.
        """
        try:
            return ioctl(self.fd, k.GET_TSC_KHZ, 0)
        except OSError as error:
            raise HostError(f"no TSC rate: {error.strerror}", error.errno or 0) from None

    def kick(self) -> None:
        """Make `run` return soon, or at once when it is called later."""
        self._page[k.RUN_IMMEDIATE_EXIT] = 1
        if self._thread:
            _signal.pthread_kill(self._thread, KICK_SIGNAL)

    def allow(self) -> None:
        """Let the next `run` run; to be called when the last one returned."""
        self._thread = 0
        self._page[k.RUN_IMMEDIATE_EXIT] = 0

    def _serve(self) -> None:
        page = self._page
        reason = int.from_bytes(page[k.RUN_EXIT_REASON : k.RUN_EXIT_REASON + 4], "little")
        if reason == _EXIT_IO:
            out, size, port, count, at = k.RUN_IO.unpack_from(page, k.RUN_UNION)
            if out:
                self.write_port(port, page[at : at + size * count])
            else:
                page[at : at + size * count] = self.read_port(port, size * count)
        elif reason == _EXIT_MMIO:
            _, _, size, write = k.RUN_MMIO.unpack_from(page, k.RUN_UNION)
            if not write:  # nothing lives there: all ones, as a PCI bus answers
                page[k.RUN_UNION + 8 : k.RUN_UNION + 8 + size] = b"\xff" * size
        elif reason != _EXIT_INTR:
            raise GuestError(f"vCPU {self.number} stopped: {self._describe(reason)}")

    def _describe(self, reason: int) -> str:
        words = self._page[k.RUN_UNION : k.RUN_UNION + 48]
        name = k.EXIT_NAMES.get(reason, "of no known name")
        return f"exit {reason} ({name}), with {words.hex(' ', 8)}"

    def close(self) -> None:
        """Give the page and the descriptor back; the vCPU must not run."""
        if self.fd >= 0:
            self._page.close()
            os.close(self.fd)
            self.fd = -1


def _nobody(_port: int, _data: bytes) -> None:
    """Take what is written to a port where nothing lives."""


def _all_ones(_port: int, count: int) -> bytes:
    return b"\xff" * count
