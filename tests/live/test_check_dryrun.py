"""The dry run with real QEMUs: what they load, what they refuse, and what it leaves behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import truth_table
from cprtools.check.attempt import Ending, attempt
from cprtools.check.cage import Cage, can_make_tap
from cprtools.check.dryrun import DryRun
from cprtools.check.dryrun_stream import Reduced
from cprtools.check.messages import blame, error_lines
from cprtools.check.model import Answer, Case, Target, Verdict
from cprtools.memory.opening import open_memory
from qemus import qemu_path
from vm import Vm

pytestmark = pytest.mark.live

TABLE = truth_table.load()
PAIRS = {pair.id: pair for pair in TABLE.pairs}
#: Same and other versions, machines, devices, sizes, capabilities, and streams that are damaged.
CHOSEN = (
    "10.0-auto-q35/10.0-eight-cpus",
    "10.0-auto-q35/11.1-two-cpus",
    "10.0-audio-i440fx/11.1-hda-is-ich9",
    "10.0-desk-q35/11.1-ram",
    "10.0-desk-q35/8.2-same",
    "10.0-gpu-q35/10.0-one-output",
    "10.0-mapped-q35/10.0-flip-header-version",
    "10.0-mapped-q35/11.1-cut-devices",
    "10.0-mapped-run-q35/10.0-less-ram",
    "10.0-mapped-run-q35/10.0-same",
    "10.0-mapped-run-q35/11.1-more-ram",
    "11.1-nvme-q35/11.1-queues",
    "5.2-compress-i440fx/5.2-same",
    "5.2-cirrus-i440fx/5.2-memory",
    "5.2-noconf-i440fx/11.1-q35",
    "5.2-poison-i440fx/7.2-same",
    "5.2-virtio-i440fx-5.2/5.2-net-one-queue",
    "7.2-bare-i440fx/7.2-multifd",
    "7.2-bare-i440fx/7.2-no-bridge-hotplug",
    "7.2-shared-q35/11.1-flip-address",
    "7.2-virtio-q35-7.2/10.0-flip-config-len",
    "7.2-virtio-q35-7.2/10.0-flip-subsection",
)
LOADED = sorted(pair.id for pair in TABLE.pairs if pair.verdict == "loaded")[::25]
Q35 = "-machine pc-q35-7.2,accel=tcg -m 64 -nodefaults -display none -vga none"
DISK = "driver=null-co,node-name=d0,size=1048576,read-zeroes=on"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No run leaves a file in the temporary folder, or a QEMU."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []
    assert running(folder) == []


def running(folder: Path) -> list[str]:
    """Processes whose temporary folder lies in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if f"TMPDIR={folder}".encode() in environment:
                found.append(entry.name)
    return found


def dry_run(state: Path, version: str, line: str, **capabilities: str) -> Answer:
    target = Target(
        qemu_path(version, "x86_64"), arguments=tuple(line.split()), capabilities=capabilities
    )
    return DryRun(40).answer(Case(state, target))


def codes(answer: Answer) -> list[str]:
    return [one.code for one in answer.findings]


# -- pairs whose truth is known ---------------------------------------------------------


