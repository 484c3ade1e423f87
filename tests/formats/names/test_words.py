"""Names of bits and values: offsets, what has no name, and that every table is sound."""

from __future__ import annotations

import pytest

from cprformats.names import Bits, Enum, find_table, words
from cprformats.names import migration as migration_names
from cprformats.names import virtio as virtio_names

TABLES = (*migration_names.TABLES, *virtio_names.TABLES)


@pytest.mark.parametrize(
    ("meaning", "value", "expected"),
    [
        ("section-type", 4, ("FULL",)),
        ("section-type", 0x99, ("unknown",)),
        ("command", 2, ("PING",)),
        ("pointer-marker", 0x30, ("NULL",)),
        ("ram-flags", 0x48, ("PAGE", "XBZRLE")),
        ("page-sizes", 0x201000, ("4 KiB", "2 MiB")),
        ("virtio-status", 0x8F, ("ACKNOWLEDGE", "DRIVER", "DRIVER_OK", "FEATURES_OK", "FAILED")),
        ("virtio-net-features", 1 << 5 | 1 << 32 | 1 << 49, ("MAC", "VERSION_1", "bit 49")),
        ("virtio-net-features+32", 1, ("VERSION_1",)),
        ("virtio-net-features+64", 1 << 1, ("GUEST_UDP_TUNNEL_GSO",)),
        ("virtio-rng-features", 1 << 28, ("RING_INDIRECT_DESC",)),
        ("virtio--features", 1 << 3, ("bit 3",)),
        ("virtio-vector", 0xFFFF, ("NO_VECTOR",)),
        ("virtio-vector", 2, ()),
        ("virtio-net-features", 0, ()),
        ("no-such-table", 7, ()),
        ("virtio-no-such", 7, ()),
    ],
)
def test_words(meaning: str, value: int, expected: tuple[str, ...]) -> None:
    assert words(meaning, value) == expected


def test_a_negative_value_has_64_bits() -> None:
    assert len(words("ram-flags", -1)) == 64


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_tables_are_found_and_sound(table: Bits | Enum) -> None:
    assert find_table(table.name) is table
    named = table.bits if isinstance(table, Bits) else table.values
    assert all(number >= 0 and name for number, name in named.items())
    assert len(set(named.values())) == len(named)
