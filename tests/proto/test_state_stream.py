"""Device state as a migration stream: our reader, cprformats and `cprtools inspect` agree on it."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.migration import configuration as configured
from builders.migration import device, full, stream, vmdesc
from builders.migration import field as described
from cprformats.encode import encode
from cprformats.fields import Field
from cprformats.migration import read_stream
from cprformats.migration.wire import SectionType
from cprformats.source import BytesSource
from cprproto.errors import HostError, Incompatible, StateError
from cprproto.state.loading import Loader
from cprproto.state.plan import SUBSECTION
from cprproto.state.ram import RamBlock
from cprproto.state.schema import LETTERS, Plain, Schema, Section, Struct, Vmsd
from cprproto.state.stream import StreamWriter

FIFO = Vmsd("serial/fifo", (Plain("fifo", "buffer", 16), Plain("level", "u8")))
CHANNEL = Vmsd("channel", (Plain("count", "i32"), Plain("latch", "u16", 2)))
TUNING = Vmsd("clock/tuning", (Plain("ppm", "i16"),))
CLOCK = Vmsd("clock", (Plain("ticks", "i64"),), subsections=(TUNING,))
SERIAL = Vmsd(
    "serial",
    (
        Plain("divider", "u16"),
        Plain("irq", "bool"),
        Plain("regs", "u64", 3),
        Struct("clock", CLOCK),
        Struct("channels", CHANNEL, 2),
        Plain("n", "u32"),
        Plain("msrs", "u64", 8, by="n"),
        Struct("more", CHANNEL, 8, by="n"),
        Plain("text", "buffer", 8, by="n"),
    ),
    subsections=(FIFO,),
)
SCHEMA = Schema("launch-1", (Section("serial", SERIAL, 4), Section("timer", CLOCK)))
ONE = {"count": -1, "latch": (1, 2)}


def values(n: int = 2, *, fifo: bool = True, tuning: bool = True) -> dict[tuple[str, int], Any]:
    clock: dict[str, Any] = {"ticks": -(1 << 62)}
    if tuning:
        clock["clock/tuning"] = {"ppm": -3}
    serial: dict[str, Any] = {"divider": 12, "irq": True, "regs": (1, 2, 1 << 63), "clock": clock}
    serial |= {"channels": [ONE, ONE], "n": n, "msrs": tuple(range(n)), "more": [ONE] * n}
    serial["text"] = bytes(range(n))
    if fifo:
        serial["serial/fifo"] = {"fifo": b"0123456789abcdef", "level": 255}
    return {("serial", 4): serial, ("timer", 0): {"ticks": 7}}


SHAPES = [{"n": 0}, {"n": 8}, {"fifo": False}, {"tuning": False}, {"n": 1, "fifo": False}]


@pytest.mark.parametrize("shape", SHAPES)
def test_round_trip(shape: dict[str, Any]) -> None:
    state = values(**shape)
    data = StreamWriter(SCHEMA).encode(state)
    assert Loader(SCHEMA).load(data) == state


def plain(field: Field) -> Any:
    """A decoded tree as values: what cprformats makes of it, without any declaration of ours."""
    if field.type == "buffer":
        return b"".join(encode([field]))
    if field.codec:
        return field.value
    found: dict[str, Any] = {}
    for child in field.children:
        name, _, index = child.name.partition("[")
        if index:
            found.setdefault(name, []).append(plain(child))
        elif child.name != "head":
            found[name] = plain(child)
    return found


def sent(state: dict[str, Any]) -> dict[str, Any]:
    """What is in the stream: nothing of an array without elements."""
    return {
        name: sent(value) if isinstance(value, dict) else value
        for name, value in state.items()
        if value not in ((), [], b"")
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_cprformats_reads_it_whole(shape: dict[str, Any]) -> None:
    data = StreamWriter(SCHEMA).encode(values(**shape))
    read = read_stream(BytesSource(data))
    assert (read.error, read.warnings, read.machine, read.end) == (None, (), "launch-1", len(data))
    assert b"".join(encode(read.walk())) == data
    tally = read.tally()
    assert (tally.raw, tally.unknown) == (0, 0)
    serial, timer = read.sections()
    for section, key in ((serial, ("serial", 4)), (timer, ("timer", 0))):
        tree, notices = read.decode(section)
        assert notices == ()
        assert plain(tree["body"]) == sent(values(**shape)[key])


def test_our_numbers_are_those_of_cprformats() -> None:
    assert SUBSECTION == SectionType.SUBSECTION
    data = StreamWriter(Schema("m", ())).encode({})
    assert data[:14] == b"QEVM\0\0\0\3\7\0\0\0\1m"
    assert data[14] == SectionType.EOF


def test_a_ram_section_lists_blocks_without_pages() -> None:
    blocks = (RamBlock("ram0", 1 << 20), RamBlock("pc.bios", 1 << 18))
    read = read_stream(BytesSource(StreamWriter(SCHEMA, ram=blocks).encode(values())))
    assert read.error is None
    assert {x.idstr: x.used_length for x in read.ram.blocks.values()} == {
        "ram0": 1 << 20,
        "pc.bios": 1 << 18,
    }
    assert [section.idstr for section in read.sections()] == ["ram", "ram", "serial", "timer"]


# -- writing ---------------------------------------------------------------------------


def test_to_a_file_a_memfd_and_a_pipe(tmp_path: Any) -> None:
    writer = StreamWriter(SCHEMA)
    writer.prepare(values())
    whole = writer.encode(values())
    with (tmp_path / "state").open("wb") as file:
        assert writer.write(file.fileno(), values()) == len(whole)
    assert (tmp_path / "state").read_bytes() == whole
    memfd = os.memfd_create("state")
    writer.write(memfd, values())
    assert os.pread(memfd, 1 << 20, 0) == whole
    os.close(memfd)
    read, write = os.pipe()
    got: list[bytes] = []
    with os.fdopen(read, "rb") as reader:
        thread = threading.Thread(target=lambda: got.append(reader.read()))
        thread.start()
        writer.write(write, values())
        os.close(write)
        thread.join()
    assert got == [whole]


def test_no_space_and_no_reader() -> None:
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(HostError, match=r"0 of .* bytes written: Broken pipe"):
        StreamWriter(SCHEMA).write(write, values())
    os.close(write)
    full_disk = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(HostError, match="No space left"):
        StreamWriter(SCHEMA).write(full_disk, values())
    os.close(full_disk)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"divider": 1 << 16}, "serial: error: "),
        ({"divider": -1}, "serial: error: "),
        ({"divider": None}, "serial: error: "),
        ({"regs": (1, 2)}, "regs has 2 elements, expected 3"),
        ({"regs": 1}, "serial: TypeError"),
        ({"channels": [ONE]}, "channels has 1 elements, expected 2"),
        ({"channels": [ONE, {"count": 1}]}, "channel: KeyError: 'latch'"),
        ({"n": 9}, "n says 9, the most is 8"),
        ({"n": -1}, "serial: error: argument out of range"),
        ({"n": 1}, "msrs has 2 elements, expected 1"),
        ({"serial/fifo": {"fifo": b"short", "level": 1}}, "fifo has 5 elements, expected 16"),
    ],
)
def test_values_that_do_not_fit(change: dict[str, Any], said: str) -> None:
    state = values()
    state["serial", 4] |= change
    with pytest.raises(StateError, match=said):
        StreamWriter(SCHEMA).encode(state)


def test_a_device_or_a_value_that_is_missing() -> None:
    state = values()
    del state["serial", 4]["divider"]
    with pytest.raises(StateError, match="serial: KeyError: 'divider'"):
        StreamWriter(SCHEMA).encode(state)
    with pytest.raises(StateError, match="no values for 'serial' instance 4"):
        StreamWriter(SCHEMA).encode({})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Plain("a", "u24"),
        lambda: Plain("a", "bool", 3),
        lambda: Plain("a", "buffer"),
        lambda: Plain("a", "u8", -1),
        lambda: Plain("a", "u8", by="n"),
        lambda: Struct("a", CLOCK, 3),
        lambda: Vmsd("", ()),
        lambda: Vmsd("a", (), version=256),
        lambda: Vmsd("a", (), version=1, minimum=2),
        lambda: Vmsd("a", (Plain("x", "u8"), Plain("x", "u8"))),
        lambda: Vmsd("a", (Plain("x", "u8", 3, by="n"), Plain("n", "u8"))),
        lambda: Vmsd("a", (), subsections=(FIFO,)),
        lambda: Section("", CLOCK),
        lambda: Section("a", CLOCK, -1),
        lambda: Schema("m", (Section("a", CLOCK), Section("a", FIFO))),
    ],
)
def test_declarations_that_make_no_sense(make: Any) -> None:
    with pytest.raises(StateError):
        make()


# -- loading ---------------------------------------------------------------------------

V1 = Vmsd("dev", (Plain("a", "u8"), Plain("b", "u32")))
ADDED = Vmsd("dev/extra", (Plain("d", "u16"),))
V2 = Vmsd("dev", (*V1.fields, Plain("c", "u64", since=2)), version=2, subsections=(ADDED,))


def schema(vmsd: Vmsd) -> Schema:
    return Schema("m", (Section("dev", vmsd),))


def test_a_later_version_reads_an_older_state_and_not_the_reverse() -> None:
    old, new = StreamWriter(schema(V1)), StreamWriter(schema(V2))
    state = {("dev", 0): {"a": 1, "b": 2}}
    assert Loader(schema(V2)).load(old.encode(state)) == state
    later = {("dev", 0): {"a": 1, "b": 2, "c": 3}}
    with pytest.raises(Incompatible, match="dev: version 2, known are 1 to 1"):
        Loader(schema(V1)).load(new.encode(later))


def test_a_subsection_that_is_not_known() -> None:
    with_extra = Vmsd("dev", V1.fields, subsections=(ADDED,))
    state = {("dev", 0): {"a": 1, "b": 2, "dev/extra": {"d": 3}}}
    data = StreamWriter(schema(with_extra)).encode(state)
    assert Loader(schema(with_extra)).load(data) == state
    with pytest.raises(Incompatible, match="subsection 'dev/extra' is not known"):
        Loader(schema(V1)).load(data)


def test_it_reads_what_others_wrote() -> None:
    """From the builders, which share no code with the writer."""
    body = b"\5" + b"\0\0\0\2"
    description = vmdesc(device("dev", [described("a", "uint8", 1), described("b", "uint32", 4)]))
    data = stream(configured("m"), full(9, "dev", body=body), description=description)
    assert Loader(schema(V1)).load(data) == {("dev", 0): {"a": 5, "b": 2}}


GOOD = full(0, "dev", body=bytes(5))


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (b"", StateError, "begins with nothing"),
        (b"QCPR\0\0\0\1", StateError, "begins with 51 43 50 52"),
        (stream(GOOD), StateError, "no configuration at 0x8"),
        (stream(configured("other"), GOOD), Incompatible, "of machine 'other', this is 'm'"),
        (stream(configured("mm"), GOOD), Incompatible, "of machine 'mm'"),
        (stream(configured("m")), Incompatible, "no state for dev 0"),
        (stream(configured("m"), full(0, "fox")), Incompatible, "device 'fox' instance 0 is not"),
        (stream(configured("m"), GOOD, full(1, "dev", body=bytes(5))), StateError, "there twice"),
        (stream(configured("m"), b"\1"), StateError, "part of type 0x1"),
        (stream(configured("m"), full(0, "dev", body=bytes(6))), StateError, "expected its footer"),
        (stream(configured("m"), full(0, "dev", version=0)), Incompatible, "version 0"),
        (stream(configured("m"), GOOD[:-1] + b"\1"), StateError, "expected its footer"),
    ],
)
def test_streams_that_are_not_loaded(data: bytes, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Loader(schema(V1)).load(data)


def test_every_cut_in_front_of_the_end_mark_is_found() -> None:
    data = StreamWriter(SCHEMA).encode(values())
    end = data.index(b"\0\6", data.rindex(b"\x7e\0\0\0\1"))
    loader = Loader(SCHEMA)
    assert loader.load(data[: end + 1]) == values()
    for size in range(end + 1):
        with pytest.raises(StateError):
            loader.load(data[:size])


def test_a_flipped_bit_gives_other_values_or_an_error() -> None:
    data = StreamWriter(SCHEMA).encode(values())
    loader, end = Loader(SCHEMA), data.rindex(b"\0\6\0")
    for bit in range(end * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with suppress(StateError):
            assert loader.load(bytes(flipped)) != values()


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_anything_behind_a_good_beginning(body: bytes) -> None:
    try:
        loaded = Loader(SCHEMA).load(b"QEVM\0\0\0\3\7\0\0\0\x08launch-1" + body)
    except StateError:
        return
    assert loaded.keys() == values().keys()


RANGES = {name: 8 * int(name[1:]) // 8 for name in LETTERS if name[1:].isdigit()}


@st.composite
def devices(draw: st.DrawFn) -> tuple[Vmsd, dict[str, Any]]:
    fields: list[Plain] = []
    state: dict[str, Any] = {}
    for place in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(sorted(RANGES)))
        bits, signed = RANGES[kind], kind.startswith("i")
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        count = draw(st.integers(0, 3))
        one = st.integers(low, high)
        name = f"f{place}"
        fields.append(Plain(name, kind, count))
        state[name] = tuple(draw(one) for _ in range(count)) if count else draw(one)
    return Vmsd("dev", tuple(fields)), state


@settings(deadline=None)
@given(devices())
def test_any_device_comes_back(made: tuple[Vmsd, dict[str, Any]]) -> None:
    vmsd, state = made
    data = StreamWriter(schema(vmsd)).encode({("dev", 0): state})
    assert Loader(schema(vmsd)).load(data) == {("dev", 0): state}
    read = read_stream(BytesSource(data))
    (section,) = read.sections()
    tree, notices = read.decode(section)
    assert notices == ()
    assert (read.tally().raw, read.tally().unknown) == (0, 0)
    assert plain(tree["body"]) == state
