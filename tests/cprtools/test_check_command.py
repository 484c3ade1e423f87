"""``cprtools check``: verdicts, exit codes, forms of the output; targets that misbehave."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs
import pytest
from fakeqemu import program, qemu
from tool import ROOT, cprtools, environment, sample

VALIDATOR = jsonschema_rs.validator_for(json.loads((ROOT / "docs/check.schema.json").read_text()))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "vm.sav"
    path.write_bytes(sample())
    return path


@pytest.fixture(autouse=True)
def _nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No run leaves a file in the temporary folder, or a process."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    yield
    assert list(folder.iterdir()) == []
    assert processes(str(tmp_path)) == []


def processes(word: str) -> list[str]:
    """Command lines that have a word in them."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in line and entry.name != str(os.getpid()) and "pytest" not in line:
            found.append(line)
    return found


def check(
    state: Path, target: Path, *words: str, arguments: tuple[str, ...] = ("-m", "8")
) -> subprocess.CompletedProcess[bytes]:
    engine = () if "--engine" in words else ("--engine", "dry-run")
    return cprtools("check", state, "--target", target, *engine, *words, "--", *arguments)


def document(state: Path, target: Path, *words: str) -> tuple[int, dict[str, object]]:
    done = check(state, target, "--json", *words)
    assert done.stderr == b""
    made = json.loads(done.stdout)
    VALIDATOR.validate(made)
    return done.returncode, made


def first(made: dict[str, object]) -> dict[str, object]:
    findings = made["findings"]
    assert isinstance(findings, list)
    one = findings[0]
    assert isinstance(one, dict)
    return one


# -- verdicts ---------------------------------------------------------------------------


def test_loads(state: Path, tmp_path: Path) -> None:
    code, made = document(state, qemu(tmp_path))
    assert (code, made["verdict"], made["engine"]) == (0, "loads", "dry-run")
    assert made["schema_version"] == 1
    assert made["state"] == str(state)


def test_fails_and_says_why(state: Path, tmp_path: Path) -> None:
    target = qemu(
        tmp_path,
        """
        say("Missing section footer for 0000:00:01.3/piix4_pm")
        say("load of migration failed: Invalid argument")
        sys.exit(1)
        """,
    )
    code, made = document(state, target)
    assert (code, made["verdict"]) == (1, "fails")
    one = first(made)
    assert (one["code"], one["section"]) == ("section-footer", "0000:00:01.3/piix4_pm")
    assert one["severity"] == "error"
    assert str(one["qemu_says"]).endswith("Missing section footer for 0000:00:01.3/piix4_pm")
    assert one["why"]
    assert one["remedy"]


def test_without_arguments_it_is_undecided(state: Path, tmp_path: Path) -> None:
    done = cprtools("check", state, "--target", qemu(tmp_path), "--engine", "dry-run")
    assert done.returncode == 3
    assert b"no-arguments" in done.stdout


