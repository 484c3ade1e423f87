"""Opening files: layer by layer, whatever they are wrapped in."""

from __future__ import annotations

import bz2
import gc
import gzip
import lzma
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lz4.frame
import pytest
import zstandard

import cprtools
from builders import migration as build
from builders.libvirt import save_image
from builders.qcow2 import Snapshot, image
from builders.qcpr import old_state, qcpr
from checks import assert_tiles, assert_whole
from cprformats.container import Compressed, LibvirtSave, Qcow2
from cprformats.encode import encode
from cprformats.errors import FormatError, Truncated, Unsupported, WrongFormat
from cprformats.fields import Kind
from cprtools.statefile import StateFile, Unreadable

PAGE = build.PAGE


def stream() -> bytes:
    """A stream with RAM and a device."""
    first = build.data_page(0, "pc.ram", data=b"\x11" * PAGE)
    more = b"".join(build.data_page(n * PAGE, data=bytes([n]) * PAGE) for n in range(1, 4))
    blocks = build.block_list(build.block("pc.ram", 4 * PAGE))
    ram = build.start(2, body=blocks + build.eos())
    rest = build.end(2, body=first + more + build.eos())
    field = build.field("level", "uint8", 1)
    device = build.full(3, "dev", body=b"\x2a")
    return build.stream(
        build.configuration("pc"),
        ram,
        rest,
        device,
        description=build.vmdesc(build.device("dev", [field])),
    )


STREAM = stream()
PACKERS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "lz4": lz4.frame.compress,
}


def opened(tmp_path: Path, data: bytes, **more: str) -> StateFile:
    path = tmp_path / "state"
    path.write_bytes(data)
    return cprtools.open(path, **more)  # type: ignore[arg-type]


def check_layers(state: StateFile, *datas: bytes) -> None:
    """Each layer tiles its own data and encodes back to it."""
    assert state.error is None
    assert len(state.layers) == len(datas)
    for layer, data in zip(state.layers, datas, strict=True):
        trees = list(layer.content.walk())
        start = layer.content.offset  # type: ignore[attr-defined]
        assert_tiles(trees, start)
        assert b"".join(encode(trees)) == data[start:]
        assert layer.content.tally().total == len(data) - start
        assert layer.content.tally().unknown == 0


def kinds(state: StateFile) -> list[str]:
    return [layer.kind for layer in state.layers]


# -- what there is ------------------------------------------------------------------


def test_a_bare_stream(tmp_path: Path) -> None:
    state = opened(tmp_path, STREAM)
    assert kinds(state) == ["migration"]
    assert state.kind == "migration"
    assert state.stream.machine == "pc"
    assert state.name == str(tmp_path / "state")
    check_layers(state, STREAM)


@pytest.mark.parametrize("name", PACKERS)
def test_a_compressed_stream(tmp_path: Path, name: str) -> None:
    packed = PACKERS[name](STREAM)
    state = opened(tmp_path, packed)
    assert kinds(state) == [name, "migration"]
    check_layers(state, packed, STREAM)


@pytest.mark.parametrize(("format", "name"), [(1, "gzip"), (2, "bzip2"), (3, "xz"), (5, "zstd")])
def test_a_compressed_libvirt_image(tmp_path: Path, format: int, name: str) -> None:
    packed = PACKERS[name](STREAM)
    data = save_image(packed, format=format)
    state = opened(tmp_path, data)
    assert kinds(state) == ["libvirt-save", name, "migration"]
    assert state.warnings == ()
    check_layers(state, data, data, STREAM)
    save = state.layers[0].content
    assert isinstance(save, LibvirtSave)
    assert save.format == name
    assert save.tally().by_kind[Kind.PAYLOAD] == len(packed)


def test_a_raw_libvirt_image_has_offsets_of_the_file(tmp_path: Path) -> None:
    data = save_image(STREAM + bytes(300))
    state = opened(tmp_path, data)
    assert kinds(state) == ["libvirt-save", "migration"]
    assert state.stream.offset == len(data) - len(STREAM) - 300
    check_layers(state, data, data)


def test_a_sparse_libvirt_image(tmp_path: Path) -> None:
    """mapped-ram: the stream names absolute offsets of the file that libvirt's header begins."""
    head = len(save_image(b""))
    configuration = build.configuration(capabilities=["mapped-ram"])
    first = head + 8 + len(configuration) + 17 + 8
    block = build.mapped_block("pc.ram", [b"\1" * PAGE, None], at=first, align=1 << 16)
    body = build.block_list(block) + build.eos()
    inner = build.stream(configuration, build.start(2, body=body))
    data = save_image(inner, format=6)
    state = opened(tmp_path, data)
    assert kinds(state) == ["libvirt-save", "migration"]
    assert state.stream.offset == head
    check_layers(state, data, data)


