"""CPR states: what we write is QEMU's form, and what QEMU writes we read."""

from __future__ import annotations

import os
import socket

import pytest
from fdlab import filled_table, memfd, no_leak
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.qcpr import fd_entry, qcpr, qlist
from checks import fixture_names, fixture_path
from cprformats.cpr import CprFd, CprVfioDevice
from cprformats.cpr import read_state as read_with_places
from cprformats.encode import encode
from cprformats.source import BytesSource
from cprproto.errors import PassingError, StateError
from cprproto.fds.evidence import look
from cprproto.state.qcpr import ENVIRONMENT, MAX_STATE, CprState, read_state, state_from_exec
from cprproto.state.qcpr_writing import (
    encode_state,
    entries_of,
    receive_state,
    send_state,
    state_memfd,
)

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
I32 = st.integers(-(1 << 31), (1 << 31) - 1)
#: A number that begins with 20 can't be told from a descriptor beside the data; none is so high.
FDS = st.integers(0, 1 << 20)
VFIO = CprVfioDevice("0000:01:00.0", 1, 2, 3)


def triples(state: CprState) -> list[tuple[str, int, int]]:
    return [(entry.name, entry.id, entry.number) for entry in state.entries]


# -- the form ------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, I32, FDS), max_size=8), st.sampled_from([None, (), (VFIO,)]))
def test_by_number(
    entries: list[tuple[str, int, int]], vfio: tuple[CprVfioDevice, ...] | None
) -> None:
    data = encode_state([CprFd(*entry) for entry in entries], vfio)
    devices = None if vfio is None else [(x.name, x.devid, x.ioas_id, x.hwpt_id) for x in vfio]
    assert data == qcpr(*entries, vfio=devices)
    read = read_with_places(BytesSource(data))
    assert read.error is None
    assert b"".join(encode(read.walk())) == data
    state = read_state(data)
    assert triples(state) == entries == [(x.name, x.id, x.fd) for x in read.entries]
    assert state.has_vfio == (vfio is not None)
    assert state.vfio == tuple(x.name for x in vfio or ())
    assert state.places == ()


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, I32), max_size=8))
def test_beside_the_data(entries: list[tuple[str, int]]) -> None:
    data = encode_state([CprFd(name, id_number, None) for name, id_number in entries])
    assert data == qcpr(*((name, id_number, None) for name, id_number in entries))
    state = read_state(data)
    assert triples(state) == [(name, id_number, -1) for name, id_number in entries]
    assert [data[place] for place in state.places] == [0x20] * len(entries)


@pytest.mark.parametrize("name", fixture_names("qcpr"))
def test_what_qemu_wrote(name: str) -> None:
    data = fixture_path(name).read_bytes()
    read, state = read_with_places(BytesSource(data)), read_state(data)
    assert triples(state) == [(x.name, x.id, -1 if x.fd is None else x.fd) for x in read.entries]
    assert state.has_vfio == read.has_vfio
    vfio = read.vfio_devices if read.has_vfio else None
    assert encode_state(read.entries, vfio) == data


def test_a_tables_entries() -> None:
    with filled_table() as table:
        state = read_state(encode_state(entries_of(table)))
        assert triples(state) == [(x.name, x.id, x.number) for x in table]
        beside = read_state(encode_state(entries_of(table, beside=True)))
        assert len(beside.places) == len(table)


RAM = ("ram0", 0, 9)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "begins with nothing"),
        (qcpr(RAM, version=2), "no CPR state of version 1"),
        (b"QEVM" + qcpr(RAM)[4:], "begins with 51 45 56 4d"),
        (qcpr(RAM) + b"x", "1 bytes at 0x.* are not understood"),
        (qcpr(RAM, vfio_version=2), "are not understood"),
        (qcpr(RAM).replace(b"CprState/", b"CprStats/"), "are not understood"),
        (qcpr(RAM, ("ram1", 0, None)), "some descriptors by number, some beside"),
        (qcpr(RAM).replace(b"\1\0\0\0\5", b"\2\0\0\0\5"), "expected 0 or 1 at 0x8, found 2"),
        (qcpr(RAM).replace(b"\0\0\0\5ram0\0", b"\0\0\0\5ram0!"), "does not end where it should"),
        (qcpr(RAM).replace(b"ram0\0", b"ra\0m\0"), "does not end where it should"),
        (qcpr(RAM).replace(b"\0\0\0\5ram0\0", b"\0\0\0\0"), "a name of 0 bytes"),
        (qcpr(RAM).replace(b"\0\0\0\5ram0", b"\xff\xff\xff\xffram0"), "a name of -1 bytes"),
        (qcpr(RAM).replace(b"\0\0\0\5ram0", b"\0\1\0\0ram0"), "a name of 65536 bytes"),
        (bytes(MAX_STATE + 1), "more than 1048576 bytes"),
    ],
)
def test_hostile_states(data: bytes, said: str) -> None:
    with pytest.raises(StateError, match=said):
        read_state(data)


