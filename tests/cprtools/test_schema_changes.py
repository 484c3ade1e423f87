"""docs/schema-changes.md is what its script makes, and its commands give its rows."""

from __future__ import annotations

import json
import re

import pytest
from tool import ROOT, cprtools

import schema_changes
from cprformats.schema.difference import Verdict
from cprformats.schema.meaning import Judge
from cprtools.schemas.opening import open_schema

TEXT = (ROOT / "docs" / "schema-changes.md").read_text()


def test_it_is_what_the_script_makes() -> None:
    assert schema_changes.document() == TEXT


@pytest.mark.parametrize(("old", "new"), schema_changes.STEPS)
def test_the_command_gives_the_rows(old: str, new: str) -> None:
    section = TEXT.split(f"## {old} to {new}\n")[1].split("\n## ")[0]
    command = re.search(r"^\$ cprtools (.*)$", section, re.MULTILINE)
    assert command
    done = cprtools(*command[1].split(), "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    found = json.loads(done.stdout)["differences"]
    changed = [one for one in found if one["kind"] in ("changed", "renamed?")]
    verdicts = [(one["old_in_new"]["verdict"], one["new_in_old"]["verdict"]) for one in changed]
    rows = re.findall(r"^\| [^|]*\| [^|]*\| (\w+) \| (\w+) \| [^|]+\|$", section, re.MULTILINE)
    assert sorted(rows) == sorted(verdicts)
    for one in changed:
        assert one["name"] in section


def test_all_steps_are_there() -> None:
    assert re.findall(r"^## (.*)$", TEXT, re.MULTILINE) == [
        f"{old} to {new}" for old, new in schema_changes.STEPS
    ]
    assert len(schema_changes.STEPS) == 4


@pytest.mark.parametrize("version", schema_changes.VERSIONS)
def test_every_qemu_loads_its_own_state_but_for_one(version: str) -> None:
    """11.1 has two subsections of one name: the live test shows that it fails."""
    one = open_schema(f"builtin:{version}")
    judge = Judge(one, one)
    worse = [
        key
        for key, each in one.descriptions.items()
        if judge.section(each, each).verdict is not Verdict.LOADS
    ]
    assert worse == (["sd-card"] if version == "11.1" else [])
    assert len(one.descriptions) > 400
