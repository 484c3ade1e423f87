"""Descriptors through a socket: what is sent arrives, and nothing is left open on any error."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fdlab import memfd, no_leak
from hypothesis import given, settings
from hypothesis import strategies as st

from cprproto.errors import PassingError
from cprproto.fds.evidence import look
from cprproto.fds.passing import MAX_FDS, MAX_MESSAGE, receive, send


@contextmanager
def pair(kind: int = socket.SOCK_STREAM) -> Iterator[tuple[socket.socket, socket.socket]]:
    with no_leak():
        one, other = socket.socketpair(socket.AF_UNIX, kind)
        with one, other:
            one.settimeout(5)
            other.settimeout(5)
            yield one, other


def send_until_full(link: socket.socket) -> None:
    while True:
        send(link, bytes(1 << 16))


def test_what_is_sent_arrives() -> None:
    with pair() as (one, other):
        ram, irq = memfd(data=b"guest"), os.eventfd(4)
        send(one, b"two", [ram, irq])
        passed = receive(other, size=99, kinds=("ram", "irq"))
        assert passed.data == b"two"
        for mine, theirs in zip((ram, irq), passed.fds, strict=True):
            before, now = look(mine), look(theirs)
            assert before
            assert now
            assert (before.inode, before.unique) == (now.inode, now.unique)
            assert now.cloexec
        passed.close()
        os.close(ram)
        os.close(irq)


def test_the_end_of_a_connection() -> None:
    with pair() as (one, other):
        one.shutdown(socket.SHUT_WR)
        assert receive(other, size=9) == receive(other, size=9)
        assert receive(other, size=9, kinds=("ram",)).data == b""


def test_as_many_as_the_kernel_takes() -> None:
    with pair() as (one, other):
        number = os.eventfd(0)
        send(one, b"x", [number] * MAX_FDS)
        passed = receive(other, size=1)
        assert len(passed.fds) == MAX_FDS
        passed.close()
        with pytest.raises(PassingError, match="254 descriptors"):
            send(one, b"x", [number] * (MAX_FDS + 1))
        os.close(number)


@pytest.mark.parametrize(("sent", "most"), [(1, 0), (2, 1), (9, 1), (253, 3)])
def test_more_than_expected_are_all_closed(sent: int, most: int) -> None:
    with pair() as (one, other):
        number = os.eventfd(0)
        send(one, b"x", [number] * sent)
        os.close(number)
        with pytest.raises(PassingError, match=f"more than {most} descriptors"):
            receive(other, size=1, most=most)


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        (("ram",), "expected 1 descriptors, 2 came"),
        (("ram", "irq", "irq"), "expected 3 descriptors, 2 came"),
        (("irq", "irq"), "descriptor 0 should be irq, and is memfd"),
        (("ram", "tap"), "descriptor 1 should be tap, and is eventfd"),
    ],
)
def test_others_than_expected_are_all_closed(kinds: tuple[str, ...], said: str) -> None:
    with pair() as (one, other):
        ram, irq = memfd(), os.eventfd(0)
        send(one, b"x", [ram, irq])
        os.close(ram)
        os.close(irq)
        with pytest.raises(PassingError, match=said):
            receive(other, size=9, kinds=kinds)


def test_a_message_that_is_too_long() -> None:
    with pair(socket.SOCK_SEQPACKET) as (one, other):
        number = os.eventfd(0)
        send(one, b"four", [number])
        os.close(number)
        with pytest.raises(PassingError, match="longer than its receiver expects"):
            receive(other, size=3)


def test_no_room_for_descriptors() -> None:
    """The kernel drops what RLIMIT_NOFILE forbids, and says so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pair() as (one, other):
        number = os.eventfd(0)
        send(one, b"x", [number] * 3)
        os.close(number)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (number + 1, hard))
            with pytest.raises(PassingError, match="the limit of open files is hit"):
                receive(other, size=1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_can_not_be_sent() -> None:
    with pair() as (one, other):
        for data in (b"", bytes(MAX_MESSAGE + 1)):
            with pytest.raises(PassingError, match="a message has 1 to"):
                send(one, data)
        with pytest.raises(PassingError, match="Bad file descriptor"):
            send(one, b"x", [900])
        other.shutdown(socket.SHUT_RDWR)
        with pytest.raises(PassingError, match="Broken pipe"):
            send(one, b"x")


def test_a_socket_that_is_none_and_a_wait_that_ends() -> None:
    with pair() as (one, other):
        other.settimeout(0.01)
        with pytest.raises(TimeoutError):
            receive(other, size=1)
        one.settimeout(0.01)
        with pytest.raises(TimeoutError):
            send_until_full(one)
    with socket.socket() as lone, pytest.raises(PassingError, match="can't receive"):
        receive(lone, size=1)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=9), st.integers(0, 6)), max_size=6),
    st.integers(1, 20),
    st.integers(0, 6),
    st.none() | st.lists(st.sampled_from(["ram", "irq", "tap"]), max_size=4),
)
def test_whatever_comes_nothing_stays_open(
    messages: list[tuple[bytes, int]], size: int, most: int, kinds: list[str] | None
) -> None:
    with no_leak():
        one, other = socket.socketpair()
        numbers = [memfd(), os.eventfd(0)]
        for data, count in messages:
            send(one, data, [numbers[n % 2] for n in range(count)])
        for number in numbers:
            os.close(number)
        one.shutdown(socket.SHUT_WR)
        over = False
        while not over:
            try:
                passed = receive(other, size=size, most=most, kinds=kinds)
            except PassingError:
                continue
            over = not passed.data
            assert len(passed.fds) <= most
            passed.close()
        one.close()
        other.close()
