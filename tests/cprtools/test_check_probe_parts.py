"""The probe's comparisons, without any QEMU."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from builders import migration as m
from cprformats.errors import Damaged, Truncated
from cprformats.migration import MigrationStream, read_stream
from cprformats.source import BytesSource
from cprtools.check import probe_frame
from cprtools.check.model import Case, Target, Verdict
from cprtools.check.probe import Probe
from cprtools.check.probe_pci import bars_of, path_of
from cprtools.check.probe_run import Asked, Block, _blocks

MEGA = 1 << 20


def stream(machine: str = "pc-q35-7.2", size: int = MEGA, **more: object) -> MigrationStream:
    blocks = m.block_list(m.block("pc.ram", size))
    data = m.header() + m.configuration(machine, **more)  # type: ignore[arg-type]
    data += m.start(2, "ram", version=4, body=blocks + m.eos()) + m.eof()
    return read_stream(BytesSource(data))


def asked(**more: object) -> Asked:
    made = Asked(described=True, blocks={"pc.ram": Block(MEGA, MEGA)})
    made.outcome.version = "10.0.2"
    made.capabilities = frozenset(("x-ignore-shared",))
    return dataclasses.replace(made, **more)  # type: ignore[arg-type]


def codes(state: MigrationStream, own: MigrationStream, answers: Asked, **on: str) -> list[str]:
    found = probe_frame.configuration(state, own, answers, on)
    return [one.code for one in found]


def test_same_configuration_has_no_finding() -> None:
    assert codes(stream(), stream(), asked()) == []


def test_other_machine_type() -> None:
    assert codes(stream("pc-q35-7.2"), stream("pc-q35-10.0"), asked()) == ["machine-type"]


def test_machine_type_is_compared_as_far_as_the_source_wrote_it() -> None:
    assert codes(stream("pc-i440fx-2.1"), stream("pc-i440fx-2.12"), asked()) == []
    assert codes(stream("pc-i440fx-2.12"), stream("pc-i440fx-2.1"), asked()) == ["machine-type"]


def test_machine_type_where_only_devices_were_saved() -> None:
    answers = asked(described=False, machine="pc-q35-10.0")
    assert codes(stream("pc-q35-7.2"), stream(), answers) == ["machine-type"]


def test_capability_of_one_side_only() -> None:
    state = stream(capabilities=["x-ignore-shared"])
    assert codes(state, stream(), asked()) == ["capability"]
    assert codes(stream(), stream(), asked(), **{"x-ignore-shared": "on"}) == ["capability"]
    assert codes(state, stream(), asked(), **{"x-ignore-shared": "on"}) == []


def test_unknown_capability() -> None:
    state = stream(capabilities=["mapped-rom"])
    assert codes(state, stream(), asked()) == ["capability-unknown"]


@pytest.mark.parametrize(
    ("blocks", "code"),
    [
        ({}, "ram-block-unknown"),
        ({"pc.ram": Block(2 * MEGA, 2 * MEGA)}, "ram-block-size"),
        ({"pc.ram": Block(4096, MEGA // 2)}, "ram-block-size"),
        ({"pc.ram": Block(4096, MEGA)}, ""),
        ({"pc.ram": Block(MEGA, MEGA)}, ""),
    ],
)
def test_blocks(blocks: dict[str, Block], code: str) -> None:
    found = list(probe_frame.blocks(stream(), asked(blocks=blocks)))
    assert [one.code for one in found] == ([code] if code else [])
    assert all(one.section == "pc.ram" for one in found)


def test_multifd_needs_channels() -> None:
    found = list(probe_frame.channels(stream(), {"multifd": "on"}))
    assert [one.code for one in found] == ["capability-refused"]
    assert not list(probe_frame.channels(stream(), {}))


def test_damage_is_told_with_its_place() -> None:
    cut = Truncated("page", 8, 1, offset=5, path=("ram", "pc.ram"))
    found = probe_frame.damage(cut)
    assert found is not None
    assert (found.code, found.section) == ("stream-cut", "ram")
    footer = Damaged("section cpu: expected its footer, found none", offset=9)
    found = probe_frame.damage(footer)
    assert found is not None
    assert (found.code, found.section) == ("stream-cut", "cpu")


def test_a_cut_description_is_no_damage() -> None:
    assert probe_frame.damage(Truncated("vmdesc", 8, 1, offset=5, path=("vmdesc",))) is None


def test_list_of_blocks_as_hmp_prints_it() -> None:
    lines = [
        ("Block Name", "PSize", "Offset", "Used", "Total"),
        ("pc.ram", "4 KiB", "0x0000000000000000", "0x0000000001000000", "0x0000000001000000"),
        ("/rom@etc/acpi/tables", "4 KiB", "0x1060000", "0x0000000000020000", "0x0000000000200000"),
        ("rubbish",),
    ]
    text = "".join(f"  {'  '.join(line)}\r\n" for line in lines)
    found = dict(_blocks(text))
    assert found == {
        "pc.ram": Block(0x1000000, 0x1000000),
        "/rom@etc/acpi/tables": Block(0x20000, 0x200000),
    }
    assert found["/rom@etc/acpi/tables"].grows


def test_paths_of_devices() -> None:
    assert path_of("0000:00:04.1/virtio-net") == (0, 0x21)
    assert path_of("0000:00:02.0:00.0/virtio-net") == (0, 0x10, 0)
    assert path_of("timer") is None
    assert path_of("0000:xx:04.0/e1000") is None


def test_base_addresses_of_nested_devices() -> None:
    inner = {"slot": 0, "function": 0, "regions": [{"bar": 1, "size": 4096}]}
    bridge = {"slot": 2, "function": 0, "regions": [], "pci_bridge": {"devices": [inner]}}
    answer = [{"bus": 0, "devices": [bridge, "rubbish", {"slot": "x"}]}]
    assert bars_of(answer) == {(0, 16): {}, (0, 16, 0): {1: 4096}}
    assert bars_of("rubbish") == {}


def test_without_arguments_it_is_undecided() -> None:
    answer = Probe().answer(Case(Path("nothing"), Target(Path("/bin/true"))))
    assert answer.verdict is Verdict.UNDECIDED
    assert answer.open
