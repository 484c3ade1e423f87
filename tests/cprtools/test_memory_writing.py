"""Guest memory written to files: parts of blocks to several places, holes, and full disks."""

from __future__ import annotations

import errno
import io
import os
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import migration as build
from builders.memory import Story, mapped_stream, pattern, sparse_mapped_file, stories
from checks import watchdog
from cprformats.errors import FormatError
from cprformats.memory.batch import RamSink
from cprformats.memory.contents import Expander
from cprformats.migration import read_stream
from cprformats.migration.ramparts import RamBlock
from cprformats.source import BytesSource, FileSource, Source, SpoolSource
from cprtools.memory import writing
from cprtools.memory.drafts import drafts
from cprtools.memory.extract import BlockFiles, block_file_name
from cprtools.memory.writing import FileWriter, Target, copy_range

PAGE = build.PAGE
MIB = 1 << 20
Plan = Callable[[Sequence[RamBlock]], Mapping[str, Sequence[Target]]]


class Files:
    """Some files without names, each full of dots where nothing is written."""

    def __init__(self, count: int, size: int) -> None:
        self.fds = [os.memfd_create(f"file {number}") for number in range(count)]
        for fd in self.fds:
            os.ftruncate(fd, size)

    def read(self, number: int) -> bytes:
        return os.pread(self.fds[number], os.fstat(self.fds[number]).st_size, 0)

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


@contextmanager
def files(count: int = 1, size: int = 0) -> Iterator[Files]:
    made = Files(count, size)
    try:
        yield made
    finally:
        made.close()


def fixed(targets: Mapping[str, Sequence[Target]]) -> Plan:
    return lambda _: targets


def run(data: bytes | Source, plan: Plan) -> FormatError | None:
    source = BytesSource(data) if isinstance(data, bytes) else data
    sink: RamSink = Expander(FileWriter(plan))
    return read_stream(source, sink=sink).error


def whole(story: Story, fd: int, block: str = "r") -> Plan:
    """One block to the beginning of a file."""
    os.ftruncate(fd, story.sizes[block])
    return fixed({block: [Target(0, story.sizes[block], fd, 0)]})


