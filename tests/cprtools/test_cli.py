"""The command line: exit codes, pipes, colours, and no traceback whatever comes."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tool import cprtools, environment, sample

import cprtools as package
from cprtools.cli import exits, inspecting
from cprtools.cli.exits import Exit

GOOD = sample()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.sav"
    path.write_bytes(GOOD)
    return path


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    path = tmp_path / "damaged.sav"
    path.write_bytes(GOOD[:300])
    return path


def test_version_needs_none_of_the_heavy_modules() -> None:
    code = (
        "import sys; sys.argv = ['cprtools', '--version']\n"
        "from cprtools.__main__ import main; main()\n"
        "print(sorted({'typer', 'rich', 'construct', 'cprformats'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stdout.splitlines() == [f"cprtools {package.__version__}", "[]"]


def test_good_input_exits_with_0(good: Path) -> None:
    done = cprtools("inspect", good)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"pc-test" in done.stdout


def test_damaged_input_shows_what_came_before_and_one_line_of_error(damaged: Path) -> None:
    done = cprtools("inspect", damaged)
    assert done.returncode == 1
    assert b"pc-test" in done.stdout
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"cprtools: {damaged}: ram")
    assert "expected" in line
    assert "found" in line
    assert ", at 0x" in line


@pytest.mark.parametrize("data", [b"", b"Q", b"\x7fELF" + bytes(60), bytes(4096)])
@pytest.mark.parametrize("form", ["table", "json", "yaml"])
def test_what_is_no_state_exits_with_1(tmp_path: Path, data: bytes, form: str) -> None:
    path = tmp_path / "other"
    path.write_bytes(data)
    done = cprtools("inspect", "--format", form, path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_system_errors_and_wrong_usage_exit_with_2(tmp_path: Path, good: Path) -> None:
    wrong = [
        ["inspect", tmp_path / "missing"],
        ["inspect", tmp_path],
        ["inspect"],
        ["inspect", "--format", "xml", good],
        ["inspect", "--raw", good],
        ["inspect", "--json", "--map", good],
        ["inspect", "--layer", "7", good],
        ["inspect", "--section", "nothing*", good],
        ["inspect", "--field", "nothing", good],
        ["frobnicate"],
    ]
    for args in wrong:
        done = cprtools(*args)
        assert done.returncode == 2, args
        assert done.stderr, args
        assert b"Traceback" not in done.stderr


def test_a_snapshot_is_asked_of_a_stream(good: Path) -> None:
    done = cprtools("inspect", "--snapshot", "one", good)
    assert done.returncode == 1
    assert b"expected a qcow2 image, found migration" in done.stderr


def test_standard_input(good: Path) -> None:
    done = cprtools("inspect", "-", stdin=GOOD)
    assert (done.returncode, done.stderr) == (0, b"")
    named = cprtools("inspect", good)
    assert done.stdout.splitlines()[1:] == named.stdout.splitlines()[1:]


@pytest.mark.parametrize("args", [(), ("--json",), ("--format", "yaml"), ("--map",)])
def test_a_pipe_that_closes_early_ends_quietly(good: Path, args: tuple[str, ...]) -> None:
    code = "import sys; from cprtools.__main__ import main; main()"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", str(good), *args],
        stdout=write,
        stderr=subprocess.PIPE,
        env=environment(),
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_interrupt_exits_with_130() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "cprtools", "inspect", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdin is not None
    process.stdin.write(GOOD[:300])
    process.stdin.flush()
    # Ready once it waits for more of its input.
    wchan = Path(f"/proc/{process.pid}/syscall")
    while not wchan.read_text().startswith("0 0x0 "):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert (process.returncode, said) == (130, b"")


def test_colours_only_when_asked_or_on_a_terminal(good: Path) -> None:
    assert b"\x1b[" not in cprtools("inspect", good).stdout
    assert b"\x1b[" in cprtools("inspect", "--color", "always", good).stdout
    assert b"\x1b[" in on_terminal("inspect", str(good))
    assert b"\x1b[" not in on_terminal("inspect", str(good), NO_COLOR="1")
    assert b"\x1b[" not in on_terminal("inspect", "--color", "never", str(good))


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_terminal_is_as_wide_as_it_is(tmp_path: Path, columns: int) -> None:
    path = tmp_path / "wide.sav"
    path.write_bytes(sample(idstr="0000:00:02.0/a-device-with-quite-a-long-name-" + "x" * 80))
    os.chdir(tmp_path)
    text = on_terminal("inspect", "--color", "never", "wide.sav", COLUMNS=str(columns)).decode()
    table = text[text.index("Sections") : text.index("Bytes ")].splitlines()
    assert max(map(len, table)) <= columns
    assert "0x" in text


def on_terminal(*args: str, **env: str) -> bytes:
    """Run the command with a terminal as its output."""
    main, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cprtools", *args],
        stdin=subprocess.DEVNULL,
        stdout=other,
        stderr=other,
        env=environment(TERM="xterm", **env),
    )
    os.close(other)
    text = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # a terminal without anyone on the other side
            break
        if not piece:
            break
        text += piece
    os.close(main)
    assert process.wait() == 0, text
    return text


def test_an_error_of_ours_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> Exit:
        raise ZeroDivisionError("a\x1b[31m")

    monkeypatch.delenv("CPRTOOLS_DEBUG", raising=False)
    assert exits.guarded(fail) is Exit.INTERNAL
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cprtools: internal error: ZeroDivisionError: a\\x1b[31m")
    assert "CPRTOOLS_DEBUG=1" in line
    monkeypatch.setenv("CPRTOOLS_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        exits.guarded(fail)


def test_usage_is_checked_before_the_file_is_opened(capsys: pytest.CaptureFixture[str]) -> None:
    request = inspecting.Request("no such file", raw=True)
    assert inspecting.run(request) is Exit.USAGE
    assert "--raw" in capsys.readouterr().err
