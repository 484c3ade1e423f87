"""Others read what we write: `cprtools inspect`, and QEMU's own analyze-migration.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fdlab import filled_table

import qemus
from cprproto.state.qcpr_writing import encode_state, entries_of
from cprproto.state.schema import Plain, Schema, Section, Struct, Vmsd
from cprproto.state.stream import StreamWriter

ROOT = Path(__file__).resolve().parents[2]
CHANNEL = Vmsd("channel", (Plain("count", "i32"), Plain("latch", "u16", 2)))
FIFO = Vmsd("serial/fifo", (Plain("fifo", "buffer", 4), Plain("level", "u8")))
FIELDS = (
    *(Plain("irq", "bool"), Plain("regs", "u64", 3), Struct("one", CHANNEL)),
    *(Struct("many", CHANNEL, 2), Plain("n", "u32"), Plain("msrs", "u64", 9, by="n")),
)
SCHEMA = Schema("launch-1", (Section("serial", Vmsd("serial", FIELDS, subsections=(FIFO,)), 4),))
ONE = {"count": -2, "latch": (1, 2)}
VALUES = {
    "irq": True,
    "regs": (1, 2, 3),
    "one": ONE,
    "many": [ONE, ONE],
    "n": 2,
    "msrs": (5, 6),
    "serial/fifo": {"fifo": b"abcd", "level": 7},
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "state.sav"
    path.write_bytes(StreamWriter(SCHEMA).encode({("serial", 4): VALUES}))
    return path


def inspected(path: Path) -> dict[str, Any]:
    paths = os.pathsep.join(str(ROOT / name) for name in (".", "formats", "proto"))
    done = subprocess.run(
        [sys.executable, "-m", "cprtools", "inspect", "--json", str(path)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        check=True,
    )
    read: dict[str, Any] = json.loads(done.stdout)
    return read


def all_bytes(node: Any, found: dict[str, int]) -> dict[str, int]:
    """Every count of bytes by kind in a report."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name in {"raw", "unknown"} and isinstance(value, int):
                found[name] = found.get(name, 0) + value
            all_bytes(value, found)
    elif isinstance(node, list):
        for value in node:
            all_bytes(value, found)
    return found


def test_inspect_decodes_the_stream_without_raw_bytes(saved: Path) -> None:
    found = inspected(saved)
    assert all_bytes(found, {}) == {"raw": 0, "unknown": 0}


def test_inspect_decodes_the_state_without_raw_bytes(tmp_path: Path) -> None:
    path = tmp_path / "state.qcpr"
    with filled_table() as table:
        path.write_bytes(encode_state(entries_of(table)))
        text = json.dumps(inspected(path))
        assert [entry.name for entry in table if f'"{entry.name}"' not in text] == []
    assert all_bytes(inspected(path), {}) == {"raw": 0, "unknown": 0}


@pytest.mark.live
@pytest.mark.parametrize("version", ["7.2", "10.0"])
def test_qemus_own_script_reads_it(version: str, saved: Path) -> None:
    script = qemus.source_package(version) / "scripts" / "analyze-migration.py"
    words = [sys.executable, str(script), "-f", str(saved), "-d", "state"]
    done = subprocess.run(words, capture_output=True, check=True)
    channel = {"count": "0xfffffffe (-2)", "latch": ["0x0001", "0x0002"]}
    assert json.loads(done.stdout)["serial (0)"] == {  # name and section id
        "irq": True,
        "regs": [f"0x{value:016x}" for value in (1, 2, 3)],
        "one": channel,
        "many": [channel, channel],
        "n": "0x00000002",
        "msrs": [f"0x{value:016x}" for value in (5, 6)],
        "serial/fifo": {"fifo": "61 62 63 64", "level": "0x07"},
    }
