"""Start a program that is not trusted: with few rights, held to bounds, and gone at the end.

It gets a process group and a network namespace of its own, no new privileges,
and limits of CPU time and file sizes; it dies with its parent. At the end all
its children are killed, those too that left the group: a mark in the
environment tells them.

Where the kernel does not let a network namespace be made, it runs without
one; `Cage.notes` says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import secrets
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

__all__ = ["Cage", "can_make_tap"]

_MARK: Final = "CPRTOOLS_CHECK"
_NEWUSER, _NEWNET = 0x10000000, 0x40000000
_PDEATHSIG, _NO_NEW_PRIVS = 1, 38
_TUNSETIFF: Final = 0x400454CA
_TAP_HEADER: Final = 0x0002 | 0x1000 | 0x4000  # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
_ENVIRONMENT: Final = ("PATH", "LD_LIBRARY_PATH", "QEMU_MODULE_DIR", "HOME", "LANG")
_FILE_BYTES: Final = 1 << 30
_END_SECONDS: Final = 5.0


class Cage:
    """A temporary folder, and a program that runs in bounds; a context manager.

    Attributes:
        folder: the folder; it goes with all that is in it.
        notes: which bounds could not be set.
    """

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(
            prefix="cprtools-check-", ignore_cleanup_errors=True
        )
        self.folder = Path(self._temporary.name)
        self.notes: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._mark = secrets.token_hex(8)

    def start(
        self,
        words: Sequence[str],
        descriptors: Sequence[int],
        output: int,
        seconds: float,
        extra: int,
    ) -> subprocess.Popen[bytes]:
        """Start it.

        Args:
            words: program and arguments.
            descriptors: that it inherits besides.
            output: descriptor that takes what it prints.
            seconds: of CPU time that it may use.
            extra: bytes that its files may be larger than usual.

        Raises:
            OSError: it can't be started.
        """
        if not _separable():
            self.notes.append("no network namespace of its own: the kernel does not allow it here")
        kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        places = dict.fromkeys(("TMPDIR", "XDG_RUNTIME_DIR"), str(self.folder))
        self.process = subprocess.Popen(  # noqa: S603 (that is what was asked for)
            list(words),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**kept, **places, "LC_ALL": "C", "QEMU_AUDIO_DRV": "none", _MARK: self._mark},
            pass_fds=tuple(descriptors),
            start_new_session=True,
            preexec_fn=_bounds(seconds, _FILE_BYTES + extra),  # noqa: PLW1509 (few calls, no locks)
        )
        return self.process

    def end(self) -> int | None:
        """Kill it and all its children; give how it ended, if it was started."""
        if self.process is None:
            return None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_SECONDS)
        self._end_children()
        return self.process.returncode

    def _end_children(self) -> None:
        """Kill what left the group and still runs; look until there is none."""
        deadline = time.monotonic() + _END_SECONDS
        while found := _marked(f"{_MARK}={self._mark}".encode()):
            for pid in found:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        try:
            self.end()
        finally:
            self._temporary.cleanup()


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _bounds(seconds: float, file_bytes: int) -> Callable[[], None]:
    """Make what is called between fork and exec."""
    libc, separable = _libc(), _separable()
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: int(seconds) + 5,
        resource.RLIMIT_FSIZE: file_bytes,
    }

    def set_bounds() -> None:
        if separable:
            libc.unshare(separable)
        libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        for kind, most in limits.items():
            with contextlib.suppress(OSError, ValueError):
                hard = resource.getrlimit(kind)[1]
                least = most if hard == resource.RLIM_INFINITY else min(most, hard)
                resource.setrlimit(kind, (least, least))

    return set_bounds


def _in_child(action: Callable[[], bool]) -> bool:
    """Do something in a child that ends at once; say whether it went well."""
    pid = os.fork()
    if not pid:
        good = False
        with contextlib.suppress(BaseException):
            good = action()
        os._exit(0 if good else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@cache
def _separable() -> int:
    """Give the flags with which a network namespace can be made here; 0 for none."""
    libc = _libc()
    for flags in (_NEWNET, _NEWUSER | _NEWNET):
        if _in_child(lambda flags=flags: libc.unshare(flags) == 0):  # type: ignore[misc]
            return flags
    return 0


@cache
def can_make_tap() -> bool:
    """Say whether a TAP with a virtio header can be made in such a namespace."""
    libc, flags = _libc(), _separable()

    def make() -> bool:
        libc.unshare(flags)
        tap = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", b"cpr0", _TAP_HEADER))
        return True

    return bool(flags) and _in_child(make)


def _marked(mark: bytes) -> list[int]:
    """Give the processes that have the mark in their environment, but not this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found
