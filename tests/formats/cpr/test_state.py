"""CPR state files of QEMU 10.0 and later."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.qcpr import fd_entry, qcpr, qlist
from checks import assert_error, assert_whole, fixture_names, fixture_path
from cprformats.cpr import CprFd, CprState, CprVfioDevice, read_state, wire
from cprformats.errors import Damaged, FormatError, Truncated, Unsupported, WrongFormat
from cprformats.fields import Kind, leaves
from cprformats.source import BytesSource

FDS = (("ram0", 0, 9), ("pc.bios", 0, 10), ("0000:00:04.0_interrupt", 3, 31))
FULL = qcpr(*FDS, vfio=[("0000:01:00.0", 2, 5, 7)])


def read(data: bytes) -> CprState:
    return read_state(BytesSource(data))


def clean(data: bytes) -> CprState:
    found = read(data)
    assert found.error is None
    assert found.warnings == ()
    assert_whole(found, data)
    return found


def test_descriptors_and_devices() -> None:
    found = clean(FULL)
    assert found.kind == "qcpr"
    assert found.version == 1
    assert found.mode is None
    assert found.passed == "exec"
    assert [(x.name, x.id, x.fd, x.is_value) for x in found.entries] == [(*fd, False) for fd in FDS]
    assert found.has_vfio
    assert found.vfio_devices == (CprVfioDevice("0000:01:00.0", 2, 5, 7, 111),)
    assert found.tally().by_kind[Kind.SUBSECTION_HEAD] == 27
    assert found.tally().unknown == found.tally().raw == 0


def test_the_form_of_10_0_has_no_devices() -> None:
    found = clean(qcpr(*FDS, vfio=None))
    assert not found.has_vfio
    assert len(found.entries) == 3


def test_descriptors_that_go_beside_the_data() -> None:
    found = clean(qcpr(("ram0", 0, None), ("pc.bios", 0, None)))
    assert found.passed == "transfer"
    assert [x.fd for x in found.entries] == [None, None]


def test_an_empty_state() -> None:
    found = clean(qcpr())
    assert found.entries == ()
    assert found.passed == ""


def test_lookup_is_by_name_and_id() -> None:
    found = read(qcpr(("a", 0, 5), ("a", 1, 6), ("a", 1, 7)))
    assert found.find("a", 1) == CprFd("a", 1, 6, offset=23)
    assert found.find("b") is None
    assert found.warnings == ("'a' id 1 is there 2 times; QEMU takes the first",)


def test_leaves_have_the_names_of_the_wire() -> None:
    tree = clean(FULL).fields[1]
    names = [leaf.name for leaf in leaves(tree)][:6]
    assert names == ["more", "namelen", "name", "nul", "id", "fd"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (qcpr(("a", 0, -1)), "-1 is no descriptor"),
        (qcpr(("a", 0, 3)).replace(b"a\0", b"ab"), "does not end in a NUL"),
    ],
)
def test_oddities_are_said(data: bytes, words: str) -> None:
    found = read(data)
    assert found.error is None
    assert any(words in text for text in found.warnings)
    assert_whole(found, data)


def test_bytes_behind_the_state_are_unknown() -> None:
    data = FULL + b"more"
    found = read(data)
    assert found.warnings == (f"4 bytes behind the state, at {len(FULL):#x}",)
    assert found.tally().unknown == 4
    assert_whole(found, data)


def test_no_magic() -> None:
    with pytest.raises(WrongFormat, match="QCPR"):
        read(b"QEVM\0\0\0\3")


def test_another_version() -> None:
    with pytest.raises(Unsupported, match="expected 1, found 2") as caught:
        read(qcpr(*FDS, version=2))
    assert caught.value.offset == 4


def test_half_a_header() -> None:
    with pytest.raises(Truncated):
        read(FULL[:6])


def test_another_version_of_the_devices() -> None:
    found = read(qcpr(*FDS, vfio_version=2))
    assert isinstance(found.error, Unsupported)
    assert len(found.entries) == 3


def test_another_subsection() -> None:
    found = read(FULL.replace(b"CprState/vfio", b"CprState/vFIO"))
    assert isinstance(found.error, Unsupported)
    assert "CprState/vFIO devices" in str(found.error)
    assert_whole(found, FULL.replace(b"CprState/vfio", b"CprState/vFIO"))


def test_a_list_goes_on_with_1_or_ends_with_0() -> None:
    data = b"QCPR\0\0\0\1\1" + fd_entry("ram0", 0, 9) + b"\7"
    found = read(data)
    assert_error(found.error, Damaged, 26, ("fds", "fds[1]"), "more", "01", "07")
    assert [x.name for x in found.entries] == ["ram0"]
    assert_whole(found, data)


def test_both_ways_of_passing_contradict_each_other() -> None:
    data = b"QCPR\0\0\0\1" + qlist(fd_entry("a", 0, 9), fd_entry("b", 0, None))
    assert_error(read(data).error, Damaged, 23, ("fds", "fds[1]"), "exec", "transfer")


def test_a_length_that_no_name_has() -> None:
    data = b"QCPR\0\0\0\1\1\xff\xff\xff\xff"
    assert_error(read(data).error, Damaged, 9, ("fds", "fds[0]"), "4096", "4294967295")


def test_entries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cprformats.cpr.lists.MAX_ENTRIES", 2)
    found = read(FULL)
    assert isinstance(found.error, Unsupported)
    assert wire.MAX_ENTRIES >= 10_000


def test_cut_at_every_byte() -> None:
    for size in range(8, len(FULL)):
        found = read(FULL[:size])
        whole = size == len(qcpr(*FDS, vfio=None))
        assert (found.error is None) == whole, size
        if found.error is not None:
            assert isinstance(found.error, Truncated)
        assert_whole(found, FULL[:size])


@given(st.integers(0, len(FULL) - 1), st.integers(1, 255))
def test_flipped_bits(place: int, mask: int) -> None:
    data = bytearray(FULL)
    data[place] ^= mask
    try:
        found = read(bytes(data))
    except FormatError as error:
        place_of_error = error.offset
    else:
        assert_whole(found, bytes(data))
        return
    assert place_of_error < 8


@pytest.mark.parametrize("name", fixture_names("qcpr"))
def test_real_files(name: str) -> None:
    found = clean(fixture_path(name).read_bytes())
    assert found.entries
