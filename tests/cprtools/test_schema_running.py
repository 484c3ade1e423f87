"""Running a program for its dump: what it may cost, and what becomes of one that misbehaves."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tool import cprtools as run

import cprtools
from builders.installed import install, put
from builders.schemas import dump, dumped, dumped_field
from cprtools.schemas import running
from cprtools.schemas.running import RunFailed, run_dump

#: The last argument is the file to write.
WRITE = 'for file; do :; done\ncat > "$file" <<\\END\n{}\nEND\n'


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))


def script(tmp_path: Path, text: str) -> Path:
    path = put(tmp_path / "qemu", f"#!/bin/sh\n{text}\n".encode())
    path.chmod(0o755)
    return path


def left(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "temporary").iterdir())


def alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_what_it_writes_is_read(tmp_path: Path) -> None:
    made = dump("pc", dev=dumped("timer"))
    path = script(tmp_path, WRITE.format(made.decode()))
    assert run_dump(path).strip() == made
    schema = cprtools.open_schema(str(path), run=True)
    assert (schema.origin, schema.machine, schema.devices) == ("dump", "pc", {"dev": "timer"})
    assert left(tmp_path) == []


def test_how_it_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QEMU_MODULE_DIR", "/modules")
    monkeypatch.setenv("DISPLAY", ":0")
    told = tmp_path / "told"
    path = script(tmp_path, f'(echo "$@"; pwd; env; cat) > {told}\n' + WRITE.format("{}"))
    run_dump(path, machine="virt")
    words, place, *env = told.read_text().splitlines()
    assert words.startswith("-nodefaults -no-user-config -display none -nic none -monitor none ")
    assert words.endswith(f"-S -machine virt -dump-vmstate {place}/dump.json")
    assert Path(place).parent == tmp_path / "temporary"
    assert {"QEMU_MODULE_DIR=/modules", f"HOME={place}", f"TMPDIR={place}", "LC_ALL=C"} <= set(env)
    assert not any(line.startswith("DISPLAY=") for line in env)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo no such machine >&2; exit 3", "ended with status 3: no such machine"),
        ("exit 0", "wrote no description of itself"),
        ("kill -SEGV $$", "was ended by SIGSEGV"),
        ("kill -40 $$", "was ended by signal 40"),
        ("printf '\\033[2J\\377' >&2; exit 1", "ended with status 1: "),
    ],
)
def test_one_that_fails(tmp_path: Path, text: str, message: str) -> None:
    path = script(tmp_path, text)
    with pytest.raises(RunFailed, match=f"^it was run, and {message}"):
        run_dump(path)
    done = run("schema", path, "--run")
    assert (done.returncode, done.stdout) == (1, b"")
    assert f"cprtools: {path}: it was run, and {message}" in done.stderr.decode()
    assert b"\x1b" not in done.stderr
    assert left(tmp_path) == []


def test_one_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    told = tmp_path / "pids"
    path = script(tmp_path, f"sleep 1000 &\necho $$ $! > {told}\nwait")
    with pytest.raises(RunFailed, match="has not ended after 2 s"):
        run_dump(path, seconds=2)
    assert [pid for pid in map(int, told.read_text().split()) if alive(pid)] == []
    assert left(tmp_path) == []


def test_one_that_ends_and_leaves_children(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    path = script(tmp_path, f"sleep 1000 &\necho $! > {told}\n" + WRITE.format("{}"))
    assert run_dump(path) == b"{}\n"
    end = time.monotonic() + 20
    while alive(int(told.read_text())) and time.monotonic() < end:
        time.sleep(0.01)
    assert not alive(int(told.read_text()))


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ('for file; do :; done; yes > "$file"', "MAX_JSON_BYTES"),
        ("yes >&2", "_MAX_MESSAGES"),
        ('for file; do :; done; head -c 200000 /dev/zero > "$file"', "MAX_JSON_BYTES"),
    ],
)
def test_one_that_floods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, limit: str
) -> None:
    monkeypatch.setattr(running, limit, 100_000)
    with pytest.raises(RunFailed, match=r"wrote too much|SIGXFSZ|ended with status"):
        run_dump(script(tmp_path, text))
    assert left(tmp_path) == []


def test_what_it_prints_is_not_kept(tmp_path: Path) -> None:
    path = script(tmp_path, "head -c 5000000 /dev/zero\n" + WRITE.format("{}"))
    assert run_dump(path) == b"{}\n"


def test_one_that_can_not_be_run(tmp_path: Path) -> None:
    path = put(tmp_path / "qemu", b"\x7fELF" + bytes(100))
    path.chmod(0o755)
    with pytest.raises(RunFailed, match="it is no program for this host"):
        run_dump(path)
    path.chmod(0o644)
    if os.geteuid():
        with pytest.raises(PermissionError):
            run_dump(path)
    with pytest.raises(FileNotFoundError):
        run_dump(tmp_path / "none")


def test_a_dump_that_is_none(tmp_path: Path) -> None:
    done = run("schema", script(tmp_path, WRITE.format("no JSON")), "--run")
    assert done.returncode == 1
    assert b"expected JSON: " in done.stderr


def test_joined_with_its_elf_file(tmp_path: Path) -> None:
    binary = install(tmp_path / "root")
    printed = dump(
        a_timer=dumped("timer", dumped_field("x")),
        b_timer=dumped("timer", dumped_field("x")),
        lost=dumped("lost"),
    )
    path = script(tmp_path, WRITE.format(printed.decode()))
    schema = cprtools.open_schema(str(path), run=True, elf=str(binary))
    assert schema.devices == {"a-timer": "timer", "b-timer": "timer"}
    assert schema.unlinked == ("lost",)
    assert (schema.origin, schema.machine) == ("elf", "none")
    text = run("schema", path, "--run", "--elf", binary, "-n", "timer").stdout.decode()
    assert "  device types  2\n" in text
    assert "  device types a-timer, b-timer\n" in text
    assert "description of lost" in text
    alone = cprtools.open_schema(str(path), elf=str(binary))
    assert (alone.devices, list(alone.descriptions)) == ({}, ["timer", "one"])
