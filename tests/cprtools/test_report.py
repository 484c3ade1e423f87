"""What people see: values as words, trees, tables, and nothing that harms a terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from tool import sample

import cprtools
from checks import fixture_path
from cprformats.codecs import DataRef
from cprformats.fields import Field, Kind
from cprformats.source import BytesSource
from cprtools.inspector import Selection, device_rows
from cprtools.inspector.select import fits
from cprtools.report.hexdump import hexdump
from cprtools.report.output import Column, Output
from cprtools.report.page import PageStyle, write_page
from cprtools.report.words import (
    array_words,
    bytes_words,
    escape,
    field_words,
    integer_words,
    percent,
    size_words,
    value_words,
)

OPENEULER = "migration/openeuler-6.2-hotupgrade.sav.xz"


def page(state: cprtools.StateFile, *, width: int | None = None, **more: object) -> str:
    """Write a page of the innermost layer to a string."""
    file = io.StringIO()
    selection = Selection(
        tuple(more.pop("sections", ())),  # type: ignore[call-overload]
        tuple(more.pop("fields", ())),  # type: ignore[call-overload]
    )
    style = PageStyle(frozenset([len(state.layers) - 1]), selection, **more)  # type: ignore[arg-type]
    write_page(Output(file, width=width), state, style, lambda _: None)
    return file.getvalue()


@pytest.fixture
def state(tmp_path: Path) -> cprtools.StateFile:
    path = tmp_path / "state.sav"
    path.write_bytes(sample())
    return cprtools.open(path)


# -- words ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain-0000:00:02.0/e1000é", "plain-0000:00:02.0/e1000é"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\x00", "a\\x0ab\\x00"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202egpj", "abc\\u202egpj"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\udcff", "\\xff"),
        ("\ud800", "\\ud800"),
        ("\\x1b", "\\\\x1b"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_escape(text: str, wanted: str) -> None:
    assert escape(text) == wanted
    assert escape(text).isprintable()


def test_numbers() -> None:
    assert integer_words(9, 4) == "9"
    assert integer_words(255, 4) == "255 (0xff)"
    assert integer_words(-1, 4) == "-1 (0xffffffff)"
    assert [size_words(n) for n in (1, 1023, 1024, 1536, 16 << 20, 3 << 60)] == [
        "1 byte",
        "1023 bytes",
        "1 KiB",
        "1.5 KiB",
        "16 MiB",
        "3 EiB",
    ]
    assert [percent(n, 100_000) for n in (0, 1, 50_000, 99_999, 100_000)] == [
        "0 %",
        "<0.01 %",
        "50.00 %",
        "99.99 %",
        "100 %",
    ]


def test_arrays_are_compact() -> None:
    assert array_words((0,) * 20) == ("0 \u00d720",)
    assert array_words((16, 1, 1)) == ("0x10", "0x1", "0x1")
    assert array_words((-1, 100)) == ("-1", "100")
    assert array_words(tuple(range(100)))[-1] == "… 100 in all"
    assert len(array_words(tuple(range(100)), full=True)) == 100
    assert value_words((), "u8[0]", 0) == "[]"


def test_buffers_are_abbreviated() -> None:
    assert bytes_words(b"\xde\xad") == "de ad"
    assert bytes_words(b"") == "empty"
    assert bytes_words(bytes(4096)).startswith("4096 bytes: 00 00")
    ref = DataRef(BytesSource(b"\xaa" * 100_000), 0, 100_000)
    assert bytes_words(ref).startswith("100000 bytes: aa aa")
    assert value_words(None, "zeros[64]", 64) == "64 bytes, all zero"


def test_flags_by_name() -> None:
    field = Field("word", "u64be", "u64be", Kind.RAM_HEAD, 0, 8, 0x28, meaning="ram-flags")
    assert field_words(field) == "40 (0x28)  PAGE | CONTINUE"
    nothing = Field("x", "u8", "u8", Kind.FIELD, 0, 1, 1, meaning="no such table")
    assert field_words(nothing) == "1"


def test_hexdump_joins_equal_rows() -> None:
    lines = list(hexdump([b"A" * 8, b"A" * 40, b"\x00"], 0x100))
    assert lines[0].startswith("00000100  41 41")
    assert lines[0].endswith("|AAAAAAAAAAAAAAAA|")
    assert lines[1] == "*"
    assert lines[2].startswith("00000130  00 ")


# -- pages ----------------------------------------------------------------------


def test_the_first_page(state: cprtools.StateFile) -> None:
    text = page(state)
    assert "QEMU migration stream" in text
    assert re.search(r"machine +pc-test", text)
    assert "00010203-0405-0607-0809-0a0b0c0d0e0f" in text
    assert "PING at 0x" in text
    assert re.search(r"pc\.ram +32 KiB +3 +2 +1 ", text)
    assert re.search(r"PART \u00d72 +ram +0 +4", text)
    assert re.search(r"0x[0-9a-f]+ +\d+ +FULL +dev +1 +1 +dev +vmdesc", text)
    assert re.search(r"Bytes +\d+: decoded \d+\.\d\d %, kept raw 2 ", text)
    assert "no rule for type 'no such type'" in text


def test_a_real_one() -> None:
    text = page(cprtools.open(fixture_path(OPENEULER)))
    assert "pc-i440fx-6.2" in text
    assert "unknown 0" in text
    assert "e1000" in text


def test_fields_as_a_tree(state: cprtools.StateFile) -> None:
    text = page(state, sections=["dev/1"])
    assert re.search(r"^  level +1234 \(0x4d2\)$", text, re.MULTILINE)
    assert "[0 \u00d78]" in text
    assert "40 bytes: 01 02" in text
    assert "section_id" not in text
    assert "section_id" in page(state, sections=["dev"], offsets=True)


def test_full_and_raw(state: cprtools.StateFile) -> None:
    assert re.search(
        r"^ +0000\w{4}  01 02 .*  \|", page(state, sections=["dev"], full=True), re.MULTILINE
    )
    raw = page(state, sections=["dev"], raw=True)
    assert re.search(r"^\w{8}  00 00 04 d2 +level +1234", raw, re.MULTILINE)
    assert "… 8 bytes more" in raw


def test_fields_as_lines(state: cprtools.StateFile) -> None:
    assert page(state, fields=["level"]) == "dev/1: level = 1234 (0x4d2)\n"
    lines = page(state, fields=["data"]).splitlines()
    assert [line.split(" = ")[0] for line in lines] == ["PING: data.value", "dev/1: data.data"]
    assert re.fullmatch(
        r"0x\w{8} \+4 +dev/1: level = 1234 \(0x4d2\)\n", page(state, fields=["l?v*"], offsets=True)
    )


def test_patterns_take_brackets_as_they_are() -> None:
    assert fits("irq[3]", "irq[3]")
    assert not fits("irq[3]", "irq3")
    assert fits("*[?]", "irq[3]")
    assert not fits("a.b", "axb")


def test_the_map_leaves_no_gap(state: cprtools.StateFile) -> None:
    reached = 0
    for line in page(state, map=True, ram=False).splitlines():
        offset, size = line.split()[:2]
        assert int(offset, 16) == reached
        reached += int(size)
    assert reached == len(sample())
    assert "pc.ram +0x2000, 3 pages" in page(state, map=True)


def test_coverage_lists_what_is_raw(state: cprtools.StateFile) -> None:
    (line,) = page(state, coverage=True).splitlines()
    assert line.endswith("dev/1: odd (no such type)")
    assert line.split()[1:3] == ["2", "raw"]


def test_rounds_are_joined(state: cprtools.StateFile) -> None:
    rows = list(device_rows(state.stream.sections()))
    assert [(row.type, row.sections) for row in rows] == [
        ("START", 1),
        ("PART", 2),
        ("END", 1),
        ("FULL", 1),
    ]


@pytest.mark.parametrize("evil", ["\x1b[2J", "a\nb", "\u202eabc", "\x9b1m", "[red]x[/]"])
def test_names_from_a_file_can_not_harm_a_terminal(tmp_path: Path, evil: str) -> None:
    path = tmp_path / "evil.sav"
    path.write_bytes(sample(idstr=evil, block=evil + "r", field=evil + "f"))
    state = cprtools.open(path)
    assert state.error is None
    every = [
        page(state, width=80),
        page(state, sections=["*"]),
        page(state, sections=["*"], raw=True, full=True),
        page(state, fields=["*"]),
        page(state, map=True),
        page(state, coverage=True),
    ]
    for text in every:
        assert all(line.isprintable() for line in text.split("\n"))
    assert escape(evil) in every[0]


def test_tables_fold_where_they_must() -> None:
    file = io.StringIO()
    Output(file, width=30).table([Column("name", fold=True)], [["x" * 50]])
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 30
    assert "".join(line.strip() for line in lines[1:]) == "x" * 50