def extract(data: bytes | Source, folder: Path, *only: str) -> FormatError | None:
    with drafts() as made:
        return run(data, BlockFiles(folder, made, only))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """As on a full disk: writing behind it fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# -- where pages go ---------------------------------------------------------------------

OURS = settings(derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(OURS, max_examples=150)
@given(stories())
def test_each_block_to_a_file_of_its_own(story: Story) -> None:
    with files(len(story.sizes)) as made:
        fds = dict(zip(story.sizes, made.fds, strict=True))
        for name, fd in fds.items():
            os.ftruncate(fd, story.sizes[name])
        plan = {name: [Target(0, story.sizes[name], fd, 0)] for name, fd in fds.items()}
        assert run(story.stream(), fixed(plan)) is None
        for number, name in enumerate(fds):
            assert made.read(number) == story.block(name)


@st.composite
def targets(draw: st.DrawFn, size: int) -> list[tuple[int, int, int, int]]:
    """Parts of a block, and the place of each among two files: start, size, file, offset."""
    found, ends = [], [0, 0]
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, size - 1))
        length = draw(st.integers(1, size - start))
        file = draw(st.integers(0, 1))
        offset = ends[file] + draw(st.integers(0, 300))
        ends[file] = offset + length
        found.append((start, length, file, offset))
    return found


@settings(OURS, max_examples=150)
@given(stories(page_sizes=(256, 1024)), st.data())
def test_parts_of_a_block_to_several_places(story: Story, draw: st.DataObject) -> None:
    parts = draw.draw(targets(story.sizes["b0"]))
    with files(2, 200_000) as made:
        plan = {"b0": [Target(start, size, made.fds[f], at) for start, size, f, at in parts]}
        assert run(story.stream(), fixed(plan)) is None
        wanted = [bytearray(200_000), bytearray(200_000)]
        for start, size, file, at in parts:
            wanted[file][at : at + size] = story.block("b0")[start : start + size]
        assert [made.read(number) for number in range(2)] == wanted


def test_more_pages_at_once_than_a_call_takes() -> None:
    """IOV_MAX is 1024; a window of the reader has more pages of 256 bytes."""
    story = Story({"r": 3000 * 256}, page_size=256)
    for number in range(3000):
        story.page("r", number, pattern(number % 40, 256))
    with files() as made:
        assert run(story.stream(), whole(story, made.fds[0])) is None
        assert made.read(0) == story.block("r")


def test_a_call_that_writes_only_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story({"r": 5 * PAGE})
    for number in range(5):
        story.page("r", number, pattern(number))
    pwritev, pwrite = os.pwritev, os.pwrite
    monkeypatch.setattr(os, "pwritev", lambda fd, views, at: pwritev(fd, views[:2], at))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:1000], at))
    with files() as made:
        assert run(story.stream(), whole(story, made.fds[0])) is None
        assert made.read(0) == story.block("r")


def test_blocks_without_a_place_are_left_out() -> None:
    story = Story({"r": PAGE, "rom": PAGE})
    story.page("rom", 0, pattern(1))
    story.change("rom", 0, b"x" + pattern(1)[1:])
    story.zero("rom", 0)
    with files() as made:
        assert run(story.stream(), whole(story, made.fds[0])) is None
        assert made.read(0) == bytes(PAGE)


def test_a_delta_over_a_part_that_goes_nowhere() -> None:
    story = Story({"r": PAGE})
    story.page("r", 0, pattern(1))
    story.change("r", 0, pattern(1)[:90] + b"changed" + pattern(1)[97:])
    with files(1, 20) as made:
        plan = fixed({"r": [Target(85, 20, made.fds[0], 0)]})
        assert run(story.stream(), plan) is None
        assert made.read(0) == story.block("r")[85:105]


# -- holes ------------------------------------------------------------------------------


def blocks(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_zero_pages_are_holes(tmp_path: Path) -> None:
    story = Story({"r": 256 * PAGE})
    for number in range(256):
        story.zero("r", number) if number % 64 else story.page("r", number, pattern(number))
    assert extract(story.stream(), tmp_path) is None
    path = tmp_path / "r.raw"
    assert path.read_bytes() == story.block("r")
    assert 4 * PAGE <= blocks(path) < 40 * PAGE


@pytest.mark.parametrize("last", ["zero", "discard"])
def test_data_that_becomes_zero_makes_a_hole(last: str, tmp_path: Path) -> None:
    story = Story({"r": 256 * PAGE}, postcopy=True)
    for number in range(256):
        story.page("r", number, pattern(number))
    if last == "zero":
        for number in range(1, 256):
            story.zero("r", number)
    else:
        story.discard("r", 1, 255)
    assert extract(story.stream(), tmp_path) is None
    path = tmp_path / "r.raw"
    assert path.read_bytes() == story.block("r")
    assert blocks(path) < 40 * PAGE


def test_zeros_are_written_where_there_are_no_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoHoles:
        def fallocate(self, *_: object) -> int:
            return -1

    monkeypatch.setattr(writing, "_libc", NoHoles())
    story = Story({"r": 3 * MIB}, postcopy=True)
    for number in range(768):
        story.page("r", number, pattern(number % 9))
    story.discard("r", 0, 767)
    with files() as made:
        assert run(story.stream(), whole(story, made.fds[0])) is None
        assert made.read(0) == story.block("r")


def test_holes_inside_pages_of_the_file_system(tmp_path: Path) -> None:
    """A target at an odd place: only the bytes of the page become zero."""
    story = Story({"r": 3 * PAGE})
    for number in range(3):
        story.page("r", number, pattern(number))
    story.zero("r", 1)
    path = tmp_path / "file"
    path.write_bytes(b"." * 4 * PAGE)
    with path.open("r+b") as file:
        plan = fixed({"r": [Target(0, 3 * PAGE, file.fileno(), 100)]})
        assert run(story.stream(), plan) is None
    assert path.read_bytes()[:100] == b"." * 100
    assert path.read_bytes()[100 : 100 + 3 * PAGE] == story.block("r")
    assert path.read_bytes()[100 + 3 * PAGE :] == b"." * (PAGE - 100)


# -- mapped-ram ---------------------------------------------------------------------------

Opened = Callable[[bytes], Source]


@pytest.fixture(params=["buffer", "file", "file without copies in the kernel"])
def opened(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Opened]:
    """Ways to open a file: from memory, or from the disk."""
    if request.param == "buffer":
        yield BytesSource
        return
    if request.param != "file":
        monkeypatch.setattr(os, "copy_file_range", failing(errno.ENOSYS))
    path = tmp_path / "input"
    path.write_bytes(b"")
    with path.open("r+b", buffering=0) as file:

        def made(data: bytes) -> FileSource:
            file.write(data)
            return FileSource(file)

        yield made


def failing(number: int) -> Callable[..., int]:
    def fails(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return fails


PAGES = [pattern(0), None, pattern(2), pattern(3), None, None, pattern(6)]
WHOLE = b"".join(page or bytes(PAGE) for page in PAGES)


def test_mapped_pages(opened: Opened, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    data = mapped_stream({"r": PAGES, "empty": [None, None], "full": [pattern(9)]})
    assert extract(opened(data), out) is None
    assert names(out) == ["empty.raw", "full.raw", "r.raw"]
    assert (out / "r.raw").read_bytes() == WHOLE
    assert (out / "empty.raw").read_bytes() == bytes(2 * PAGE)
    assert (out / "full.raw").read_bytes() == pattern(9)


@pytest.mark.parametrize("size", [1, PAGE - 1, PAGE + 1])
def test_mapped_of_a_size_that_is_no_multiple(opened: Opened, size: int) -> None:
    used = {"rest": -size % PAGE, "r": size}
    data = mapped_stream({"rest": [None], "r": [pattern(0), pattern(1)][: -(-size // PAGE)]}, used)
    with files(1, size) as made:
        plan = fixed({"r": [Target(0, size, made.fds[0], 0)]})
        assert run(opened(data), plan) is None
        assert made.read(0) == (pattern(0) + pattern(1))[:size]


@pytest.mark.usefixtures("opened")
def test_parts_of_mapped_pages_to_several_places(opened: Opened) -> None:
    with files(2, 40_000) as made:
        parts = [(100, 3 * PAGE, 0, 7), (5, 10, 1, 0), (2 * PAGE, len(WHOLE) - 2 * PAGE, 1, 99)]
        plan = {"r": [Target(start, size, made.fds[f], at) for start, size, f, at in parts]}
        assert run(opened(mapped_stream({"r": PAGES})), fixed(plan)) is None
        for start, size, file, at in parts:
            assert made.read(file)[at : at + size] == WHOLE[start : start + size]


def test_progress_counts_what_was_copied(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_STEP_BYTES", 3000)
    seen: list[int] = []
    with files(1, len(WHOLE)) as made:
        writer = FileWriter(fixed({"r": [Target(0, len(WHOLE), made.fds[0], 0)]}), seen.append)
        read_stream(opened(mapped_stream({"r": PAGES})), sink=Expander(writer))
        assert made.read(0) == WHOLE
    assert seen == sorted(seen)
    assert seen[-1] == 4 * PAGE


def test_a_sparse_file_stays_sparse_and_takes_no_time(tmp_path: Path) -> None:
    size = 64 << 30
    path, out = tmp_path / "input", tmp_path / "out"
    out.mkdir()
    pages = {0: pattern(0), 5: pattern(5), size // PAGE - 1: pattern(6)}
    sparse_mapped_file(path, size, pages)
    with path.open("rb") as file, watchdog(5):
        assert extract(FileSource(file), out) is None
    assert (out / "r.raw").stat().st_size == size
    assert blocks(out / "r.raw") < MIB
    with (out / "r.raw").open("rb") as file:
        for number, data in pages.items():
            file.seek(number * PAGE)
            assert file.read(PAGE) == data


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EDQUOT])
def test_a_disk_that_fails_in_the_kernels_copy(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "copy_file_range", failing(number))
    path, out = tmp_path / "input", tmp_path / "out"
    out.mkdir()
    path.write_bytes(mapped_stream({"r": PAGES}))
    with path.open("rb") as file, pytest.raises(OSError, match=os.strerror(number)):
        extract(FileSource(file), out)
    assert names(out) == []


def test_a_copy_that_ends_with_the_file() -> None:
    with files(1, 10) as made:
        copy_range(BytesSource(b"abcdef"), 2, 100, made.fds[0], 3)
        assert made.read(0) == b"\0\0\0cdef\0\0\0"


# -- disks that are full ------------------------------------------------------------------


def story_of(kind: str) -> bytes:
    """Streams whose last page is in the way, each of another kind."""
    story = Story({"r": 64 * PAGE})
    for number in range(63):
        story.page("r", number, pattern(number))
    if kind == "delta":
        story.change("r", 63, b"x" + bytes(PAGE - 1))
    elif kind == "fill":
        story.fill("r", 63, 7)
    elif kind == "compressed":
        story.compressed("r", 63, pattern(1))
    else:
        story.page("r", 63, pattern(1))
    return story.stream()


@pytest.mark.parametrize("kind", ["page", "delta", "fill", "compressed"])
def test_a_full_disk(kind: str, tmp_path: Path) -> None:
    """The file's place is left as it was."""
    (tmp_path / "r.raw").write_bytes(b"before")
    data = story_of(kind)

    class Small(BlockFiles):
        """Does not make room: the writing itself has to fail."""

        def _target(self, block: RamBlock) -> Target:
            draft = self._drafts.add(tmp_path / "r.raw")
            return Target(0, block.used_length, draft.fd, 0)

    limit = no_file_longer_than(63 * PAGE + 5)
    with limit, pytest.raises(OSError, match="too large"), drafts() as made:
        run(data, Small(tmp_path, made))
    assert names(tmp_path) == ["r.raw"]
    assert (tmp_path / "r.raw").read_bytes() == b"before"


