"""A stream that we decoded and wrote again loads in the QEMU it came from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cprformats.encode import encode
from cprformats.migration import read_stream
from cprformats.source import FileSource
from qemus import VERSIONS
from vm import Vm

pytestmark = pytest.mark.live

#: Devices of several buses; the same on both sides, as QEMU wants it.
DEVICES = [
    *("-nodefaults", "-display", "none", "-m", "32", "-S"),
    *("-device", "VGA"),
    *("-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0"),
    *("-device", "virtio-rng-pci"),
    *("-device", "e1000"),
    *("-device", "nec-usb-xhci", "-device", "usb-tablet"),
    *("-device", "ich9-ahci"),
]
MACHINES = {"5.2": "pc-q35-5.2", "7.2": "pc-q35-7.2", "8.2": "pc-q35-8.2"}
#: Where the probe lies in guest memory, and its size in bytes.
PROBE_AT, PROBE = 0x100000, 4096


def arguments(version: str) -> list[str]:
    return ["-machine", f"{MACHINES.get(version, 'q35')},accel=tcg", *DEVICES]


def memory(vm: Vm) -> bytes:
    """Read the probe from a guest that stands still."""
    vm.qmp("pmemsave", {"val": PROBE_AT, "size": PROBE, "filename": f"{vm.name}.mem"})
    return (vm.folder / f"{vm.name}.mem").read_bytes()


def write_probe(vm: Vm) -> bytes:
    """Let the debugger's monitor write nothing: run the firmware until memory has contents."""
    vm.qmp("cont")
    for _ in vm.poll("query-status", 2):
        pass
    vm.qmp("stop")
    vm.qmp("pmemsave", {"val": 0xE0000, "size": 0x20000, "filename": f"{vm.name}.bios"})
    return (vm.folder / f"{vm.name}.bios").read_bytes()


def encoded_again(saved: Path, made: Path) -> None:
    with saved.open("rb") as file, made.open("wb") as out:
        stream = read_stream(FileSource(file))
        assert stream.error is None
        assert stream.tally().unknown == 0
        out.writelines(encode(stream.walk()))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_stream_written_by_us_loads(version: str, tmp_path: Path) -> None:
    saved, made = tmp_path / "saved", tmp_path / "made"
    with Vm(version, arguments(version), tmp_path, name="source") as source:
        bios = write_probe(source)
        registers = source.hmp("info registers")
        source.migrate("exec:cat > saved")
    encoded_again(saved, made)
    assert any(bios)
    incoming = [*arguments(version), "-incoming", "defer"]
    with Vm(version, incoming, tmp_path, name="target") as target:
        target.qmp("migrate-incoming", {"uri": "exec:cat made"})
        loaded = None
        for status in target.poll("query-status", 60):
            if status["status"] != "inmigrate":
                loaded = status["status"]
                break
        assert loaded in ("paused", "prelaunch", "postmigrate"), target.stderr()
        assert target.qmp("query-migrate").get("status") in (None, "completed")
        target.qmp("pmemsave", {"val": 0xE0000, "size": 0x20000, "filename": "target.bios"})
        assert (tmp_path / "target.bios").read_bytes() == bios
        assert _plain(target.hmp("info registers")) == _plain(registers)


def _plain(text: str) -> list[str]:
    """Registers without what the host counts."""
    return re.findall(r"\b(?:E|R)(?:AX|BX|CX|DX|SI|DI|BP|SP|IP)=\w+", text)
