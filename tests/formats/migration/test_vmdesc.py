"""Every way in which releases describe the same thing, brought to one model."""

from __future__ import annotations

from typing import Any

import pytest

from builders import migration as build
from checks import assert_error
from cprformats.errors import Damaged
from cprformats.migration.vmdesc import FieldDesc, VmDesc, parse_vmdesc

OFFSET = 0x1000


def parse(*devices: Any, **top: Any) -> VmDesc:
    return parse_vmdesc(build.vmdesc(*devices, **top)[5:].decode(), OFFSET)


def fields(*entries: Any) -> tuple[FieldDesc, ...]:
    """The fields of one device with these entries."""
    return parse(build.device("dev", entries)).devices[0].vmsd.fields


def struct(name: str, size: int, **more: Any) -> dict[str, Any]:
    inner = {"vmsd_name": "inner", "version": 1, "fields": [build.field("a", "uint8", size)]}
    return build.field(name, "struct", size, struct=inner, **more)


def null(name: str, type: str = "nullptr", **more: Any) -> dict[str, Any]:
    return build.field(name, type, 1, **more)


def shape(*entries: Any) -> list[tuple[str, int, bool]]:
    """Type, number of elements, and whether it is a part, of each entry."""
    return [(field.type, field.count, field.partial) for field in fields(*entries)]


def test_the_whole_model() -> None:
    sub = {"vmsd_name": "dev/sub", "version": 2, "fields": [build.field("x", "uint16", 2)]}
    entry = build.device("dev", [build.field("a", "uint32", 4)], instance=7, subsections=[sub])
    found = parse(entry, build.old_style("slirp", 131), page_size=16384)
    assert found.page_size == 16384
    assert found.configuration is None
    device = found.device("dev", 7)
    assert device is not None
    assert not device.old_style
    assert device.vmsd.wire_size == 4 + 6 + len("dev/sub") + 2
    handmade = found.device("slirp", 0)
    assert handmade is not None
    assert handmade.old_style
    assert found.device("dev", 0) is None


def test_configuration_is_described_since_8_2() -> None:
    vmsd = {"vmsd_name": "configuration", "version": 1, "fields": [build.field("len", "uint32", 4)]}
    found = parse(configuration=vmsd)
    assert found.configuration is not None
    assert found.configuration.fields[0].name == "len"


def test_compressed_array() -> None:
    (entry,) = fields(build.field("a", "uint32", 4, array_len=3))
    assert (entry.count, entry.wire_size, entry.partial) == (3, 12, False)


WITH_INDEX = [struct("s", 2, index=i) for i in range(3)]
LAST_WITHOUT = [struct("s", 2, index=0), struct("s", 2, index=1), struct("s", 2)]
WITHOUT_INDEX = [struct("s", 2) for _ in range(3)]


@pytest.mark.parametrize("entries", [WITH_INDEX, LAST_WITHOUT, WITHOUT_INDEX])
def test_elements_in_entries_of_their_own(entries: list[Any]) -> None:
    """5.2 and 7.2 number them; 10.0 all but the last; 11.1 none."""
    assert shape(*entries) == [("struct", 1, True)] * 3


@pytest.mark.parametrize("numbered", [True, False])
def test_plain_elements_become_one_array(numbered: bool) -> None:
    entries = [
        build.field("a", "uint32", 4, **({"index": i} if numbered else {})) for i in range(4)
    ]
    assert fields(*entries) == (FieldDesc("a", "uint32", 4, 4),)


def test_equal_names_apart_are_no_array() -> None:
    a, b = build.field("a", "uint8", 1), build.field("b", "uint8", 1)
    assert shape(a, b, a) == [("uint8", 1, False)] * 3


def test_a_single_element_is_a_plain_field() -> None:
    assert shape(struct("s", 2)) == [("struct", 1, False)]


def test_runs_of_null_pointers() -> None:
    """10.0, compressible: a run of NULL, one element, NULL."""
    entries = [null("p", array_len=254), struct("p", 3), null("p")]
    assert shape(*entries) == [("nullptr", 254, True), ("struct", 1, True), ("nullptr", 1, True)]


def test_null_beside_null_counts_one() -> None:
    """10.0, not compressible: array_len of such entries is the rest of the run, and wrong."""
    entries = [struct("p", 2, index=0), null("p", array_len=3), null("p", array_len=2), null("p")]
    assert [count for _, count, _ in shape(*entries)] == [1, 1, 1, 1]


def test_a_first_run_is_not_cut_at_the_first_null() -> None:
    """10.0: array_len of the first entry is the whole array's if it begins without NULL."""
    entries = [struct("p", 2, array_len=5), null("p"), struct("p", 2, array_len=2)]
    assert [count for _, count, _ in shape(*entries)] == [2, 1, 2]


@pytest.mark.parametrize("type", ["nullptr", "ptr-marker"])
def test_markers_by_either_name(type: str) -> None:
    (entry,) = fields(null("p", type))
    assert entry.is_marker


def test_names_with_a_number_of_the_declaration() -> None:
    """A name declared twice gets [k], also where only one of them is there."""
    entries = [build.field("config[1]", "pci config", 4096), build.field("unused[3]", "buffer", 1)]
    assert [field.name for field in fields(*entries)] == ["config[1]", "unused[3]"]


def test_keys_repeated_for_each_element() -> None:
    keys = [("vmsd_name", "e"), ("version", 1), ("fields", [build.field("x", "uint8", 1)])]
    lead = [("name", "list"), ("type", "qtailq")]
    (entry,) = fields(build.Pairs([*lead, *keys, *keys, ("size", 5)]))
    assert [vmsd.vmsd_name for vmsd in entry.inline] == ["e", "e"]


def test_instance_ids_are_written_signed() -> None:
    found = parse(build.device("dev", instance=-1))
    assert found.device("dev", 0xFFFF_FFFF) is not None


def test_control_characters_are_not_escaped_in_5_2() -> None:
    raw = '{ "page_size" : 4096, "devices" : [ {"name": "a\tb", "instance_id": 0, "fields": []} ] }'
    assert parse_vmdesc(raw, OFFSET).devices[0].name == "a\tb"


@pytest.mark.parametrize(
    ("raw", "path", "words"),
    [
        ("[", ("vmdesc",), "no valid JSON"),
        ("[" * 100_000, ("vmdesc",), "no valid JSON"),
        ("[]", ("vmdesc",), "expected a JSON object"),
        ('{"devices": {}}', ("vmdesc",), "expected a JSON array"),
        ('{"devices": [{"name": 1}]}', ("vmdesc",), "expected a string, found 1"),
        ('{"devices": [{"name": "d", "instance_id": true}]}', ("vmdesc", "d"), "found True"),
        (
            '{"devices": [{"name": "d", "instance_id": 0, "fields": [{"name": "f"}]}]}',
            ("vmdesc", "d", "f"),
            "size: expected a number",
        ),
    ],
)
def test_damage_says_where(raw: str, path: tuple[str, ...], words: str) -> None:
    with pytest.raises(Damaged) as caught:
        parse_vmdesc(raw, OFFSET)
    assert_error(caught.value, Damaged, OFFSET, path, words)


def test_nesting_is_bounded() -> None:
    lead = '{"name": "s", "type": "struct", "size": 1, "struct": {"fields": ['
    levels = 100
    entry = lead * levels + "]}}" * levels
    raw = f'{{"devices": [{{"name": "d", "instance_id": 0, "fields": [{entry}]}}]}}'
    with pytest.raises(Damaged, match="at most 64 levels"):
        parse_vmdesc(raw, OFFSET)
