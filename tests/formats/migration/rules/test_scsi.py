"""SCSI requests: the form that leads to the field's end is the right one."""

from __future__ import annotations

from bodies import by_rule, described
from builders import migration as build
from builders.migration import be32, be64
from cprformats.fields import Kind

CDB = b"\x2a" + bytes(15)
HEAD = CDB + be32(9) + be32(0)
ELEMENT = be32(0) * 4 + bytes(49168 - 16)


def test_no_requests() -> None:
    assert by_rule("scsi-requests", b"\0")["end"].value == 0


def test_a_write_that_failed_is_retried() -> None:
    tree = by_rule(
        "scsi-requests", b"\1" + HEAD + be64(100) + be32(2) + be32(0x1000) + bytes(1024) + b"\0"
    )
    assert tree["[0].sector"].value == 100
    assert tree["[0].data"].size == 1024


def test_a_read_in_flight() -> None:
    body = b"\2" + HEAD + be64(1) + be32(8) + be32(4096) + be32(512) + b"x" * 512
    tree = by_rule("scsi-requests", body + b"\0")
    assert tree["[0].iov_len"].value == 512


def test_requests_without_a_disks_part() -> None:
    tree = by_rule("scsi-requests", b"\1" + HEAD + b"\2" + HEAD + b"\0")
    assert tree["[1].tag"].value == 9


def test_a_generic_device() -> None:
    tree = by_rule("scsi-requests", b"\1" + HEAD + be32(3) + b"abc" + b"\0")
    assert tree["[0].data"].value == b"abc"


def test_virtio_scsis_part() -> None:
    disk = be64(1) + be32(8) + be32(0)
    tree = by_rule("scsi-requests", (b"\1" + HEAD + be32(1) + ELEMENT + disk) * 2 + b"\0")
    assert tree["[1].queue"].value == 1
    assert tree["[1].element.in_sg"].size == 16384
    packed = by_rule("scsi-requests", b"\1" + HEAD + be32(1) + be32(3) + ELEMENT + disk + b"\0")
    assert packed["[0].ndescs"].value == 3


def test_an_unknown_form_keeps_its_head() -> None:
    body = b"\1" + HEAD + b"\xff" * 21 + b"\x07"
    tree, notices = described(body, [build.field("x", "scsi-requests", len(body))])
    assert tree["x.[0].tag"].value == 9
    assert tree["x.rest"].kind is Kind.RAW
    assert "unknown form" in notices[0]


def test_a_list_of_nothing_known() -> None:
    _, notices = described(b"\7\7", [build.field("x", "scsi-requests", 2)])
    assert "does not fit" in notices[0]


def test_hostile_lists_end_soon() -> None:
    """Requests everywhere, with sizes that never add up: each place is tried once."""
    body = (b"\1" + bytes(23) + b"\1") * 4000 + b"\7"
    tree, _ = described(body, [build.field("x", "scsi-requests", len(body))])
    assert tree["x"].size == len(body)
