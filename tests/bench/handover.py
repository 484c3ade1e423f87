"""What the descriptor table and the device state cost in the pause: python tests/bench/handover.py.

Imports are timed in fresh interpreters, as a successor that was just execed pays for them; the
rest is the best of many calls for ten descriptors and ten devices.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "proto"), str(ROOT / "formats")]

from cprproto.fds.check import check_table  # noqa: E402
from cprproto.fds.document import decode_table, encode_table  # noqa: E402
from cprproto.fds.table import Table  # noqa: E402
from cprproto.state.loading import Loader  # noqa: E402
from cprproto.state.qcpr import read_state  # noqa: E402
from cprproto.state.qcpr_writing import encode_state, entries_of  # noqa: E402
from cprproto.state.schema import Plain, Schema, Section, Struct, Vmsd  # noqa: E402
from cprproto.state.stream import StreamWriter  # noqa: E402

IMPORTS = (
    "cprproto.fds.table, cprproto.fds.check, cprproto.fds.document",
    "cprproto.state.qcpr, cprproto.state.loading",
    "cprproto.fds.findings",
    "cprproto.state.stream, cprproto.state.qcpr_writing",
    "dataclasses",
    "typing",
    "socket",
    "json",
)
IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def imported(names: str) -> float:
    """Median milliseconds of an import in a fresh interpreter."""
    flags = ["-S", "-E"] if "writing" not in names else []
    path = ":".join(sys.path[:2])
    text = f"import sys; sys.path[:0] = {path.split(':')!r}; {IMPORT.format(names)}"
    runs = [
        float(
            subprocess.run(
                [sys.executable, *flags, "-c", text], capture_output=True, check=True
            ).stdout
        )
        for _ in range(11)
    ]
    return statistics.median(runs[1:]) * 1e3


def best(call: Callable[[], object]) -> float:
    """Least microseconds of 300 calls."""
    least = 1.0
    for _ in range(300):
        start = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - start)
    return least * 1e6


def ten_descriptors() -> Table:
    """Memory, seven interrupts, a connection, a listening socket."""
    table = Table()
    table.add("ram", "ram0", os.memfd_create("ram0", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    for vector in range(7):
        table.add("irq", "serial", os.eventfd(vector), id=vector)
    table.add("connected-socket", "monitor", socket.socketpair()[0].detach())
    listener = socket.create_server(("127.0.0.1", 0))
    table.add("listening-socket", "listener", listener.detach())
    return table


def ten_devices() -> tuple[Schema, dict[tuple[str, int], dict[str, object]]]:
    """Devices with some 75 values each."""
    inner = Vmsd("inner", (Plain("a", "u8"), Plain("b", "u16", 3)))
    fields = (
        *(Plain("divider", "u16"), Plain("irq", "bool"), Plain("regs", "u64", 24)),
        *(Struct("many", inner, 3), Plain("n", "u32"), Plain("msrs", "u64", 400, by="n")),
    )
    device = Vmsd("device", fields)
    one = {"a": 1, "b": (1, 2, 3)}
    plain = {"divider": 12, "irq": True, "regs": tuple(range(24))}
    values = {**plain, "many": [one] * 3, "n": 40, "msrs": tuple(range(40))}
    sections = tuple(Section("device", device, number) for number in range(10))
    return Schema("bench", sections), {("device", number): values for number in range(10)}


def main() -> None:
    """Print all figures."""
    for names in IMPORTS:
        print(f"import {names:62} {imported(names):7.1f} ms")
    table = ten_descriptors()
    document = encode_table(table)
    schema, values = ten_devices()
    writer, loader = StreamWriter(schema), Loader(schema)
    stream = writer.encode(values)
    state = encode_state(entries_of(table))
    memfd = os.memfd_create("state")
    calls: tuple[tuple[str, Callable[[], object]], ...] = (
        ("take stock of ten descriptors", table.take_stock),
        ("check ten descriptors", lambda: check_table(table)),
        ("clear close-on-exec on ten", table.hand_over),
        ("write the table's document", lambda: encode_table(table)),
        ("read the table's document", lambda: decode_table(document)),
        ("write a CPR state of ten names", lambda: encode_state(entries_of(table))),
        ("read a CPR state of ten names", lambda: read_state(state)),
        (f"encode ten devices ({len(stream)} bytes)", lambda: writer.encode(values)),
        ("write them to a memfd", lambda: os.lseek(memfd, 0, 0) or writer.write(memfd, values)),
        ("make a loader ready", lambda: Loader(schema)),
        ("load ten devices", lambda: loader.load(stream)),
    )
    for name, call in calls:
        print(f"{name:69} {best(call):7.0f} us")


if __name__ == "__main__":
    main()
