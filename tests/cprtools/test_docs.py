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
RAM_MANUAL = (ROOT / "docs" / "ram.md").read_text()
SCHEMA_MANUAL = (ROOT / "docs" / "schema.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
EXAMPLES = re.findall(
    r"```console\n\$ (.*cprtools .*)\n((?:.*\n)*?)```",
    f"{MANUAL}\n{RAM_MANUAL}\n{SCHEMA_MANUAL}",
)


PYTHON = API + "\n" + SCHEMA_MANUAL
API_EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PYTHON, re.DOTALL)


def test_there_are_api_examples() -> None:
    assert len(API_EXAMPLES) == PYTHON.count("```python")


@pytest.mark.parametrize(("code", "shown"), API_EXAMPLES)
def test_the_api_examples(code: str, shown: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == shown


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 20


@pytest.mark.parametrize(("command", "shown"), EXAMPLES)
def test_examples_of_the_manual(command: str, shown: str) -> None:
    tool = re.sub(
        r"\bcprtools (?=inspect|ram|schema)", f"{shlex.quote(sys.executable)} -m cprtools ", command
    )
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


@pytest.mark.parametrize(
    ("name", "manual"), [("inspect", MANUAL), ("ram", RAM_MANUAL), ("schema", SCHEMA_MANUAL)]
)
def test_all_options_are_in_the_manual(name: str, manual: str) -> None:
    text = cprtools(name, "--help").stdout.decode()
    options = set(re.findall(r"--[a-z-]+", text))
    assert len(options) > 11
    assert {option for option in options if f"`{option}" not in manual} == set()