@pytest.mark.parametrize("shape", [{}, {"compression": "zstd"}, {"extended": True}])
def test_the_state_in_a_qcow2(tmp_path: Path, shape: dict[str, bool]) -> None:
    data = image(Snapshot("one", STREAM), disk={0: b"boot"}, cluster_bits=14, **shape)
    state = opened(tmp_path, data)
    assert kinds(state) == ["qcow2", "migration"]
    check_layers(state, data, STREAM)


def test_a_qcow2_in_gzip_in_xz(tmp_path: Path) -> None:
    data = image(Snapshot("one", STREAM))
    once = gzip.compress(data, mtime=0)
    twice = lzma.compress(once)
    state = opened(tmp_path, twice)
    assert kinds(state) == ["xz", "gzip", "qcow2", "migration"]
    check_layers(state, twice, once, data, STREAM)


@pytest.mark.parametrize(
    ("data", "kind"), [(qcpr(("ram0", 0, 9)), "qcpr"), (old_state(("ram0", 0, 9)), "cpr-2022")]
)
def test_cpr_states(tmp_path: Path, data: bytes, kind: str) -> None:
    state = opened(tmp_path, data)
    assert state.kind == kind
    check_layers(state, data)
    with pytest.raises(WrongFormat, match=f"expected a migration stream, found {kind}"):
        _ = state.stream


# -- snapshots ------------------------------------------------------------------------


def test_a_snapshot_is_chosen(tmp_path: Path) -> None:
    other = build.stream(build.configuration("q35"))
    data = image(Snapshot("one", STREAM, "1"), Snapshot("two", other, "2"))
    state = opened(tmp_path, data)
    assert state.stream.machine == "q35"
    assert "'two' (id 2) is read, the last of 2" in state.warnings[0]
    for wanted in ("1", "one"):
        state = opened(tmp_path, data, snapshot=wanted)
        assert state.stream.machine == "pc"
        assert state.warnings == ()
    with pytest.raises(WrongFormat, match="'three'"):
        opened(tmp_path, data, snapshot="three")


def test_without_a_state_the_image_is_the_last_layer(tmp_path: Path) -> None:
    state = opened(tmp_path, image(Snapshot("disk alone")))
    assert kinds(state) == ["qcow2"]
    content = state.layers[0].content
    assert isinstance(content, Qcow2)
    assert [x.name for x in content.snapshots] == ["disk alone"]
    assert state.error is None


def test_a_snapshot_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(WrongFormat, match="expected a qcow2 image, found migration"):
        opened(tmp_path, STREAM, snapshot="one")


def test_an_encrypted_image(tmp_path: Path) -> None:
    state = opened(tmp_path, image(Snapshot("one", STREAM), changes={"crypt": 2}))
    assert kinds(state) == ["qcow2"]
    assert isinstance(state.error, Unsupported)


# -- damage ----------------------------------------------------------------------------


def test_damage_in_a_layer_keeps_what_is_outside(tmp_path: Path) -> None:
    state = opened(tmp_path, save_image(b"\x7fELF" + bytes(60)))
    assert kinds(state) == ["libvirt-save", "unknown"]
    assert isinstance(state.error, WrongFormat)
    assert "an ELF file" in str(state.error)
    inner = state.layers[1].content
    assert isinstance(inner, Unreadable)
    assert inner.tally().by_kind == {Kind.UNKNOWN: 64}
    assert inner.warnings == ()
    with pytest.raises(WrongFormat, match="found unknown"):
        _ = state.stream


