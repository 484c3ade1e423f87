"""Both plays with a stock QEMU, and docs/stock-cpr.md held to what QEMU really does.

We play the old QEMU: memory with known contents, a CPR state and a stream are handed to QEMU
11.1 by exec, and to 10.0 and 11.1 over the cpr channel, right and with each fault. We play the
new one: a Python program that QEMU 11.1 execs as its successor.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import vm as vms
from cprformats.fields import Kind
from cprformats.migration import read_stream
from cprformats.source import BytesSource
from cprproto.errors import StockError
from cprproto.fds.evidence import open_numbers
from cprproto.stock.faults import BLOCK, FAULTS, OUR_SEED
from cprproto.stock.memory import contents
from cprproto.stock.old import RAM_BYTES, Outcome, machine_words, play_old
from qemus import qemu_path

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "stock-cpr.md"
ROW = r"^\| `([a-z-]+)` \| [^|]* \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$"
WAYS = (("exec", "11.1"), ("transfer", "11.1"), ("transfer", "10.0"))


def play(way: str, version: str, fault: str, folder: Path) -> Outcome:
    vfio = version != "10.0"
    return play_old(qemu_path(version), folder, way=way, fault=fault, vfio=vfio)


# -- the table ---------------------------------------------------------------------


def rows() -> dict[str, list[str]]:
    """The table of the page: fault -> what each of WAYS does."""
    text = PAGE.read_text()
    found = re.findall(ROW, text, re.MULTILINE)
    return {name: [cell.strip() for cell in cells] for name, *cells in found}


CELLS = [
    (fault, way, version, said)
    for fault, cells in rows().items()
    for (way, version), said in zip(WAYS, cells, strict=True)
    if said != "-"
]


def words(outcome: Outcome) -> str:
    """An outcome as the table says it."""
    if outcome.end == "runs":
        held = ", keeps our descriptor open" if outcome.holds else ""
        return {
            "ours": "runs, our RAM",
            "empty": "**runs, empty RAM**",
            "other": "runs, other RAM",
        }[outcome.ram] + held
    return outcome.end if outcome.end == "refuses" else f"{outcome.end} {outcome.code}"


def test_the_table_has_every_fault() -> None:
    assert rows().keys() == FAULTS.keys()
    for name, fault in FAULTS.items():
        ways = {way for _, way, _, _ in [cell for cell in CELLS if cell[0] == name]}
        assert ways == set(fault.ways)


@pytest.mark.parametrize(("fault", "way", "version", "said"), CELLS)
def test_row(fault: str, way: str, version: str, said: str, tmp_path: Path) -> None:
    before = open_numbers()
    outcome = play(way, version, fault, tmp_path)
    assert words(outcome) == said, outcome
    assert open_numbers() == before


SAYS = {
    "missing": "",
    "wrong-name": "",
    "eventfd": "unable to map backing store for guest RAM: No such device",
    "socket": "unable to map backing store for guest RAM: No such device",
    "pipe": "unable to map backing store for guest RAM: Permission denied",
    "read-only": "unable to map backing store for guest RAM: Permission denied",
    "sealed": "unable to map backing store for guest RAM: Operation not permitted",
    "cloexec-low": "unable to map backing store for guest RAM: No such device",
    "cloexec-high": "Assertion",
}


@pytest.mark.parametrize("fault", SAYS)
def test_what_it_says(fault: str, tmp_path: Path) -> None:
    said = play("exec", "11.1", fault, tmp_path).said
    assert SAYS[fault] in said
    assert bool(SAYS[fault]) == bool(said)


def test_what_is_said_over_a_channel(tmp_path: Path) -> None:
    lost, listed = tmp_path / "lost", tmp_path / "listed"
    lost.mkdir()
    listed.mkdir()
    assert "no FD come with service byte" in play("transfer", "11.1", "fd-lost", lost).said
    assert "vmstate_load_state error -2" in play("transfer", "10.0", "vfio-list", listed).said


@pytest.mark.parametrize("machine", ["microvm", "pc-i440fx-11.1", "pc-q35-11.1"])
def test_no_device_section_is_mandatory(machine: str, tmp_path: Path) -> None:
    """A whole PC takes a stream without a single device for its own, and keeps our RAM."""
    outcome = play_old(qemu_path("11.1"), tmp_path, way="exec", machine=machine)
    assert (outcome.end, outcome.ram) == ("waits", "ours"), outcome


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StockError, match="no-such-qemu"):
        play_old(tmp_path / "no-such-qemu", tmp_path, way="exec")


def test_a_program_that_is_no_qemu(tmp_path: Path) -> None:
    outcome = play_old(Path("/bin/false"), tmp_path, way="exec")
    assert (outcome.end, outcome.code) == ("exits", 1)


# -- we play the new QEMU -------------------------------------------------------------


def successor(*words: str) -> list[str]:
    """A command that runs our side of the play, whatever the environment has."""
    path = f"{ROOT / 'proto'}:{ROOT / 'formats'}"
    python = ["/usr/bin/env", f"PYTHONPATH={path}", sys.executable, "-m", "cprproto.stock.new"]
    return [*python, "--report", "report.json", *words]


def find_memory(pid: int) -> Path:
    """The descriptor of guest RAM in a QEMU."""
    for path in Path(f"/proc/{pid}/fd").iterdir():
        if str(path.readlink()) == "/memfd:memory-backend-memfd (deleted)":
            return path
    raise AssertionError("no memfd")


def fill(pid: int) -> None:
    """Write our contents into a guest's RAM, from outside."""
    with find_memory(pid).open("r+b") as memory:
        for piece in contents(OUR_SEED, RAM_BYTES):
            memory.write(piece)


