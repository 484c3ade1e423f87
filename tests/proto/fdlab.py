"""What the tests of descriptors share: a few open ones, and a watch over leaks."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from cprproto.fds.evidence import open_numbers
from cprproto.fds.table import Table


@contextmanager
def no_leak() -> Iterator[None]:
    """As many descriptors are open behind it as were in front."""
    before = open_numbers()
    yield
    assert open_numbers() == before


def memfd(name: str = "m", data: bytes = b"guest") -> int:
    number = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(number, data)
    return number


@contextmanager
def filled_table() -> Iterator[Table]:
    """A table with one descriptor of each common kind; all are closed afterwards."""
    table = Table()
    read, write = os.pipe()
    one, other = socket.socketpair()
    listener = socket.create_server(("127.0.0.1", 0))
    table.add("ram", "ram0", memfd())
    table.add("irq", "serial", os.eventfd(3), id=4)
    table.add("kick", "serial", os.eventfd(0))
    table.add("pipe", "log", read)
    table.add("pipe", "log", write, id=1)
    table.add("connected-socket", "monitor", one.detach())
    table.add("standin-group", "vfio_group", other.detach(), id=7)
    table.add("listening-socket", "listener", listener.detach())
    table.add("file", "firmware", os.open(__file__, os.O_RDONLY | os.O_CLOEXEC))
    table.take_stock()
    try:
        yield table
    finally:
        table.close()
