"""Field for field against QEMU's own script, on every capture that it can read.

The script is taken from QEMU's source package when the tests run; nothing of it
is here. Its output is a nested object: numbers as ``0x0001``, negative ones as
``0xffff (-1)``, all that it has no reader for as hex. Each of its values is
compared with the bytes that our field encodes to, and numbers also as numbers.
"""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import qemus
from checks import entries, fixture_names, fixture_path
from cprformats.codecs import codec, is_integer
from cprformats.encode import encode
from cprformats.fields import Field
from cprformats.migration import MigrationStream, Section, read_stream
from cprformats.source import BytesSource

pytestmark = pytest.mark.live

CAPTURES = [x for x in fixture_names("migration") if x.endswith(".sav.xz")]

#: Types whose sign the script reads otherwise than QEMU does, and why.
SIGNS = {
    "uint8 equal": "the script reads it as signed; QEMU's vmstate_info_uint8_equal is not",
    "uint16 equal": "the script reads it as signed; QEMU's vmstate_info_uint16_equal is not",
    "int64 equal": "QEMU's vmstate_info_uint64_equal calls itself so",
}

#: What the script says when it gives up -> why that is no wonder.
REFUSALS = {
    "No Debug Migration device found": "a 7b in the description's length passes for its brace",
    "OSError": "no description: it seeks to before the file's beginning",
    "XBZRLE RAM compression is not supported yet": "XBZRLE",
    "RAM hooks don't make sense with files": "a record with the flag of hooks",
    "Unknown RAM flags": "compressed pages",
    "AttributeError": "mapped-ram's words are taken for a block's name (up to 10.2)",
    "UnicodeDecodeError": "mapped-ram's words are taken for a block's name (up to 10.2)",
    "Unknown QEMU_VM_COMMAND": "commands other than SWITCHOVER_START",
    "Unknown section type: 8": "any command (up to 9.2)",
    "Unknown section type: 5": "subsections of the configuration (up to 8.1)",
    "KeyError": "a section without a description, or an instance id above 2^31",
}


@dataclass
class Comparison:
    """What came of one capture."""

    refusal: str = ""
    fields: int = 0
    sections: int = 0
    signs: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)


# -- the script ---------------------------------------------------------------------


def script_for(name: str) -> Path:
    """The newest script that is at hand, or the old one for old streams."""
    old = entries()[name]["qemu"].startswith(("5.", "6.", "7."))
    return qemus.source_package("7.2" if old else "10.0") / "scripts" / "analyze-migration.py"


