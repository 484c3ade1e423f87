"""The document that travels beside a CPR state: round trips, and hostile bytes."""

from __future__ import annotations

import binascii
import struct

import pytest
from fdlab import filled_table, no_leak
from hypothesis import given, settings
from hypothesis import strategies as st

from cprproto.errors import TableError
from cprproto.fds.check import check_table
from cprproto.fds.document import MAGIC, MAX_BYTES, decode_table, encode_table
from cprproto.fds.evidence import Evidence
from cprproto.fds.kinds import ALL_CHECKS, KINDS
from cprproto.fds.table import Entry, Table

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
U64 = st.integers(0, (1 << 64) - 1)
EVIDENCE = st.builds(
    Evidence,
    st.just(0),
    st.sampled_from(["memfd", "eventfd", "other"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.tuples(U64, U64, U64, U64),
    st.tuples(
        U64,
        st.integers(0, (1 << 32) - 1),
        st.integers(-1, 1 << 40),
        st.integers(-1, (1 << 64) - 2),
    ),
    st.integers(-1, 63),
)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    table = Table(draw(st.integers(0, (1 << 32) - 1)))
    for number in draw(st.sets(st.integers(0, (1 << 31) - 1), max_size=8)):
        name = draw(NAMES.filter(lambda x: len(x.encode()) < 256))
        id_number, checks = draw(st.integers(0, (1 << 31) - 1)), draw(st.integers(0, ALL_CHECKS))
        if table.find(name, id_number) is None:
            seen = draw(st.none() | EVIDENCE)
            before = seen and Evidence(
                number,
                seen.looks,
                seen.link,
                (seen.device, seen.inode, seen.node, seen.size),
                (seen.position, seen.flags | seen.cloexec << 19, seen.unique, seen.count),
                seen.seals,
            )
            kind = draw(st.sampled_from(KINDS))
            table.put(Entry(kind, name, id_number, number, checks, before))
    return table


@settings(deadline=None)
@given(tables())
def test_round_trip(table: Table) -> None:
    read = decode_table(encode_table(table))
    assert list(read) == list(table)
    assert read.protocol == table.protocol


def test_a_real_table_is_checked_from_its_document() -> None:
    with no_leak(), filled_table() as table:
        assert check_table(decode_table(encode_table(table)), cloexec=True) == []


def sealed(body: bytes) -> bytes:
    """A body with a checksum that fits."""
    return body + binascii.crc32(body).to_bytes(4)


def head(count: int, version: int = 1) -> bytes:
    return struct.pack(">4sHIH", MAGIC, version, 1, count)


def record(data: bytes) -> bytes:
    return len(data).to_bytes(2) + data


RAM = struct.pack(">iIB", 9, 0, 0) + b"\3ram\4ram0"


def test_a_later_version_may_put_more_behind() -> None:
    seen = b"\5memfd" + b"\0\0" + struct.pack(">QQQQQIiqqB", *[0] * 10)
    (entry,) = decode_table(sealed(head(1) + record(RAM + seen + b"more")))
    assert entry.name == "ram0"
    assert entry.before is not None
    assert entry.before.looks == "memfd"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no table of descriptors"),
        (b"QCPR" + bytes(20), "no table of descriptors"),
        (MAGIC, "no table of descriptors"),
        (sealed(head(0, version=2)), "expected version 1, found 2"),
        (head(0) + bytes(4), "the checksum does not fit"),
        (sealed(head(1)), "expected 2 bytes, found 0"),
        (sealed(head(1) + b"\xff\xff"), "expected 65535 bytes, found 0"),
        (sealed(head(1) + record(RAM[:-1])), "expected 4 bytes, found 3"),
        (sealed(head(1) + record(RAM + b"\5memfd")), "expected 2 bytes, found 0"),
        (sealed(head(2) + record(RAM) * 2), "in the table twice"),
        (sealed(head(0) + b"x"), "1 bytes behind the last entry"),
        (sealed(head(1) + record(RAM.replace(b"\3ram\4", b"\3tap\4"))), ""),
        (sealed(head(1) + record(RAM.replace(b"\3ram\4", b"\3rum\4"))), "no kind 'rum'"),
        (sealed(head(65535)), "65535 entries"),
        (head(0) + bytes(MAX_BYTES), "too many"),
    ],
)
def test_hostile_documents(data: bytes, said: str) -> None:
    if not said:
        assert len(decode_table(data)) == 1
        return
    with pytest.raises(TableError, match=said):
        decode_table(data)


def test_every_cut_and_every_flipped_bit_is_found() -> None:
    with filled_table() as table:
        data = encode_table(table)
    for size in range(len(data)):
        with pytest.raises(TableError):
            decode_table(data[:size])
    for bit in range(0, len(data) * 8, 7):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(TableError):
            decode_table(bytes(flipped))


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 9))
def test_anything_behind_a_good_head(body: bytes, count: int) -> None:
    try:
        table = decode_table(sealed(head(count) + body))
    except TableError:
        return
    assert len(table) == count
