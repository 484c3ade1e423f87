"""Play the old QEMU: hand memory, descriptors and a stream to a stock one, and see what it does.

::

    outcome = play_old(program, folder, way="exec")           # QEMU_CPR_EXEC_STATE, 10.2 on
    outcome = play_old(program, folder, way="transfer", fault="missing", vfio=False)   # 10.0

No source VM is needed and no patched QEMU. The machine is `none`: RAM, no processor, no device;
then a stream needs nothing but header, configuration and end mark (docs/stock-cpr.md).

Source: QEMU migration/cpr-exec.c (cpr_exec_input), migration/cpr-transfer.c
(cpr_transfer_input), docs/devel/migration/CPR.rst; 10.0 to 11.1.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cprformats.cpr.model import CprFd
from cprproto.errors import PassingError, StockError
from cprproto.state.qcpr import ENVIRONMENT
from cprproto.state.qcpr_writing import encode_state, send_state
from cprproto.state.stream import write_all
from cprproto.stock.faults import BLOCK, FAULTS, MACHINE, OTHER_SEED, OUR_SEED, Handed, good
from cprproto.stock.memory import whose
from cprproto.stock.process import Process
from cprproto.stock.qmp import Qmp, connect

__all__ = ["RAM_BYTES", "Outcome", "machine_words", "play_old"]

RAM_BYTES = 16 << 20
#: Below it lie a firmware's own data, and ROMs instead of RAM.
_FIRMWARE = 1 << 20
_STREAM = "stream.sav"
_CPR, _MAIN = "cpr.sock", "main.sock"
_SEEDS = {"ours": OUR_SEED, "other": OTHER_SEED}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stock QEMU did with what it was handed.

    Attributes:
        end: ``runs``; ``waits`` (loaded, and told to stay stopped); ``refuses`` the stream
            and stays; ``exits``; ``aborts`` (a signal).
        code: exit code, negative for a signal; None while it runs.
        ram: whose contents guest RAM has over QMP: ``ours``, ``other``, ``empty``,
            ``changed``; empty text where there is no guest.
        holds: it has a descriptor of our memory open without having it mapped.
        said: the last line that it printed, or its answer.
    """

    end: str
    code: int | None
    ram: str
    holds: bool
    said: str


def machine_words(size: int, machine: str = MACHINE) -> list[str]:
    """The command line of a guest whose RAM can be handed over.

    Args:
        size: of RAM in bytes, whole MiB.
        machine: name of the machine.
    """
    mib = size >> 20
    backend = f"memory-backend-memfd,id={BLOCK},size={mib}M,share=on"
    words = ["-machine", f"{machine},memory-backend={BLOCK},aux-ram-share=on", "-m", str(mib)]
    return [*words, "-object", backend, "-nodefaults", "-display", "none"]


def play_old(
    program: Path,
    folder: Path,
    *,
    way: str,
    fault: str = "none",
    vfio: bool = True,
    machine: str = MACHINE,
    seconds: float = 30.0,
) -> Outcome:
    """Hand over to a stock QEMU and say what it did.

    Args:
        program: the QEMU.
        folder: an empty folder for sockets and files.
        way: ``exec`` (10.2 on) or ``transfer`` (10.0 on).
        fault: a name from `cprproto.stock.faults.FAULTS`.
        vfio: with the list of VFIO devices that 10.1 on has and 10.0 does not know.
        machine: QEMU's full name for it; of one with firmware the first MiB of RAM is
            left out of the comparison, and it stays stopped.
        seconds: the longest wait for anything.

    Raises:
        StockError: the program can't be started, or hangs.
        KeyError: there is no such fault.
    """
    made = good(RAM_BYTES, vfio=vfio, machine=machine)
    try:
        handed = made = FAULTS[fault].make(made)
        play = _Play(program, folder, handed, fault, machine, seconds)
        return play.by_exec() if way == "exec" else play.by_transfer()
    finally:
        made.close()


