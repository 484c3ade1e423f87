"""Main channel and other channels together: whole sets, sets that are not, damage in one."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from checks import FIXTURES, fixture_names
from cprformats.errors import Damaged, Truncated
from cprformats.memory.census import Census
from cprtools.memory.opening import RamFile, open_memory

MULTIFD = sorted(
    name
    for name in fixture_names("migration")
    if "-multifd-" in name and name.endswith(".sav.xz") and "mapped-ram" not in name
)
ZSTD = "migration/11.1-q35-multifd-zstd.sav.xz"
NONE = "migration/11.1-q35-multifd-none.sav.xz"


def channels(name: str) -> list[Path]:
    """The files of a capture's other channels."""
    stem = Path(name).name.removesuffix(".sav.xz")
    return sorted((FIXTURES / "migration").glob(f"{stem}.mfd-*.xz"))


def count(name: str, others: list[Path], *, keep_going: bool = False) -> tuple[RamFile, Census]:
    census = Census()
    with RamFile(FIXTURES / name, others) as file:
        file.read(census, keep_going=keep_going)
    return file, census


def test_there_are_captures() -> None:
    assert len(MULTIFD) >= 14


@pytest.mark.parametrize("name", MULTIFD)
def test_a_whole_set_is_good_in_any_order(name: str) -> None:
    others = channels(name)
    assert len(others) >= 2
    file, census = count(name, others[::-1])
    assert file.error is None
    assert sum(block.never for block in census.report()) == 0


@pytest.mark.parametrize("name", MULTIFD)
def test_a_set_with_a_channel_left_out_is_not(name: str) -> None:
    for left in channels(name):
        file, _ = count(name, [path for path in channels(name) if path != left])
        if len(channels(name)) > 1:
            assert type(file.error) is Damaged
            assert "is one missing?" in str(file.error)


@pytest.mark.parametrize(
    "name", [name for name in MULTIFD if "/5.2" not in name and "/7.2" not in name]
)
def test_the_main_channel_alone_is_not_all(name: str) -> None:
    """From 8.1 on a mark says so; before, the table shows pages that were never sent."""
    file, _ = count(name, [])
    assert type(file.error) is Damaged
    assert "--channel" in str(file.error)


def test_a_channel_of_another_migration() -> None:
    file, _ = count(ZSTD, channels(NONE))
    assert isinstance(file.error, Damaged | Truncated)


def cut_channel(tmp_path: Path, size: int) -> list[Path]:
    whole, other = channels(NONE)
    cut = tmp_path / "cut"
    cut.write_bytes(lzma.decompress(other.read_bytes())[:size])
    return [whole, cut]


def test_a_cut_channel_ends_the_reading(tmp_path: Path) -> None:
    file, _ = count(NONE, cut_channel(tmp_path, 60_000))
    assert isinstance(file.error, Truncated)
    assert file.error.path == (f"channel {tmp_path / 'cut'}",)


def test_who_goes_on_reads_the_main_channel_to_its_end(tmp_path: Path) -> None:
    file, _ = count(NONE, cut_channel(tmp_path, 60_000), keep_going=True)
    assert isinstance(file.error, Truncated)
    assert file.channel_left
    assert file.stream.vmdesc is not None


def test_memory_of_a_set() -> None:
    with (
        open_memory(FIXTURES / ZSTD, channels(ZSTD)) as packed,
        open_memory(FIXTURES / NONE, channels(NONE)) as plain,
    ):
        assert packed.error is None
        assert packed["pc.bios"][:] == plain["pc.bios"][:]
        assert any(packed["pc.bios"][:])