def test_a_cut_compressed_stream_keeps_what_came_before(tmp_path: Path) -> None:
    packed = gzip.compress(STREAM, 0, mtime=0)
    state = opened(tmp_path, packed[: len(packed) // 2])
    assert isinstance(state.layers[0].content, Compressed)
    assert isinstance(state.error, Truncated)
    assert state.error is state.layers[0].content.error
    assert state.stream.machine == "pc"
    assert isinstance(state.stream.error, Truncated)


def test_a_cut_libvirt_image(tmp_path: Path) -> None:
    state = opened(tmp_path, save_image(b"")[:100])
    assert kinds(state) == ["libvirt-save"]
    assert isinstance(state.error, Truncated)


def test_an_image_with_nothing_inside(tmp_path: Path) -> None:
    state = opened(tmp_path, save_image(b""))
    assert kinds(state) == ["libvirt-save", "unknown"]
    assert "found no data" in str(state.error)


def test_a_damaged_table_ends_the_stream(tmp_path: Path) -> None:
    data = bytearray(image(Snapshot("one", STREAM), cluster_bits=9))
    first = data.index(STREAM[:512])
    at = data.index(struct.pack(">Q", first | 1 << 63))
    data[at + 80 : at + 88] = struct.pack(">Q", 1 << 50)
    state = opened(tmp_path, bytes(data))
    assert kinds(state) == ["qcow2", "migration"]
    assert isinstance(state.error, Truncated)
    assert state.error.path == ("snapshots", "one")
    assert state.stream.machine == "pc"
    assert isinstance(state.stream.error, Truncated)
    assert state.stream.source.size() == 5120


def test_a_magic_alone_in_a_layer(tmp_path: Path) -> None:
    state = opened(tmp_path, gzip.compress(b"QEVM\0\0\0\x09", mtime=0))
    assert kinds(state) == ["gzip", "unknown"]
    assert isinstance(state.error, Unsupported)


def test_layers_are_bounded(tmp_path: Path) -> None:
    data = STREAM
    for _ in range(9):
        data = gzip.compress(data, mtime=0)
    state = opened(tmp_path, data)
    assert isinstance(state.error, Unsupported)
    assert "more than 8 layers" in str(state.error)


def test_a_qcow2_where_none_can_be(tmp_path: Path) -> None:
    state = opened(tmp_path, save_image(image()))
    assert isinstance(state.error, Unsupported)


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"hello", b"QE"])
def test_no_state_at_all(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(FormatError):
        opened(tmp_path, data)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cprtools.open(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        cprtools.open(tmp_path)
    with pytest.raises(OSError, match="character device"):
        cprtools.open("/dev/zero")


# -- pipes -------------------------------------------------------------------------------


@contextmanager
def through_pipe(data: bytes, **more: bool) -> Iterator[StateFile]:
    """Open what comes through a pipe on standard input."""
    read, write = os.pipe()

    def feed() -> None:
        with os.fdopen(write, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    before = sys.stdin
    with os.fdopen(read, encoding="latin-1") as file:
        sys.stdin = file
        try:
            yield cprtools.open("-", **more)
        finally:
            sys.stdin = before
            thread.join()


@pytest.mark.parametrize("name", ["", *PACKERS])
def test_standard_input(name: str) -> None:
    data = PACKERS[name](STREAM) if name else STREAM
    with through_pipe(data, keep_all=True) as state:
        assert state.name == "-"
        check_layers(state, *([data, STREAM] if name else [STREAM]))


def test_an_image_from_standard_input() -> None:
    data = image(Snapshot("one", STREAM))
    with through_pipe(data) as state:
        check_layers(state, data, STREAM)


def test_standard_input_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(STREAM)
    code = "import cprtools; print(cprtools.open('-').stream.machine)"
    command = [sys.executable, "-W", "error", "-c", code]
    path_list = os.pathsep.join(sys.path)
    with path.open("rb") as file:
        done = subprocess.run(
            command,
            stdin=file,
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": path_list},
        )
    assert done.stdout == "pc\n"
    assert done.stderr == ""


# -- lifetime ------------------------------------------------------------------------------


def handles(folder: Path) -> int:
    """Count this process's open descriptors of the test's file."""
    gc.collect()
    name = str(folder / "state")
    links = Path("/proc/self/fd").iterdir()
    return sum(link.is_symlink() and str(link.readlink()) == name for link in links)


def test_a_content_keeps_its_file_open(tmp_path: Path) -> None:
    content = opened(tmp_path, gzip.compress(STREAM, mtime=0)).layers[-1].content
    assert handles(tmp_path) == 1
    assert b"".join(encode(content.walk())) == STREAM


def test_with_closes_the_file(tmp_path: Path) -> None:
    with opened(tmp_path, STREAM) as state:
        assert state.stream.machine == "pc"
        assert handles(tmp_path) == 1
    assert handles(tmp_path) == 0
    with pytest.raises((OSError, ValueError)):
        assert_whole(state.stream, STREAM)
    state.close()


def test_what_is_forgotten_is_closed(tmp_path: Path) -> None:
    state = opened(tmp_path, gzip.compress(STREAM, mtime=0))
    assert handles(tmp_path) == 1
    assert state.error is None
    del state
    assert handles(tmp_path) == 0


def test_what_can_not_be_opened_is_closed(tmp_path: Path) -> None:
    with pytest.raises(WrongFormat):
        opened(tmp_path, b"hello world")
    assert handles(tmp_path) == 0


def test_progress_counts_the_outermost_bytes(tmp_path: Path) -> None:
    for data in (STREAM, gzip.compress(STREAM, mtime=0)):
        seen: list[int] = []
        path = tmp_path / "state"
        path.write_bytes(data)
        cprtools.open(path, progress=seen.append)
        assert seen == sorted(seen)
        assert 0 < seen[-1] <= len(data)
