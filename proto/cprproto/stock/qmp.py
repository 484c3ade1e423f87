"""Speak QMP with a QEMU, with a deadline on every wait.

Source: QEMU docs/interop/qmp-spec.rst.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from cprproto.errors import StockError

__all__ = ["Qmp", "connect"]

#: A QEMU's answer is shorter, but for lists of devices.
_MAX_MESSAGE = 8 << 20
_WAIT_S = 0.01


def connect(path: Path, seconds: float) -> socket.socket:
    """Connect to a UNIX socket as soon as somebody listens there.

    Raises:
        StockError: nobody did within the time.
    """
    deadline = time.monotonic() + seconds
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while True:
            link = socket.socket(socket.AF_UNIX)
            try:
                # A socket's path has 107 bytes at most, a folder's may be longer.
                link.connect(f"/proc/self/fd/{folder}/{path.name}")
            except OSError as problem:
                link.close()
                if time.monotonic() > deadline:
                    raise StockError(f"nobody listens on {path.name}: {problem}") from None
                time.sleep(_WAIT_S)
            else:
                return link
    finally:
        os.close(folder)


class Qmp:
    """A monitor connection, greeted.

    Args:
        path: the monitor's socket.
        seconds: for the connection and for each answer.
        alive: says whether the QEMU still runs; a dead one ends the waiting.
    """

    def __init__(self, path: Path, seconds: float, alive: Callable[[], bool]) -> None:
        self._seconds = seconds
        self._buffer = b""
        self._link = self._connected(path, alive)
        try:
            self._message()
            self.run("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def _connected(self, path: Path, alive: Callable[[], bool]) -> socket.socket:
        deadline = time.monotonic() + self._seconds
        while True:
            try:
                return connect(path, _WAIT_S)
            except (StockError, OSError):
                if not alive() or time.monotonic() > deadline:
                    raise

    def run(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Run one command and give its answer.

        Raises:
            StockError: the command failed, or the connection broke.
        """
        request = {"execute": command, "arguments": dict(arguments or {})}
        try:
            self._link.sendall(json.dumps(request).encode() + b"\n")
        except OSError as problem:
            raise StockError(f"{command}: {problem}") from None
        while True:
            message = self._message()
            if "error" in message:
                raise StockError(f"{command}: {message['error'].get('desc')}")
            if "return" in message:
                return message["return"]

    def _message(self) -> dict[str, Any]:
        """The next message that is complete."""
        self._link.settimeout(self._seconds)
        while b"\n" not in self._buffer:
            try:
                data = self._link.recv(1 << 16)
            except OSError as problem:
                raise StockError(f"monitor: {problem}") from None
            if not data or len(self._buffer) > _MAX_MESSAGE:
                raise StockError("the monitor closed the connection")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError:
            raise StockError(f"monitor: {line[:80]!r} is no message") from None
        if not isinstance(message, dict):
            raise StockError(f"monitor: {line[:80]!r} is no message")
        return message

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
