"""What we extract is the guest's memory, byte for byte, however a real QEMU saved it."""

from __future__ import annotations

import lzma
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from ramlab import HIGH_START, LOW_END, MIB, PAGE, Capture, Encoding, first_memory, take

import cprtools
from cprformats.memory.block import MemoryBlock, PageRun
from cprformats.migration.model import Command
from cprformats.migration.ramparts import RamMark, RamRun
from qemus import VERSIONS

pytestmark = pytest.mark.live

OLD, SINCE_7, NEW = VERSIONS[:3], VERSIONS[1:], VERSIONS[3:]
CHANNELS = ("multifd-channels", 2)


def mapped(
    name: str,
    *capabilities: str,
    running: bool = False,
    way: str = "file",
    parameters: tuple[tuple[str, Any], ...] = (),
) -> Encoding:
    wanted = ("mapped-ram", *capabilities)
    return Encoding(name, NEW, wanted, parameters, running=running, way=way)


def multifd(method: str, versions: tuple[str, ...], **parameters: object) -> Iterator[Encoding]:
    """A method of multifd, of a guest that stands and of one that runs."""
    words = {"multifd-compression": method, **parameters}
    name = "-".join(("multifd", method, *(str(word) for word in parameters.values())))
    for state, channels in (("stopped", 2), ("running", 4)):
        yield Encoding(
            f"{name}-{state}",
            versions,
            ("multifd",),
            tuple({**words, "multifd-channels": channels}.items()),
            running=state == "running",
            way="pair",
        )


BY_SECTION = ("-global", "migration.multifd-flush-after-each-section=on")
ENCODINGS = (
    Encoding("pages-stopped", VERSIONS),
    Encoding("pages-running", VERSIONS, running=True),
    Encoding("xbzrle", VERSIONS, ("xbzrle",), running=True),
    Encoding("compress-stopped", OLD, ("compress",)),
    Encoding("compress-running", OLD, ("compress",), running=True),
    Encoding("compress-xbzrle", OLD[:2], ("compress", "xbzrle"), running=True),
    mapped("mapped-stopped"),
    mapped("mapped-running", running=True),
    mapped("mapped-in-libvirt-image", way="libvirt"),
    mapped("mapped-multifd-stopped", "multifd", parameters=(CHANNELS,)),
    mapped("mapped-multifd-running", "multifd", parameters=(CHANNELS,), running=True),
    mapped("mapped-direct-io", "multifd", parameters=(CHANNELS, ("direct-io", True))),
    *multifd("none", VERSIONS),
    *multifd("zlib", VERSIONS),
    *multifd("zstd", SINCE_7),
    *multifd("none", NEW, **{"zero-page-detection": "legacy"}),
    *multifd("zlib", NEW, **{"zero-page-detection": "none"}),
    Encoding(
        "multifd-by-section",
        VERSIONS[2:],
        ("multifd",),
        (CHANNELS,),
        running=True,
        way="pair",
        options=BY_SECTION,
    ),
    Encoding(
        "background",
        SINCE_7,
        ("background-snapshot",),
        running=True,
        way="background",
        shared=False,
    ),
    Encoding("postcopy", VERSIONS, ("postcopy-ram",), running=True, way="postcopy", shared=False),
    Encoding(
        "postcopy-release",
        VERSIONS,
        ("postcopy-ram", "release-ram"),
        running=True,
        way="postcopy",
        shared=False,
    ),
    Encoding(
        "postcopy-preempt",
        SINCE_7,
        ("postcopy-ram", "postcopy-preempt"),
        running=True,
        way="postcopy",
        shared=False,
    ),
    Encoding(
        "postcopy-multifd",
        VERSIONS[4:],
        ("postcopy-ram", "multifd"),
        (CHANNELS,),
        running=True,
        way="postcopy",
        shared=False,
    ),
    Encoding("ignoring-shared", VERSIONS, ("x-ignore-shared",), way="ignoring shared"),
    # 10.0 can't: "Failed to write bitmap to file".
    Encoding(
        "mapped-ignoring-shared",
        NEW[1:],
        ("mapped-ram", "x-ignore-shared"),
        way="ignoring shared",
    ),
)
CASES = [
    pytest.param(version, encoding, id=f"{version}-{encoding.name}")
    for encoding in ENCODINGS
    for version in encoding.versions
]
#: Far fewer than what a capture has.
MANY = 50
#: A file system's own blocks for a file of many pieces.
SLACK = 64 << 10


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that is gone afterwards: a test fills some 80 MiB, and pytest keeps all."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(("version", "encoding"), CASES)
def test_extracted_memory_is_the_guests(version: str, encoding: Encoding, folder: Path) -> None:
    capture = take(version, encoding, folder)
    assert_witnesses_agree(capture, encoding)
    assert_encoded(capture, encoding)
    blocks = extract(capture, folder / "blocks")
    assert_extracted(capture, blocks)
    assert_readable(capture, blocks)


@pytest.mark.parametrize("version", VERSIONS[-1:])
def test_a_pipe_gives_the_same(version: str, folder: Path) -> None:
    capture = take(version, Encoding("xbzrle", (), ("xbzrle",), running=True), folder)
    packed = folder / "stream.xz"
    packed.write_bytes(lzma.compress(capture.stream.read_bytes(), preset=0))
    with subprocess.Popen(["xz", "-dc", packed], stdout=subprocess.PIPE) as unpacking:
        piped = run_ram("-", "--extract", folder / "piped", stdin=unpacking.stdout)
    assert_extracted(capture, piped)
    assert_extracted(capture, run_ram(packed, "--extract", folder / "packed"))


