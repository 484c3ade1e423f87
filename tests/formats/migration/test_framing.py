"""Framing: header, sections of all four types, footers by stream, EOF, what follows."""

from __future__ import annotations

import pytest

from builders import migration as build
from checks import assert_error, clean, read
from cprformats.errors import Damaged, Truncated, Unsupported, WrongFormat
from cprformats.fields import Kind
from cprformats.migration import Located, Piece
from cprformats.migration.framing import Framer
from cprformats.migration.wire import SectionType
from cprformats.source import BytesSource

RAM = build.block_list(build.block("ram0", build.PAGE)) + build.eos()
BYTES = [build.field("a", "uint8", 1), build.field("b", "uint16", 2)]


def described(*devices: object, **more: object) -> bytes:
    return build.vmdesc(*devices, **more)  # type: ignore[arg-type]


# -- header ---------------------------------------------------------------------


def test_the_smallest_stream() -> None:
    stream = clean(b"QEVM\0\0\0\3\0")
    assert (stream.version, stream.footers, stream.end) == (3, None, 9)
    assert [x.name for x in stream.items if isinstance(x, Piece)] == ["header", "eof"]


@pytest.mark.parametrize("data", [b"", b"QEV", b"QEVN\0\0\0\3\0", b"\x7fELF" + bytes(100)])
def test_no_magic_raises(data: bytes) -> None:
    with pytest.raises(WrongFormat) as caught:
        read(data)
    assert_error(caught.value, WrongFormat, 0, (), "no migration stream: expected b'QEVM'")


@pytest.mark.parametrize("version", [0, 1, 4, 0x03000000])
def test_other_versions_raise(version: int) -> None:
    with pytest.raises(Unsupported) as caught:
        read(build.header(version))
    assert_error(caught.value, Unsupported, 0, (), f"expected 3, found {version}")


@pytest.mark.parametrize("size", range(4, 8))
def test_a_cut_header_raises(size: int) -> None:
    with pytest.raises(Truncated) as caught:
        read(build.header()[:size])
    assert_error(caught.value, Truncated, 4, ("header",), "version is cut")


def test_a_stream_at_an_offset_has_absolute_places() -> None:
    inner = build.stream(build.configuration(), build.full(1, "dev", body=b"\1"))
    stream = read(b"x" * 92 + inner, offset=92)
    assert stream.error is None
    assert stream.items[0].field.offset == 92  # type: ignore[union-attr]
    assert stream.end == 92 + len(inner)


def test_nothing_behind_the_given_end_is_touched() -> None:
    inner = build.stream(build.full(1, "dev", body=b"\1"), padding=bytes(10))
    stream = read(inner + b"other data", end=len(inner))
    assert stream.error is None
    assert stream.warnings == ()
    assert stream.end == len(inner)


# -- sections -------------------------------------------------------------------


def test_full_section_is_located_by_its_description() -> None:
    body = b"\1\2\3"
    data = build.stream(
        build.full(7, "dev", instance=3, version=9, body=body),
        description=described(build.device("dev", BYTES, instance=3, vmsd="devstate")),
    )
    stream = clean(data)
    (section,) = stream.sections()
    assert section.type is SectionType.FULL
    assert (section.section_id, section.idstr, section.instance_id) == (7, "dev", 3)
    assert (section.version, section.offset, section.head_size) == (9, 8, 17)
    assert (section.body_offset, section.body_end, section.end) == (25, 28, 33)
    assert section.located is Located.VMDESC
    assert section.name == "dev/3"
    field, notices = stream.decode(section)
    assert notices == ()
    assert (field["body.a"].value, field["body.b"].value) == (1, 0x203)
    assert field["footer.section_id"].value == 7


def test_part_and_end_carry_only_the_id() -> None:
    data = build.stream(
        build.start(2, body=RAM), build.part(2, body=build.eos()), build.end(2, body=build.eos())
    )
    sections = list(clean(data).sections())
    assert [x.type.name for x in sections] == ["START", "PART", "END"]
    assert [x.head_size for x in sections] == [17, 5, 5]
    assert {x.idstr for x in sections} == {"ram"}
    assert {x.version for x in sections} == {4}