def digest() -> str:
    whole = hashlib.sha256()
    for piece in contents(OUR_SEED, RAM_BYTES):
        whole.update(piece)
    return whole.hexdigest()


def update(vm: vms.Vm, command: Sequence[str]) -> None:
    """Have a QEMU exec its successor."""
    parameters = {"mode": "cpr-exec", "cpr-exec-command": list(command)}
    vm.qmp("migrate-set-parameters", parameters)
    vm.qmp("migrate", {"uri": "file:stream.sav"})


def adopted(
    folder: Path, machine: Sequence[str], wants: Sequence[dict[str, Any]]
) -> tuple[int, Any]:
    """Run a QEMU up to its successor; give that one's exit code and its report."""
    (folder / "wants.json").write_text(json.dumps(wants))
    with vms.Vm("11.1", machine, folder) as vm:
        fill(vm.process.pid)
        update(vm, successor("--wants", "wants.json", "--stream", "stream.sav"))
        code = vm.process.wait(60)
    assert not (folder / "report.error").exists(), (folder / "report.error").read_text()
    return code, json.loads((folder / "report.json").read_text())


RAM = {"name": BLOCK, "kind": "ram", "size": RAM_BYTES}


def test_we_take_over_from_qemu(tmp_path: Path) -> None:
    wants = [{**RAM, "sha256": digest()}]
    code, report = adopted(tmp_path, machine_words(RAM_BYTES), wants)
    assert code == 0, report
    assert report["is_whole"]
    assert report["has_vfio"]
    assert report["not_handed_over"] == []
    (ram,) = report["descriptors"]
    assert (ram["name"], ram["id"], ram["looks"], ram["size"]) == (BLOCK, 0, "memfd", RAM_BYTES)
    assert ram["sha256"] == digest()
    assert ram["findings"] == []


def test_it_says_what_qemu_did_not_hand_over(tmp_path: Path) -> None:
    """Without aux-ram-share the firmware and the tables have no descriptor, nor has a socket."""
    machine = [
        "-machine",
        f"pc,accel=tcg,memory-backend={BLOCK}",
        *machine_words(RAM_BYTES)[2:],
        "-S",
    ]
    chardev = ["-chardev", "socket,id=c0,path=c0.sock,server=on,wait=off", "-serial", "chardev:c0"]
    wants = [RAM, {"name": "c0", "kind": "listening-socket"}, {**RAM, "id": 1}]
    code, report = adopted(tmp_path, [*machine, *chardev], wants)
    assert code == 1
    assert not report["is_whole"]
    assert [x["name"] for x in report["descriptors"]] == [BLOCK]
    lacks = "\n".join(report["not_handed_over"])
    assert "c0 id 0 (listening-socket) is not in the state" in lacks
    assert f"{BLOCK} id 1 (ram) is not in the state" in lacks
    for name, size in (("pc.bios", 262144), ("pc.rom", 131072), ("/rom@etc/acpi/tables", 131072)):
        assert f"RAM block {name} of {size} bytes: no descriptor" in lacks
    stream = read_stream(BytesSource((tmp_path / "stream.sav").read_bytes()))
    assert stream.ram.tally.by_kind.get(Kind.PAGE, 0) == 0  # and no contents here either


def test_it_says_that_the_contents_are_others(tmp_path: Path) -> None:
    wants = [{**RAM, "kind": "irq", "size": 1, "sha256": "0" * 64}]
    code, report = adopted(tmp_path, machine_words(RAM_BYTES), wants)
    assert code == 1
    findings = report["descriptors"][0]["findings"]
    assert findings[0] == "should be irq, and is memfd"
    assert findings[1] == f"should have 1 bytes, and has {RAM_BYTES}"
    assert findings[2] == "the contents are not those that were wanted"


@pytest.mark.parametrize("machine", ["none", "microvm", "pc"])
def test_we_stand_between_two_qemus(machine: str, tmp_path: Path) -> None:
    """QEMU execs us, we adopt and exec the next QEMU: its guest goes on with its memory."""
    guest = [
        *machine_words(RAM_BYTES, f"{machine},accel=tcg" if machine != "none" else machine),
        "-S",
    ]
    program = str(qemu_path("11.1"))
    monitor = ["-qmp", "unix:next.qmp,server=on,wait=off"]
    next_qemu = [program, *guest, *monitor, "-incoming", "file:stream.sav"]
    with vms.Vm("11.1", guest, tmp_path) as old:
        fill(old.process.pid)
        pid = old.process.pid
        update(old, successor("--stream", "stream.sav", "--then", *next_qemu))
        old.name = "next"
        deadline = time.monotonic() + 30
        while not (tmp_path / "next.qmp").exists():
            assert old.process.poll() is None, old.stderr()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        old._buffer = b""
        old._socket.close()
        old._socket = old._connect(tmp_path / "next.qmp")
        old._message(20)
        old.qmp("qmp_capabilities")
        for answer in old.poll("query-status", 20):
            if answer["status"] != "inmigrate":
                break
        assert answer["status"] in {"prelaunch", "paused"}
        old.qmp("pmemsave", {"val": 0, "size": RAM_BYTES, "filename": "ram.bin"})
        assert old.process.pid == pid
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["is_whole"], report
    ram = (tmp_path / "ram.bin").read_bytes()
    at_0x100000 = b"".join(contents(OUR_SEED, RAM_BYTES))[1 << 20 : 8 << 20]
    assert ram[1 << 20 : 8 << 20] == at_0x100000