def test_a_block_for_which_there_is_no_room(tmp_path: Path) -> None:
    limit = no_file_longer_than(MIB)
    with limit, pytest.raises(OSError, match="too large") as caught:
        extract(Story({"r": 2 * MIB}).stream(), tmp_path)
    assert caught.value.errno == errno.EFBIG
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["page", "delta"])
def test_a_device_that_is_full(kind: str) -> None:
    with Path("/dev/full").open("r+b", buffering=0) as full:
        plan = fixed({"r": [Target(0, 64 * PAGE, full.fileno(), 0)]})
        with pytest.raises(OSError, match="No space left"):
            run(story_of(kind), plan)


@pytest.mark.parametrize("size", [1 << 60, 1 << 63, (1 << 64) - PAGE])
def test_a_block_of_a_size_that_is_a_lie(size: int, tmp_path: Path) -> None:
    """The system's error, or ours; a file system may also take it."""
    body = build.block_list(build.block("r", size)) + build.data_page(PAGE, "r") + build.eos()
    try:
        error = extract(build.stream(build.start(2, body=body)), tmp_path)
    except OSError:
        error = None
    assert error is None or isinstance(error, FormatError)


# -- files for blocks -----------------------------------------------------------------------


def test_only_the_blocks_asked_for(tmp_path: Path) -> None:
    story = Story({"a": PAGE, "b": PAGE, "c": PAGE})
    story.page("b", 0, pattern(1))
    assert extract(story.stream(), tmp_path, "b", "vga") is None
    assert names(tmp_path) == ["b.raw"]