def test_no_exec_runs_nothing(state: Path, tmp_path: Path) -> None:
    target = program(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')")
    done = check(state, target, "--no-exec", "--engine", "dry-run")
    assert done.returncode == 3
    assert b"engine-missing" in done.stdout
    assert not (tmp_path / "ran").exists()


def test_what_was_left_out_makes_no_yes(state: Path, tmp_path: Path) -> None:
    done = check(state, qemu(tmp_path), arguments=("-device", "vfio-pci,host=01:00.0"))
    assert done.returncode == 3
    assert b"to decide it" in done.stdout


def test_capabilities_are_set(state: Path, tmp_path: Path) -> None:
    target = qemu(tmp_path)
    target.write_text(
        target.read_text().replace(
            'elif name == "query-migrate":',
            'elif name == "migrate-set-capabilities" and "x-odd" in line:\n'
            '        send({"error": {"desc": "no x-odd here"}})\n'
            '    elif name == "migrate-set-parameters":\n'
            '        send({"error": {"desc": "nor as a parameter"}})\n'
            '    elif name == "query-migrate":',
        )
    )
    code, made = document(state, target, "--target-capability", "x-odd=on")
    assert (code, first(made)["code"]) == (1, "capability-refused")
    assert first(made)["qemu_says"] == "QMP: no x-odd here"


# -- targets that misbehave -------------------------------------------------------------

BAD = {
    "target-not-qemu": "print('hello')",
    "target-crashed": "import os; os.abort()",
    "target-hangs": "import time; time.sleep(600)",
    "target-floods": "while True: print('x' * 65536)",
}


@pytest.mark.parametrize("code", BAD)
def test_no_qemu(code: str, state: Path, tmp_path: Path) -> None:
    status, made = document(state, program(tmp_path, BAD[code]), "--timeout", "3")
    assert (status, made["verdict"], first(made)["code"]) == (3, "undecided", code)
    assert made["open"]


def test_a_crash_while_it_loads_is_a_failure(state: Path, tmp_path: Path) -> None:
    target = qemu(tmp_path, "say('Assertion failed'); os.abort()")
    status, made = document(state, target)
    assert (status, first(made)["code"]) == (1, "target-crashed")
    assert "SIGABRT" in str(first(made)["message"])


def test_a_hang_while_it_loads(state: Path, tmp_path: Path) -> None:
    status, made = document(state, qemu(tmp_path, "time.sleep(600)"), "--timeout", "2")
    assert (status, first(made)["code"]) == (3, "target-hangs")


def test_a_flood_of_answers(state: Path, tmp_path: Path) -> None:
    target = qemu(tmp_path, "while True: send({'event': 'NOISE', 'data': 'x' * 10000})")
    status, made = document(state, target, "--timeout", "30")
    assert (status, first(made)["code"]) == (3, "target-floods")


def test_children_that_leave_the_group_are_killed(state: Path, tmp_path: Path) -> None:
    target = qemu(
        tmp_path,
        """
        import subprocess
        child = [sys.executable, "-c", "import time; time.sleep(600)", sys.argv[0]]
        subprocess.Popen(child, start_new_session=True)
        """,
    )
    assert document(state, target)[0] == 0


def test_it_cleans_up_when_it_is_ended(state: Path, tmp_path: Path) -> None:
    started = tmp_path / "started"
    target = program(tmp_path, f"import time; open({str(started)!r}, 'w'); time.sleep(600)")
    words = ["check", state, "--target", target, "--engine", "dry-run", "--", "-m", "8"]
    command = [sys.executable, "-m", "cprtools", *map(str, words)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) == 130


def test_a_file_that_is_no_program(state: Path, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("nothing to run")
    done = check(state, path)
    assert (done.returncode, done.stdout) == (2, b"")
    path.chmod(0o755)
    assert check(state, path).returncode == 2
    assert check(state, tmp_path / "missing").returncode == 2


def test_arguments_that_the_target_refuses(state: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "if '--version' in sys.argv: print('QEMU emulator version 9'); sys.exit(0)\n"
        "sys.stderr.write('qemu: -device foo: not a valid device model name\\n'); sys.exit(1)"
    )
    status, made = document(state, program(tmp_path, code))
    assert (status, first(made)["code"]) == (1, "target-arguments")


# -- states -----------------------------------------------------------------------------


def test_no_state(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(b"this is no state at all")
    done = check(path, qemu(tmp_path))
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Traceback" not in done.stderr
    assert check(tmp_path / "missing", qemu(tmp_path)).returncode == 2


def test_a_damaged_state_is_given_whole(tmp_path: Path) -> None:
    state, got = tmp_path / "cut.sav", tmp_path / "got"
    state.write_bytes(sample()[:-300])
    document(state, qemu(tmp_path, f"open({str(got)!r}, 'wb').write(data)"))
    assert got.read_bytes() == state.read_bytes()


def test_text_of_others_is_escaped(tmp_path: Path) -> None:
    state = tmp_path / "vm.sav"
    state.write_bytes(sample())
    target = qemu(tmp_path, "say('Missing section footer for \\x1b[31mred'); sys.exit(1)")
    for words in ((), ("--json",), ("--format", "junit")):
        done = check(state, target, *words)
        assert done.returncode == 1
        assert b"\x1b" not in done.stdout
        assert b"red" in done.stdout


# -- forms of the output ----------------------------------------------------------------


def test_a_matrix(state: Path, tmp_path: Path) -> None:
    good = qemu(tmp_path, name="good")
    bad = qemu(tmp_path, "say('Not a migration stream'); sys.exit(1)", name="bad")
    words = ("check", state, state, "-t", good, "-t", bad, "--engine", "dry-run")
    done = cprtools(*words, "--json", "--", "-m", "8")
    made = json.loads(done.stdout)
    VALIDATOR.validate(made)
    assert (done.returncode, made["verdict"]) == (1, "fails")
    assert [one["verdict"] for one in made["results"]] == ["loads", "fails"] * 2
    table = cprtools(*words, "--", "-m", "8").stdout.decode()
    assert table.splitlines()[0].split()[:3] == ["verdict", "state", "target"]
    assert sum(line.startswith("  fails ") for line in table.splitlines()) == 2


def test_an_unreadable_state_does_not_stop_the_others(state: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.write_bytes(b"no state")
    done = cprtools(
        "check", odd, state, "-t", qemu(tmp_path), "--engine", "dry-run", "--json", "--", "-m", "8"
    )
    assert done.returncode == 2
    assert json.loads(done.stdout)["verdict"] == "loads"
    assert str(odd).encode() in done.stderr


def test_junit(state: Path, tmp_path: Path) -> None:
    good = qemu(tmp_path, name="good")
    bad = qemu(tmp_path, "say('Not a migration stream <odd>'); sys.exit(1)", name="bad")
    none = program(tmp_path, "pass", name="none")
    done = cprtools(
        *("check", state, "-t", good, "-t", bad, "-t", none, "--engine", "dry-run"),
        *("--format", "junit", "--", "-m", "8"),
    )
    suite = ET.fromstring(done.stdout)
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    assert [[child.tag for child in case] for case in suite] == [[], ["failure"], ["error"]]
    failure = suite[1].find("failure")
    assert failure is not None
    assert failure.get("type") == "not-a-stream"
    assert "<odd>" in (failure.text or "")


def test_explain() -> None:
    done = cprtools("check", "--explain", "section-footer")
    assert done.returncode == 0
    assert done.stdout.startswith(b"## section-footer\n")
    wrong = cprtools("check", "--explain", "section-foot")
    assert wrong.returncode == 2
    assert b"section-footer" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "x"], b"expected a STATE"),
        (["state"], b"expected --target"),
        (["state", "-t", "a", "-t", "b", "--elf", "c"], b"--elf"),
        (["state", "-t", "a", "--target-capability", "odd"], b"NAME=on"),
    ],
)
def test_wrong_usage(words: list[str], said: bytes) -> None:
    done = cprtools("check", *words)
    assert done.returncode == 2
    assert said in done.stderr


def test_all_options_are_in_the_manual() -> None:
    manual = (ROOT / "docs" / "check.md").read_text()
    options = set(re.findall(r"--[a-z-]+", cprtools("check", "--help").stdout.decode()))
    assert len(options) > 10
    assert {option for option in options - {"--help"} if f"`{option}" not in manual} == set()
