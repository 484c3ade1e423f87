"""Ask a target what it would save itself.

It is started as it will be, paused, with inert stand-ins behind its devices, and
writes its own state: the same devices, names, versions and sizes as it would
load. The state that is to be checked is not given to it.

Source: QEMU migration/savevm.c (qemu_savevm_state, qmp_xen_save_devices_state),
hw/core/machine-hmp-cmds.c and system/physmem.c (ram_block_format), hw/virtio/virtio-qmp.c,
5.2 to 11.1.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Final

from cprtools.check.attempt import Ending, Outcome, Stage, _set_up, _version
from cprtools.check.cage import Cage
from cprtools.check.probe_pci import Bars, Path, bars_of
from cprtools.check.talk import Flooded, Gone, Late, Refused, Talk

__all__ = ["Asked", "Block", "ask"]

_WAIT_SECONDS: Final = 0.01
_JOIN_SECONDS: Final = 10.0
#: More guest memory than this is not read through: only devices are saved then.
_MOST_MEMORY: Final = 512 << 20
_MOST_STATE: Final = 1 << 30
_CHUNK: Final = 1 << 20
_BLOCK: Final = re.compile(
    r"^\s*(?P<name>\S.*?)\s+\d+(?: \w?i?B)?\s+0x[0-9a-f]+\s+"
    r"(?P<used>0x[0-9a-f]+)\s+(?P<total>0x[0-9a-f]+)"
)


@dataclass(frozen=True, slots=True)
class Block:
    """One RAMBlock of the target.

    Attributes:
        used: bytes in use.
        most: bytes that it may grow to.
    """

    used: int
    most: int

    @property
    def grows(self) -> bool:
        """Whether another size is taken."""
        return self.used != self.most


@dataclass(slots=True)
class Asked:
    """What a target answered.

    Attributes:
        outcome: how far it came, what it printed, how it ended.
        state: the file with its own state; None if it wrote none.
        described: it is a whole stream: with configuration and description.
        blocks: its RAMBlocks.
        bars: base addresses of its PCI devices.
        capabilities: the migration capabilities that it knows.
        machine: name of its machine type.
        uuid: the VM's, "" where none is set.
        blocked: why it does not save, "" where it does.
        program: the ELF file that runs, where that is seen: a wrapper may have been started.
    """

    outcome: Outcome = field(default_factory=Outcome)
    state: FilePath | None = None
    described: bool = False
    blocks: dict[str, Block] = field(default_factory=dict)
    bars: Mapping[Path, Bars] = field(default_factory=dict)
    capabilities: frozenset[str] = frozenset()
    machine: str = ""
    uuid: str = ""
    blocked: str = ""
    program: FilePath | None = None


def ask(
    cage: Cage,
    words: Sequence[str],
    capabilities: Mapping[str, str],
    seconds: float,
    memory_bytes: int = 0,
    more: Callable[[Asked, Callable[[str], str]], None] = lambda *_: None,
) -> Asked:
    """Start the target, ask it, and end it.

    Args:
        cage: where it runs.
        words: program and arguments.
        capabilities: migration capabilities and parameters that it is to take.
        seconds: how long all of it may take.
        memory_bytes: files for guest memory may be so large.
        more: is called once its state is there, with a way to run commands of HMP.

    Raises:
        OSError: it can't be started.
    """
    asked, start = Asked(), time.monotonic()
    outcome = asked.outcome
    with ExitStack() as stack:
        talk, taker = _started(stack, cage, words, seconds, memory_bytes)
        try:
            _questions(talk, asked, cage.folder, capabilities, taker)
            if asked.state is not None:
                more(asked, lambda command: _hmp(talk, command))
            outcome.ending = Ending.LOADED
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
        cage.end()
        with suppress(Late, Flooded):
            talk.finish()
        outcome.text = talk.printed.decode(errors="replace")
    outcome.seconds = time.monotonic() - start
    outcome.notes = tuple(cage.notes)
    return asked


class _Taker:
    """Takes what the target writes to a socket into a file of ours, in bounds.

    Args:
        folder: where socket and file are.
    """

    def __init__(self, folder: FilePath) -> None:
        self.path = folder / "own-state"
        self.uri = f"unix:{folder / 'own'}"
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(folder / "own"))
        self._server.listen(1)
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def _copy(self) -> None:
        left = _MOST_STATE
        with suppress(OSError), self.path.open("wb") as file:
            peer, _ = self._server.accept()
            with peer:
                while left > 0 and (data := peer.recv(_CHUNK)):
                    file.write(data)
                    left -= len(data)

    def join(self) -> None:
        """Wait until all of it is in the file."""
        self._thread.join(_JOIN_SECONDS)

    def close(self) -> None:
        """Let nobody write any more."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.join()