IDSTRS = ["pc.ram", "/rom@etc/acpi/tables", "..", ".", "/", "a/../b", "100%", "", "\udcff", "a\nb"]
IDSTRS += ["0000:00:02.0/vga.vram", "x" * 255, "/" * 255, "~", "-f", "ä"]


def test_names_of_blocks_are_names_of_files(tmp_path: Path) -> None:
    """No name leaves the folder, and no two are the same."""
    found = [block_file_name(idstr) for idstr in IDSTRS]
    assert len(set(found)) == len(IDSTRS)
    for name in found:
        assert len(name.encode()) <= 255
        assert "/" not in name
        (tmp_path / name).write_bytes(b"")
    assert len(names(tmp_path)) == len(IDSTRS)


def test_long_names_that_begin_alike(tmp_path: Path) -> None:
    listed = {"x" * 250 + str(number): PAGE for number in range(4)}
    story = Story(listed)
    for number, name in enumerate(listed):
        story.page(name, 0, pattern(number))
    with drafts() as made:
        plan = BlockFiles(tmp_path, made)
        assert run(story.stream(), plan) is None
    assert len(set(plan.paths.values())) == 4
    for number, name in enumerate(listed):
        assert plan.paths[name].read_bytes() == pattern(number)


# -- a page size that is told at the end --------------------------------------------------


def test_what_was_written_before_a_restart_is_gone(tmp_path: Path) -> None:
    """Read with pages of 4 KiB at first: what that wrote must not shine through."""
    first = build.data_page(0, "r", data=b"\5" * 1024)
    body = build.block_list(build.block("r", 2 * PAGE)) + first
    body += build.data_page(1024, data=b"\6" * 1024) + build.zero_page(2048) + build.eos()
    data = build.stream(build.start(2, body=body), description=build.vmdesc(page_size=1024))
    assert extract(SpoolSource(io.BytesIO(data).read, keep_all=True), tmp_path) is None
    wanted = b"\5" * 1024 + b"\6" * 1024
    assert (tmp_path / "r.raw").read_bytes() == wanted.ljust(2 * PAGE, b"\0")


def test_restart_empties_the_files() -> None:
    with files(2, 100) as made:
        plan = fixed({"r": [Target(0, 50, made.fds[0], 0), Target(50, 50, made.fds[1], 9)]})
        writer = FileWriter(plan)
        writer.begin([RamBlock("r", 100)], BytesSource(b""))
        writer.write("r", 0, [memoryview(b"x" * 100)])
        writer.restart()
        assert [made.read(0), made.read(1)] == [bytes(100), bytes(100)]
