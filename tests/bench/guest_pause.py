"""What a hand-off of the guest costs, stage by stage: ``python tests/bench/guest_pause.py``.

Old and new side are two processes with the RAM in a memfd. Each round starts a fresh successor,
hands the guest over (cold), and hands it back (warm). All times in microseconds; "guest" is
the longest gap between two rounds of its loop that the guest itself saw.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("proto", "formats", "tests/live")]

from guestside import Side  # noqa: E402

from cprproto.machine.boot import BootConfig  # noqa: E402
from cprproto.machine.guest import Guest, make_guest  # noqa: E402
from cprproto.machine.ram import Memory  # noqa: E402
from cprproto.machine.report import forget_gaps, read_report  # noqa: E402
from cprproto.machine.wiring import Wiring  # noqa: E402

Stages = dict[str, list[float]]
STEP, GAP = "guest, undisturbed for 30 ms", "guest's own gap"
#: A round counts as quiet when the guest saw no longer step than this before it, in us.
QUIET = 300


def note(table: Stages, name: str, nanoseconds: float) -> None:
    table.setdefault(name, []).append(nanoseconds / 1000)


def forget(ram: memoryview) -> None:
    number = forget_gaps(ram)
    while any(cpu.forgot != number for cpu in read_report(ram).cpus):
        time.sleep(0.002)


def over(guest: Guest, side: Side, ram: memoryview, table: Stages) -> None:
    """From this process to the successor."""
    forget(ram)
    time.sleep(0.03)
    note(table, STEP, read_report(ram).gap_us * 1000)
    forget(ram)
    start = time.monotonic_ns()
    guest.untie()
    untied = time.monotonic_ns()
    guest.pause()
    paused = time.monotonic_ns()
    parts = guest.save()
    saved = time.monotonic_ns()
    times = side.ask("load", parts)
    note(table, "untie interrupts (still running)", untied - start)
    note(table, "pause", paused - untied)
    note(table, "save", saved - paused)
    note(table, "send, wake the other side", times["start"] - saved)
    note(table, "load", times["loaded"] - times["start"])
    note(table, "resume, tie interrupts", times["running"] - times["loaded"])
    note(table, "sum from pause to load", times["loaded"] - untied)
    time.sleep(0.03)
    note(table, GAP, read_report(ram).gap_us * 1000)
    if table[STEP][-1] < QUIET:
        note(table, "the same, quiet rounds only", table[GAP][-1] * 1000)
        note(table, "sum from pause to load, quiet rounds", times["loaded"] - untied)


def back(guest: Guest, side: Side, ram: memoryview, table: Stages) -> None:
    """From the successor to this process, whose VM is still there."""
    forget(ram)
    times: dict[str, Any] = side.ask("pause")
    start = time.monotonic_ns()
    guest.load(times["parts"])
    loaded = time.monotonic_ns()
    guest.resume()
    note(table, "save", times["saved"] - times["paused"])
    note(table, "send, wake the other side", start - times["saved"])
    note(table, "load", loaded - start)
    time.sleep(0.03)
    note(table, GAP, read_report(ram).gap_us * 1000)


def show(title: str, table: Stages) -> None:
    print(f"\n{title:42} {'n':>4} {'median':>9} {'p99':>9} {'max':>9}")
    for name, values in table.items():
        ordered = sorted(values)
        p99 = ordered[max(0, -(-len(ordered) * 99 // 100) - 1)]
        middle = ordered[len(ordered) // 2]
        print(f"{name:42} {len(ordered):4} {middle:9.1f} {p99:9.1f} {ordered[-1]:9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--ram", type=int, default=64, help="MiB")
    parser.add_argument("--kind", default="auto")
    options = parser.parse_args()
    memory, wiring = Memory.make(options.ram << 20), Wiring.make(2)
    guest = make_guest(options.kind, memory, wiring, options.cpus)
    guest.boot(BootConfig(fill=True, line_every=0))
    guest.resume()
    cold: Stages = {}
    warm: Stages = {}
    for _ in range(options.rounds):
        side = Side(guest.kind, memory, wiring, options.cpus)
        over(guest, side, memory.ram.view, cold)
        back(guest, side, memory.ram.view, warm)
        side.close()
    guest.pause()
    report = guest.report()
    print(f"{guest.kind} guest, {options.cpus} vCPUs, {options.ram} MiB, {options.rounds} rounds")
    wrong = list(report.findings) or "nothing"
    print(f"{report.rounds} rounds of its loop; wrong afterwards: {wrong}")
    show("fresh successor, us", cold)
    show("back to a VM that ran before, us", warm)
    guest.close()
    wiring.close()
    memory.close()


if __name__ == "__main__":
    main()
