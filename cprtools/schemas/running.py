"""A QEMU, run for what it prints of its device types: ``-dump-vmstate``.

It runs with the rights of the caller, as any program that is started: this is no
cage for a hostile one. What is held to bounds is what it can cost: time, output,
and processes that it leaves behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Final

from cprformats.errors import FormatError
from cprformats.schema.jsontext import MAX_JSON_BYTES

__all__ = ["RunFailed", "run_dump"]

#: No devices, no display, no network; it prints and ends before any machine is made.
_OPTIONS: Final = (
    *("-nodefaults", "-no-user-config", "-display", "none", "-nic", "none", "-monitor", "none"),
    *("-serial", "none", "-parallel", "none", "-S"),
)
#: What a program may need to be found and to find its own parts.
_ENVIRONMENT: Final = ("PATH", "LD_LIBRARY_PATH", "QEMU_MODULE_DIR")
_MAX_MESSAGES: Final = 1 << 20
_SHOWN_MESSAGES: Final = 400
_LOOK_SECONDS: Final = 0.02


class RunFailed(FormatError):
    """The program was run and gave no description of itself; the message says why."""

    def __str__(self) -> str:
        return self.message


def run_dump(program: Path, machine: str = "none", seconds: float = 60.0) -> bytes:
    """Run a QEMU for its dump.

    Args:
        program: it, or a script that becomes it.
        machine: the machine type; device types hardly depend on it.
        seconds: how long it may take.

    Returns:
        What it wrote, of at most 32 MiB.

    Raises:
        RunFailed: it can't be run here, or ended with an error or a signal, was too
            slow, wrote too much, or nothing.
        OSError: it can't be started.
    """
    with tempfile.TemporaryDirectory(prefix="cprtools-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        dump = home / "dump.json"
        with (home / "messages").open("w+b") as messages:
            _run([str(program.absolute()), *_OPTIONS, "-machine", machine], dump, messages, seconds)
            return _written(dump, messages)


def _run(line: list[str], dump: Path, messages: IO[bytes], seconds: float) -> None:
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    places = dict.fromkeys(("HOME", "TMPDIR", "XDG_RUNTIME_DIR"), str(dump.parent))
    try:
        process = subprocess.Popen(  # noqa: S603 (that is what was asked for)
            [*line, "-dump-vmstate", str(dump)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=messages,
            cwd=dump.parent,
            env={**kept, **places, "LC_ALL": "C"},
            start_new_session=True,
        )
    except OSError as problem:
        if problem.errno == errno.ENOEXEC:
            raise RunFailed("it can't be run: it is no program for this host") from None
        raise
    try:
        _limit(process.pid, seconds)
        _wait(process, dump, messages, seconds)
    finally:
        _end(process)
    if process.returncode:
        raise RunFailed(f"it was run, and {_ending(process.returncode)}{_last(messages)}")


def _limit(pid: int, seconds: float) -> None:
    """Let the kernel hold it too; a program that has ended needs no limits."""
    limits = {
        resource.RLIMIT_FSIZE: MAX_JSON_BYTES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: int(seconds) + 1,
    }
    for kind, most in limits.items():
        with contextlib.suppress(OSError, ValueError):
            resource.prlimit(pid, kind, (most, most))


def _wait(
    process: subprocess.Popen[bytes], dump: Path, messages: IO[bytes], seconds: float
) -> None:
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_SECONDS)
            return
        if time.monotonic() > end:
            raise RunFailed(f"it was run, and has not ended after {seconds:g} s{_last(messages)}")
        size = dump.stat().st_size if dump.exists() else 0
        if size > MAX_JSON_BYTES or os.fstat(messages.fileno()).st_size > _MAX_MESSAGES:
            raise RunFailed(f"it was run, and wrote too much{_last(messages)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the whole group: the program itself, and children that outlive it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _ending(code: int) -> str:
    if code > 0:
        return f"ended with status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _last(messages: IO[bytes]) -> str:
    """The end of what it complained of."""
    size = os.fstat(messages.fileno()).st_size
    messages.seek(max(size - _SHOWN_MESSAGES, 0))
    text = " ".join(messages.read(_SHOWN_MESSAGES).decode(errors="replace").split())
    return f": {text}" if text else ""


def _written(dump: Path, messages: IO[bytes]) -> bytes:
    try:
        with dump.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        data = b""
    if not data:
        raise RunFailed(f"it was run, and wrote no description of itself{_last(messages)}")
    if len(data) > MAX_JSON_BYTES:
        raise RunFailed("it was run, and wrote too much")
    return data
