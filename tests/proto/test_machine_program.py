"""The guest's program and its machine agree on every place; the hand-off's modules stay light."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import cprproto
from cprproto.errors import GuestError
from cprproto.machine import layout as at
from cprproto.machine.boot import BootConfig, keys_of, write_control, write_program
from cprproto.machine.code import CODE, PLACES
from cprproto.machine.ram import Memory
from cprproto.machine.wiring import Wiring

PACKAGE = Path(cprproto.__file__).parent
LISTING = (PACKAGE / "machine" / "listing.s").read_text()
DOCS = (PACKAGE.parents[1] / "docs" / "guest.md").read_text()
#: Imports that would cost milliseconds of the pause of an exec'd program.
HEAVY = {"collections", "ctypes", "dataclasses", "enum", "pathlib", "re", "signal", "socket"}
HEAVY |= {"functools", "contextlib", "threading", "typing", "json", "subprocess", "importlib"}


def names(prefix: str) -> dict[str, int]:
    found = re.findall(rf"\.set {prefix}(\w+), (0x[0-9a-f]+)", LISTING)
    return {name.lower(): int(value, 16) for name, value in found}


@pytest.mark.parametrize(("prefix", "table"), [("G_", at.GLOBAL), ("C_", at.CPU)])
def test_offsets_of_the_listing(prefix: str, table: dict[str, int]) -> None:
    listed = names(prefix)
    assert len(listed) > 10
    assert listed == {name: table[name] for name in listed}


def test_numbers_of_the_listing() -> None:
    for text in ("SERIAL_PORT, 0x3f8", "FAULT_PORT, 0xf4", "LINE_CHARS, 17", "FCW, 0x27f"):
        assert f".set {text}" in LISTING
    assert (at.SERIAL_PORT, at.FAULT_PORT, at.LINE_CHARS, at.FCW) == (0x3F8, 0xF4, 17, 0x27F)
    assert f"movl $0x200{at.VECTORS['timer']:x}, 0x320(%r11)" in LISTING
    assert f"cmp ${at.REDIRECTIONS}, %ecx" in LISTING
    assert f".rept {at.DEVICES}\n" in LISTING


@pytest.mark.parametrize(
    ("title", "table"), [("control page", at.GLOBAL), ("vCPU page", at.CPU)], ids=["G", "C"]
)
def test_offsets_of_the_documentation(title: str, table: dict[str, int]) -> None:
    section = DOCS.split(f"### The {title}")[1].split("\n#")[0]
    rows = re.findall(r"^\| `(\w+)` +\| `(0x[0-9a-f]+)` ", section, re.MULTILINE)
    assert {name: int(value, 16) for name, value in rows} == table


def test_places_of_handlers() -> None:
    """Each handler begins where the machine points the interrupt at."""
    for number in range(32):
        start = PLACES["faults"] + 16 * number
        assert CODE[start : start + 5] == b"\xb8" + struct.pack("<I", number)
    for device in range(at.DEVICES):
        start = PLACES["irq_device"] + 32 * device
        wanted = b"\x48\xff\x83" + struct.pack("<I", at.CPU["irq_device"] + 8 * device)
        assert CODE[start : start + 7] == wanted
    for name in ("timer", "pit", "level", "spurious"):
        start = PLACES["irq_" + name]
        wanted = b"\x48\xff\x83" + struct.pack("<I", at.CPU["irq_" + name])
        assert CODE[start : start + 7] == wanted


def test_regions_do_not_overlap() -> None:
    tables = at.TABLES + at.PAGE * (3 + 4 + (at.MOST_RAM >> 30))
    regions = [
        (at.DESCRIPTORS, at.DESCRIPTORS + at.PAGE),
        (at.INTERRUPTS, at.INTERRUPTS + at.PAGE),
        (at.CONTROL, at.CONTROL + at.PAGE),
        (at.CPU_PAGES, at.cpu_page(at.MOST_CPUS)),
        (at.STACKS, at.STACKS + at.MOST_CPUS * at.PAGE),
        (at.TABLES, tables),
        (at.PATTERN, at.LOW_RAM_LIMIT),
        (at.VGA, at.VGA + at.VGA_BYTES),
        (at.DOORBELL, at.DOORBELL + 4),
        (at.ROM, at.ROM + at.ROM_BYTES),
        (at.HIGH_RAM, at.HIGH_RAM + at.MOST_RAM),
    ]
    for (_, end), (start, _) in pairwise(regions):
        assert end <= start
    assert max(at.GLOBAL.values()) + 8 * at.REDIRECTIONS <= at.PAGE
    for table in (at.GLOBAL, at.CPU):
        places = sorted(table.values())
        assert all(b - a >= 8 for a, b in pairwise(places))


def test_page_tables_show_all_ram_in_one_piece() -> None:
    memory = Memory.make(5 << 30)
    write_program(memory)
    ram = memory.ram.view

    def physical(linear: int) -> int:
        table = at.TABLES
        for shift in (39, 30):
            (entry,) = at.WORD.unpack_from(ram, table + (linear >> shift & 511) * 8)
            assert entry & 3 == 3
            table = entry & ~0xFFF
        (entry,) = at.WORD.unpack_from(ram, table + (linear >> 21 & 511) * 8)
        assert entry & 0x83 == 0x83
        return int(entry & ~0x1FFFFF) + (linear & 0x1FFFFF)

    for address in (0, 0x12345, 2 << 30, at.ROM, at.DOORBELL, at.VGA):
        assert physical(address) == address
    for offset, where in ((0, 0), (3 << 30, 4 << 30), ((5 << 30) - 1, (6 << 30) - 1)):
        assert physical(at.RAM_WINDOW + offset) == where
    memory.close()


def test_no_two_vcpus_have_the_same_keys() -> None:
    keys = [keys_of(5, number) for number in range(at.MOST_CPUS)]
    for name in keys[0]:
        assert len({key[name] for key in keys}) == at.MOST_CPUS
    # A non-canonical KERNEL_GS_BASE would be refused.
    assert all(key["key_gs"] < 1 << 47 for key in keys)


@pytest.mark.parametrize(
    ("cpus", "config", "text"),
    [
        (0, BootConfig(), "0 vCPUs"),
        (17, BootConfig(), "17 vCPUs"),
        (1, BootConfig(devices=8), "8 devices"),
        (1, BootConfig(kick_every=3), "3 is no power of two"),
        (1, BootConfig(line_every=-4), "-4 is no power of two"),
    ],
)
def test_what_no_guest_is_told(cpus: int, config: BootConfig, text: str) -> None:
    memory = Memory.make(2 << 20)
    with pytest.raises(GuestError, match=text):
        write_control(memory, cpus, config, kind="soft", tsc_khz=1)
    memory.close()


def test_wiring_has_limits() -> None:
    with pytest.raises(ValueError, match="8 devices"):
        Wiring.make(8)
    wiring = Wiring.make(2, level=False)
    assert len(wiring.fds) == len(set(wiring.fds)) == 3
    wiring.close()
    assert wiring.fds == ()


def test_the_hand_off_imports_little() -> None:
    """What an exec'd program imports before its guest runs."""
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "import cprproto.machine.kvmguest, cprproto.machine.ram, cprproto.machine.wiring\n"
        "print(*sys.modules)"
    )
    paths = [str(PACKAGE.parent), str(PACKAGE.parents[1] / "formats")]
    command = [sys.executable, "-S", "-E", "-c", program, *paths]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert "cprproto.kvm.state" in loaded
    assert HEAVY.isdisjoint(loaded)
    assert not {name for name in loaded if name.startswith("cprformats")}
