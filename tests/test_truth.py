"""The truth corpus as a table: right about its files, as its recipe says, balanced."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import pytest

import truth_causes
import truth_table
from qemus import VERSIONS
from truth_damage import Damage, cut, field, put_text, put_version
from truth_edits import NoSuchThing, drop, machine, model, option, prop, text, without
from truth_pairs import all_pairs
from truth_sources import all_sources
from truth_table import TRUTH, Pair

CORPUS = truth_table.load()
LARGEST = 6_000_000
OF_A_MACHINE = re.compile(r"(?:^|[^\w.])/(?:home|root|tmp|work|var/tmp|dev/shm)/")
LINE = [
    *("-machine", "pc-q35-7.2,accel=tcg", "-m", "16"),
    *("-device", "e1000,id=n,addr=4", "-device", "VGA,id=v"),
]


@cache
def data(name: str) -> bytes:
    return CORPUS.sources[name].data()


def by_id(key: str) -> Pair:
    return next(pair for pair in CORPUS.pairs if pair.id == key)


# -- the table and its files ------------------------------------------------------------


def test_the_folder_has_the_sources_and_nothing_else() -> None:
    names = {path.name for path in TRUTH.iterdir()}
    assert names == {"truth.json", *(f"{name}.xz" for name in CORPUS.sources)}
    assert sum(path.stat().st_size for path in TRUTH.iterdir()) <= LARGEST


@pytest.mark.parametrize("name", sorted(CORPUS.sources))
def test_a_source_is_what_the_table_says(name: str) -> None:
    source = CORPUS.sources[name]
    assert (source.size, source.sha256) == (len(data(name)), truth_table.digest(data(name)))
    assert source.shows


def test_each_pair_has_the_stream_that_was_loaded() -> None:
    for pair in CORPUS.pairs:
        if pair.edits or pair.length is not None:
            assert pair.sha256 == truth_table.digest(pair.damaged(data(pair.source))), pair.id
            assert pair.sha256 != CORPUS.sources[pair.source].sha256, pair.id
        else:
            assert pair.sha256 == CORPUS.sources[pair.source].sha256, pair.id


def test_the_table_is_what_the_recipe_says() -> None:
    asked = ("source", "version", "arguments", "machine", "capabilities", "length", "edits")
    recipe = all_pairs()
    assert [pair.id for pair in CORPUS.pairs] == sorted(recipe)
    for pair in CORPUS.pairs:
        for name in asked:
            assert getattr(pair, name) == getattr(recipe[pair.id], name), (pair.id, name)


def test_the_sources_are_what_the_recipe_says() -> None:
    recipe = all_sources()
    assert set(CORPUS.sources) == set(recipe)
    for name, source in CORPUS.sources.items():
        wanted = recipe[name]
        assert (source.version, source.arguments) == (wanted.version, wanted.arguments)
        assert (source.seconds, source.driven, source.options) == (
            wanted.seconds, wanted.driven, wanted.options,
        )  # fmt: skip


# -- how it is made up ------------------------------------------------------------------


def test_the_corpus_is_balanced() -> None:
    failed = sum(pair.verdict == "failed" for pair in CORPUS.pairs)
    assert len(CORPUS.pairs) >= 300
    assert 0.4 <= failed / len(CORPUS.pairs) <= 0.6


@pytest.mark.parametrize("version", VERSIONS)
def test_each_qemu_is_source_and_target_of_both_verdicts(version: str) -> None:
    assert any(source.version == version for source in CORPUS.sources.values())
    verdicts = Counter(pair.verdict for pair in CORPUS.pairs if pair.version == version)
    assert set(verdicts) == {"loaded", "failed"}
    assert min(verdicts.values()) >= 10


def test_each_cause_but_other_occurs() -> None:
    causes = {pair.cause for pair in CORPUS.pairs if pair.verdict == "failed"}
    assert causes == set(truth_causes.CAUSES) - {"other"}


def test_a_pair_that_loaded_has_a_runstate_and_no_cause() -> None:
    for pair in CORPUS.pairs:
        if pair.verdict == "loaded":
            assert pair.runstate in ("paused", "prelaunch"), pair.id
            assert (pair.cause, pair.section, pair.exit) == ("", "", None), pair.id
            assert not any("load of migration failed" in line for line in pair.stderr), pair.id


def test_a_pair_that_failed_says_why() -> None:
    for pair in CORPUS.pairs:
        if pair.verdict == "failed":
            assert pair.runstate == "", pair.id
            assert pair.complaints or (pair.exit or 0) < 0, pair.id


def test_causes_follow_from_what_was_printed() -> None:
    for pair in CORPUS.pairs:
        if pair.verdict == "failed":
            started = any("load of migration failed" in line for line in pair.stderr) or (
                pair.exit != 1
            )
            blame = truth_causes.of(pair.stderr, pair.exit, started=started)
            assert (blame.cause, blame.section, blame.instance) == (
                pair.cause, pair.section, pair.instance,
            ), pair.id  # fmt: skip


@pytest.mark.parametrize(
    "key",
    [
        "7.2-desk-q35/11.1-same",
        "7.2-virtio-q35-7.2/11.1-same",
        "7.2-pcie-q35/11.1-same",
        "11.1-virtio-q35-7.2/7.2-same",
    ],
)
def test_states_of_pc_q35_7_2_load_both_ways(key: str) -> None:
    assert by_id(key).verdict == "loaded"


@pytest.mark.parametrize(
    ("key", "cause", "section"),
    [
        ("7.2-bare-i440fx/11.1-slots", "footer", "0000:00:01.3/piix4_pm"),
        ("8.2-virtio-i440fx-8.2/8.2-no-queue-reset", "features", "0000:00:04.0/virtio-net"),
        ("7.2-auto-i440fx/11.1-four-cpus", "pci-config", "0000:00:04.0/virtio-blk"),
        ("5.2-desk-i440fx/10.0-net-moved", "unknown-section", "0000:00:03.0/e1000"),
        ("5.2-poison-i440fx/5.2-same", "footer", "0000:00:04.0/virtio-balloon"),
        ("10.0-desk-q35/11.1-same", "queue-size", "0000:00:02.0:00.0/virtio-net"),
        ("10.0-mapped-run-q35/11.1-less-ram", "ram-pages", "pc.ram"),
    ],
)
def test_the_known_reports_are_there(key: str, cause: str, section: str) -> None:
    pair = by_id(key)
    assert (pair.verdict, pair.cause, pair.section) == ("failed", cause, section)


def test_nothing_names_a_folder_of_some_machine() -> None:
    assert OF_A_MACHINE.search(truth_table.TABLE.read_text()) is None


# -- the tools --------------------------------------------------------------------------


def test_changes_of_a_command_line() -> None:
    assert drop("n")(LINE) == [*LINE[:4], "-device", "VGA,id=v"]
    assert model("n", "e1000e")(LINE)[5] == "e1000e,id=n,addr=4"
    assert prop("n", "addr=5", "mq=on")(LINE)[5] == "e1000,id=n,addr=5,mq=on"
    assert prop("n", "addr")(LINE)[5] == "e1000,id=n"
    assert machine("pc-q35-8.0", "usb=on")(LINE)[1] == "pc-q35-8.0,accel=tcg,usb=on"
    assert option("-m", "32")(LINE)[3] == "32"
    assert option("-smp", "2")(LINE)[-2:] == ["-smp", "2"]
    assert without("-m 16")(LINE) == [*LINE[:2], *LINE[4:]]
    assert text("VGA", "cirrus-vga")(LINE)[-1] == "cirrus-vga,id=v"


@pytest.mark.parametrize("change", [drop("x"), without("-m 32"), text("xyz", "")])
def test_a_change_of_what_is_not_there(change: object) -> None:
    assert callable(change)
    with pytest.raises(NoSuchThing):
        change(LINE)


def test_damage_hits_what_it_names() -> None:
    stream = data("7.2-bare-i440fx")
    assert cut(-1)(stream) == Damage(length=len(stream) - 1)
    ((at, new),) = put_version("i8254", 4)(stream).edits
    assert (stream[at : at + 4].hex(), new) == ("00000003", "00000004")
    at = field(stream, "hpet", "num_timers")
    assert stream[at] == 3
    with pytest.raises(NoSuchThing):
        field(stream, "hpet", "nothing")
    with pytest.raises(NoSuchThing):
        put_text("no such text", "NO such text")(stream)


@pytest.mark.parametrize(
    ("lines", "exit", "cause", "section"),
    [
        (
            ["Not a migration stream", "load of migration failed: Invalid argument"],
            1,
            "damaged",
            "",
        ),
        (["2 != 3", "error while loading state for instance 0x1 of device 'a'"], 1, "field", "a"),
        (["Size mismatch: pc.ram: 0x10 != 0x20: Invalid argument"], 1, "ram-size", "pc.ram"),
        (["warning: 2 != 3"], 1, "other", ""),
        ([], -11, "crash", ""),
    ],
)
def test_what_stderr_says(lines: list[str], exit: int, cause: str, section: str) -> None:
    blame = truth_causes.of(lines, exit)
    assert (blame.cause, blame.section) == (cause, section)


def test_a_target_that_did_not_start() -> None:
    assert truth_causes.of(["no such device"], 1, started=False).cause == "start"
    unknown = ['unsupported machine type: "pc-q35-9.9"']
    assert truth_causes.of(unknown, 1, started=False).cause == "machine-type"
