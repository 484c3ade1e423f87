"""Our schema file: what is written is read back, and what is wrong is said with its place."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import schemas as build
from cprformats.errors import Damaged, FormatError, Unsupported, WrongFormat
from cprformats.schema import jsontext, publish
from cprformats.schema.document import read_document
from cprformats.schema.model import Binary, CountFrom, Description, FieldFormat, Schema
from cprformats.schema.publish import part_of, write_document


def changed(place: str, value: Any) -> bytes:
    """The rich document with one member changed; place is "descriptions.0.name"."""
    made = json.loads(write_document(build.rich()))
    *way, last = [int(name) if name.isdigit() else name for name in place.split(".")]
    inner: Any = made
    for name in way:
        inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(made).encode()


def test_what_is_written_is_read_back() -> None:
    schema = build.rich()
    data = write_document(schema)
    assert asdict(read_document(data)) == asdict(schema)  # with what == leaves out
    assert write_document(read_document(data)) == data
    assert data.isascii()


def test_the_rich_schema_leaves_no_member_at_its_default() -> None:
    schema = build.rich()
    every = (schema, *schema.binaries, *schema.descriptions.values())
    every += tuple(field for one in schema.descriptions.values() for field in one.fields)
    for kind in (Schema, Binary, Description, FieldFormat):
        for member in fields(kind):
            values = [getattr(one, member.name) for one in every if isinstance(one, kind)]
            assert any(value not in (0, "", (), {}, None) for value in values), member.name
    assert {one.registered for one in schema.descriptions.values()} == {True, False}


def test_the_plainest_schema() -> None:
    schema = Schema((), "", {}, reason="nothing there")
    assert read_document(write_document(schema)) == schema


_NUMBERS = st.integers(0, (1 << 31) - 1)
_COUNTS = st.none() | st.builds(CountFrom, st.text(min_size=1), _NUMBERS, _NUMBERS)
_FIELDS = st.builds(
    build.field,
    st.text(),
    offset=st.integers(0, (1 << 64) - 1),
    size=_NUMBERS,
    num=_NUMBERS,
    count_from=_COUNTS,
    size_from=_COUNTS,
    start=_NUMBERS,
    flags=st.lists(st.text()).map(tuple),
    info=st.text(),
    version_id=_NUMBERS,
    struct_version_id=st.integers(-(1 << 31), (1 << 31) - 1),
    conditional=st.booleans(),
    nested=st.sampled_from(["", "one", "symbol:x"]),
    err_hint=st.text(),
    test=st.integers(-(1 << 63), (1 << 64) - 1),
)


@given(st.lists(_FIELDS, max_size=3))
def test_any_fields_are_read_back(fields: list[Any]) -> None:
    schema = build.schema(build.description("one", *fields))
    assert asdict(read_document(write_document(schema))) == asdict(schema)


def test_members_that_say_nothing_are_left_out() -> None:
    lines = write_document(build.schema(build.description("one", build.field("a")))).splitlines()
    (made,) = json.loads(lines[1])["fields"]
    assert set(made) == {"name", "offset", "size", "flags", "info", "version_id"}


def test_members_that_are_unknown_are_passed_over() -> None:
    for place in ("new", "descriptions.0.new", "descriptions.0.fields.0.new", "binaries.0.new"):
        assert read_document(changed(place, {"a": [1]})) == build.rich()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("era", 5, "era: expected a text of at most 4096 characters, found 5"),
        ("origin", "guess", "origin: expected elf or dump, found 'guess'"),
        ("rejected.a", -1, f"rejected / a: expected a number from 0 to {2**64 - 1}, found -1"),
        ("missing", "a", "missing: expected an array, found 'a'"),
        ("missing.0", [], "missing / [0]: expected a text of at most 4096 characters, found list"),
        ("binaries.1", 7, "binaries / [1]: expected an object, found 7"),
        ("binaries.0.stripped", 1, "binaries / [0] / stripped: expected true or false, found 1"),
        (
            "descriptions.0.name",
            None,
            "descriptions / [0] / name: expected a text of at most 4096 characters, found nothing",
        ),
        (
            "descriptions.1.version_id",
            True,
            f"descriptions / [1] / version_id: expected a number from 0 to {2**31 - 1}, found True",
        ),
        (
            "descriptions.1.fields.0.size",
            1.5,
            (
                "descriptions / [1] / fields / [0] / size: "
                f"expected a number from 0 to {2**64 - 1}, found 1.5"
            ),
        ),
        (
            "descriptions.1.fields.1.flags",
            ["a", None],
            (
                "descriptions / [1] / fields / [1] / flags / [1]: "
                "expected a text of at most 4096 characters, found nothing"
            ),
        ),
        (
            "descriptions.1.fields.2.count_from.offset",
            "x",
            (
                "descriptions / [1] / fields / [2] / count_from / offset: "
                f"expected a number from 0 to {2**64 - 1}, found 'x'"
            ),
        ),
        (
            "descriptions.1.fields.0.name",
            "x" * 5000,
            (
                "descriptions / [1] / fields / [0] / name: "
                f"expected a text of at most 4096 characters, found '{'x' * 59}..."
            ),
        ),
        (
            "descriptions.2.key",
            "timer",
            "descriptions / [2] / key: expected a new key, found 'timer'",
        ),
        (
            "descriptions.2.key",
            "symbol:a",
            "descriptions / [2] / key: expected a new key, found 'symbol:a'",
        ),
        (
            "descriptions.1.subsections.0",
            "gone",
            "descriptions / [1] / timer: expected keys of descriptions here, found 'gone'",
        ),
        (
            "devices.timer-device",
            "gone",
            "devices / timer-device: expected the key of a description here, found 'gone'",
        ),
    ],
)
def test_a_member_that_is_wrong(place: str, value: Any, message: str) -> None:
    with pytest.raises(Damaged) as caught:
        read_document(changed(place, value))
    assert str(caught.value) == message
    assert caught.value.expected
    assert caught.value.found


def test_an_object_that_is_no_document() -> None:
    with pytest.raises(WrongFormat, match='expected "format": "cprtools-schema"'):
        read_document(changed("format", "other"))


@pytest.mark.parametrize("version", [2, "1", None, 1.0, True])
def test_another_version(version: Any) -> None:
    with pytest.raises(Unsupported, match="expected version 1 of a schema file, found"):
        read_document(changed("version", version))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "expected JSON: Expecting value"),
        (b"[1]", "expected a JSON object, found list"),
        (b"{}{}", "expected JSON: Extra data"),
        (b'{"a": NaN}', "expected JSON: NaN is no JSON"),
        (b'{"a": -Infinity}', "expected JSON: -Infinity is no JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "expected JSON: Exceeds the limit"),
        (b'{"a": "\xff"}', "expected JSON in UTF-8, found other bytes"),
    ],
)
def test_text_that_is_no_json(data: bytes, words: str) -> None:
    with pytest.raises(WrongFormat, match=words):
        read_document(data)


def test_json_that_is_out_of_all_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unsupported, match="this deep in one another"):
        read_document(b'{"a":' * 100_000 + b"0" + b"}" * 100_000)
    with pytest.raises(Unsupported, match="this deep"):
        read_document(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    with pytest.raises(Unsupported, match="expected at most 1000000 values, found 2000002"):
        read_document(b'{"a":[' + b"0," * 2_000_000 + b"0]}")
    monkeypatch.setattr(jsontext, "MAX_JSON_BYTES", 100)
    with pytest.raises(Unsupported, match="expected at most 100 bytes, found 101"):
        read_document(b" " * 101)


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_any_bytes_are_a_document_or_a_typed_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        read_document(data)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=5,
)
_PLACES = [
    *("origin", "binaries", "rejected", "devices", "unlinked", "left_out", "descriptions"),
    *("descriptions.1", "descriptions.1.fields", "descriptions.1.fields.2", "descriptions.1.hooks"),
    *("descriptions.1.fields.0.flags", "descriptions.1.fields.2.count_from", "binaries.0"),
    *("descriptions.1.fields.4.nested", "descriptions.1.fields.0.offset", "provenance"),
]


@given(st.sampled_from(_PLACES), _JSON)
def test_any_value_anywhere_is_read_or_a_typed_error(place: str, value: Any) -> None:
    try:
        found = read_document(changed(place, value))
    except FormatError:
        return
    assert read_document(write_document(found)) == found


def test_a_part_has_what_it_uses_and_no_more() -> None:
    whole = build.rich()
    part = part_of(whole, whole.named("timer/late"))
    assert (list(part.descriptions), part.devices, part.missing) == (["timer/late"], {}, ())
    assert read_document(write_document(part)) == part
    more = part_of(whole, whole.named("timer"))
    assert list(more.descriptions) == ["timer/late", "timer"]
    assert (more.devices, more.missing) == ({"timer-device": "timer"}, ("vmstate_far",))


def test_the_head_says_what_priorities_mean() -> None:
    schema = build.schema(build.description("pci_bridge", priority=4))
    assert publish.document_head(schema)["priorities"] == {"4": "PCI_BUS"}
