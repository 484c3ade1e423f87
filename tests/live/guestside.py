"""One side of a hand-off in a process of its own: builds a guest around descriptors it was given.

Run as ``python -S -E guestside.py PATHS KIND CPUS SOCKET RAM BYTES ROM VGA KICK LEVEL EOI
DEVICE...`` (numbers of inherited descriptors), it does what the other end of the socket asks for;
each message is a marshalled tuple. `Side` is that other end.
"""

from __future__ import annotations

import marshal
import socket
import sys
from time import monotonic_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cprproto.machine.guest import Guest
    from cprproto.machine.ram import Memory
    from cprproto.machine.wiring import Wiring

_MOST = 1 << 20


class Side:
    """A started side, seen from the process that started it."""

    def __init__(self, kind: str, memory: Memory, wiring: Wiring, cpus: int = 1) -> None:
        import subprocess

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(60)
        assert wiring.level is not None
        fds = [block.fd for block in memory.blocks]
        events = [wiring.kick, *wiring.level, *wiring.devices]
        words = [kind, cpus, theirs.fileno(), fds[0], memory.ram.size, *fds[1:], *events]
        paths = ":".join(path for path in sys.path if path.endswith(("/proto", "/formats")))
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-S", "-E", __file__, paths, *map(str, words)],
                pass_fds=[theirs.fileno(), *fds, *wiring.fds],
            )
        self._socket = ours
        try:
            assert self.receive() == "ready"
        except BaseException:
            self.process.kill()
            self.close()
            raise

    def send(self, word: str, argument: Any = None) -> None:
        self._socket.send(marshal.dumps((word, argument)))

    def receive(self) -> Any:
        data = self._socket.recv(_MOST)
        assert data, "the other side is gone"
        return marshal.loads(data)

    def ask(self, word: str, argument: Any = None) -> Any:
        self.send(word, argument)
        return self.receive()

    def close(self) -> None:
        self._socket.close()
        assert self.process.wait(60) in {0, -9}


def _answer(guest: Guest, printed: bytearray, word: str, argument: Any) -> Any:
    start = monotonic_ns()
    if word == "load":
        guest.load(argument)
        loaded = monotonic_ns()
        guest.resume()
        return {"start": start, "loaded": loaded, "running": monotonic_ns()}
    if word == "pause":
        guest.pause()
        paused = monotonic_ns()
        parts = guest.save()
        return {"start": start, "paused": paused, "saved": monotonic_ns(), "parts": parts}
    if word == "set":  # load, and show what is there then
        guest.load(argument)
        return guest.save()
    if word == "printed":
        return bytes(printed)
    if word == "modules":
        return sorted(sys.modules)
    raise ValueError(word)


def _main(words: list[str]) -> None:
    sys.path[:0] = words[0].split(":")
    from cprproto.machine.ram import Block, Memory
    from cprproto.machine.wiring import Wiring

    kind, numbers = words[1], [int(word) for word in words[2:]]
    cpus, ask, ram, size, rom, vga, kick, level, eoi, *devices = numbers
    line = socket.socket(fileno=ask)
    sizes = [(name, fd, _size(fd)) for name, fd in (("rom", rom), ("vga", vga))]
    memory = Memory(Block("ram", ram, size), *(Block(*each) for each in sizes))
    wiring = Wiring(tuple(devices), (level, eoi), kick)
    printed = bytearray()
    if kind == "kvm":
        from cprproto.machine.kvmguest import KvmGuest as Kind
    else:
        from cprproto.machine.softguest import SoftGuest as Kind  # type: ignore[assignment]
    guest = Kind(memory, wiring, cpus, printed.extend)
    line.send(marshal.dumps("ready"))
    while data := line.recv(_MOST):
        line.send(marshal.dumps(_answer(guest, printed, *marshal.loads(data))))
    guest.close()


def _size(fd: int) -> int:
    import os

    return os.fstat(fd).st_size


if __name__ == "__main__":
    _main(sys.argv[1:])
