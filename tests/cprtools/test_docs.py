"""The manuals show what is so: commands run, options and examples are real."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest
from tool import ROOT, cprtools, environment

MANUAL = (ROOT / "docs" / "inspect.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
EXAMPLES = re.findall(r"```console\n\$ cprtools (.*)\n((?:.*\n)*?)```", MANUAL)


def fenced(text: str, language: str) -> str:
    match = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert match is not None
    return match[1]


def test_the_api_example() -> None:
    code = fenced(API, "python")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == fenced(API, "text")


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 6


@pytest.mark.parametrize(("command", "shown"), EXAMPLES)
def test_examples_of_the_manual(command: str, shown: str) -> None:
    tool = f"{shlex.quote(sys.executable)} -m cprtools {command}"
    done = subprocess.run(
        ["bash", "-c", tool],
        cwd=ROOT,
        env={**environment(), "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.stdout == shown


def test_all_options_are_in_the_manual() -> None:
    text = cprtools("inspect", "--help").stdout.decode()
    options = set(re.findall(r"--[a-z-]+", text))
    assert len(options) > 12
    assert {option for option in options if f"`{option}" not in MANUAL} == set()
