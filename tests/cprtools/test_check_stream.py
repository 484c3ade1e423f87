"""The state as a dry run gives it: RAM left out, and everything else as it was."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tool import PAGE, ROOT, sample

from builders import migration as build
from cprformats.migration import MigrationStream, read_stream
from cprformats.migration.ramparts import PageKind
from cprformats.source import BytesSource, FileSource
from cprtools.check.dryrun_stream import reduce_state
from cprtools.memory.opening import open_memory

FIXTURES = ROOT / "fixtures"


def given(path: Path, left_out: str = "") -> tuple[bytes, MigrationStream]:
    """What a target gets through a pipe, and how it reads."""
    pattern = re.compile(left_out) if left_out else None
    with open_memory(path) as memory:
        data = b"".join(reduce_state(memory, pattern).pieces())
    return data, read_stream(BytesSource(data))


def bodies(stream: MigrationStream) -> list[tuple[str, bytes]]:
    """Device sections with all their bytes."""
    return [
        (one.name, stream.source.read_at(one.offset, one.end - one.offset))
        for one in stream.sections()
        if not one.holds_ram
    ]


def original(path: Path) -> MigrationStream:
    with open_memory(path) as memory:
        data = memory.stream.source.read_at(0, memory.stream.end)
    return read_stream(BytesSource(data))


@pytest.mark.parametrize(
    "name",
    [
        "migration/10.0-q35-virtio-modern.sav.xz",
        "migration/10.0-q35-usb.sav.xz",
        "migration/7.2-pc-ide.sav.xz",
        "migration/10.0-q35-xbzrle.sav.xz",
        "migration/10.0-q35-dirty-bitmaps.sav.xz",
    ],
)
def test_real_states(name: str) -> None:
    before = original(FIXTURES / name)
    data, after = given(FIXTURES / name)
    assert after.error is None
    assert len(data) < before.source.size()
    assert bodies(after) == bodies(before)
    assert after.configuration == before.configuration
    assert list(after.ram.blocks) == list(before.ram.blocks)
    tail = [
        item.field.size for item in after.items if hasattr(item, "name") and item.name == "vmdesc"
    ]
    assert len(tail) == 1


def test_pages_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "vm.sav"
    count = 600
    blocks = build.block_list(build.block("pc.ram", count * PAGE))
    pages = b"".join(build.data_page(n * PAGE, "pc.ram" if not n else None) for n in range(count))
    path.write_bytes(
        build.stream(
            build.configuration("pc-test"),
            build.start(2, body=blocks + build.eos()),
            build.end(2, body=pages + build.eos()),
            build.full(3, "dev", body=b"1234"),
            description=build.vmdesc(build.device("dev", [build.field("level", "uint32", 4)])),
        )
    )
    data, after = given(path)
    assert after.error is None
    assert sum(sum(one.pages.values()) for one in after.ram.per_block) == 0
    assert len(data) < PAGE


def test_small_blocks_are_given(tmp_path: Path) -> None:
    path = tmp_path / "vm.sav"
    path.write_bytes(sample())
    _, after = given(path)
    counts = after.ram.per_block[0].pages
    assert counts == {PageKind.DATA: 3}


@pytest.mark.parametrize("kind", ["compress", "fill"])
def test_what_a_target_may_refuse_stays(kind: str, tmp_path: Path) -> None:
    if kind == "compress":
        path, wanted = FIXTURES / "migration/7.2-q35-compress.sav.xz", PageKind.COMPRESSED
    else:
        path, wanted = tmp_path / "vm.sav", PageKind.FILL
        zero = build.zero_page(0, "pc.ram")
        blocks = build.block_list(build.block("pc.ram", 8 * PAGE))
        body = zero[:-1] + b"\x07" + build.eos()
        path.write_bytes(
            build.stream(
                build.configuration("pc-test"),
                build.start(2, body=blocks + build.eos()),
                build.end(2, body=body),
            )
        )
    _, after = given(path)
    kept = sum(one.pages.get(wanted, 0) for one in after.ram.per_block)
    assert kept == 1


def test_sections_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "vm.sav"
    path.write_bytes(sample(idstr="0000:00:05.0/vfio"))
    _, after = given(path, r"/vfio$")
    assert [one.idstr for one in after.sections()] == ["ram", "ram"]


@pytest.mark.parametrize("cut", [10, 700, -1, -40])
def test_damage_is_given_as_it_is(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "vm.sav"
    path.write_bytes(sample()[:cut])
    assert given(path)[0] == path.read_bytes()


def test_tables_anywhere_need_all_memory() -> None:
    path = FIXTURES / "migration/10.0-q35-intel-iommu.sav.xz"
    with open_memory(path) as memory:
        reduced = reduce_state(memory)
        assert "follows tables" in reduced.why_whole
        assert reduced.pages is not None
        assert set(reduced.pages) == set(memory)


def test_mapped_ram_becomes_a_file_with_holes(tmp_path: Path) -> None:
    path, made = FIXTURES / "migration/10.0-q35-mapped-ram.sav.xz", tmp_path / "made"
    before = original(path)
    with open_memory(path) as memory:
        assert reduce_state(memory).write(made) == 0
    with made.open("rb") as file:
        after = read_stream(FileSource(file))
        assert after.error is None
        assert after.source.size() == before.source.size()
        assert bodies(after) == bodies(before)
        for one, other in zip(after.ram.per_block, before.ram.per_block, strict=True):
            assert one.block == other.block
            assert one.pages.get(PageKind.DATA, 0) <= other.pages.get(PageKind.DATA, 0)
            # Where the last read of a block begins is kept: a target that is too small refuses it.
            assert bool(one.pages.get(PageKind.DATA)) == bool(other.pages.get(PageKind.DATA))
