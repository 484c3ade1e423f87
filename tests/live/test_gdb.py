"""The core that ``cprtools ram --elf`` makes of a saved VM: gdb shows in it what QEMU showed."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest
from ramlab import RAM_BYTES, Encoding
from ramlab import take as take_from_running_guest
from saved import load_segments, notes_of, save, stopped, take_out

import guest
from vm import Vm

pytestmark = pytest.mark.live

#: What the firmware leaves: interrupt vectors, its data, its code, reset vector; RAM.
PLACES = (0, 0x400, 0x7C00, 0x9FC00, 0xE0000, 0xF0000, 0xFFFF0, 0x100000, 0x3FF0000)
#: movz x1, #0x1234; movz x2, #0x4030, lsl #16; movk x2, #0x1000; mov sp, x2;
#: stp x1, x2, [sp, #-16]!; movn x3, #0; b .
AARCH64_CODE = (
    *(0xD2824681, 0xD2A80602, 0xF2820002, 0x9100005F, 0xA9BF0BE1, 0x92800003),
    0x14000000,
)
AARCH64_AT = 0x40200000


def gdb(name: str = "gdb") -> str:
    found = shutil.which(name)
    assert found is not None, f"{name} is missing: apt install gdb gdb-multiarch"
    return found


def ask(program: str, core: Path, *commands: str) -> str:
    """Run gdb on a core file; it must not complain."""
    words = [word for command in commands for word in ("-ex", command)]
    run = subprocess.run(
        [program, "-nx", "-batch", *words, "-c", str(core)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "rror" not in run.stderr, run.stderr
    assert "warning" not in run.stderr, run.stderr
    return run.stdout


def gdb_registers(program: str, core: Path, thread: int) -> dict[str, int]:
    text = ask(program, core, f"thread {thread}", "info registers")
    pairs = re.findall(r"^(\w+) +(0x[0-9a-f]+) ", text, re.MULTILINE)
    return {name: int(value, 16) for name, value in pairs}


def gdb_bytes(program: str, core: Path, address: int, count: int = 16) -> bytes:
    text = ask(program, core, f"x/{count}xb {address:#x}")
    lines = [line for line in text.splitlines() if line.startswith("0x")]
    return bytes.fromhex("".join(word[2:] for line in lines for word in line.split()[1:]))


def qemu_registers(vm: Vm) -> list[dict[str, int]]:
    """Registers of each x86 CPU by gdb's names, out of the monitor's text."""
    result = []
    for text in vm.hmp("info registers -a").replace("\r", "").split("CPU#")[1:]:
        found = [
            *re.findall(r"\b[ER]([ABCD]X|[SD]I|[BSI]P)=([0-9a-f]+)", text),
            *re.findall(r"\bR(\d+) *=([0-9a-f]+)", text),
        ]
        registers = {f"r{name.lower()}": int(value, 16) for name, value in found}
        for name, value in re.findall(r"\b([ER]FL|[CDEFGS]S) *=([0-9a-f]+)", text):
            registers["eflags" if "FL" in name else name.lower()] = int(value, 16)
        result.append(registers)
    return result


def same_registers(vm: Vm, program: str, core: Path) -> None:
    for number, wanted in enumerate(qemu_registers(vm), 1):
        shown = gdb_registers(program, core, number)
        assert len(wanted) >= 9 + 1 + 6
        assert {name: shown[name] for name in wanted} == wanted


@pytest.mark.parametrize("mapped", [False, True], ids=["records", "mapped-ram"])
@pytest.mark.parametrize("machine", ["pc", "q35"])
@pytest.mark.parametrize("version", ["10.0", "11.1"])
def test_firmware(version: str, machine: str, mapped: bool, tmp_path: Path) -> None:
    program, core = gdb(), tmp_path / "core"
    line = ["-machine", f"{machine},accel=tcg", "-m", "64", "-smp", "2"]
    with stopped(version, line, tmp_path, seconds=1.5) as vm:
        vm.qmp("pmemsave", {"val": 0, "size": 64 << 20, "filename": "memory"})
        vm.qmp("pmemsave", {"val": 0xFFFF0000, "size": 0x10000, "filename": "top"})
        found = take_out(save(vm, mapped=mapped), "--elf", core)
        assert found["notes"][-1] == "registers of 2 CPUs"
        same_registers(vm, program, core)
    memory, top = (tmp_path / "memory").read_bytes(), (tmp_path / "top").read_bytes()
    for address in PLACES:
        assert gdb_bytes(program, core, address) == memory[address : address + 16]
    assert gdb_bytes(program, core, 0xFFFFFFF0) == top[-16:]
    assert any(memory[0xF0000:0x100000])


def test_aarch64(tmp_path: Path) -> None:
    program, core = gdb("gdb-multiarch"), tmp_path / "core"
    (tmp_path / "code.bin").write_bytes(struct.pack(f"<{len(AARCH64_CODE)}I", *AARCH64_CODE))
    line = ["-machine", "virt,accel=tcg", "-cpu", "cortex-a57", "-m", "64"]
    line += ["-device", f"loader,file=code.bin,addr={AARCH64_AT:#x},cpu-num=0"]
    with stopped("10.0", line, tmp_path, seconds=0.5, target="aarch64") as vm:
        text = vm.hmp("info registers")
        vm.qmp("pmemsave", {"val": 1 << 30, "size": 64 << 20, "filename": "memory"})
        take_out(save(vm), "--elf", core)
    wanted = {
        re.sub("^x0", "x", name.lower()): int(value, 16)
        for name, value in re.findall(r"\b(X\d\d|PC|SP|PSTATE)=([0-9a-f]+)", text)
    }
    wanted["cpsr"] = wanted.pop("pstate")
    assert wanted["x1"] == 0x1234
    assert wanted["sp"] == 0x40300FF0
    shown = gdb_registers(program, core, 1)
    assert {name: shown[name] for name in wanted} == wanted
    memory = (tmp_path / "memory").read_bytes()
    for address in (1 << 30, AARCH64_AT, wanted["sp"]):
        at = address - (1 << 30)
        assert gdb_bytes(program, core, address) == memory[at : at + 16]
    assert gdb_bytes(program, core, wanted["sp"], 8) == struct.pack("<Q", 0x1234)


@pytest.mark.parametrize(
    "encoding",
    [
        Encoding("xbzrle", (), ("xbzrle",), running=True),
        Encoding(
            "multifd-zlib",
            (),
            ("multifd",),
            (("multifd-compression", "zlib"), ("multifd-channels", 2)),
            way="pair",
        ),
    ],
    ids=lambda encoding: encoding.name,
)
def test_memory_that_came_encoded(encoding: Encoding, tmp_path: Path) -> None:
    program, core = gdb(), tmp_path / "core"
    capture = take_from_running_guest("10.0", encoding, tmp_path)
    channels = [word for channel in capture.channels for word in ("--channel", channel)]
    take_out(capture.stream, "--elf", core, *channels)
    memory = capture.blocks[encoding.block]
    for address in (0, 0x10000, 0x10400, 0x3F400, 0x60000, 0x100000, RAM_BYTES - 4096):
        assert gdb_bytes(program, core, address, 64) == memory[address : address + 64]


@pytest.mark.slow
def test_linux_in_long_mode(tmp_path: Path) -> None:
    """Two 64-bit CPUs: gdb's registers, QEMU's own notes, and the kernel's VMCOREINFO."""
    program, core = gdb(), tmp_path / "core"
    line = ["-machine", "q35,accel=tcg", "-cpu", "max", "-m", "192", "-smp", "2"]
    line += ["-kernel", str(guest.kernel()), "-initrd", str(guest.initramfs())]
    line += ["-append", f"{guest.CONSOLE} guest=idle", "-serial", "file:console"]
    with stopped("10.0", line, tmp_path, seconds=0) as vm:
        vm.qmp("cont")
        until_ready(tmp_path / "console")
        vm.qmp("stop")
        vm.qmp("dump-guest-memory", {"paging": False, "protocol": "file:qemus.core"})
        document = take_out(save(vm), "--elf", core)
        same_registers(vm, program, core)
    ours, qemus = notes_of(core), notes_of(tmp_path / "qemus.core")
    assert [note for note in ours if note[0] not in ("VMCOREINFO", "CPRTOOLS")] == qemus
    assert [note[:2] for note in ours] == [
        *[("CORE", 1)] * 2,
        *[("QEMU", 0)] * 2,
        ("VMCOREINFO", 0),
        ("CPRTOOLS", 0),
    ]
    assert b"\nNUMBER(phys_base)=" in ours[4][2]
    assert "Linux's VMCOREINFO note is in the core" in document["notes"]
    assert len(load_segments(core)) == len(document["ranges"])


def until_ready(console: Path, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while guest.READY.encode() not in console.read_bytes():
        assert time.monotonic() < deadline, console.read_bytes()[-500:]
        time.sleep(0.2)