def _started(
    stack: ExitStack, cage: Cage, words: Sequence[str], seconds: float, memory_bytes: int
) -> tuple[Talk, _Taker]:
    taker = _Taker(cage.folder)
    stack.callback(taker.close)
    ours, theirs = socket.socketpair()
    printed_out, printed_in = os.pipe()
    monitor = ["-chardev", f"socket,id=cprtools-monitor,fd={theirs.fileno()}"]
    monitor += ["-mon", "chardev=cprtools-monitor,mode=control"]
    deadline = time.monotonic() + seconds
    try:
        inherited = (theirs.fileno(),)
        process = cage.start([*words, *monitor], inherited, printed_in, seconds, memory_bytes)
    except BaseException:
        os.close(printed_out)
        ours.close()
        raise
    finally:
        theirs.close()
        os.close(printed_in)
    stack.callback(cage.end)
    talk = Talk(process, ours, printed_out, deadline)
    stack.callback(talk.close)
    return talk, taker


def _questions(
    talk: Talk, asked: Asked, folder: FilePath, capabilities: Mapping[str, str], taker: _Taker
) -> None:
    outcome = asked.outcome
    talk.greet()
    outcome.version = _version(talk)
    outcome.stage = Stage.SET_UP
    asked.program = _running(talk.process.pid)
    asked.capabilities = frozenset(re.findall(r"'capability': '([^']*)'", _capabilities(talk)))
    _set_up(talk, capabilities)
    _set_back(talk, capabilities)
    outcome.stage = Stage.LOAD
    asked.uuid = _uuid(talk)
    kind = talk.ask("qom-get", {"path": "/machine", "property": "type"})
    asked.machine = str(kind).removesuffix("-machine")
    asked.blocks = dict(_blocks(_hmp(talk, "info ramblock")))
    asked.bars = bars_of(talk.ask("query-pci"))
    _save(talk, asked, folder, taker)


def _running(pid: int) -> FilePath | None:
    """Tell which ELF file a process runs; under a loader of its own, the one that it was given."""
    with suppress(OSError):
        words = FilePath(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        exe = FilePath(f"/proc/{pid}/exe").resolve()
        if not exe.name.startswith("ld"):
            return exe
        for word in words[1:]:
            named = FilePath(os.fsdecode(word))
            if "qemu" in named.name and named.is_file():
                return named.resolve()
    return None


def _capabilities(talk: Talk) -> str:
    return str(talk.ask("query-migrate-capabilities"))


def _set_back(talk: Talk, capabilities: Mapping[str, str]) -> None:
    """What was only asked for must not change how it saves, but for what blocks lie where."""
    for name, value in capabilities.items():
        if value == "on" and name != "x-ignore-shared":
            off = {"capabilities": [{"capability": name, "state": False}]}
            with suppress(Refused):
                talk.ask("migrate-set-capabilities", off)


def _hmp(talk: Talk, command: str) -> str:
    with suppress(Refused):
        return str(talk.ask("human-monitor-command", {"command-line": command}))
    return ""


def _uuid(talk: Talk) -> str:
    found = talk.ask("query-uuid")
    text = str(found.get("UUID", "")) if isinstance(found, dict) else ""
    return text if text.strip("0-") else ""


def _blocks(text: str) -> list[tuple[str, Block]]:
    found = []
    for line in text.splitlines():
        if match := _BLOCK.match(line):
            used, most = int(match["used"], 16), int(match["total"], 16)
            found.append((match["name"], Block(used, most)))
    return found


# -- its own state ---------------------------------------------------------------------


def _save(talk: Talk, asked: Asked, folder: FilePath, taker: _Taker) -> None:
    if sum(block.used for block in asked.blocks.values()) <= _MOST_MEMORY:
        try:
            _migrate(talk, taker)
            taker.join()
        except Refused as error:
            asked.blocked = str(error)
        else:
            asked.state, asked.described = taker.path, True
            return
    path = folder / "own-devices"
    try:
        talk.ask("xen-save-devices-state", {"filename": str(path)})
    except Refused as error:
        asked.blocked = asked.blocked or str(error)
    else:
        asked.state = path


def _migrate(talk: Talk, taker: _Taker) -> None:
    with suppress(Refused):
        talk.ask("migrate-set-parameters", {"max-bandwidth": 1 << 40})
    talk.ask("migrate", {"uri": taker.uri})
    while True:
        info = talk.ask("query-migrate")
        status = str(info.get("status")) if isinstance(info, dict) else ""
        if status == "completed":
            return
        if status in ("failed", "cancelled"):
            reason = info.get("error-desc") if isinstance(info, dict) else ""
            raise Refused(str(reason or f"migration {status}"))
        talk.wait(_WAIT_SECONDS)
