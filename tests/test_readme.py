"""What the README promises is what runs: its commands, its paths, its output."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import readme

ROOT = Path(__file__).resolve().parent.parent


def run(command: str, cwd: Path, status: int = 0) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def tool_commands() -> list[tuple[str, int]]:
    """The commands of all blocks that use an installed cprtools, with their exit status."""
    return [
        (command, 1 if name == "fails" else 0)
        for name, block in readme.blocks()
        for command in block
        if ".venv/bin/cprtools " in command and name != "main"
    ]


def test_there_are_commands() -> None:
    assert readme.named("main")
    assert readme.named("test")
    assert len(tool_commands()) >= 4


@pytest.mark.parametrize(("command", "status"), tool_commands())
def test_each_tool_command_runs(command: str, status: int) -> None:
    ours = f"{shlex.quote(sys.executable)} -m cprtools "
    path = os.pathsep.join(str(ROOT / name) for name in (".", "formats", "proto"))
    prefix = f"export PYTHONPATH={shlex.quote(path)}; "
    assert run(prefix + command.replace(".venv/bin/cprtools ", ours), ROOT, status)


@pytest.mark.live
def test_the_two_commands_do_all_set_up(tmp_path: Path) -> None:
    """The main command in a fresh clone; the test command's set-up, then a few tests."""
    clone = tmp_path / "clone"
    run(f"git clone -q {shlex.quote(str(ROOT))} {shlex.quote(str(clone))}", tmp_path)
    assert "pc-i440fx-6.2" in run(readme.named("main"), clone)
    run("rm -rf .venv", clone)
    assert " passed" in run(readme.named("test") + " tests/formats/test_codecs.py", clone)


def test_ci_calls_the_test_command() -> None:
    assert "python3 tests/readme.py test" in (ROOT / ".ci" / "run").read_text()
