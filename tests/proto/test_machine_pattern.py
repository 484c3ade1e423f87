"""The pattern over guest memory: what is whole passes, and every kind of loss shows."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable

import pytest

from cprproto.errors import GuestError
from cprproto.machine import layout as at
from cprproto.machine.boot import BootConfig, write_control
from cprproto.machine.pattern import body_of, check_of, share, verify
from cprproto.machine.ram import Memory
from cprproto.machine.report import check_guest, forget_gaps, read_report

FIRST = at.PATTERN // at.PAGE
SALT = 0xABCDEF
RAM = 2 << 20
PAGES = RAM // at.PAGE - FIRST


def make(cpus: int = 1, *, fill: bool = True, salt: int = SALT) -> bytearray:
    """Give memory as it is before the guest's first round."""
    memory = Memory.make(RAM)
    config = BootConfig(salt=salt, fill=fill)
    write_control(memory, cpus, config, kind="soft", tsc_khz=1_000_000)
    result = bytearray(memory.ram.view)
    memory.close()
    return result


def stamp(ram: bytearray, page: int, turn: int, salt: int = SALT) -> None:
    check = check_of(page, turn, salt)
    struct.pack_into("<QQQ", ram, page * 4096, page, turn, check)
    struct.pack_into("<Q", ram, page * 4096 + 4088, check)


def advance(ram: bytearray, count: int, number: int = 0, cpus: int = 1) -> None:
    """Do what a vCPU does in so many rounds."""
    first, end = share(len(ram), cpus, number)
    place = at.cpu_page(number) + at.CPU["stamps"]
    (done,) = struct.unpack_from("<Q", ram, place)
    for step in range(done, done + count):
        turn, position = divmod(step, end - first)
        stamp(ram, first + position, turn + 1)
    struct.pack_into("<Q", ram, place, done + count)


def findings(ram: bytearray, **more: bool) -> tuple[str, ...]:
    return verify(memoryview(ram), **more).findings


@pytest.mark.parametrize("fill", [False, True], ids=["zeros", "filled"])
@pytest.mark.parametrize("count", [0, 1, 100, PAGES, PAGES + 1, 3 * PAGES + 7])
def test_whole_memory(count: int, fill: bool) -> None:
    ram = make(fill=fill)
    advance(ram, count)
    verdict = verify(memoryview(ram))
    assert (verdict.pages, verdict.bad, verdict.findings) == (PAGES, 0, ())


def test_every_vcpu_has_its_share() -> None:
    ram = make(3)
    shares = [share(RAM, 3, number) for number in range(3)]
    assert shares[0][0] == FIRST
    assert [end for _, end in shares[:-1]] == [first for first, _ in shares[1:]]
    assert shares[-1][1] == RAM // at.PAGE
    for number in range(3):
        advance(ram, 50 * (number + 1), number, 3)
    assert findings(ram) == ()


def test_a_page_half_stamped_is_the_guests_own_doing() -> None:
    for words in range(5):
        ram = make()
        advance(ram, PAGES + 10)
        page = FIRST + 10
        fresh = bytearray(ram)
        stamp(fresh, page, 2)
        for place in (0, 8, 16, 4088)[:words]:
            start = page * 4096 + place
            ram[start : start + 8] = fresh[start : start + 8]
        assert findings(ram) == ()


def _lose(ram: bytearray) -> None:
    ram[(FIRST + 5) * 4096 : (FIRST + 6) * 4096] = bytes(4096)


def _double(ram: bytearray) -> None:
    other = ram[(FIRST + 6) * 4096 : (FIRST + 7) * 4096]
    ram[(FIRST + 5) * 4096 : (FIRST + 6) * 4096] = other


def _age(ram: bytearray) -> None:
    stamp(ram, FIRST + 5, 1)


def _other_vm(ram: bytearray) -> None:
    stamp(ram, FIRST + 5, 2, SALT + 1)


def _half(ram: bytearray) -> None:
    start = (FIRST + 5) * 4096
    stamp(ram, FIRST + 5, 1)
    struct.pack_into("<QQQ", ram, start, FIRST + 5, 2, check_of(FIRST + 5, 2, SALT))


def _body(ram: bytearray) -> None:
    ram[(FIRST + 5) * 4096 + 2000] ^= 1


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (_lose, "expected round 2, found no stamp"),
        (_double, f"expected round 2, found the stamp of page {FIRST + 6} in round 2"),
        (_age, f"expected round 2, found the stamp of page {FIRST + 5} in round 1"),
        (_other_vm, "in round 2 with a wrong check"),
        (_half, "expected round 2"),
        (_body, "bytes between stamp and end were changed"),
    ],
)
@pytest.mark.parametrize("running", [False, True])
def test_damage_shows(damage: Callable[[bytearray], None], text: str, running: bool) -> None:
    ram = make()
    advance(ram, PAGES + 20)
    damage(ram)
    (found,) = findings(ram, running=running)
    assert found.startswith(f"page {FIRST + 5}: ")
    assert text in found


