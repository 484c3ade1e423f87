"""Speak QMP with a program that may be no QEMU: one loop, one deadline, nothing unbounded.

The loop reads what it prints and what it answers, and writes the state to it,
as far as each of them goes at the moment.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import Final

__all__ = ["Flooded", "Gone", "Late", "Refused", "Talk"]

_MOST_PRINTED: Final = 8 << 20
_KEPT_PRINTED: Final = 256 << 10
_MOST_ANSWER: Final = 16 << 20
_CHUNK: Final = 1 << 16
_LOOK_SECONDS: Final = 0.05
_EXIT_SECONDS: Final = 5.0

Value = Mapping[str, object]


class Gone(Exception):
    """It has closed its monitor, or never opened it."""


class Late(Exception):
    """The deadline is over."""


class Flooded(Exception):
    """It prints or answers without end."""


class Refused(Exception):
    """It answered a command with an error; the text is its description."""


class Talk:
    """One conversation.

    Args:
        process: the program.
        monitor: our end of its monitor.
        output: reads what it prints.
        deadline: on the clock of `time.monotonic`.

    Attributes:
        printed: what it printed, the last part of it if it is much.
        greeting: what QMP begins with; None before.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        monitor: socket.socket,
        output: int,
        deadline: float,
    ) -> None:
        self.process = process
        self.deadline = deadline
        self.printed = bytearray()
        self.greeting: Value | None = None
        self.events: list[str] = []
        self._all_printed = 0
        self._monitor = monitor
        self._output = output
        self._buffer = bytearray()
        self._messages: list[Value] = []
        self._feed: Iterator[bytes] = iter(())
        self._piece = memoryview(b"")
        self._closed = False
        self._selector = selectors.DefaultSelector()
        monitor.setblocking(False)
        os.set_blocking(output, False)
        self._selector.register(monitor, selectors.EVENT_READ, self._hear)
        self._selector.register(output, selectors.EVENT_READ, self._read)

    # -- what the caller does -----------------------------------------------------------

    def greet(self) -> None:
        """Wait for the greeting, and answer it.

        Raises:
            Gone, Late, Flooded, Refused: see there.
        """
        while self.greeting is None:
            self._turn()
            for message in self._take():
                if "QMP" in message:
                    self.greeting = message
        self.ask("qmp_capabilities")

    def ask(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """Run a command; give what it returns.

        Raises:
            Gone, Late, Flooded, Refused: see there.
        """
        request: dict[str, object] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        self._send(json.dumps(request).encode() + b"\n")
        while True:
            for message in self._take():
                if "return" in message:
                    return message["return"]
                if "error" in message:
                    error = message["error"]
                    raise Refused(str(error.get("desc")) if isinstance(error, dict) else str(error))
            self._turn()

    def feed(self, descriptor: int, pieces: Iterator[bytes]) -> None:
        """Write pieces to a pipe from now on, and close it behind them."""
        os.set_blocking(descriptor, False)
        self._feed = pieces
        self._selector.register(descriptor, selectors.EVENT_WRITE, self._write)

    def wait(self, seconds: float) -> None:
        """Let the loop turn for a while, less if there is an event.

        Raises:
            Gone, Late, Flooded: see there.
        """
        end, before = time.monotonic() + seconds, len(self.events)
        while time.monotonic() < end and len(self.events) == before:
            self._turn(max(end - time.monotonic(), 0))

    def finish(self) -> None:
        """Read what is left of a program that goes, and wait for its end.

        Raises:
            Late, Flooded: see there.
        """
        end = min(time.monotonic() + _EXIT_SECONDS, self.deadline)
        self._closed = True
        while self.process.poll() is None and time.monotonic() < end:
            self._turn(_LOOK_SECONDS)
        self._read(self._output)

    def close(self) -> None:
        """Close what belongs to the conversation."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, int) and key.fileobj != self._output:
                os.close(key.fileobj)
        self._selector.close()
        self._monitor.close()
        os.close(self._output)

    # -- the loop -----------------------------------------------------------------------

    def _turn(self, seconds: float = _LOOK_SECONDS) -> None:
        """Wait for something to happen, and take it."""
        now = time.monotonic()
        if now > self.deadline:
            raise Late
        for key, _ in self._selector.select(min(seconds, self.deadline - now, _LOOK_SECONDS)):
            key.data(key.fileobj)
        if not self._closed and self.process.poll() is not None and not self._has_more():
            raise Gone

    def _has_more(self) -> bool:
        return any(key.fileobj is self._monitor for key, _ in self._selector.select(0))

    def _hear(self, _monitor: object) -> None:
        try:
            data = self._monitor.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(self._monitor)
            if not self._closed:
                raise Gone
            return
        self._buffer += data
        if len(self._buffer) > _MOST_ANSWER:
            raise Flooded
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._message(line)

    def _message(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(message, dict):
            return
        if "event" in message:
            self.events.append(str(message["event"]))
            if len(self.events) > _CHUNK:
                raise Flooded
        else:
            self._messages.append(message)

    def _take(self) -> list[Value]:
        taken, self._messages = self._messages, []
        return taken

    def _send(self, data: bytes) -> None:
        try:
            self._monitor.sendall(data)
        except OSError:
            raise Gone from None

    def _read(self, _output: object) -> None:
        while True:
            try:
                data = os.read(self._output, _CHUNK)
            except BlockingIOError:
                return
            if not data:
                if self._output in self._selector.get_map():
                    self._selector.unregister(self._output)
                return
            self._all_printed += len(data)
            self.printed += data
            del self.printed[:-_KEPT_PRINTED]
            if self._all_printed > _MOST_PRINTED:
                raise Flooded

    def _write(self, descriptor: int) -> None:
        try:
            if not self._piece:
                self._piece = memoryview(next(self._feed))
            self._piece = self._piece[os.write(descriptor, self._piece) :]
        except BlockingIOError:
            return
        except (StopIteration, BrokenPipeError):
            self._selector.unregister(descriptor)
            os.close(descriptor)
