"""`-dump-vmstate` as a schema, and joined with a schema that was read from files."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.schemas import description, dump, dumped, dumped_field, field, schema
from cprformats.errors import Damaged, FormatError, Unsupported, WrongFormat
from cprformats.schema.document import read_document
from cprformats.schema.dump import read_dump
from cprformats.schema.link import link_devices
from cprformats.schema.publish import write_document

INNER = dumped("inner", dumped_field("x"))


def test_devices_and_their_descriptions() -> None:
    found = read_dump(
        dump(
            "pc-q35-10.0",
            a_device=dumped("a", dumped_field("n", num=3, version_id=2, field_exists=True)),
            b=dumped("b", subsections=[dumped("b/late", minimum_version_id=0, version_id=5)]),
        )
    )
    assert (found.origin, found.machine, found.reason) == ("dump", "pc-q35-10.0", "")
    assert found.devices == {"a-device": "a", "b": "b"}
    (n,) = found.descriptions["a"].fields
    assert (n.name, n.num, n.flags, n.size, n.info) == ("n", 3, ("ARRAY",), 4, "")
    assert (n.version_id, n.conditional) == (2, True)
    assert found.descriptions["b"].subsections == ("b/late",)
    late = found.descriptions["b/late"]
    assert (late.version_id, late.minimum_version_id) == (5, 0)


def test_equal_descriptions_are_one_and_others_are_numbered() -> None:
    other = dumped("inner", dumped_field("y"))
    found = read_dump(
        dump(
            a=dumped("a", dumped_field("s", Description=INNER)),
            b=dumped("b", dumped_field("s", Description=INNER), subsections=[other]),
            c=dumped("a", dumped_field("s", Description=INNER)),
            d=dumped("a"),
        )
    )
    assert set(found.descriptions) == {"inner", "inner#2", "a", "b", "a#2"}
    assert found.devices == {"a": "a", "b": "b", "c": "a", "d": "a#2"}
    assert found.descriptions["b"].fields[0].nested == "inner"
    assert found.descriptions["b"].subsections == ("inner#2",)


def test_a_name_that_ends_like_a_key() -> None:
    found = read_dump(dump(a=dumped("n"), b=dumped("n#2"), c=dumped("n", dumped_field("x"))))
    assert len(set(found.devices.values())) == 3
    assert {found.descriptions[key].name for key in found.devices.values()} == {"n", "n#2"}


def test_a_name_that_is_null() -> None:
    found = read_dump(dump(a=dumped("a", subsections=[dumped("(null)")])))
    assert found.descriptions["(unnamed)"].name == ""


def test_it_can_be_written_as_a_schema_file() -> None:
    found = read_dump(dump(a=dumped("a", dumped_field("n", num=3, Description=INNER))))
    assert read_document(write_document(found)) == found


def test_no_devices() -> None:
    assert read_dump(dump()).reason == "a dump without devices"


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (
            None,
            "a / Description / name: expected a text of at most 4096 characters, found nothing",
        ),
        (5, "a / Description: expected an object, found 5"),
        (
            dumped("a", version_id=-1),
            "a / Description / version_id: expected a number from 0 to 2147483647, found -1",
        ),
        (
            dumped("a", dumped_field("x", Description=dumped("b", dumped_field("y", size="4")))),
            (
                "a / Description / Fields / [0] / Description / Fields / [0] / size: "
                f"expected a number from 0 to {2**64 - 1}, found '4'"
            ),
        ),
        (
            dumped("a", subsections=[INNER, 3]),
            "a / Description / Subsections / [1]: expected an object, found 3",
        ),
        (
            dumped("a", dumped_field("x", field_exists=1)),
            "a / Description / Fields / [0] / field_exists: expected true or false, found 1",
        ),
    ],
)
def test_a_member_that_is_wrong(one: Any, message: str) -> None:
    with pytest.raises(Damaged) as caught:
        read_dump(dump(a=one))
    assert str(caught.value) == message


def test_it_is_nested_deeper_than_any() -> None:
    one = dumped("a")
    for _ in range(70):
        one = dumped("a", dumped_field("x", Description=one))
    with pytest.raises(Unsupported, match="expected at most 64 descriptions in one another"):
        read_dump(dump(a=one))


def test_another_object() -> None:
    with pytest.raises(WrongFormat, match='expected "vmschkmachine"'):
        read_dump(b"{}")
    with pytest.raises(Damaged, match="vmschkmachine: expected an object, found 1"):
        read_dump(json.dumps({"vmschkmachine": 1}).encode())


REAL = dump(
    a=dumped("a", dumped_field("n", num=3, Description=INNER), subsections=[dumped("a/late")]),
    b=dumped("b", dumped_field("x", Description=INNER), dumped_field("y", field_exists=True)),
)


@given(st.integers(0, len(REAL) - 1), st.binary(max_size=4), st.integers(0, 8))
def test_a_damaged_dump_is_read_or_a_typed_error(at: int, put: bytes, cut: int) -> None:
    data = REAL[:at] + put + REAL[at + cut :]
    try:
        found = read_dump(data)
    except FormatError:
        return
    assert set(found.devices.values()) <= set(found.descriptions)


# -- joined with files --------------------------------------------------------------

FILES = schema(
    description("inner", field("x", offset=4)),
    description("a", field("s", info="", nested="inner"), field("check", flags=("MUST_EXIST",))),
    description("a#2", field("s", num=2, flags=("ARRAY",), info="", nested="inner")),
    description("loop", field("s", info="", nested="loop")),
    description("far", field("s", info="", nested="symbol:elsewhere")),
)


def test_types_of_devices_find_their_descriptions() -> None:
    first = dumped("a", dumped_field("s", Description=INNER))
    second = dumped("a", dumped_field("s", num=2, Description=INNER))
    third = dumped("a", dumped_field("s", num=3, Description=INNER))
    loop = dumped("loop", dumped_field("s", Description=dumped("loop")))
    far = dumped("far", dumped_field("s", Description=INNER))
    found = link_devices(FILES, read_dump(dump("m", one=first, two=second, x=third, y=loop, z=far)))
    assert found.devices == {"one": "a", "two": "a#2"}
    assert found.unlinked == ("x", "y", "z")
    assert (found.machine, found.origin) == ("m", "elf")
    assert found.descriptions is FILES.descriptions


def test_a_dump_without_numbers_says_nothing_of_them() -> None:
    files = schema(
        description("inner", field("x")),
        description("a", field("s", num=2, flags=("ARRAY",), info="", nested="inner")),
    )
    printed = dump(one=dumped("a", dumped_field("s", Description=INNER)))
    assert link_devices(files, read_dump(printed)).devices == {"one": "a"}


def test_a_chain_as_long_as_a_hostile_file_can_have() -> None:
    links = [description(f"d{at}", field("s", info="", nested=f"d{at + 1}")) for at in range(5000)]
    files = schema(*links, description("d5000"))
    found = link_devices(files, read_dump(dump(a=dumped("d5000"), b=dumped("d0"))))
    assert (found.devices, found.unlinked) == ({"a": "d5000"}, ("b",))