def test_only_twenty_pages_are_named() -> None:
    ram = make()
    advance(ram, PAGES)
    ram[FIRST * 4096 :] = bytes(len(ram) - FIRST * 4096)
    verdict = verify(memoryview(ram))
    assert (verdict.bad, len(verdict.findings)) == (PAGES, 20)
    assert check_guest(memoryview(ram)).findings[20] == f"and {PAGES - 20} pages more"


def test_a_sample() -> None:
    ram = make()
    assert verify(memoryview(ram), every=8).pages == PAGES // 8


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("magic", 7, "no control page"),
        ("cpus", 0, "0 vCPUs"),
        ("cpus", 17, "17 vCPUs"),
        ("version", 2, "version 2, expected 1"),
        ("tsc_khz", 0, "no clock"),
    ],
)
def test_memory_of_something_else(name: str, value: int, text: str) -> None:
    ram = make()
    struct.pack_into("<Q", ram, at.CONTROL + at.GLOBAL[name], value)
    with pytest.raises(GuestError, match=text):
        check_guest(memoryview(ram))


@pytest.mark.parametrize(("first", "end"), [(0, 10), (FIRST, FIRST), (FIRST, 1 << 40)])
def test_a_share_that_can_not_be(first: int, end: int) -> None:
    ram = make()
    struct.pack_into("<QQ", ram, at.cpu_page(0) + at.CPU["first"], first, end)
    with pytest.raises(GuestError, match="vCPU 0 has no pages"):
        verify(memoryview(ram))


def test_too_little_memory() -> None:
    for function in (verify, read_report):
        with pytest.raises(GuestError):
            function(memoryview(bytes(100)))


def test_the_body_says_which_page_it_is() -> None:
    assert len({body_of(page, SALT) for page in range(50)}) == 50
    assert len(body_of(1, SALT)) == 4096 - 24 - 8


def test_a_report_of_faults() -> None:
    ram = make()
    page = at.cpu_page(0)
    struct.pack_into("<Q", ram, page + at.CPU["broken"], 0b100101)
    struct.pack_into("<QQ", ram, page + at.CPU["fault"], 14, 1)
    report = check_guest(memoryview(ram))
    assert report.findings == (
        "vCPU 0: xmm7, low half was lost",
        "vCPU 0: DR0 was lost",
        "vCPU 0: the count in r12 was lost",
        "vCPU 0: stopped by exception 14",
    )


def test_a_cut_block_shows() -> None:
    ram = make()
    struct.pack_into("<Q", ram, at.CONTROL + at.GLOBAL["ram"], RAM * 2)
    assert check_guest(memoryview(ram)).findings == (
        f"the guest was told of {RAM * 2} bytes of RAM, there are {RAM}",
    )


def test_gaps_are_forgotten_by_number() -> None:
    ram = make()
    assert [forget_gaps(memoryview(ram)) for _ in range(3)] == [1, 2, 3]


def test_lines_on_the_screen() -> None:
    ram, vga = make(), bytearray(at.VGA_BYTES)
    places = at.VGA_BYTES // 8
    struct.pack_into("<Q", ram, at.cpu_page(0) + at.CPU["lines"], 3)
    for line in (1, 2, 3):
        struct.pack_into("<Q", vga, line * 8, line)
    assert check_guest(memoryview(ram), vga=memoryview(vga)).findings == ()
    struct.pack_into("<Q", vga, 16, 2 + 2 * places)
    found = check_guest(memoryview(ram), vga=memoryview(vga)).findings
    assert found == (f"line 2 is not on the screen: found {2 + 2 * places}",)
    (told,) = check_guest(memoryview(ram), vga=memoryview(vga)[8:]).findings
    assert told.startswith("the guest was told of 1048576 bytes of VGA")


@pytest.mark.parametrize("seed", range(40))
def test_control_pages_of_noise(seed: int) -> None:
    """Any bytes give a report or say why not, in bounded time."""
    noise, ram = random.Random(seed), make(2)
    vga = memoryview(bytes(at.VGA_BYTES))
    for _ in range(12):
        place = noise.choice((at.CONTROL, at.cpu_page(0), at.cpu_page(1))) + noise.randrange(512)
        ram[place] = noise.randrange(256)
    findings: tuple[str, ...] = ("no guest",)
    with contextlib.suppress(GuestError):
        findings = check_guest(memoryview(ram), vga=vga, running=bool(seed % 2)).findings
    assert len(findings) < 200
