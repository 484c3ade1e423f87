"""The static engine against real binaries."""

from __future__ import annotations

from pathlib import Path

import pytest

import truth_table
from cprtools.check.model import Case, Target
from cprtools.check.static import Static
from qemus import qemu_path

pytestmark = pytest.mark.live


@pytest.mark.parametrize(
    ("pair", "verdict"),
    [
        ("7.2-desk-q35/11.1-same", "loads"),
        ("7.2-virtio-q35-7.2/7.2-same", "loads"),
        ("10.0-virtio-q35-10.0/11.1-same", "fails"),
        ("8.2-desk-i440fx/7.2-same", "fails"),
    ],
)
def test_agrees_with_the_truth(
    pair: str, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = truth_table.load()
    one = next(each for each in table.pairs if each.id == pair)
    state = table.state(one, tmp_path)
    monkeypatch.chdir(tmp_path)
    target = Target(qemu_path(one.version), arguments=tuple(one.words(tmp_path)))
    assert Static().answer(Case(state, target)).verdict == verdict
