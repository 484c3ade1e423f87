"""Have a target load a state, once, and say what it did.

::

    start -> greeting -> capabilities and parameters -> migrate-incoming -> completed, or its end

The target gets the state through a pipe, or, with mapped-ram, as a file in the
folder of the try; and speaks QMP over a socket that it inherits.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from cprtools.check.cage import Cage
from cprtools.check.dryrun_stream import Reduced
from cprtools.check.talk import Flooded, Gone, Late, Refused, Talk

__all__ = ["Ending", "Outcome", "Stage", "attempt"]

_WAIT_SECONDS: Final = 0.2
_OVER: Final = ("completed", "failed", "cancelled")
#: Up to 7.2 it says so, and then waits for ever (migration/multifd.c: multifd_load_setup).
_STUCK: Final = b"multifd is not supported by current protocol"


class Stage(StrEnum):
    """How far it came."""

    START = "start"
    SET_UP = "set-up"
    LOAD = "load"


class Ending(StrEnum):
    """How it went."""

    LOADED = "loaded"
    #: It ended, or says that the load failed.
    GONE = "gone"
    REFUSED = "refused"
    LATE = "late"
    FLOODED = "flooded"


@dataclass(slots=True)
class Outcome:
    """What a target did.

    Attributes:
        stage: how far it came.
        ending: how it went.
        code: how it ended: status, negative for a signal; None if it was still there.
        text: what it printed.
        refused: the error that a command was answered with.
        notes: bounds that could not be set.
        version: QEMU's, from the greeting.
        seconds: from the start to the end.
    """

    stage: Stage = Stage.START
    ending: Ending = Ending.GONE
    code: int | None = None
    text: str = ""
    refused: str = ""
    notes: tuple[str, ...] = ()
    version: str = ""
    seconds: float = 0.0


def attempt(
    cage: Cage,
    words: Sequence[str],
    state: Reduced,
    capabilities: Mapping[str, str],
    seconds: float,
    memory_bytes: int = 0,
) -> Outcome:
    """Start the target, let it load, and end it.

    Args:
        cage: where it runs.
        words: program and arguments.
        state: what it is given.
        capabilities: migration capabilities (on, off) and parameters.
        seconds: how long all of it may take.
        memory_bytes: files for guest memory may be so large.

    Raises:
        OSError: it can't be started, or the state can't be read.
        FormatError: the state can't be given.
    """
    outcome, start = Outcome(), time.monotonic()
    with ExitStack() as stack:
        talk, feed = _started(stack, cage, words, seconds, memory_bytes)
        try:
            _run(talk, outcome, _Load(cage.folder, state, capabilities, *feed))
        except Refused as error:
            outcome.ending, outcome.refused = Ending.REFUSED, str(error)
        except Late:
            outcome.ending = Ending.LATE
        except Flooded:
            outcome.ending = Ending.FLOODED
        except Gone:
            outcome.ending = Ending.GONE
            with suppress(Late, Flooded):
                talk.finish()
            outcome.code = talk.process.returncode
        outcome.seconds = time.monotonic() - start
        cage.end()
        with suppress(Late, Flooded):
            talk.finish()
        outcome.text = talk.printed.decode(errors="replace")
    outcome.notes = tuple(cage.notes)
    return outcome


def _started(
    stack: ExitStack, cage: Cage, words: Sequence[str], seconds: float, memory_bytes: int
) -> tuple[Talk, tuple[int, int]]:
    """Start it with its ends of monitor and pipe; give ours."""
    ours, theirs = socket.socketpair()
    pipe_out, pipe_in = os.pipe()
    printed_out, printed_in = os.pipe()
    monitor = ["-chardev", f"socket,id=cprtools-monitor,fd={theirs.fileno()}"]
    monitor += ["-mon", "chardev=cprtools-monitor,mode=control"]
    deadline = time.monotonic() + seconds
    try:
        inherited = (theirs.fileno(), pipe_out)
        process = cage.start([*words, *monitor], inherited, printed_in, seconds, memory_bytes)
    except BaseException:
        for one in (pipe_in, printed_out):
            os.close(one)
        ours.close()
        raise
    finally:
        theirs.close()
        os.close(pipe_out)
        os.close(printed_in)
    talk = Talk(process, ours, printed_out, deadline)
    stack.callback(talk.close)
    return talk, (pipe_out, pipe_in)


@dataclass(frozen=True, slots=True)
class _Load:
    """What is to be loaded, and how."""

    folder: Path
    state: Reduced
    capabilities: Mapping[str, str]
    their_end: int
    our_end: int


def _run(talk: Talk, outcome: Outcome, load: _Load) -> None:
    fed = False
    try:
        talk.greet()
        outcome.version = _version(talk)
        outcome.stage = Stage.SET_UP
        _set_up(talk, load.capabilities)
        outcome.stage = Stage.LOAD
        uri, pieces = _way(load)
        talk.ask("migrate-incoming", {"uri": uri})
        talk.feed(load.our_end, pieces)
        fed = True
        _wait(talk, outcome)
    finally:
        if not fed:
            os.close(load.our_end)


def _version(talk: Talk) -> str:
    found = re.search(r"'package': '([^']*)'", str(talk.greeting))
    parts = dict(re.findall(r"'(major|minor|micro)': (\d+)", str(talk.greeting)))
    number = ".".join(parts.get(name, "?") for name in ("major", "minor", "micro"))
    return f"{number} ({found[1]})" if found and found[1] else number


def _way(load: _Load) -> tuple[str, Iterator[bytes]]:
    """Say where the target reads from, and what comes through the pipe."""
    if load.capabilities.get("mapped-ram") != "on":
        return f"fd:{load.their_end}", load.state.pieces()
    path = load.folder / "state"
    start = load.state.write(path)
    return f"file:{path}" + (f",offset={start:#x}" if start else ""), iter(())


def _set_up(talk: Talk, values: Mapping[str, str]) -> None:
    """Set what the user asks for, and events, which tell at once when it is over."""
    with suppress(Refused):
        _set_capability(talk, "events", state=True)
    known = str(talk.ask("query-migrate-capabilities")) if values else ""
    for name, value in values.items():
        if value in ("on", "off") and (f"'{name}'" in known or "-" not in value):
            _switch(talk, name, value, known)
        else:
            talk.ask("migrate-set-parameters", {name: _plain(value)})


def _switch(talk: Talk, name: str, value: str, known: str) -> None:
    """Set a capability; a name that is none may be a parameter."""
    if f"'{name}'" in known:
        _set_capability(talk, name, state=value == "on")
        return
    try:
        talk.ask("migrate-set-parameters", {name: value == "on"})
    except Refused:
        _set_capability(talk, name, state=value == "on")


def _set_capability(talk: Talk, name: str, *, state: bool) -> None:
    one = {"capability": name, "state": state}
    talk.ask("migrate-set-capabilities", {"capabilities": [one]})


def _plain(value: str) -> object:
    return int(value) if value.isdigit() else value


def _wait(talk: Talk, outcome: Outcome) -> None:
    """Wait for the end of the load; then see that it lives."""
    while True:
        info = talk.ask("query-migrate")
        status = str(info.get("status")) if isinstance(info, dict) else ""
        if status in _OVER:
            break
        if _STUCK in talk.printed:
            raise Refused(_STUCK.decode())
        talk.wait(_WAIT_SECONDS)
    if status != "completed":
        reason = info.get("error-desc") if isinstance(info, dict) else ""
        raise Refused(str(reason or f"migration {status}"))
    talk.ask("query-cpus-fast")
    talk.ask("query-status")
    outcome.ending = Ending.LOADED