@dataclass(frozen=True, slots=True)
class _Play:
    """One hand-off."""

    program: Path
    folder: Path
    handed: Handed
    fault: str
    machine: str
    seconds: float

    def by_exec(self) -> Outcome:
        """Put the state in a memfd, name it in the environment, exec."""
        (self.folder / _STREAM).write_bytes(self.handed.stream)
        state = os.memfd_create(ENVIRONMENT, os.MFD_CLOEXEC)
        try:
            write_all(state, self._state())
            variable = self.handed.variable or str(state)
            # Close-on-exec is cleared on these, and on nothing else, just before the exec.
            passed = (*self.handed.fds, state)
            with self._started(("-incoming", "defer"), passed, {ENVIRONMENT: variable}) as qemu:
                return self._judged(qemu, self._load_file)
        finally:
            os.close(state)

    def by_transfer(self) -> Outcome:
        """Send the state over the cpr channel, then the stream over the main channel."""
        address = {"transport": "socket", "type": "unix", "path": _CPR}
        channel = json.dumps({"channel-type": "cpr", "addr": address})
        words = ("-incoming", channel, "-incoming", f"unix:{_MAIN}")
        with self._started(words) as qemu, connect(self.folder / _CPR, self.seconds) as cpr:
            cpr.settimeout(self.seconds)
            self._send(cpr)
            return self._judged(qemu, lambda _: self._send_stream(cpr))

    def _started(
        self,
        words: tuple[str, ...],
        passed: tuple[int, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> Process:
        # A processor would go on from its reset state and write to RAM.
        stopped = () if self.machine == MACHINE else ("-S",)
        return Process(
            self.program,
            [*machine_words(self.handed.size, self.machine), *stopped, *words],
            self.folder,
            environment=environment,
            pass_fds=passed,
            seconds=self.seconds,
        )

    def _state(self) -> bytes:
        if self.handed.state is not None:
            return self.handed.state
        return encode_state(self.handed.entries, self.handed.vfio)

    def _send(self, cpr: socket.socket) -> None:
        """Send the state; a QEMU that ends meanwhile is judged later."""
        entries = [CprFd(entry.name, entry.id, None) for entry in self.handed.entries]
        data = encode_state(entries, self.handed.vfio)
        try:
            if self.handed.state is not None:
                cpr.sendall(self.handed.state)
            elif self.fault == "fd-lost":
                cpr.sendall(data)
            elif self.fault == "old-dies":
                cpr.sendall(data[:14])  # inside the first name
            else:
                send_state(cpr, entries, self.handed.fds, self.handed.vfio)
                return
            cpr.shutdown(socket.SHUT_WR)
        except (OSError, PassingError):
            return

    def _load_file(self, monitor: Qmp) -> None:
        arguments = {"uri": f"file:{_STREAM}", "exit-on-error": False}
        monitor.run("migrate-incoming", arguments)

    def _send_stream(self, cpr: socket.socket) -> None:
        """Wait for the end of the cpr channel, which tells that the new side is ready."""
        try:
            cpr.recv(1)
            with connect(self.folder / _MAIN, self.seconds) as main:
                main.sendall(self.handed.stream)
        except OSError as problem:
            raise StockError(f"main channel: {problem}") from None

    def _judged(self, qemu: Process, hand_stream: Callable[[Qmp], None]) -> Outcome:
        """See how it ends: a QEMU that does not want it is gone before it has a monitor."""
        try:
            with qemu.monitor() as monitor:
                hand_stream(monitor)
                answer = qemu.await_migration(monitor)
                return self._running(qemu, monitor, answer)
        except StockError:
            code = qemu.await_end()
        end = "aborts" if code < 0 else "exits"
        return Outcome(end, code, "", False, _last_line(qemu.said()))

    def _running(self, qemu: Process, monitor: Qmp, answer: Mapping[str, object]) -> Outcome:
        if answer["status"] != "completed":
            said = str(answer.get("error-desc", ""))
            return Outcome("refuses", None, "", self._holds(qemu), said)
        ram = self._ram(monitor)
        end = "runs" if monitor.run("query-status")["running"] else "waits"
        outcome = Outcome(end, None, ram, self._holds(qemu), _last_line(qemu.said()))
        qemu.quit(monitor)
        return outcome

    def _ram(self, monitor: Qmp) -> str:
        """Have guest RAM written to a file, from address 0 on, and compare all of it."""
        path = self.folder / "ram.bin"
        size = self.handed.size
        monitor.run("pmemsave", {"val": 0, "size": size, "filename": path.name})
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            low = 0 if self.machine == MACHINE else _FIRMWARE
            return whose(number, size, _SEEDS, low=low)
        finally:
            os.close(number)
            path.unlink()

    def _holds(self, qemu: Process) -> bool:
        """Our memory is open in it and not mapped: it was taken, and nobody uses it."""
        status = os.fstat(self.handed.mine[0])
        is_open = (status.st_dev, status.st_ino) in qemu.open_files().values()
        return is_open and not qemu.maps(status.st_ino)


def _last_line(text: str) -> str:
    return text.splitlines()[-1] if text else ""
