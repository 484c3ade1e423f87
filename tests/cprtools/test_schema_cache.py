"""Schemas that are kept: found again by build, never wrong, never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tool import cprtools as run
from tool import environment

import cprtools
from builders.installed import install, module, program, put
from cprformats.schema.model import Schema
from cprtools.schemas import cache as keeping
from cprtools.schemas import reading
from cprtools.schemas.cache import Cache, cache_folder

Reads = Callable[[], int]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("QEMU_MODULE_DIR", raising=False)
    return tmp_path / "cache" / "cprtools" / "schemas"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """How often ELF files were read in earnest."""
    calls = []
    real = reading._read_elf

    def counting(files: list[Path], debug: tuple[Path, ...] = ()) -> Schema:
        calls.append(files)
        return real(files, debug)

    monkeypatch.setattr(reading, "_read_elf", counting)
    return lambda: len(calls)


def entries(folder: Path, kind: str = "schema") -> list[Path]:
    return sorted(folder.glob(f"{kind}-*.json"))


def test_the_second_time_it_is_kept(folder: Path, tmp_path: Path, reads: Reads) -> None:
    binary = str(install(tmp_path))
    first = cprtools.open_schema(binary)
    assert (reads(), len(entries(folder)), len(entries(folder, "modules"))) == (1, 1, 1)
    assert cprtools.open_schema(binary) == first
    assert reads() == 1
    assert folder.stat().st_mode & 0o777 == 0o700
    assert entries(folder)[0].stat().st_mode & 0o777 == 0o600


def test_a_hit_does_not_read_the_program_from_end_to_end(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = install(tmp_path)
    binary.write_bytes(binary.read_bytes() + bytes(1 << 22))
    first = cprtools.open_schema(str(binary))
    pages = []
    real = os.pread

    def counting(file: int, count: int, offset: int) -> bytes:
        pages.append(count)
        return real(file, count, offset)

    monkeypatch.setattr(os, "pread", counting)
    assert cprtools.open_schema(str(binary)) == first
    assert 0 < sum(pages) < 1 << 20
    assert entries(folder)


def test_what_makes_a_schema_another_one(folder: Path, tmp_path: Path, reads: Reads) -> None:
    binary = install(tmp_path)
    cprtools.open_schema(str(binary))
    cprtools.open_schema(str(binary), find_modules=False)
    assert reads() == 2
    put(tmp_path / "usr/lib/qemu/hw-new.so", module("new"))
    assert "new" in cprtools.open_schema(str(binary)).descriptions
    binary.write_bytes(program("more"))
    assert "more" in cprtools.open_schema(str(binary)).descriptions
    binary.rename(binary.with_name("qemu-kvm"))
    moved = cprtools.open_schema(str(binary.with_name("qemu-kvm")))
    assert moved.binaries[0].name == "qemu-kvm"
    assert (reads(), len(entries(folder))) == (5, 5)


def test_another_reader_reads_anew(
    folder: Path, tmp_path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = str(install(tmp_path))
    cprtools.open_schema(binary)
    monkeypatch.setattr(reading, "_reader", lambda: "a newer one")
    cprtools.open_schema(binary)
    assert (reads(), len(entries(folder))) == (2, 2)


def test_a_file_without_a_build_id_is_known_by_its_bytes(
    folder: Path, tmp_path: Path, reads: Reads
) -> None:
    data = program().replace(b"GNU\0", b"XYZ\0")
    binary = put(tmp_path / "qemu", data)
    assert cprtools.open_schema(str(binary)).binaries[0].build_id == ""
    cprtools.open_schema(str(binary))
    assert (reads(), len(entries(folder))) == (1, 1)
    binary.write_bytes(data.replace(b"timer\0", b"clock\0"))
    assert list(cprtools.open_schema(str(binary)).descriptions) == ["clock"]
    assert reads() == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:70],
        lambda _: b"",
        lambda data: data.replace(b'"size":4', b'"size":8'),
        lambda data: b"\xff" * len(data),
        lambda data: data[:65] + b"{}",
    ],
)
def test_a_damaged_entry_is_written_again(
    folder: Path, tmp_path: Path, reads: Reads, damage: Callable[[bytes], bytes]
) -> None:
    binary = str(install(tmp_path))
    first = cprtools.open_schema(binary)
    for path in (*entries(folder), *entries(folder, "modules")):
        path.write_bytes(damage(path.read_bytes()))
    assert cprtools.open_schema(binary) == first
    assert reads() == 2
    assert cprtools.open_schema(binary) == first
    assert reads() == 2


@pytest.mark.parametrize("body", [b"{}", b"[]", b"\xff", b'{"stamps": 1, "folders": []}'])
def test_a_foreign_entry_is_written_again(
    folder: Path, tmp_path: Path, reads: Reads, body: bytes
) -> None:
    binary = str(install(tmp_path))
    first = cprtools.open_schema(binary)
    for path in (*entries(folder), *entries(folder, "modules")):
        Cache(folder).put(path.stem, body)
    assert cprtools.open_schema(binary) == first
    assert reads() == 2


def test_an_entry_that_is_no_file(folder: Path, tmp_path: Path, reads: Reads) -> None:
    binary = str(install(tmp_path))
    cprtools.open_schema(binary)
    (path,) = entries(folder)
    path.unlink()
    path.mkdir()
    cprtools.open_schema(binary)
    assert reads() == 2
    assert [one for one in folder.iterdir() if one.suffix == ".part"] == []


def test_without_the_cache_nothing_is_kept(folder: Path, tmp_path: Path, reads: Reads) -> None:
    binary = str(install(tmp_path))
    cprtools.open_schema(binary, cache=False)
    cprtools.open_schema(binary, cache=False)
    assert (reads(), folder.exists()) == (2, False)
    assert run("schema", binary, "--no-cache").returncode == 0
    assert not folder.exists()
    assert run("schema", binary).returncode == 0
    assert len(entries(folder)) == 1


def test_a_folder_that_can_not_be_written(folder: Path, tmp_path: Path) -> None:
    put(folder.parent.parent, b"a file where a folder should be")
    schema = cprtools.open_schema(str(install(tmp_path)))
    assert list(schema.descriptions) == ["timer", "one"]


def test_where_it_is() -> None:
    inner = Path("cprtools/schemas")
    assert cache_folder({"XDG_CACHE_HOME": "/x", "HOME": "/h"}) == Path("/x") / inner
    assert cache_folder({"XDG_CACHE_HOME": "x", "HOME": "/h"}) == Path("/h/.cache") / inner
    assert cache_folder({"HOME": "/h"}) == Path("/h/.cache") / inner
    assert cache_folder({"HOME": "h"}) is None
    assert cache_folder({}) is None
    assert Cache(None).get("x") is None
    Cache(None).put("x", b"")


def test_it_does_not_grow_without_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_MAX_ENTRIES", 4)
    kept = Cache(folder)
    for number in range(8):
        kept.put(f"e{number}", b"x")
        os.utime(folder / f"e{number}.json", (number, number))
        if number >= 3:
            assert kept.get("e0") == b"x"  # which is used, and so stays
    left = {path.stem for path in folder.iterdir()}
    assert len(left) == 4
    assert {"e0", "e7"} <= left
    monkeypatch.setattr(keeping, "_MAX_BYTES", 200)
    kept.put("last", b"y" * 100)
    assert [path.stem for path in folder.iterdir()] == ["last"]
    monkeypatch.setattr(keeping, "_MAX_ENTRY_BYTES", 10)
    kept.put("huge", b"y" * 11)
    assert kept.get("huge") is None


def test_what_a_killed_process_left_is_removed(folder: Path) -> None:
    old, new = put(folder / "old.part", b""), put(folder / "new.part", b"")
    other = put(folder / "README", b"")
    long_ago = time.time() - 7200
    os.utime(old, (long_ago, long_ago))
    Cache(folder).put("x", b"")
    assert [path.exists() for path in (old, new, other)] == [False, True, True]


MANY = """
import sys
import cprtools
for number in range(6):
    schema = cprtools.open_schema(sys.argv[1 + number % 2])
    assert list(schema.descriptions) == ["timer", "one"], schema
"""


def test_many_processes_at_once(folder: Path, tmp_path: Path) -> None:
    first, second = str(install(tmp_path / "a")), str(install(tmp_path / "b"))
    Path(second).rename(second + "-b")
    line = [sys.executable, "-c", MANY, first, second + "-b"]
    started = [subprocess.Popen(line, env=environment(), stderr=subprocess.PIPE) for _ in range(6)]
    results = [process.communicate(timeout=60)[1] for process in started]
    assert results == [b""] * 6
    assert [process.returncode for process in started] == [0] * 6
    assert len(entries(folder)) == 2
    assert [path for path in folder.iterdir() if path.suffix == ".part"] == []