@pytest.mark.parametrize("name", [*CHOSEN, *LOADED])
def test_it_says_what_the_real_load_did(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = PAIRS[name]
    state = TABLE.state(pair, tmp_path)
    monkeypatch.chdir(tmp_path)
    target = Target(
        qemu_path(pair.version, "x86_64"),
        arguments=tuple(pair.words(tmp_path)),
        machine=pair.machine,
        capabilities=pair.capabilities,
    )
    answer = DryRun(40).answer(Case(state, target))
    expected = Verdict.LOADS if pair.verdict == "loaded" else Verdict.FAILS
    assert answer.verdict is expected, answer
    if pair.verdict != "loaded":
        assert answer.findings[0].section == pair.section


# -- rings ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VM whose firmware reads a virtio disk: its ring has been used."""
    folder = tmp_path_factory.mktemp("booted")
    line = f"{Q35} -blockdev {DISK} -device virtio-blk-pci,drive=d0,bootindex=1".split()
    with Vm("7.2", [*line, "-S"], folder) as vm:
        vm.qmp("cont")
        for _ in vm.poll("query-status", 60):
            seen = vm.qmp("query-blockstats")
            if any(one["stats"]["rd_operations"] for one in seen):
                break
        vm.qmp("stop")
        vm.migrate("exec:cat > vm.sav")
    return folder / "vm.sav"


@pytest.mark.parametrize("version", ["7.2", "8.2", "10.0", "11.1"])
def test_rings_that_were_used(booted: Path, version: str) -> None:
    disk = "-drive file=/nowhere/disk.qcow2,if=none,id=x -device virtio-blk-pci,drive=x,bootindex=1"
    answer = dry_run(booted, version, f"{Q35} {disk}")
    assert answer.verdict is Verdict.LOADS, answer
    assert codes(answer) == ["stand-in"]


def test_without_their_pages_they_would_not_load(booted: Path) -> None:
    line = f"{Q35} -blockdev {DISK} -device virtio-blk-pci,drive=d0,bootindex=1".split()
    program = str(qemu_path("7.2", "x86_64"))
    words = [program, *line, "-S", "-incoming", "defer"]
    with Cage() as cage, open_memory(booted) as memory:
        outcome = attempt(cage, words, Reduced(memory, {}), {}, 40)
    assert outcome.ending is Ending.GONE
    first = next(blame(error_lines(outcome.text)))
    assert first.code in ("virtio-queues", "device-refused")


def test_memory_of_half_a_tebibyte(booted: Path, tmp_path: Path) -> None:
    """The size is that of the state, edited; nothing of it is ever allocated."""
    with open_memory(booted) as memory:
        blocks = memory.stream.ram.blocks
        total = sum(block.used_length for block in blocks.values())
    data, size = booted.read_bytes(), 512 << 30
    name = b"\x06pc.ram"
    for before, after in (
        ((total | 4).to_bytes(8), (total - (64 << 20) + size | 4).to_bytes(8)),
        (name + (64 << 20).to_bytes(8), name + size.to_bytes(8)),
    ):
        assert data.count(before) == 1
        data = data.replace(before, after)
    state = tmp_path / "large.sav"
    state.write_bytes(data)
    line = f"{Q35} -m 512G -blockdev {DISK} -device virtio-blk-pci,drive=d0,bootindex=1"
    answer = dry_run(state, "10.0", line)
    assert answer.verdict is Verdict.LOADS, answer


# -- what is behind the VM --------------------------------------------------------------


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wired")
    line = f"{Q35} -netdev user,id=n0 -device virtio-net-pci,netdev=n0 -serial null"
    with Vm("7.2", [*line.split(), "-S"], folder) as vm:
        vm.migrate("exec:cat > vm.sav")
    return folder / "vm.sav"


def test_a_network_of_the_host_is_not_touched(wired: Path) -> None:
    """The stream has the state of `user`, which a TAP does not take."""
    line = f"{Q35} -netdev tap,id=n0,ifname=nowhere0 -device virtio-net-pci,netdev=n0 -serial null"
    answer = dry_run(wired, "10.0", line)
    assert answer.verdict is Verdict.FAILS
    assert answer.findings[0].section == "slirp"
    assert can_make_tap() != any("no TAP" in one.message for one in answer.findings)


def test_sockets_of_others_are_not_touched(wired: Path, tmp_path: Path) -> None:
    left = tmp_path / "serial.sock"
    line = (
        f"{Q35} -netdev user,id=n0,hostfwd=tcp::1-:22 -device virtio-net-pci,netdev=n0 "
        f"-serial unix:{left},server=on,wait=on -qmp unix:{left}.qmp,server=on -vnc :99 "
        f"-daemonize -pidfile {tmp_path}/pid -D {tmp_path}/log"
    )
    before = sorted(tmp_path.iterdir())
    assert dry_run(wired, "10.0", line).verdict is Verdict.LOADS
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_left_out_is_said(wired: Path) -> None:
    line = (
        f"{Q35} -netdev user,id=n0 -device virtio-net-pci,netdev=n0 -serial null "
        "-device vfio-pci,host=0000:77:00.0"
    )
    answer = dry_run(wired, "10.0", line)
    assert answer.verdict is Verdict.UNDECIDED
    assert "vfio-pci" in answer.open[0]


def test_a_device_that_is_missing(wired: Path) -> None:
    answer = dry_run(wired, "11.1", f"{Q35} -serial null")
    assert answer.verdict is Verdict.FAILS
    first = answer.findings[0]
    assert (first.code, first.severity) == ("ram-block-unknown", "error")
    assert first.section.endswith("/virtio-net-pci.rom")


def test_a_device_that_there_is_not(wired: Path) -> None:
    answer = dry_run(wired, "11.1", f"{Q35} -device no-such-device")
    assert (answer.verdict, codes(answer)) == (Verdict.FAILS, ["target-arguments"])
    assert "no-such-device" in answer.findings[0].qemu_says


def test_a_capability_that_the_version_lacks(wired: Path) -> None:
    answer = dry_run(wired, "7.2", Q35, **{"mapped-ram": "on"})
    assert (answer.verdict, codes(answer)) == (Verdict.FAILS, ["capability-refused"])


def test_a_real_target_that_is_too_slow(wired: Path) -> None:
    target = Target(qemu_path("10.0", "x86_64"), arguments=tuple(Q35.split()))
    answer = DryRun(0.001).answer(Case(wired, target))
    assert (answer.verdict, codes(answer)) == (Verdict.UNDECIDED, ["target-hangs"])