def test_part_of_an_id_that_no_start_opened() -> None:
    stream = read(build.stream(build.start(2, body=RAM), build.part(9, body=build.eos())))
    assert_error(
        stream.error, Damaged, 8 + len(build.start(2, body=RAM)) + 5, (),
        "section id of PART: expected one that a START opened (2), found 9",
    )  # fmt: skip


def test_early_setup_sections_stand_before_ram() -> None:
    """virtio-mem, since 8.0: FULL does not mean that RAM is over."""
    data = build.stream(
        build.configuration(),
        build.full(1, "virtio-mem-early", body=b"\1"),
        build.start(2, body=RAM),
        build.end(2, body=build.eos()),
        build.full(3, "dev", body=b"\2"),
        description=described(
            build.device("virtio-mem-early", BYTES[:1]), build.device("dev", BYTES[:1])
        ),
    )
    assert [x.idstr for x in clean(data).sections()] == ["virtio-mem-early", "ram", "ram", "dev"]


def test_two_instances_have_their_own_descriptions() -> None:
    data = build.stream(
        build.full(1, "cpu", instance=0, body=b"\1"),
        build.full(2, "cpu", instance=1, body=b"\1\2\3"),
        description=described(
            build.device("cpu", BYTES[:1], instance=0), build.device("cpu", BYTES, instance=1)
        ),
    )
    assert [x.body_size for x in clean(data).sections()] == [1, 3]


def test_unknown_section_type() -> None:
    stream = read(build.header() + b"\x55\0\0\0\1")
    assert_error(stream.error, Damaged, 8, (), "section type: expected one of 0x00", "found 0x55")


def test_a_second_configuration_is_damage() -> None:
    stream = read(build.stream(build.configuration("pc"), build.configuration("pc")))
    assert_error(stream.error, Damaged, 15, (), "found 0x07")


# -- footers --------------------------------------------------------------------


def test_footers_are_learnt_from_the_first_section() -> None:
    with_footers = build.stream(build.start(2, body=RAM), build.end(2, body=build.eos()))
    without = build.stream(
        build.start(2, body=RAM, footers=False), build.end(2, body=build.eos(), footers=False)
    )
    assert clean(with_footers).footers is True
    assert clean(without).footers is False
    assert [x.footer_size for x in clean(without).sections()] == [0, 0]


def test_a_footer_that_is_missing_later() -> None:
    first = build.start(2, body=RAM)
    stream = read(build.stream(first, build.end(2, body=build.eos(), footers=False), bytes(9)))
    assert_error(
        stream.error, Damaged, 8 + len(first) + 13, ("ram",),
        "footer: expected 7e 00 00 00 02, found 00 00 00 00 00",
    )  # fmt: skip


def test_a_footer_that_comes_up_later() -> None:
    """Footers are on or off for all of a stream."""
    first = build.start(2, body=RAM, footers=False)
    stream = read(build.stream(first, build.end(2, body=build.eos())))
    assert stream.error is not None
    assert stream.footers is False
    assert stream.error.offset >= 8 + len(first) + 13


def test_the_footer_has_the_section_id() -> None:
    good = build.start(2, body=RAM)
    bad = build.end(2, body=build.eos(), footers=False) + build.footer(3)
    stream = read(build.stream(good, bad))
    assert_error(
        stream.error, Damaged, 8 + len(good) + 13, ("ram",), "7e 00 00 00 02", "7e 00 00 00 03"
    )


def test_a_cut_footer() -> None:
    data = build.header() + build.start(2, body=RAM) + build.end(2, body=build.eos())[:-2]
    stream = read(data)
    assert_error(stream.error, Truncated, len(data) - 3, ("ram",), "footer is cut")
    # The second section is there, all but its footer.
    assert [x.footer_size for x in stream.sections()] == [5, 0]


