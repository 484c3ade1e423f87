"""Some pairs of the truth corpus tried again: real QEMUs say what the table says.

All of them: `python fixtures/recipes/truth.py --check`.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

import truth_table
from truth import differences
from truth_run import load, take
from truth_table import Pair, Source

pytestmark = pytest.mark.live
CORPUS = truth_table.load()
OF_EACH = 2  # pairs for each cause, and for each version that loaded


def sample() -> list[Pair]:
    """The same few pairs each time: of each cause, and loads of each pair of versions."""
    chosen: dict[tuple[str, ...], list[Pair]] = defaultdict(list)
    for pair in sorted(CORPUS.pairs, key=lambda one: one.sha256 + one.id):
        if not pair.needs_kvm:
            versions = (CORPUS.sources[pair.source].version, pair.version)
            kind = (pair.cause,) if pair.verdict == "failed" else versions
            chosen[kind] = [*chosen[kind], pair][:OF_EACH]
    return [pair for pairs in chosen.values() for pair in pairs]


@pytest.mark.parametrize("pair", sample(), ids=lambda pair: pair.id)
def test_a_pair_comes_out_as_before(pair: Pair) -> None:
    assert list(differences(pair, load(CORPUS, pair))) == []


@pytest.mark.parametrize("name", ["7.2-virtio-q35-7.2", "10.0-mapped-q35"])
def test_a_source_taken_anew_loads_as_before(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truth_table, "TRUTH", tmp_path)
    source: Source = take(CORPUS.sources[name])
    assert (tmp_path / f"{name}.xz").exists()
    for pair in CORPUS.pairs:
        if pair.source == name and not (pair.edits or pair.length) and pair.version != "8.2":
            table = truth_table.Table({}, {name: source}, ())
            assert load(table, pair).verdict == pair.verdict, pair.id
