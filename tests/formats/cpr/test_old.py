"""The CPR state form of 2022, which has no magic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.qcpr import old_state
from checks import assert_whole, fixture_path
from cprformats.cpr import CprMemfd, CprState, read_old_state
from cprformats.cpr.old import looks_like_old_state
from cprformats.errors import Damaged, Truncated
from cprformats.source import BytesSource

OPENEULER = "cpr/openeuler-6.2-QEMU_CPR_STATE.bin"
SMALL = old_state(
    ("c0.sock", 0, 9),
    ("qmp-mon0", 0xFFFF, 0x80000001),
    memfds=[("pc.ram", 0, 4096, 8192, 2 << 20)],
)


def read(data: bytes) -> CprState:
    return read_old_state(BytesSource(data))


def test_descriptors_values_and_memfds() -> None:
    found = read(SMALL)
    assert (found.kind, found.version, found.mode) == ("cpr-2022", None, 1)
    assert [(x.name, x.id, x.fd, x.is_value) for x in found.entries] == [
        ("c0.sock", 0, 9, False),
        ("qmp-mon0", 0xFFFF, 0x80000001, True),
    ]
    assert found.memfds == (CprMemfd("pc.ram", 0, 4096, 8192, 2 << 20, 48),)
    assert found.error is None
    assert found.warnings == ()
    assert_whole(found, SMALL)


def test_without_the_list_of_memfds() -> None:
    data = old_state(("c0.sock", 0, 9), memfds=None)
    found = read(data)
    assert found.error is None
    assert len(found.entries) == 1
    assert_whole(found, data)


def test_the_real_one() -> None:
    data = fixture_path(OPENEULER).read_bytes()
    found = read(data)
    assert found.error is None
    assert found.warnings == ()
    assert len(found.entries) == 15
    assert len(found.memfds) == 8
    vram = next(x for x in found.memfds if x.name == "vga.vram")
    assert (vram.length, vram.max_length, vram.align) == (16 << 20, 16 << 20, 2 << 20)
    ram = found.find("ram0")
    assert ram is not None
    assert ram.fd == 13
    assert [x.name for x in found.entries if x.is_value] == ["qmp-compat_monitor0"]
    assert found.tally().unknown == found.tally().raw == 0
    assert_whole(found, data)


def test_cut_at_every_byte() -> None:
    data = fixture_path(OPENEULER).read_bytes()
    for size in range(len(data)):
        found = read(data[:size])
        # Behind the first list the file may end.
        assert isinstance(found.error, Truncated) or size == 402, size
        assert_whole(found, data[:size])


def test_a_cut_file_is_still_recognised() -> None:
    data = fixture_path(OPENEULER).read_bytes()
    assert not looks_like_old_state(BytesSource(data[:29]))
    for size in range(30, len(data)):
        assert looks_like_old_state(BytesSource(data[:size]))


@given(st.integers(0, len(SMALL) - 1), st.integers(1, 255))
def test_flipped_bits(place: int, mask: int) -> None:
    data = bytearray(SMALL)
    data[place] ^= mask
    found = read(bytes(data))
    assert found.error is None or isinstance(found.error, (Truncated, Damaged))
    assert_whole(found, bytes(data))


@pytest.mark.parametrize("data", [b"", b"\0\0\0\1", b"\0\0\0\1\1\0"])
def test_too_little_to_tell(data: bytes) -> None:
    assert not looks_like_old_state(BytesSource(data))