def test_no_footers_and_a_description() -> None:
    data = build.stream(
        build.full(1, "a", body=b"\1\2\3", footers=False),
        build.full(2, "b", body=b"\4", footers=False),
        description=described(build.device("a", BYTES), build.device("b", BYTES[:1])),
    )
    stream = clean(data)
    assert stream.footers is False
    assert [x.body_size for x in stream.sections()] == [3, 1]


# -- without a description --------------------------------------------------------


def test_sections_are_located_by_footers_alone() -> None:
    data = build.stream(
        build.full(1, "a", body=b"\1\2\3"), build.full(2, "b", body=b""), build.full(3, "c")
    )
    stream = clean(data)
    assert stream.vmdesc is None
    assert [(x.idstr, x.body_size) for x in stream.sections()] == [("a", 3), ("b", 0), ("c", 0)]
    assert {x.located for x in stream.sections()} == {Located.FOOTER}


def test_a_body_may_hold_what_looks_like_its_footer() -> None:
    body = b"\1" + build.footer(1) + b"\xee\xee"
    (section, _) = clean(build.stream(build.full(1, "a", body=body), build.full(2, "b"))).sections()
    assert section.body_size == len(body)


def test_neither_description_nor_footers() -> None:
    """The rest of the stream is the section's; that is said and not guessed at."""
    data = build.header() + build.full(1, "a", body=b"\1\2\3", footers=False) + b"\xee\xee"
    stream = read(data)
    (section,) = stream.sections()
    assert section.located is Located.REST
    assert any("neither description nor footer" in x for x in stream.warnings)
    assert stream.tally().total == len(data)


def test_a_description_of_another_size_is_said() -> None:
    data = build.stream(
        build.full(1, "a", body=b"\1\2\3\4\5"),
        description=described(build.device("a", BYTES)),
    )
    stream = clean(data)
    (section,) = stream.sections()
    assert (section.located, section.body_size) == (Located.FOOTER, 5)
    _, (notice,) = stream.decode(section)
    assert "2 bytes kept raw: they do not fit" in notice


def test_a_damaged_footer_is_found_by_the_description() -> None:
    first = build.full(1, "a", body=b"\1\2\3")
    second = build.full(2, "b", body=b"\1\2\3")
    devices = [build.device("a", BYTES), build.device("b", BYTES)]
    data = build.stream(first, second[:-1] + b"\xff", description=described(*devices))
    stream = read(data)
    at = 8 + len(first) + len(second) - 5
    assert_error(stream.error, Damaged, at, ("b",), "expected 7e 00 00 00 02, found 7e 00 00 00 ff")
    assert [x.body_size for x in stream.sections()] == [3, 3]


def test_a_section_without_its_footer_in_a_stream_with_footers() -> None:
    first = build.full(1, "a", body=b"\1")
    stream = read(build.header() + first + build.full(2, "b", body=b"\2", footers=False))
    assert_error(
        stream.error,
        Damaged,
        8 + len(first),
        (),
        "section b: expected its footer, 7e 00 00 00 02, found",
    )
    assert [x.idstr for x in stream.sections()] == ["a"]


# -- the end ----------------------------------------------------------------------


def test_vmdesc_behind_eof() -> None:
    data = build.stream(description=described(page_size=16384))
    stream = clean(data)
    assert stream.vmdesc is not None
    assert stream.vmdesc.page_size == stream.page_size == 16384
    pieces = [x for x in stream.items if isinstance(x, Piece)]
    assert [x.name for x in pieces] == ["header", "eof", "vmdesc"]
    assert pieces[-1].field["type"].kind is Kind.VMDESC


@pytest.mark.parametrize("page_size", [1, 3, 32, 1 << 21, 1 << 60, 1 << 70])
def test_an_absurd_page_size_is_not_used(page_size: int) -> None:
    assert clean(build.stream(description=described(page_size=page_size))).page_size == 4096


