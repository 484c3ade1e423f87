"""The fixtures as files: the manifest is right about them, and they can be made again."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

import captures_x86
import manifest
from captures_x86_cases import ALL, all_cases, cases

RECIPES = manifest.FIXTURES / "recipes"
TRUTH = manifest.FIXTURES / "truth"  # has its own table, see test_truth.py
LARGEST = 1_500_000
PLAIN = 100_000  # above that, files are compressed
ALL_TOGETHER = 25_000_000
ENTRIES = manifest.load()
KEYS = {
    "sha256", "bytes", "kind", "shows", "recipe", "qemu", "package", "target", "accel", "command",
    "qmp", "tags",
}  # fmt: skip
# A home or a temporary folder of the machine that ran the recipe.
OF_A_MACHINE = re.compile(r"(?:^|[^\w.])/(?:home|root|tmp|work|var/tmp|dev/shm)/")


def files() -> list[Path]:
    """All files that recipes made."""
    others = (RECIPES, TRUTH)
    folders = [one for one in manifest.FIXTURES.iterdir() if one.is_dir() and one not in others]
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def test_the_manifest_names_exactly_the_files() -> None:
    assert {path.relative_to(manifest.FIXTURES).as_posix() for path in files()} == set(ENTRIES)


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_a_file_is_what_the_manifest_says(path: Path) -> None:
    data = path.read_bytes()
    entry = ENTRIES[path.relative_to(manifest.FIXTURES).as_posix()]
    assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert set(entry) >= KEYS
    assert entry["shows"]


def test_files_are_small() -> None:
    sizes = {path: path.stat().st_size for path in files()}
    assert max(sizes.values()) <= LARGEST
    assert sum(sizes.values()) <= ALL_TOGETHER
    assert [path for path in sizes if path.suffix != ".xz" and sizes[path] > PLAIN] == []


def test_nothing_names_a_folder_of_some_machine() -> None:
    found = [
        (name, word)
        for name, entry in ENTRIES.items()
        for word in (*entry["command"], *entry["qmp"], entry["recipe"])
        if OF_A_MACHINE.search(word)
    ]
    assert found == []


def test_each_recipe_is_here() -> None:
    programs = {entry["recipe"].split()[0].rstrip(":") for entry in ENTRIES.values()}
    assert [name for name in programs - {"received.py"} if not (RECIPES / name).exists()] == []


def test_each_x86_capture_is_a_case_and_each_case_was_taken() -> None:
    taken = {
        entry["recipe"].split()[1]
        for entry in ENTRIES.values()
        if entry["recipe"].startswith(captures_x86.RECIPE)
    }
    assert taken == set(all_cases())


def test_names_of_cases_are_told_apart() -> None:
    count = sum(1 for one in ALL for _ in cases(one))
    assert count == len(all_cases())
