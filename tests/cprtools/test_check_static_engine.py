"""The static engine's parts: command lines, configuration space, properties, and whole answers."""

from __future__ import annotations

import lzma
from dataclasses import replace
from pathlib import Path

import pytest

from cprtools.check.model import Answer, Case, Target, Verdict
from cprtools.check.static import Static
from cprtools.check.static_facts import facts_of
from cprtools.check.static_pci import shape_of, vectors_at
from cprtools.check.static_plan import make_plan, size_of
from cprtools.check.static_props import adjust
from cprtools.check.static_target import elf_of

TRUTH = Path(__file__).parents[2] / "fixtures/truth"
BARE = "-machine pc-i440fx-7.2,accel=tcg -m 16 -nodefaults -display none -vga none -bios {bios}"


@pytest.fixture
def target(tmp_path: Path) -> Target:
    bios = tmp_path / "halt.bin"
    bios.write_bytes(bytes(0x10000))
    words = tuple(BARE.format(bios=bios).split())
    return Target(Path("builtin:7.2"), arguments=words)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.write_bytes(lzma.decompress((TRUTH / "7.2-bare-i440fx.xz").read_bytes()))
    return path


def answer(state: Path, target: Target) -> Answer:
    return Static().answer(Case(state, target))


def codes(found: Answer) -> list[str]:
    return [one.code for one in found.findings]


def with_words(target: Target, *more: str) -> Target:
    return replace(target, arguments=(*(target.arguments or ()), *more))


def test_same_command_line_loads(state: Path, target: Target) -> None:
    found = answer(state, target)
    assert (found.verdict, found.findings) == (Verdict.LOADS, ())


def test_without_arguments_nothing_is_promised(state: Path, target: Target) -> None:
    found = answer(state, replace(target, arguments=None))
    assert found.verdict is Verdict.UNDECIDED
    assert "command line" in found.findings[0].message


def test_other_machine_type_fails(state: Path, target: Target) -> None:
    found = answer(state, replace(target, machine="pc-i440fx-7.1"))
    assert (found.verdict, codes(found)) == (Verdict.FAILS, ["machine-type"])
    assert (found.findings[0].expected, found.findings[0].found) == (
        "pc-i440fx-7.1",
        "pc-i440fx-7.2",
    )


def test_more_ram_fails_at_its_block(state: Path, target: Target) -> None:
    found = answer(state, with_words(target, "-m", "32"))
    assert found.verdict is Verdict.FAILS
    assert (found.findings[0].code, found.findings[0].section) == ("ram-block-size", "pc.ram")


def test_capability_of_one_side_fails(state: Path, target: Target) -> None:
    found = answer(state, replace(target, capabilities={"x-ignore-shared": "on"}))
    assert codes(found) == ["capability"]


@pytest.mark.parametrize(
    "words", [("-device", "vfio-pci,host=0:1"), ("-strange", "x"), ("-global", "a.b=c")]
)
def test_what_is_not_understood_leaves_it_open(
    state: Path, target: Target, words: tuple[str, ...]
) -> None:
    assert answer(state, with_words(target, *words)).verdict is Verdict.UNDECIDED


def test_an_added_device_is_no_error(state: Path, target: Target) -> None:
    found = answer(state, with_words(target, "-device", "i6300esb,addr=5"))
    assert found.verdict is Verdict.LOADS


def test_cut_state_fails(state: Path, target: Target) -> None:
    state.write_bytes(state.read_bytes()[:0x8000])
    found = answer(state, target)
    assert (found.verdict, codes(found)[0]) == (Verdict.FAILS, "stream-cut")


def test_stream_of_another_version_fails(state: Path, target: Target) -> None:
    data = state.read_bytes()
    state.write_bytes(data[:7] + b"\x04" + data[8:])
    assert codes(answer(state, target)) == ["not-a-stream"]


def test_places_are_given_in_order() -> None:
    plan = make_plan(
        [
            "-nodefaults",
            "-machine",
            "q35",
            "-device",
            "e1000,addr=2",
            "-device",
            "e1000",
            "-device",
            "pcie-root-port,id=p",
            "-device",
            "virtio-net-pci,bus=p",
        ]
    )
    paths = [one.path for one in plan.devices]
    assert paths == ["0000:00:02.0", "0000:00:01.0", "0000:00:03.0", "0000:00:03.0:00.0"]
    assert [one.port for one in plan.devices] == [False, False, False, True]


def test_scsi_and_usb_places() -> None:
    plan = make_plan(
        [
            "-nodefaults",
            "-device",
            "virtio-scsi-pci,id=s,addr=3",
            "-device",
            "scsi-hd,bus=s.0",
            "-device",
            "scsi-hd,bus=s.0",
            "-device",
            "scsi-hd,bus=s.0,scsi-id=4,lun=2",
            "-device",
            "usb-ehci,id=e,addr=4",
            "-device",
            "usb-tablet,bus=e.0,port=2",
        ]
    )
    assert [one.path for one in plan.devices if "-pci" not in one.model] == [
        "0000:00:03.0/0:0:0",
        "0000:00:03.0/0:1:0",
        "0000:00:03.0/0:4:2",
        "0000:00:04.0",
        "0000:00:04.0/2",
    ]


def test_unknown_bus_is_a_hole() -> None:
    plan = make_plan(["-nodefaults", "-device", "e1000,bus=nowhere"])
    assert plan.devices[0].path is None
    assert plan.holes


@pytest.mark.parametrize(
    ("text", "unit", "size"),
    [("16", "m", 16 << 20), ("2G", "m", 2 << 30), ("0x10", "", 16), ("x", "", -1)],
)
def test_sizes(text: str, unit: str, size: int) -> None:
    assert size_of(text, unit) == size


def test_a_loop_of_capabilities_ends() -> None:
    config = bytearray(256)
    config[6], config[0x34] = 0x10, 0x40
    config[0x40:0x42] = b"\x11\x40"
    assert vectors_at(bytes(config)) == 0x42
    assert shape_of(bytes(config))[0x40].startswith("11")


def test_vectors_follow_the_queues() -> None:
    facts = facts_of("7.2")
    assert facts is not None
    known = facts.virtio("pc-q35-7.2", "virtio-blk-pci", port=False)
    plan = make_plan(["-nodefaults", "-device", "virtio-blk-pci,num-queues=4"])
    fitted, left = adjust(plan.devices[0], known, plan, "pc-q35-7.2")
    assert known is not None
    assert fitted is not None
    assert left == []
    changed = {at for at in known.shape if known.shape[at] != fitted.shape.get(at)}
    assert [fitted.shape[at][4:8] for at in changed] == ["0400"]


def test_a_wrapper_is_read_not_run(tmp_path: Path) -> None:
    program = tmp_path / "qemu-system-x86_64"
    program.write_bytes(b"\x7fELF" + bytes(60))
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
    assert elf_of(Target(wrapper)) == str(program)


def test_no_facts_of_other_releases() -> None:
    assert facts_of("9.2") is None
