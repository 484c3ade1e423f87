"""The software guest: it runs, stands still, and goes on in another object as if nothing was."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from cprproto.errors import GuestError, HostError, StateError
from cprproto.machine.boot import BootConfig
from cprproto.machine.guest import Guest, make_guest
from cprproto.machine.ram import Memory
from cprproto.machine.report import GuestReport, forget_gaps, read_report
from cprproto.machine.wiring import Wiring

QUICK = BootConfig(kick_every=16, line_every=16, timer_hz=1000, fill=True)


class Rig:
    """Memory and wires, and guests one after the other on them."""

    def __init__(self) -> None:
        self.memory, self.wiring = Memory.make(2 << 20), Wiring.make(2)
        self.printed = bytearray()
        self.guests: list[Guest] = []

    def guest(self, cpus: int = 1) -> Guest:
        made = make_guest("soft", self.memory, self.wiring, cpus, self.printed.extend)
        self.guests.append(made)
        return made

    def until(self, done: Callable[[GuestReport], bool]) -> GuestReport:
        end = time.monotonic() + 20
        while not done(report := read_report(self.memory.ram.view)):
            assert time.monotonic() < end, report
            time.sleep(0.002)
        return report

    def close(self) -> None:
        for guest in self.guests:
            guest.close()
        self.wiring.close()
        self.memory.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def lines(printed: bytes) -> list[int]:
    *whole, _ = printed.split(b"\n")
    assert all(len(line) == 16 for line in whole)
    return [int(line, 16) for line in whole]


@pytest.mark.parametrize("cpus", [1, 2, 4])
def test_from_one_guest_to_the_next(rig: Rig, cpus: int) -> None:
    guest = rig.guest(cpus)
    guest.boot(QUICK)
    guest.resume()
    for _ in range(8):
        before = rig.until(lambda report: report.rounds >= 40 * cpus)
        guest.pause()
        parts = guest.save()
        seen = read_report(rig.memory.ram.view)
        time.sleep(0.01)
        assert read_report(rig.memory.ram.view) == seen  # it stands still
        guest.close()
        guest = rig.guest(cpus)
        guest.load(parts)
        guest.resume()
        rig.until(lambda report, base=seen.rounds: report.rounds > base + 20)  # type: ignore[misc]
        assert before.rounds <= seen.rounds
    guest.pause()
    report = guest.report()
    assert report.findings == ()
    assert report.kind == guest.kind == "soft"
    assert all(cpu.checks > 0 and cpu.timer > 0 for cpu in report.cpus)
    numbers = lines(bytes(rig.printed))
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) == report.cpus[0].lines > 3
    least, most = report.kicks
    assert least <= os.eventfd_read(rig.wiring.kick or 0) <= most


def test_interrupts_wait_while_it_stands_still(rig: Rig) -> None:
    guest = rig.guest(2)
    guest.boot(QUICK)
    assert rig.wiring.level is not None
    for count in range(1, 5):
        for fd in (*rig.wiring.devices, rig.wiring.level[0]):
            os.eventfd_write(fd, 1)
        guest.resume()
        rig.until(lambda report, count=count: report.interrupts == 3 * count)  # type: ignore[misc]
        guest.pause()
    first, second = read_report(rig.memory.ram.view).cpus
    # Device n tells vCPU n, the level line the first.
    assert (first.devices[:2], first.level) == ((4, 0), 4)
    assert (second.devices[:2], second.level) == ((0, 4), 0)
    # Told of each end, and once at each start.
    assert os.eventfd_read(rig.wiring.level[1]) == 4 + 4


def test_it_sees_its_own_pause(rig: Rig) -> None:
    guest = rig.guest()
    guest.boot(QUICK)
    guest.resume()
    number = forget_gaps(rig.memory.ram.view)
    rig.until(lambda report: report.cpus[0].forgot == number)
    guest.pause()
    time.sleep(0.3)
    guest.resume()
    report = rig.until(lambda report: report.gap_us >= 300_000)
    assert report.cpus[0].gap_round > 0
    guest.pause()


def test_an_idle_guest_takes_few_rounds(rig: Rig) -> None:
    guest = rig.guest()
    guest.boot(BootConfig(idle=True, timer_hz=100))
    guest.resume()
    rig.until(lambda report: report.cpus[0].timer >= 10)
    guest.pause()
    # A round for each nap of a millisecond, where a busy guest has fifty.
    assert guest.report().rounds < 400


def test_a_lost_register_shows(rig: Rig) -> None:
    guest = rig.guest()
    guest.boot(QUICK)
    parts = guest.save()
    data = bytearray(parts["cpu0/soft"])
    data[8] ^= 1  # the count
    data[7 * 8] ^= 1  # the first key
    guest.load({"cpu0/soft": bytes(data)})
    guest.resume()
    rig.until(lambda report: report.cpus[0].checks > 0)
    guest.pause()
    assert guest.report().findings == (
        "vCPU 0: xmm7, low half was lost",
        "vCPU 0: the count in r12 was lost",
    )


def test_lost_progress_shows(rig: Rig) -> None:
    """A state that is older than the memory: pages are stamped twice, or not at all."""
    guest = rig.guest()
    guest.boot(QUICK)
    old = guest.save()
    guest.resume()
    rig.until(lambda report: report.rounds > 100)
    guest.pause()
    guest.load(old)
    guest.resume()
    rig.until(lambda report: report.rounds > 200)
    guest.pause()
    report = guest.report()
    assert "vCPU 0: the count in r12 was lost" in report.findings
    assert any("expected round 1, found no stamp" in line for line in report.findings)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"cpu0/soft": b""}, "part cpu0/soft: expected 96 bytes, found 0"),
        ({"cpu1/soft": bytes(95)}, "part cpu1/soft: expected 96 bytes, found 95"),
        ({"cpu0/soft": b"\x0b" + bytes(95)}, "part cpu0/soft: there is no instruction 11"),
        ({"cpu0/soft": b"\xff" * 96}, "there is no instruction"),
        ({"cpu2/soft": bytes(96)}, "more CPUs than the 2 of this guest"),
        ({"cpu1/soft": None}, "the state has no part cpu1/soft"),
    ],
)
def test_states_that_make_no_sense(rig: Rig, change: dict[str, bytes | None], text: str) -> None:
    guest = rig.guest(2)
    guest.boot(QUICK)
    before = guest.save()
    parts = {name: data for name, data in (before | change).items() if data is not None}
    with pytest.raises(StateError, match=text):
        guest.load(parts)
    assert guest.save() == before


def test_a_cpu_that_runs_into_nothing_says_so(rig: Rig) -> None:
    guest = rig.guest()
    guest.boot(QUICK)
    data = bytearray(guest.save()["cpu0/soft"])
    data[16:24] = (1 << 40).to_bytes(8, "little")  # the next page
    guest.load({"cpu0/soft": bytes(data)})
    guest.resume()
    time.sleep(0.05)
    with pytest.raises(GuestError, match="the software CPUs stopped: "):
        guest.pause()
    assert not guest.running


def test_what_needs_it_to_run_or_to_stand(rig: Rig) -> None:
    guest = rig.guest()
    with pytest.raises(GuestError, match="no state yet"):
        guest.resume()
    with pytest.raises(GuestError, match="does not run"):
        guest.pause()
    guest.boot(QUICK)
    parts = guest.save()
    guest.resume()
    assert guest.running
    for act in (guest.save, guest.boot, guest.resume, lambda: guest.load(parts)):
        with pytest.raises(GuestError, match="the guest runs"):
            act()


def test_kinds(rig: Rig) -> None:
    with pytest.raises(HostError, match="no guest of kind 'tcg'"):
        make_guest("tcg", rig.memory, rig.wiring)