def run_script(script: Path, path: Path) -> tuple[Any, str]:
    """Give its object, or what it said."""
    try:
        done = subprocess.run(
            [sys.executable, str(script), "-f", str(path), "-d", "state"],
            capture_output=True,
            cwd=path.parent,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, "timeout"
    if done.returncode:
        return None, _said(done.stderr.decode(errors="replace"))
    return json.loads(done.stdout), ""


def _said(text: str) -> str:
    """The first error: the script wraps it into one that repeats the description."""
    first = text.split("During handling of the above", 1)[0]
    lines = [x for x in first.splitlines() if x[:1].isalpha() and not x.startswith("Traceback")]
    return lines[-1][:200] if lines else text[-200:]


# -- the comparison -------------------------------------------------------------------


def as_bytes(theirs: Any) -> bytes:
    """The bytes that one of the script's values stands for."""
    if isinstance(theirs, bool):
        return b"\1" if theirs else b"\0"
    if theirs == "nullptr":
        return b"0"
    if theirs.startswith("0x"):
        digits = theirs.split()[0][2:]
        return bytes.fromhex(digits)
    return bytes.fromhex(theirs)


def as_number(theirs: str) -> int:
    lead, _, signed = theirs.partition(" ")
    return int(signed.strip("()")) if signed else int(lead, 16)


def compare(theirs: Any, ours: list[Field], path: str, found: Comparison) -> None:
    """Compare one of the script's values with our fields of that name."""
    if isinstance(theirs, list):
        items = list(elements(ours))
        if len(items) != len(theirs):
            found.differences.append(f"{path}: {len(theirs)} elements, ours {len(items)}")
            return
        for index, (item, mine) in enumerate(zip(theirs, items, strict=True)):
            compare(item, [mine], f"{path}[{index}]", found)
    elif isinstance(theirs, dict):
        if len(ours) == 1:
            compare_struct(theirs, single(ours), path, found)
        else:
            found.differences.append(f"{path}: a struct, ours {len(ours)} fields")
    else:
        compare_value(theirs, ours, path, found)


def compare_struct(theirs: dict[str, Any], ours: Field, path: str, found: Comparison) -> None:
    for name, value in theirs.items():
        mine = [
            x
            for x in ours.children
            if x.name == name or (_is_element(x.name, name) and x.name not in theirs)
        ]
        if not mine:
            found.differences.append(f"{path}.{name}: not in ours")
            continue
        compare(value, mine, f"{path}.{name}", found)


def _is_element(ours: str, name: str) -> bool:
    """Say whether ours is ``name[3]``."""
    return ours.startswith(f"{name}[") and ours[len(name) + 1 : -1].isdigit()


def compare_value(theirs: Any, ours: list[Field], path: str, found: Comparison) -> None:
    found.fields += 1
    want, mine = as_bytes(theirs), b"".join(encode(ours))
    if isinstance(theirs, bool):
        mine = b"\1" if any(mine) else b"\0"
    if want != mine:
        found.differences.append(f"{path}: {theirs[:60]}, ours {mine[:20].hex(' ')}")
        return
    leaf = single(ours)
    number = isinstance(theirs, str) and theirs.startswith("0x") and is_integer(leaf.codec)
    if number and as_number(theirs) != leaf.value:
        if leaf.type in SIGNS:
            found.signs[leaf.type] += 1
        else:
            found.differences.append(f"{path} ({leaf.type}): {theirs}, ours {leaf.value}")


def single(ours: list[Field]) -> Field:
    """The one element of what may be an array of one."""
    items = list(elements(ours))
    return items[0] if len(items) == 1 else ours[0]


def elements(ours: list[Field]) -> Iterator[Field]:
    """Our elements of an array, in whichever form it was read."""
    for mine in ours:
        if mine.children and all(x.name.startswith("[") for x in mine.children):
            # A huge array of plain values comes in pieces, each an array in turn.
            in_pieces = all(isinstance(x.value, tuple) for x in mine.children)
            yield from elements(list(mine.children)) if in_pieces else mine.children
        elif mine.codec and isinstance(mine.value, tuple) and mine.codec.endswith("]"):
            item = mine.codec.partition("[")[0]
            size = codec(item).size or 1
            for index, value in enumerate(mine.value):
                offset = mine.offset + index * size
                yield Field(f"[{index}]", mine.type, item, mine.kind, offset, size, value)
        else:
            yield mine


def compare_section(
    theirs: dict[str, Any], stream: MigrationStream, section: Section, found: Comparison
) -> None:
    found.sections += 1
    if section.idstr == "ram":
        sizes = {name: int(size, 16) for name, size in theirs["section sizes"].items()}
        mine = {name: block.used_length for name, block in stream.ram.blocks.items()}
        found.fields += len(sizes)
        if sizes != mine:
            found.differences.append(f"ram: {sizes}, ours {mine}")
        return
    if not isinstance(theirs, dict):
        return  # the script passes over what it has a reader of its own for
    body = stream.decode(section)[0]["body"]
    if section.description is not None and section.description.old_style:
        compare_value(theirs["data"], [body], section.name, found)
    else:
        compare_struct(theirs, body, section.name, found)


@cache
def compared(name: str, folder: Path) -> Comparison:
    data = lzma.decompress(fixture_path(name).read_bytes())
    path = folder / "capture"
    path.write_bytes(data)
    theirs, refusal = run_script(script_for(name), path)
    found = Comparison(refusal)
    if refusal:
        return found
    stream = read_stream(BytesSource(data))
    assert stream.error is None
    ours = {f"{x.idstr} ({x.section_id})": x for x in reversed(list(stream.sections()))}
    if theirs.keys() != ours.keys():
        found.differences.append(f"sections {theirs.keys() ^ ours.keys()}")
    for key in theirs.keys() & ours.keys():
        compare_section(theirs[key], stream, ours[key], found)
    return found


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("oracle")


@pytest.mark.parametrize("name", CAPTURES)
def test_same_values_as_the_script(name: str, folder: Path) -> None:
    found = compared(name, folder)
    if found.refusal:
        assert any(x in found.refusal for x in REFUSALS), found.refusal
        return
    assert found.differences == []
    assert found.sections > 1
    assert found.fields > 10


def test_most_captures_are_compared(folder: Path, record_property: Any) -> None:
    all_found = {name: compared(name, folder) for name in CAPTURES}
    read = [x for x in all_found.values() if not x.refusal]
    refused = Counter(
        next((key for key in REFUSALS if key in x.refusal), x.refusal)
        for x in all_found.values()
        if x.refusal
    )
    record_property("captures", len(read))
    record_property("fields", sum(x.fields for x in read))
    record_property("refused", dict(refused))
    shown = f"{len(read)} of {len(all_found)} captures, refused {dict(refused)}"
    for name, found in all_found.items():
        if found.refusal:
            print(f"{name}: {found.refusal}")
    print(shown, sum(x.fields for x in read), "fields", sum((x.signs for x in read), Counter()))
    assert len(read) > len(all_found) / 2, shown
    assert sum(x.fields for x in read) > 100_000, shown
