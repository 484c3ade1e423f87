"""Start a stock QEMU, watch it, and end it: by its own pid, always."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from cprproto.errors import StockError
from cprproto.stock.qmp import Qmp

__all__ = ["Process"]

_QUIT_S = 5.0
_POLL_S = 0.01
_LOG_BYTES = 4096


class Process:
    """One running QEMU, whose working folder has its socket and its log.

    Args:
        program: the QEMU, or a wrapper that execs it.
        words: its command line without the program and without a monitor.
        folder: working folder.
        environment: variables besides our own.
        pass_fds: descriptors that it inherits, under their numbers.
        seconds: the longest wait for anything.

    Raises:
        StockError: the program can't be started.
    """

    def __init__(
        self,
        program: Path,
        words: Sequence[str],
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        seconds: float = 30.0,
    ) -> None:
        self.folder = folder
        self.seconds = seconds
        self._log = folder / "qemu.log"
        monitor = ("-qmp", "unix:qemu.qmp,server=on,wait=off")
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603 -- the caller's program
                    [str(program), *words, *monitor],
                    cwd=folder,
                    env={**os.environ, **(environment or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=pass_fds,
                )
        except OSError as problem:
            raise StockError(f"{program}: {problem.strerror}") from None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def is_alive(self) -> bool:
        """Say whether it still runs."""
        return self.code is None

    def said(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(errors="replace")[-_LOG_BYTES:].strip()

    def monitor(self) -> Qmp:
        """Connect to its monitor. Raises StockError when there is none in time."""
        return Qmp(self.folder / "qemu.qmp", self.seconds, self.is_alive)

    def await_migration(self, monitor: Qmp) -> dict[str, object]:
        """Wait until the incoming migration is over; give `query-migrate`'s answer."""
        deadline = time.monotonic() + self.seconds
        while True:
            answer: dict[str, object] = monitor.run("query-migrate")
            if answer.get("status") in {"completed", "failed"}:
                return answer
            if time.monotonic() > deadline:
                raise StockError(f"the migration is not over: {answer.get('status')}")
            time.sleep(_POLL_S)

    def await_end(self) -> int:
        """Wait until it ends by itself; give its exit code.

        Raises:
            StockError: it goes on.
        """
        try:
            return self._process.wait(self.seconds)
        except subprocess.TimeoutExpired:
            raise StockError("QEMU goes on running") from None

    def open_files(self) -> dict[int, tuple[int, int]]:
        """Device and inode of each of its descriptors."""
        found: dict[int, tuple[int, int]] = {}
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{self.pid}/fd"):
                with contextlib.suppress(OSError):
                    status = os.stat(f"/proc/{self.pid}/fd/{name}")
                    found[int(name)] = status.st_dev, status.st_ino
        return found

    def maps(self, inode: int) -> bool:
        """Say whether it has a file mapped."""
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{self.pid}/maps").read_text().splitlines()
            return any(line.split()[4:5] == [str(inode)] for line in lines)
        return False

    def end(self) -> None:
        """End it now."""
        if self.is_alive():
            self._process.kill()
        self._process.wait()

    def quit(self, monitor: Qmp) -> None:
        """End it politely, or else now."""
        with contextlib.suppress(StockError):
            monitor.run("quit")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_QUIT_S)
        self.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
