"""``cprtools schema --diff``: what it shows, its JSON, its exit codes, its manual."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tool import ROOT, cprtools

from builders.schemas import description, field, schema
from cprformats.schema.difference import Rule
from cprformats.schema.model import Schema
from cprformats.schema.publish import write_document

X, Y = field("x"), field("y")
STRUCT = {"info": "", "flags": ("STRUCT",), "size": 40}
INNER = description("inner", X)
USERS = [description(f"card{n}", field("in", nested="inner", **STRUCT)) for n in range(3)]
LATE = description("dev/late", Y, hooks=("needed",))
OLD = schema(description("dev", X), INNER, *USERS, description("gone", X))
NEW = schema(
    description("dev", X, subsections=("dev/late",)),
    LATE,
    description("inner", X, Y),
    *USERS,
)


def written(folder: Path, name: str, one: Schema) -> Path:
    path = folder / name
    path.write_bytes(write_document(one))
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return written(tmp_path, "old.json", OLD), written(tmp_path, "new.json", NEW)


def test_the_table(files: tuple[Path, Path]) -> None:
    done = cprtools("schema", files[0], "--diff", files[1])
    assert (done.returncode, done.stderr) == (0, b"")
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    assert ["old", f"{files[0]}:", "6", "descriptions"] in lines
    assert ["both", "5", "descriptions", "compared"] in lines
    assert ["changed", "2", "1", "0", "1", "0", "1", "1"] in lines
    assert ["dev", "changed", "loads", "depends", "+", "subsection", "dev/late"] in lines
    assert ["3", "devices", "inner", "changed", "fails", "fails", "+", "y", "(uint32)"] in lines
    assert ["gone", "removed", "depends", "loads"] in lines
    assert "and 1 structure or subsection" in done.stdout.decode()


def test_what_is_asked_for_in_detail(files: tuple[Path, Path]) -> None:
    done = cprtools("schema", files[0], "--diff", files[1], "-n", "inner", "-n", "dev/*")
    assert done.returncode == 0
    text = done.stdout.decode()
    assert "inner  changed, nested\n  used by      card0, card1, card2\n  + y (uint32)\n" in text
    assert "  old in new   fails\n    fails   y is expected, and not sent\n" in text
    assert "dev/late  added, subsection\n  used by      dev\n" in text
    assert "gone" not in text


def test_json(files: tuple[Path, Path]) -> None:
    done = cprtools("schema", files[0], "--diff", files[1], "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    made = json.loads(done.stdout)
    assert (made["format"], made["version"], made["compared"]) == ("cprtools-schema-diff", 1, 5)
    assert made["old"]["descriptions"] == made["new"]["descriptions"] == 6
    inner = next(one for one in made["differences"] if one["name"] == "inner")
    assert inner["changes"] == [
        {"kind": "field added", "name": "y", "before": "", "after": "uint32"}
    ]
    assert inner["users"] == ["card0", "card1", "card2"]
    assert inner["old_in_new"]["reasons"] == [
        {
            "verdict": "fails",
            "rule": "missing",
            "what": "y",
            "text": "y is expected, and not sent",
        }
    ]


def test_the_manual_names_all_members(files: tuple[Path, Path]) -> None:
    manual = (ROOT / "docs" / "schema-diff.md").read_text()
    made = json.loads(cprtools("schema", files[0], "--diff", files[1], "--json").stdout)
    one = next(each for each in made["differences"] if each["changes"])
    reason = one["old_in_new"]["reasons"][0]
    members = {*made, *made["old"], *one, *one["changes"][0], *one["old_in_new"], *reason}
    assert sorted(name for name in members if f"`{name}`" not in manual) == []
    assert sorted(rule.name for rule in Rule if f"`{rule.name.lower()}`" not in manual) == []


def test_no_difference(files: tuple[Path, Path]) -> None:
    done = cprtools("schema", files[0], "--diff", files[0])
    assert done.returncode == 0
    assert done.stdout.decode().endswith("\n\nno difference\n")
    nothing = cprtools("schema", files[0], "--diff", files[1], "-n", "card0")
    assert (nothing.returncode, nothing.stdout.decode()[-14:]) == (0, "no difference\n")


def test_errors(files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no schema")
    empty = written(tmp_path, "empty.json", schema(reason="nothing here"))
    cases = [
        ([files[0], "--diff", tmp_path / "none"], 2, "No such file"),
        ([tmp_path / "none", "--diff", files[0]], 2, "No such file"),
        ([files[0], "--diff", tmp_path / "text"], 1, "expected a QEMU program"),
        ([tmp_path / "text", "--diff", files[0]], 1, "expected a QEMU program"),
        ([files[0], "--diff", empty], 1, "empty.json: nothing here"),
        ([files[0], "--diff", "builtin:1.0"], 2, "builtin"),
        ([files[0], "--diff", files[1], "-n", "nobody"], 2, "nothing fits the pattern nobody"),
        (["--diff", files[1]], 2, "expected a BINARY"),
    ]
    for arguments, code, words in cases:
        done = cprtools("schema", *arguments)
        text = done.stderr.decode()
        assert (done.returncode, text.count("\n")) == (code, 1), arguments
        assert words in text
        assert done.stdout == b""


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    bad = "a\x1b[31m{one.name}"
    old = written(tmp_path, "a.json", schema(description("d", X)))
    new = written(tmp_path, "b.json", schema(description("d", X, field(bad))))
    done = cprtools("schema", old, "--diff", new, "--color", "never")
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout
    assert re.search(r"a\\x1b\[31m\{one\.name\}", done.stdout.decode())
