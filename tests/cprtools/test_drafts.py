"""Files that appear when they are whole: with O_TMPFILE, and where the file system has none."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cprtools.memory.drafts import Draft, drafts

_KILLED = """
import os, sys, time
from pathlib import Path
from cprtools.memory.drafts import drafts
if sys.argv[2] == "beside":
    del os.O_TMPFILE
    os.O_TMPFILE = 1 << 30
with drafts() as files:
    draft = files.add(Path(sys.argv[1]))
    os.pwrite(draft.fd, b"new" * 1000, 0)
    print("written", flush=True)
    time.sleep(60)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(draft: Draft, data: bytes = b"new") -> None:
    os.pwrite(draft.fd, data, 0)


def no_tmpfile(monkeypatch: pytest.MonkeyPatch, number: int = errno.EOPNOTSUPP) -> None:
    """Let the file system have no unnamed files."""
    real = os.open

    def refuses(path: str, flags: int, *more: int, **named: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE and Path(path).is_dir():
            raise OSError(number, os.strerror(number), str(path))
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", refuses)


@pytest.fixture(params=["unnamed", "beside"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of writing a draft."""
    if request.param == "beside":
        no_tmpfile(monkeypatch)
    return str(request.param)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """All that was opened is closed."""
    before = open_files()
    yield
    assert open_files() <= before  # less where the rubbish of other tests went meanwhile


def test_a_file_appears_at_the_end(way: str, tmp_path: Path) -> None:
    with drafts() as files:
        write(files.add(tmp_path / "out"))
        assert names(tmp_path) == [] or way == "beside"
        assert not (tmp_path / "out").exists()
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out").read_bytes() == b"new"


@pytest.mark.usefixtures("way")
def test_several_files_appear_together(tmp_path: Path) -> None:
    with drafts() as files:
        for name in "abc":
            write(files.add(tmp_path / name), name.encode())
        assert not any((tmp_path / name).exists() for name in "abc")
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [b"a", b"b", b"c"]


@pytest.mark.usefixtures("way")
def test_a_file_that_was_there_stays_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before")
    with drafts() as files:
        write(files.add(path))
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["out"]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_writer_that_fails_leaves_nothing(problem: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before")
    with pytest.raises(type(problem)), drafts() as files:  # noqa: PT012
        write(files.add(path))
        write(files.add(tmp_path / "other"))
        raise problem
    assert names(tmp_path) == ["out"]
    assert path.read_bytes() == b"before"


@pytest.mark.usefixtures("way")
def test_giving_up_leaves_nothing(tmp_path: Path) -> None:
    with drafts() as files:
        write(files.add(tmp_path / "out"))
        files.give_up()
    assert names(tmp_path) == []


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0])
def test_permissions_follow_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        with drafts() as files:
            files.add(tmp_path / "out")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o666 & ~mask


@pytest.mark.usefixtures("way")
def test_a_link_is_replaced_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"real")
    (tmp_path / "out").symlink_to("real")
    with drafts() as files:
        write(files.add(tmp_path / "out"))
    assert not (tmp_path / "out").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"real"


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", ["x" * 255, "a b\n", ".hidden", "100%.raw", "\udcff"])
def test_any_name(name: str, tmp_path: Path) -> None:
    with drafts() as files:
        write(files.add(tmp_path / name))
    assert names(tmp_path) == [name]


@pytest.mark.usefixtures("way")
def test_a_file_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with drafts() as files:
        write(files.add(Path("out")))
    assert names(tmp_path) == ["out"]


@pytest.mark.usefixtures("way")
def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(IsADirectoryError) as caught, drafts() as files:
        files.add(tmp_path / "out")
    assert caught.value.filename == str(tmp_path / "out")
    assert names(tmp_path) == ["out"]


@pytest.mark.usefixtures("way")
def test_a_folder_that_takes_the_place_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"), drafts() as files:  # noqa: PT012
        write(files.add(tmp_path / "out"))
        (tmp_path / "out").mkdir()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == []


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("folder", "error"), [("missing", FileNotFoundError), ("file", NotADirectoryError)]
)
def test_a_folder_that_is_none(folder: str, error: type[OSError], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(error) as caught, drafts() as files:
        files.add(tmp_path / folder / "out")
    assert caught.value.filename == str(tmp_path / folder / "out")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT])
def test_every_way_to_say_that_there_are_no_unnamed_files(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_tmpfile(monkeypatch, number)
    with drafts() as files:
        write(files.add(tmp_path / "out"))
        (beside,) = names(tmp_path)
        assert beside.startswith(".out.")
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EROFS])
def test_other_errors_pass_through(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_tmpfile(monkeypatch, number)
    with pytest.raises(OSError, match="out") as caught, drafts() as files:
        files.add(tmp_path / "out")
    assert caught.value.errno == number
    assert names(tmp_path) == []


@pytest.mark.parametrize("how", ["unnamed", "beside"])
def test_a_killed_writer_leaves_no_file_of_that_name(how: str, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"before")
    child = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path / "out"), how],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert (tmp_path / "out").read_bytes() == b"before"
    left = [name for name in names(tmp_path) if name != "out"]
    assert left == [] if how == "unnamed" else all(x.startswith(".out.") for x in left)


def test_publishing_stops_at_the_first_that_fails(tmp_path: Path) -> None:
    """What is already in its place stays; of the others nothing is left."""
    with pytest.raises(IsADirectoryError), drafts() as files:  # noqa: PT012
        for name in "abc":
            write(files.add(tmp_path / name))
        (tmp_path / "b").mkdir()
    assert names(tmp_path) == ["a", "b"]
