"""Another version's refusal is known before the pause, from declarations alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks import fixture_path
from cprproto.errors import Incompatible, StateError
from cprproto.state.compat import declare, declared_by, decode, encode, refusals
from cprproto.state.loading import Loader
from cprproto.state.schema import Plain, Schema, Section, Struct, Vmsd
from cprproto.state.stream import StreamWriter

CHANNEL = Vmsd("channel", (Plain("count", "u32"), Plain("mode", "u8")))
FIELDS = (Plain("divider", "u16"), Struct("channels", CHANNEL, 2))
FIFO = Vmsd("serial/fifo", (Plain("level", "u8"),))
V1 = Schema("m", (Section("serial", Vmsd("serial", FIELDS)), Section("timer", CHANNEL)))
GROWN = Vmsd("serial", (*FIELDS, Plain("pauses", "u64", since=2)), version=2, subsections=(FIFO,))
V2 = Schema("m", (Section("serial", GROWN), Section("timer", CHANNEL)))


def with_serial(*fields: Plain | Struct, **more: Any) -> Schema:
    return Schema("m", (Section("serial", Vmsd("serial", fields, **more)), V1.sections[1]))


def test_an_upgrade_is_possible_and_the_way_back_is_not() -> None:
    assert refusals(V1, V1) == refusals(V2, V2) == refusals(V1, V2) == ()
    assert refusals(V2, V1) == (
        "serial 0: version 2 is written, 1 to 1 are read",
        "serial 0 / serial/fifo: the loader does not know this subsection",
    )


def values(*, fifo: bool) -> dict[tuple[str, int], Any]:
    channel = {"count": 1, "mode": 2}
    serial: dict[str, Any] = {"divider": 3, "channels": [channel] * 2, "pauses": 4}
    if fifo:
        serial["serial/fifo"] = {"level": 5}
    return {("serial", 0): serial, ("timer", 0): channel}


@pytest.mark.parametrize("fifo", [False, True])
def test_a_stream_in_place_of_its_writer(fifo: bool) -> None:
    """Then what it really has counts, and the loader says the same."""
    data = StreamWriter(V2).encode(values(fifo=fifo))
    reasons = refusals(declared_by(data), V1)
    assert len(reasons) == 1 + fifo
    assert refusals(declared_by(data), V2) == ()
    with pytest.raises(Incompatible):
        Loader(V1).load(data)


def test_a_subsection_alone() -> None:
    """Of the same version: only a state that has it is refused."""
    writer = with_serial(*FIELDS, subsections=(FIFO,))
    (reason,) = refusals(writer, V1)
    assert "serial/fifo: the loader does not know this subsection" in reason
    without = StreamWriter(writer).encode(values(fifo=False))
    assert refusals(declared_by(without), V1) == ()
    assert Loader(V1).load(without)["timer", 0] == {"count": 1, "mode": 2}


@pytest.mark.parametrize(
    ("writer", "loader", "said"),
    [
        (V1, Schema("n", V1.sections), "machine: 'm' is written, 'n' is read"),
        (V1, Schema("m", V1.sections[:1]), "timer 0: the loader does not know this device"),
        (Schema("m", V1.sections[1:]), V1, "serial 0: the loader needs this device"),
        (V1, with_serial(*FIELDS, version=3, minimum=2), "version 1 is written, 2 to 3 are read"),
        (
            V1,
            with_serial(Plain("divider", "u32"), FIELDS[1]),
            "field 0 is written as 'divider u16', and read as 'divider u32'",
        ),
        (
            V1,
            with_serial(FIELDS[0], Struct("channels", CHANNEL, 3)),
            "is written as 'channels[2].count u32', and read as 'channels[3].count u32'",
        ),
        (
            V1,
            with_serial(FIELDS[0], Struct("channels", Vmsd("channel", CHANNEL.fields[:1]), 2)),
            "3 fields are written, 2 are read",
        ),
        (V1, with_serial(*FIELDS, Plain("x", "u8")), "3 fields are written, 4 are read"),
    ],
)
def test_reasons(writer: Schema, loader: Schema, said: str) -> None:
    (reason,) = refusals(writer, loader)
    assert said in reason


def test_a_nested_struct_with_a_subsection_of_its_own() -> None:
    clock = Vmsd("clock", (Plain("t", "u64"),), subsections=(Vmsd("clock/drift", ()),))
    plain = Vmsd("clock", (Plain("t", "u64"),))
    (reason,) = refusals(with_serial(Struct("c", clock)), with_serial(Struct("c", plain)))
    assert reason.startswith("serial 0 / c / clock/drift: the loader does not know")


def test_a_declaration_travels() -> None:
    for schema in (V1, V2):
        assert decode(encode(declare(schema))) == declare(schema)
    assert refusals(decode(encode(declare(V2))), V1) == refusals(V2, V1)


PART = {"path": "a 0", "version": 1, "minimum": 1, "fields": [], "optional": False}


@pytest.mark.parametrize(
    "words",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        bytes((1 << 20) + 1),
        json.dumps({"format": 2, "machine": "m", "parts": []}).encode(),
        json.dumps({"format": 1, "machine": "m", "parts": [1]}).encode(),
        json.dumps({"format": 1, "machine": "m", "parts": [{**PART, "version": "1"}]}).encode(),
        json.dumps({"format": 1, "machine": "m", "parts": [{**PART, "fields": "x"}]}).encode(),
        json.dumps(
            {"format": 1, "machine": "m", "parts": [{**PART, "fields": ["x u8 since y"]}]}
        ).encode(),
    ],
)
def test_hostile_declarations(words: bytes) -> None:
    with pytest.raises(StateError):
        decode(words)


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes(words: bytes) -> None:
    with pytest.raises(StateError):
        decode(words)


@pytest.mark.parametrize("data", [b"", b"QEVM\0\0\0\3\7\0\0\0\1m\0", b"QEVM\0\0\0\3\7"])
def test_streams_that_declare_nothing(data: bytes) -> None:
    with pytest.raises(StateError):
        declared_by(data)


def test_a_real_qemus_stream_is_none_of_ours() -> None:
    import lzma

    data = lzma.decompress(fixture_path("cpr/11.1-exec-s390x.sav.xz").read_bytes())
    reasons = refusals(declared_by(data), V1)
    assert any("the loader does not know this device" in reason for reason in reasons)
    assert any("the loader needs this device" in reason for reason in reasons)