def test_zeros_behind_the_stream_are_padding() -> None:
    """libvirt, qcow2 and pipes pad; the last NUL is not the place to search from."""
    device = build.device("dev", BYTES)
    data = build.stream(
        build.full(1, "dev", body=b"\1\2\3"), description=described(device), padding=bytes(70_000)
    )
    stream = clean(data)
    assert stream.warnings == ()
    assert stream.vmdesc is not None
    assert stream.tally().by_kind[Kind.PADDING] == 70_000


def test_padding_ends_at_the_given_end() -> None:
    data = build.stream(padding=bytes((1 << 20) + 5))
    stream = read(data + b"x" * 100, end=len(data))
    assert stream.warnings == ()
    assert stream.tally().unknown == 0


def test_other_bytes_behind_the_stream_are_said() -> None:
    data = build.stream(description=described(), padding=b"\0\0x")
    stream = clean(data)
    assert stream.warnings == (f"3 bytes behind the stream, at {len(data) - 3:#x}",)
    assert stream.tally().unknown == 3


def test_a_stream_without_eof() -> None:
    data = build.header() + build.start(2, body=RAM)
    stream = read(data)
    assert_error(stream.error, Truncated, len(data), (), "stream is cut: expected 1 bytes, found 0")
    assert len(list(stream.sections())) == 1
    assert stream.tally().total == len(data)


def test_a_vmdesc_longer_than_the_file() -> None:
    stream = read(build.stream(description=b"\x06\xff\xff\xff\xff{}"))
    assert_error(stream.error, Truncated, 14, ("vmdesc",), "expected 4294967295 bytes, found 2")


def test_a_vmdesc_that_is_no_json() -> None:
    stream = read(build.stream(description=build.vmdesc(raw='{"devices": [}')))
    assert_error(stream.error, Damaged, 14, ("vmdesc",), "no valid JSON")


def test_a_vmdesc_nested_too_deep() -> None:
    deep = '{"subsections": [' * 300 + "]}" * 300
    top = '{"devices": [{"name": "a", "instance_id": 0, "subsections": [' + deep + "]}]}"
    stream = read(build.stream(description=build.vmdesc(raw=top)))
    assert isinstance(stream.error, Damaged) or stream.error is None


# -- version 2 ----------------------------------------------------------------------


def test_version_2_has_records_with_lengths() -> None:
    record = build.text("timer") + build.be32(0) + build.be32(2) + build.be32(3) + b"\1\2\3"
    data = build.header(2) + build.be64(len(record)) + record
    stream = clean(data)
    assert stream.version == 2
    (section,) = stream.sections()
    assert (section.idstr, section.version, section.body_size) == ("timer", 2, 3)


def test_a_cut_record_of_version_2() -> None:
    record = build.text("timer") + build.be32(0) + build.be32(2) + build.be32(99) + b"\1\2\3"
    stream = read(build.header(2) + build.be64(len(record)) + record)
    assert isinstance(stream.error, Truncated)
    assert "99 bytes, found 3" in stream.error.message


def test_version_2_has_a_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cprformats.migration.framing._MAX_ITEMS", 3)
    record = build.text("t") + build.be32(0) * 2 + build.be32(0)
    stream = read(build.header(2) + build.be64(len(record) * 5) + record * 5)
    assert isinstance(stream.error, Unsupported)
    assert len(list(stream.sections())) == 3


# -- bounds -------------------------------------------------------------------------


def test_more_sections_than_anybody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cprformats.migration.framing._MAX_ITEMS", 3)
    stream = read(build.stream(*[build.command(1)] * 5))
    assert_error(stream.error, Unsupported, 8 + 15, (), "more than 3 sections")


def test_progress_tells_the_offset() -> None:
    seen: list[int] = []
    data = build.stream(build.start(2, body=RAM), build.end(2, body=build.eos()))
    framer = Framer(BytesSource(data), 0, None, seen.append)
    framer.run()
    assert framer.error is None
    assert seen == sorted(seen)
    assert seen[-1] == len(data) - 1