def test_every_cut_is_found() -> None:
    data = qcpr(RAM, ("ram1", 3, 200), vfio=[("0000:01:00.0", 1, 2, 3)])
    whole = len(b"QCPR\0\0\0\1" + qlist(fd_entry(*RAM), fd_entry("ram1", 3, 200)))
    for size in range(len(data)):
        if size == whole:  # a state of 10.0 ends here
            assert not read_state(data[:size]).has_vfio
            continue
        with pytest.raises(StateError):
            read_state(data[:size])


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_anything_behind_a_good_head(body: bytes) -> None:
    data = b"QCPR\0\0\0\1" + body
    try:
        state = read_state(data)
    except StateError:
        return
    read = read_with_places(BytesSource(data))
    assert triples(state) == [(x.name, x.id, -1 if x.fd is None else x.fd) for x in read.entries]


# -- by exec ---------------------------------------------------------------------------


def test_the_memfd_of_an_exec() -> None:
    with no_leak():
        number = state_memfd([CprFd(*RAM)])
        seen = look(number)
        assert seen is not None
        assert (seen.link, seen.cloexec) == (f"/memfd:{ENVIRONMENT} (deleted)", True)
        assert seen.position == seen.size == len(qcpr(RAM))
        variables = {ENVIRONMENT: str(number), "HOME": "/"}
        assert state_from_exec(variables) == qcpr(RAM)
        assert variables == {"HOME": "/"}


@pytest.mark.parametrize("text", ["", "x", "-1", "9 ", "1e3", "٣", "9" * 30])
def test_a_variable_that_is_no_number(text: str) -> None:
    with pytest.raises(StateError, match="is no descriptor's number"):
        state_from_exec({ENVIRONMENT: text})


def test_a_variable_that_names_nothing_or_no_file() -> None:
    with pytest.raises(StateError, match="nothing was handed over by exec"):
        state_from_exec({})
    with pytest.raises(StateError, match="descriptor 900: Bad file descriptor"):
        state_from_exec({ENVIRONMENT: "900"})
    read, write = os.pipe()
    with pytest.raises(StateError, match="Illegal seek"):
        state_from_exec({ENVIRONMENT: str(read)})
    os.close(read)
    os.close(write)


# -- by transfer -----------------------------------------------------------------------


def pair() -> tuple[socket.socket, socket.socket]:
    one, other = socket.socketpair()
    one.settimeout(5)
    other.settimeout(5)
    return one, other


def test_over_a_channel() -> None:
    with no_leak():
        one, other = pair()
        mine = [memfd(), os.eventfd(7)]
        entries = [CprFd("ram0", 0, None), CprFd("0000:00:02.0_interrupt", 3, None)]
        with one, other:
            send_state(one, entries, mine, (VFIO,))
            state = receive_state(other)
        assert [(x.name, x.id) for x in state.entries] == [(x.name, x.id) for x in entries]
        assert state.vfio == (VFIO.name,)
        for number, entry in zip(mine, state.entries, strict=True):
            before, now = look(number), look(entry.number)
            assert before
            assert now
            assert (now.inode, now.unique, now.cloexec) == (before.inode, before.unique, True)
            os.close(number)
            os.close(entry.number)


def test_without_any_descriptor() -> None:
    one, other = pair()
    with one, other:
        send_state(one, [], [])
        assert receive_state(other).entries == ()


def test_names_and_descriptors_that_do_not_fit() -> None:
    one, other = pair()
    with one, other:
        with pytest.raises(PassingError, match="1 names for 0 descriptors"):
            send_state(one, [CprFd("ram0", 0, None)], [])
        with pytest.raises(PassingError, match="Bad file descriptor"):
            send_state(one, [CprFd("ram0", 0, None)], [900])


LEAD = qcpr(("ram0", 0, None))[:21]
TAIL = qcpr(("ram0", 0, None))[22:]


@pytest.mark.parametrize(
    "messages",
    [
        [(LEAD, 0), (b" ", 0), (TAIL, 0)],
        [(LEAD, 1), (b" ", 0), (TAIL, 0)],
        [(LEAD, 0), (b" ", 1), (TAIL, 1)],
        [(LEAD, 0), (b" ", 2), (TAIL, 0)],
        [(LEAD, 1)],
        [(b"QEVM", 1)],
        [(LEAD, 0), (b" ", 1), (TAIL[:9], 0)],
        [(qcpr(RAM), 1)],
    ],
)
def test_what_does_not_fit_is_closed(messages: list[tuple[bytes, int]]) -> None:
    with no_leak():
        one, other = pair()
        number = os.eventfd(0)
        with one, other:
            for data, count in messages:
                socket.send_fds(one, [data], [number] * count)
            one.shutdown(socket.SHUT_WR)
            with pytest.raises((PassingError, StateError)):
                receive_state(other)
        os.close(number)


def test_a_sender_that_hangs() -> None:
    with no_leak():
        one, other = pair()
        number = os.eventfd(0)
        other.settimeout(0.05)
        with one, other:
            socket.send_fds(one, [LEAD + b" "], [number])
            with pytest.raises(TimeoutError):
                receive_state(other)
        os.close(number)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([LEAD, b" ", TAIL, b"\0", b"\1"]), st.integers(0, 2)), max_size=6
    )
)
def test_whatever_comes_nothing_stays_open(messages: list[tuple[bytes, int]]) -> None:
    with no_leak():
        one, other = pair()
        number = os.eventfd(0)
        with one, other:
            for data, count in messages:
                socket.send_fds(one, [data], [number] * count)
            one.shutdown(socket.SHUT_WR)
            try:
                state = receive_state(other)
            except (PassingError, StateError):
                state = None
        for entry in state.entries if state else ():
            os.close(entry.number)
        os.close(number)
