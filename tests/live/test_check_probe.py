"""The probe with real QEMUs: what it says of pairs whose outcome is known, and what it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import truth_table
from cprtools.check.cage import Cage
from cprtools.check.model import Answer, Case, Severity, Target, Verdict
from cprtools.check.probe import Probe
from cprtools.check.probe_run import ask
from qemus import qemu_path

pytestmark = pytest.mark.live

PAIRS = {pair.id: pair for pair in truth_table.load().pairs}
#: With the code and the section of the first finding.
FAIL = {
    "10.0-bare-i440fx/10.0-i440fx-9.2": ("machine-type", ""),
    "10.0-auto-q35/10.0-eight-cpus": ("pci-config", "0000:00:04.0/virtio-blk"),
    "10.0-desk-q35/11.1-ram": ("ram-block-size", "pc.ram"),
    "10.0-gpu-q35/10.0-one-output": ("field-value", "0000:00:02.0/virtio-gpu"),
    "10.0-mapped-run-q35/10.0-less-ram": ("ram-pages", "pc.ram"),
    "5.2-poison-i440fx/7.2-same": ("section-footer", "0000:00:04.0/virtio-balloon"),
    "7.2-bare-i440fx/7.2-no-bridge-hotplug": ("section-footer", "0000:00:01.3/piix4_pm"),
    "7.2-shared-q35/11.1-flip-address": ("ram-block-page", "ram"),
    "7.2-virtio-q35-7.2/10.0-port-gone": ("device-refused", "0000:00:09.0/virtio-console"),
    "7.2-virtio-q35-7.2/7.2-net-no-status": ("virtio-features", "0000:00:04.0/virtio-net"),
    "8.2-desk-i440fx/10.0-vga-is-bochs": ("ram-block-unknown", "0000:00:02.0/vga.vram"),
    "8.2-desk-i440fx/11.1-serial-gone": ("unknown-section", "serial"),
    "8.2-validate-q35/11.1-other": ("uuid", ""),
}
LOAD = (
    "10.0-bare-i440fx/10.0-with-hpet",
    "10.0-gpu-q35/10.0-same",
    "5.2-old-i440fx/7.2-same",
    "5.2-virtio-i440fx-5.2/5.2-same",
    "7.2-desk-q35/11.1-same",
    "7.2-kvm-q35/8.2-same",
    "7.2-virtio-q35-7.2/10.0-same",
)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No run leaves a file in the temporary folder."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


def answer(name: str, folder: Path) -> Answer:
    pair = PAIRS[name]
    state = truth_table.load().state(pair, folder)
    program = qemu_path(pair.version, "x86_64")
    words = tuple(pair.words(folder))
    target = Target(program, arguments=words, machine=pair.machine, capabilities=pair.capabilities)
    return Probe().answer(Case(state, target))


@pytest.mark.parametrize("name", FAIL)
def test_it_names_what_fails(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = answer(name, tmp_path)
    assert PAIRS[name].verdict == "failed"
    assert found.verdict is Verdict.FAILS
    first = next(one for one in found.findings if one.severity is Severity.ERROR)
    assert (first.code, first.section) == FAIL[name]


@pytest.mark.parametrize("name", LOAD)
def test_it_finds_nothing_where_it_loads(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = answer(name, tmp_path)
    assert PAIRS[name].verdict == "loaded"
    assert [one for one in found.findings if one.severity is Severity.ERROR] == []
    assert found.verdict is Verdict.LOADS


@pytest.mark.parametrize("version", ["5.2", "7.2", "8.2", "10.0", "11.1"])
def test_much_memory_is_not_read(version: str) -> None:
    program = str(qemu_path(version, "x86_64"))
    words = [
        program,
        "-machine",
        "pc,accel=tcg",
        "-m",
        "4G",
        "-nodefaults",
        "-display",
        "none",
        "-S",
    ]
    with Cage() as cage:
        asked = ask(cage, words, {}, 60)
        assert asked.state is not None
        assert not asked.described
        assert asked.blocks["pc.ram"].used == 4 << 30
        assert asked.machine.startswith("pc-i440fx-")
        assert asked.state.stat().st_size < 1 << 20


SCRIPTS = {
    "hangs": ("exec sleep 1000", Verdict.UNDECIDED),
    "floods": ("exec yes", Verdict.UNDECIDED),
    "is-no-qemu": ("exit 0", Verdict.UNDECIDED),
}


@pytest.mark.parametrize("kind", SCRIPTS)
def test_a_target_that_is_no_qemu(kind: str, tmp_path: Path) -> None:
    text, verdict = SCRIPTS[kind]
    program = tmp_path / "target"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    pair = PAIRS["7.2-bare-i440fx/10.0-alias"]
    state = truth_table.load().state(pair, tmp_path)
    found = Probe(2.0).answer(Case(state, Target(program, arguments=())))
    assert found.verdict is verdict
    assert found.open