# --- what the capture is ---------------------------------------------------


def assert_witnesses_agree(capture: Capture, encoding: Encoding) -> None:
    """The memory that we compare with is what QEMU itself reads, and not just the first one."""
    if encoding.block not in capture.blocks:
        return
    memory = capture.blocks[encoding.block]
    for who, parts in capture.more.items():
        assert sum(map(len, parts.values())) == len(memory) - (HIGH_START - LOW_END), who
        for offset, data in parts.items():
            assert_same(memory[offset : offset + len(data)], data, who)
    changed = different_pages(memory, first_memory())
    assert (len(changed) > MANY) == encoding.running
    assert all(page < LOW_END for page in changed)


def assert_encoded(capture: Capture, encoding: Encoding) -> None:
    """The stream has what its encoding is here for."""
    pages, marks, commands = records(capture.stream)
    wanted = set(encoding.capabilities)
    if "xbzrle" in wanted:
        assert pages["xbzrle"] > MANY
    if "compress" in wanted:
        assert pages["compressed"] > MANY
    if "mapped-ram" in wanted:
        assert not pages
    elif "multifd" in wanted:
        assert len(capture.channels) == dict(encoding.parameters)["multifd-channels"]
        sizes = [path.stat().st_size for path in capture.channels]
        # Which channel is free for a packet is a matter of timing: one may take nearly all.
        assert sum(sizes) > MANY * PAGE * len(sizes), sizes
        assert all(size > PAGE for size in sizes), sizes
        assert ("MULTIFD_FLUSH" in marks) == flushes(capture.stream, encoding)
    else:
        assert pages["zero"] > MANY
    if encoding.way == "postcopy":
        assert "POSTCOPY_RAM_DISCARD" in commands
        assert "POSTCOPY_RUN" in commands or "PACKAGED" in commands
    if "postcopy-preempt" in wanted:
        assert [path.stat().st_size > PAGE for path in capture.channels] == [True]


def flushes(stream: Path, encoding: Encoding) -> bool:
    """Since 8.1 channels are waited for at marks of their own, unless that is turned off."""
    with cprtools.open(stream) as state:
        since = tuple(map(int, str(state.stream.machine).split("-")[-1].split("."))) >= (8, 1)
    return since and encoding.options != BY_SECTION


def records(path: Path) -> tuple[Counter[str], set[str], set[str]]:
    """Page records of the main channel by kind, its marks, its commands."""
    pages: Counter[str] = Counter()
    marks: set[str] = set()
    with cprtools.open(path) as state:
        assert state.error is None
        for section in state.stream.sections():
            if section.idstr != "ram":
                continue
            for part in state.stream.ram_parts(section):
                if isinstance(part, RamRun):
                    pages[part.kind] += part.count
                elif isinstance(part, RamMark):
                    marks.add(str(part.flag.name))
        commands = {item.name for item in state.stream.flat() if isinstance(item, Command)}
    return pages, marks, commands


# --- what we say -----------------------------------------------------------


def extract(capture: Capture, folder: Path) -> Path:
    channels = (word for path in reversed(capture.channels) for word in ("--channel", path))
    return run_ram(capture.stream, *channels, "--extract", folder)


def run_ram(*words: object, stdin: IO[bytes] | None = None) -> Path:
    """Run `cprtools ram`; its last word is the folder that it fills."""
    command = [sys.executable, "-m", "cprtools", "ram", *map(str, words)]
    done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return Path(str(words[-1]))


def assert_extracted(capture: Capture, folder: Path) -> None:
    """Each block is a file of its own."""
    for idstr, memory in capture.blocks.items():
        assert_same((folder / f"{idstr}.raw").read_bytes(), memory, f"{idstr}, extracted")


def assert_readable(capture: Capture, folder: Path) -> None:
    """The same through `open_memory`, which tells what is a hole in the extracted file too."""
    with cprtools.open_memory(capture.stream, capture.channels) as memory:
        assert memory.error is None
        for idstr, whole in capture.blocks.items():
            block = memory[idstr]
            assert len(block) == len(whole)
            assert_same(b"".join(in_pieces(block)), whole, f"{idstr}, read")
            data = assert_runs(list(block.runs()), whole)
            assert allocated(folder / f"{idstr}.raw") <= data * PAGE + SLACK
        for idstr in capture.absent:
            assert {run.kind for run in memory[idstr].runs()} == {"never"}
            assert allocated(folder / f"{idstr}.raw") == 0


def in_pieces(block: MemoryBlock) -> Iterator[bytes]:
    for offset in range(0, len(block), MIB):
        yield block.read(offset, MIB)


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def assert_runs(runs: list[PageRun], whole: bytes) -> int:
    """Runs follow each other; what they call zero or never sent is zero; gives the others."""
    end = data = 0
    for run in runs:
        assert run.start == end
        end += run.count
        if run.kind == "data":
            data += run.count
        else:
            assert not any(whole[run.start * PAGE : end * PAGE])
    assert end == len(whole) // PAGE
    return data


def assert_same(found: bytes, expected: bytes, what: str) -> None:
    """Compare memory, and name the pages that differ: pytest's own diff takes minutes."""
    assert len(found) == len(expected), what
    pages = different_pages(found, expected)
    assert not pages, f"{what}: {len(pages)} pages differ: {[hex(page) for page in pages[:8]]}"


def different_pages(one: bytes, other: bytes) -> list[int]:
    if one == other:
        return []
    places = range(0, len(other), PAGE)
    return [at for at in places if one[at : at + PAGE] != other[at : at + PAGE]]
