"""The new side of a play with stock QEMU, without a QEMU: what it finds, and its program."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fdlab import memfd, no_leak

from builders.migration import block, block_list, configuration, end, eos, start, stream
from builders.qcpr import qcpr
from cprproto.errors import HostError, StateError
from cprproto.fds.evidence import open_numbers
from cprproto.state.qcpr import ENVIRONMENT
from cprproto.stock import new
from cprproto.stock.adopting import Want, adopt, decode_wants, report
from cprproto.stock.memory import contents, make_ram, map_shared, whose

ROOT = Path(__file__).resolve().parents[2]
SHA = hashlib.sha256(b"guest").hexdigest()


def test_what_is_there() -> None:
    with no_leak():
        ram, irq = memfd(), os.eventfd(0)
        known = set(open_numbers()) - {ram, irq}
        wants = [Want("ram0", "ram", size=5, sha256=SHA), Want("serial", "irq", id=4)]
        adoption = adopt(qcpr(("ram0", 0, ram), ("serial", 4, irq)), wants, known=known)
        assert adoption.is_whole
        assert adoption.unnamed == ()
        one, other = adoption.descriptors
        assert (one.looks, one.size, one.sha256) == ("memfd", 5, SHA)
        assert (other.looks, other.sha256) == ("eventfd", "")
        os.close(ram)
        os.close(irq)


def test_what_is_wrong() -> None:
    ram, irq = memfd(), os.eventfd(0)
    known = set(open_numbers()) - {ram, irq}
    state = qcpr(("ram0", 0, ram), ("ram0", 0, ram + 400), ("closed", 0, 900))
    blocks = block_list(block("ram0", 1 << 20), block("pc.bios", 1 << 18))
    parts = start(1, body=blocks + eos()), end(1, body=eos())
    saved = stream(configuration("m"), *parts)
    adoption = adopt(state, [Want("ram0", "irq"), Want("n", "tap")], stream=saved, known=known)
    assert not adoption.is_whole
    first, twice, closed = adoption.descriptors
    assert first.findings == ("should be irq, and is memfd",)
    assert f"the name was there before, as {ram}" in twice.findings[-1]
    assert closed.looks == "not open"
    assert [(x.number, x.looks) for x in adoption.unnamed] == [(irq, "eventfd")]
    assert adoption.not_handed_over == (
        "n id 0 (tap) is not in the state",
        "RAM block pc.bios of 262144 bytes: no descriptor, contents are lost",
    )
    assert json.loads(report(adoption))["descriptors"][0]["name"] == "ram0"
    os.close(ram)
    os.close(irq)


def test_memory_that_can_not_be_mapped(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"guest")
    number = os.open(tmp_path / "f", os.O_WRONLY)
    (found,) = adopt(qcpr(("ram0", 0, number))).descriptors
    assert "can't be mapped" in found.findings[0]
    with pytest.raises(HostError, match="can't be mapped"):
        map_shared(number, 1 << 30)
    os.close(number)


def test_a_state_or_a_stream_that_is_none() -> None:
    with pytest.raises(StateError):
        adopt(b"QCPX")
    with pytest.raises(StateError, match="stream: "):
        adopt(qcpr(), stream=b"QEVX")


@pytest.mark.parametrize("words", [b"", b"{", b"3", b'[{"kind": "ram"}]', b'[{"x": 1}]', b"[[]]"])
def test_wants_that_are_none(words: bytes) -> None:
    with pytest.raises(StateError):
        decode_wants(words)


def test_wants_of_an_unknown_kind() -> None:
    with pytest.raises(StateError, match="no kind 'floppy'"):
        decode_wants(b'[{"name": "a", "kind": "floppy"}]')
    assert decode_wants(b'[{"name": "a", "kind": "ram", "size": 3}]') == (Want("a", "ram", size=3),)


def test_known_contents() -> None:
    size = (1 << 20) + 4096
    number, empty = make_ram("m", size, 7), make_ram("m", size, 0)
    seeds = {"seven": 7, "eight": 8}
    assert (whose(number, size, seeds), whose(empty, size, seeds)) == ("seven", "empty")
    os.pwrite(number, b"x", 3)
    assert whose(number, size, seeds) == "changed"
    assert whose(number, size, seeds, low=1 << 20) == "seven"
    assert sum(map(len, contents(7, size))) == size
    os.close(number)
    os.close(empty)


# -- the program ---------------------------------------------------------------------


def run(folder: Path, state: bytes | None, fds: list[int], *words: str) -> Any:
    """Run the program as an old side's exec does."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'proto'}:{ROOT / 'formats'}"}
    passed = list(fds)
    if state is not None:
        passed.append(memfd("state", state))
        environment[ENVIRONMENT] = str(passed[-1])
    command = [sys.executable, "-m", "cprproto.stock.new", "--report", "r.json", *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, pass_fds=passed, capture_output=True, check=False
    )
    if state is not None:
        os.close(passed[-1])
    return done


def test_the_program(tmp_path: Path) -> None:
    ram = memfd()
    assert run(tmp_path, qcpr(("ram0", 0, ram)), [ram]).returncode == 0
    read = json.loads((tmp_path / "r.json").read_text())
    assert read["descriptors"][0]["sha256"] == SHA
    assert read["unnamed"] == []
    assert run(tmp_path, qcpr(("ram0", 0, ram)), []).returncode == 1
    read = json.loads((tmp_path / "r.json").read_text())
    assert read["descriptors"][0]["looks"] == "not open"
    os.close(ram)


@pytest.mark.parametrize(
    ("state", "words", "said"),
    [
        (None, (), "nothing was handed over by exec"),
        (b"QCPX", (), "no CPR state"),
        (qcpr(), ("--wants", "no-such-file"), "No such file"),
        (qcpr(), ("--stream", "r.empty"), "No such file"),
        (qcpr(), ("--then", "/no/such/program"), "No such file"),
        (qcpr(("ram0", 0, 900)), ("--then", "/bin/true"), "descriptor 900: Bad file descriptor"),
    ],
)
def test_the_program_gives_up(
    state: bytes | None, words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = run(tmp_path, state, [], *words)
    assert (done.returncode, done.stderr) == (1, b"")
    assert said in (tmp_path / "r.error").read_text()


def test_it_hands_on_all_that_it_got(tmp_path: Path) -> None:
    ram = memfd()
    text = (
        "import os; state = os.pread(int(os.environ['QEMU_CPR_EXEC_STATE']), 999, 0);"
        f"print(state.hex(), os.pread({ram}, 9, 0).decode())"
    )
    state = qcpr(("ram0", 0, ram), vfio=[("0000:01:00.0", 1, 2, 3)])
    done = run(tmp_path, state, [ram], "--then", sys.executable, "-c", text)
    assert done.stdout.decode().split() == [state.hex(), "guest"]
    os.close(ram)


def test_it_needs_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        new.main([])
    assert "--report" in capsys.readouterr().err
