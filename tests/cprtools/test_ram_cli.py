"""``cprtools ram`` as it is run: what each option writes, how it fails, and what it leaves."""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from tool import ROOT, cprtools, environment

from builders import migration as build
from builders.memory import Story, mapped_stream, pattern
from checks import fixture_path
from cprtools.__main__ import main
from cprtools.memory.opening import open_memory

PAGE = build.PAGE
ODD = "0000:00:02.0/vga%.vram"
ODD_FILE = "0000:00:02.0%2Fvga%25.vram.raw"
BASE = fixture_path("migration/10.0-q35-base.sav.xz")
OTHER = fixture_path("migration/11.1-q35-base.sav.xz")
MPS2 = fixture_path("migration/10.0-arm-mps2-an385-base.sav.xz")
ALPHA = fixture_path("migration/10.0-alpha-clipper-pci.sav.xz")
VALIDATOR = jsonschema_rs.validator_for(json.loads((ROOT / "docs" / "ram.schema.json").read_text()))


@dataclass(frozen=True)
class Done:
    """What a run gave."""

    code: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        """The document, checked by its schema."""
        found = json.loads(self.out)
        VALIDATOR.validate(found)
        return found


Ram = Callable[..., Done]


@pytest.fixture
def ram(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Ram:
    """Run ``cprtools ram`` in this process."""

    def run(*args: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["cprtools", "ram", *map(str, args)])
        with pytest.raises(SystemExit) as done:
            main()
        found = capfdbinary.readouterr()
        code = done.value.code
        assert isinstance(code, int)
        assert b"Traceback" not in found.err
        return Done(code, found.out, found.err.decode())

    return run


def good(done: Done) -> Done:
    assert (done.code, done.err) == (0, "")
    return done


def one_line(done: Done, code: int, *words: str) -> None:
    """Check a failure: its exit code, and the one line that says why."""
    assert done.code == code, done
    (line,) = done.err.splitlines()
    assert line.startswith("cprtools: "), line
    for word in words:
        assert word in line, line


@cache
def story() -> Story:
    """64 pages of RAM in two passes, and a block whose name is no name of a file."""
    made = Story({"pc.ram": 64 * PAGE, ODD: 4 * PAGE})
    for number in range(8):
        made.page("pc.ram", number, pattern(number))
    for number in range(8, 32):
        made.zero("pc.ram", number)
    made.page("pc.ram", 40, bytes(PAGE - 3) + b"bor")
    made.page("pc.ram", 41, b"der" + b"aa" * 8 + bytes(PAGE - 19))
    made.page(ODD, 1, b"video" + bytes(PAGE - 5))
    made.end_section()
    made.change("pc.ram", 3, pattern(3)[:100] + b"changed" + pattern(3)[107:])
    made.zero("pc.ram", 4)
    made.end_section()
    return made


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.sav"
    path.write_bytes(story().stream())
    return path


def written(folder: Path) -> list[str]:
    """All that lies in a folder, hidden or not."""
    return sorted(path.name for path in folder.iterdir())


# -- the table ------------------------------------------------------------------------


def test_table(ram: Ram, small: Path) -> None:
    done = good(ram(small, "--no-map"))
    text = done.out.decode()
    assert text.startswith(f"{small}: 272 KiB in 2 blocks, pc-q35-7.2\n")
    row = next(line for line in text.splitlines() if "pc.ram" in line)
    assert row.split()[:9] == ["pc.ram", "256", "KiB", "4", "KiB", "9", "25", "30", "2"]


def test_table_as_json(ram: Ram, small: Path) -> None:
    found = good(ram(small, "--json")).json
    assert (found["machine"], found["page_size"], found["error"]) == ("pc-q35-7.2", PAGE, None)
    assert found["file"] == {"name": str(small), "size": small.stat().st_size}
    first, second = found["blocks"]
    assert (first["idstr"], first["size"], first["pages"]) == ("pc.ram", 64 * PAGE, 64)
    assert (first["data"], first["zero"], first["never"], first["again"]) == (9, 25, 30, 2)
    assert [sum(first["cells"][kind]) for kind in ("data", "zero", "never")] == [9, 25, 30]
    assert (second["idstr"], second["data"], second["never"]) == (ODD, 1, 3)


def test_picture(ram: Ram) -> None:
    text = good(ram(BASE)).out.decode()
    assert "pc.ram  64 KiB a character" in text
    assert "blank: not in the file" in text
    assert "a character" not in good(ram(BASE, "--no-map")).out.decode()


def test_block_chooses(ram: Ram, small: Path) -> None:
    found = good(ram(small, "--json", "--block", ODD)).json
    assert [block["idstr"] for block in found["blocks"]] == [ODD]
    one_line(ram(small, "--block", "nope"), 2, "--block", "nope")


@pytest.mark.parametrize("kind", ["mapped-ram", "xbzrle", "passes", "postcopy-preempt"])
def test_fixtures_of_other_encodings(ram: Ram, kind: str) -> None:
    machine = "pc" if kind == "passes" else "q35"
    found = good(ram(fixture_path(f"migration/11.1-{machine}-{kind}.sav.xz"), "--json")).json
    block = next(block for block in found["blocks"] if block["idstr"] == "pc.ram")
    assert block["mapped_ram"] == (kind == "mapped-ram")
    assert (block["pages"], block["never"]) == (2048, 0)
    assert block["data"] > 100


# -- where it comes from --------------------------------------------------------------


def test_standard_input_and_a_compressed_file(ram: Ram, small: Path, tmp_path: Path) -> None:
    wanted = good(ram(small)).out.splitlines()[1:]
    done = cprtools("ram", "-", stdin=story().stream())
    assert (done.returncode, done.stderr, done.stdout.splitlines()[1:]) == (0, b"", wanted)
    packed = tmp_path / "small.xz"
    packed.write_bytes(lzma.compress(story().stream()))
    assert good(ram(packed)).out.splitlines()[1:] == wanted


@pytest.mark.parametrize("way", ["--extract", "--physical", "--elf"])
def test_the_same_is_taken_out_of_a_pipe(ram: Ram, small: Path, tmp_path: Path, way: str) -> None:
    good(ram(small, way, tmp_path / "file"))
    done = cprtools("ram", "-", way, tmp_path / "pipe", stdin=story().stream())
    assert (done.returncode, done.stderr) == (0, b"")
    if way == "--extract":
        assert written(tmp_path / "pipe") == written(tmp_path / "file")
        for name in written(tmp_path / "pipe"):
            assert (tmp_path / "pipe" / name).read_bytes() == (
                tmp_path / "file" / name
            ).read_bytes()
    else:
        assert (tmp_path / "pipe").read_bytes() == (tmp_path / "file").read_bytes()


def test_reading_looks_into_a_pipe_too() -> None:
    done = cprtools("ram", "-", "--read", "pc.ram+0x3064", "7", "--raw", stdin=story().stream())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"changed", b"")


def test_what_holds_no_memory(ram: Ram, tmp_path: Path) -> None:
    one_line(ram(fixture_path("cpr/10.0-transfer-q35.qcpr")), 1, "expected a migration stream")
    one_line(ram(tmp_path / "missing"), 2, "No such file")
    one_line(ram(tmp_path), 2, "directory")
    (tmp_path / "empty").touch()
    one_line(ram(tmp_path / "empty"), 1, "empty")


# -- taking it out ----------------------------------------------------------------------


def test_extract(ram: Ram, small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    text = good(ram(small, "--extract", folder)).out.decode()
    assert written(folder) == [ODD_FILE, "pc.ram.raw"]
    for name, file in ((ODD, ODD_FILE), ("pc.ram", "pc.ram.raw")):
        assert (folder / file).read_bytes() == story().block(name)
    # Not in the file are two ranges of RAM and two of video memory.
    assert "Holes  4 ranges" in text
    assert "pc.ram  0x20000 to 0x27fff  not in the file" in text


def test_extract_leaves_zeros_out(ram: Ram, small: Path, tmp_path: Path) -> None:
    good(ram(small, "--extract", tmp_path / "out"))
    size = (tmp_path / "out" / "pc.ram.raw").stat()
    assert size.st_size == 64 * PAGE
    assert size.st_blocks * 512 == 9 * PAGE


def test_extract_as_json(ram: Ram, small: Path, tmp_path: Path) -> None:
    found = good(ram(small, "--extract", tmp_path / "out", "--json", "--block", ODD)).json
    (block,) = found["blocks"]
    assert block["path"] == str(tmp_path / "out" / ODD_FILE)
    assert (found["ranges"], found["gaps"], found["more_holes"]) == ([], [], False)
    holes = [(hole["block"], hole["address"], hole["size"]) for hole in found["holes"]]
    assert holes == [(ODD, 0, PAGE), (ODD, 2 * PAGE, 2 * PAGE)]
    assert {hole["why"] for hole in found["holes"]} == {"never"}
    assert written(tmp_path / "out") == [ODD_FILE]


def test_extract_of_a_block_that_is_not_there(ram: Ram, small: Path, tmp_path: Path) -> None:
    one_line(ram(small, "--extract", tmp_path / "out", "--block", "nope"), 2, "nope")
    assert written(tmp_path / "out") == []


def test_extract_of_a_fixture(ram: Ram, tmp_path: Path) -> None:
    good(ram(BASE, "--extract", tmp_path))
    with open_memory(BASE) as memory:
        for name, block in memory.items():
            file = tmp_path / f"{name.replace('/', '%2F')}.raw"
            assert file.read_bytes() == block.read(0, block.size)


def test_a_file_that_was_there_is_replaced(ram: Ram, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "pc.ram.raw").write_bytes(b"old" * 1_000_000)
    with (out / "pc.ram.raw").open("rb") as old:
        good(ram(small, "--extract", out))
        assert old.read() == b"old" * 1_000_000
    assert (out / "pc.ram.raw").read_bytes() == story().block("pc.ram")


def test_physical(ram: Ram, tmp_path: Path) -> None:
    found = good(ram(BASE, "--physical", tmp_path / "mem", "--json")).json
    assert [(one["kind"], one["block"], one["start"]) for one in found["ranges"]] == [
        ("ram", "pc.ram", 0),
        ("rom", "pc.bios", (1 << 32) - (256 << 10)),
    ]
    size = (tmp_path / "mem").stat()
    assert size.st_size == 1 << 32
    assert size.st_blocks * 512 < 4 << 20
    with open_memory(BASE) as memory, (tmp_path / "mem").open("rb") as file:
        assert file.read(16 << 20) == memory["pc.ram"].read(0, 16 << 20)
        file.seek(-(256 << 10), os.SEEK_END)
        assert file.read() == memory["pc.bios"].read(0, 256 << 10)


def test_physical_says_what_it_assumes(ram: Ram, small: Path, tmp_path: Path) -> None:
    text = good(ram(small, "--physical", tmp_path / "mem")).out.decode()
    assert f"note: shown at no address: {ODD}" in text
    assert (tmp_path / "mem").read_bytes() == story().block("pc.ram")


def test_layout_by_hand(ram: Ram, tmp_path: Path) -> None:
    words = ["--layout", "0x10000=mps.ram+0x1000:8K", "--layout", "0=mps.ram:4K"]
    found = good(ram(MPS2, "--physical", tmp_path / "mem", "--json", *words)).json
    assert [(one["start"], one["size"], one["offset"]) for one in found["ranges"]] == [
        (0, 4096, 0),
        (0x10000, 8192, 4096),
    ]
    with open_memory(MPS2) as memory:
        block = memory["mps.ram"].read(0, 3 * PAGE)
    wanted = block[:PAGE] + bytes(0xF000) + block[PAGE:]
    assert (tmp_path / "mem").read_bytes() == wanted
    assert good(ram(MPS2, *words, "--read", "0x10000", "16", "--raw")).out == block[PAGE:][:16]


@pytest.mark.parametrize("way", ["--physical", "--elf"])
def test_a_machine_without_a_rule(ram: Ram, tmp_path: Path, way: str) -> None:
    hints = ("'mps2-an385'", "extract the blocks one by one", "layout by hand")
    one_line(ram(MPS2, way, tmp_path / "out"), 1, *hints)
    assert written(tmp_path) == []


def test_elf(ram: Ram, tmp_path: Path) -> None:
    text = good(ram(BASE, "--elf", tmp_path / "core")).out.decode()
    assert "note: registers of 1 CPU" in text
    with (tmp_path / "core").open("rb") as file:
        head = file.read(64)
        assert head[:7] == b"\x7fELF\2\1\1"
        kind, machine = struct.unpack_from("<HH", head, 16)
        assert (kind, machine) == (4, 62)  # ET_CORE, EM_X86_64
        (table,) = struct.unpack_from("<Q", head, 32)
        entry, count = struct.unpack_from("<HH", head, 54)
        file.seek(table)
        rows = [struct.unpack("<IIQQQQQQ", file.read(entry)) for _ in range(count)]
        assert [row[0] for row in rows] == [4, 1, 1]  # PT_NOTE, PT_LOAD
        loads = [(row[4], row[5]) for row in rows[1:]]
        assert loads == [(0, 16 << 20), ((1 << 32) - (256 << 10), 256 << 10)]
        assert max(row[2] + row[5] for row in rows) <= (tmp_path / "core").stat().st_size
        file.seek(rows[2][2])
        bios = file.read(rows[2][5])
        file.seek(rows[0][2])
        sizes = struct.unpack("<III", file.read(12))
        assert sizes == (5, 336, 1)  # "CORE", NT_PRSTATUS of x86-64
    with open_memory(BASE) as memory:
        assert bios == memory["pc.bios"].read(0, 256 << 10)


# -- looking into it ------------------------------------------------------------------


def test_read(ram: Ram) -> None:
    line = good(ram(BASE, "--read", "0xfffffff0", "16")).out.decode()
    assert line.startswith("fffffff0  ea 5b e0 00 f0 30 36 2f")
    assert line.endswith("|.[...06/23/99...|\n")


@pytest.mark.parametrize("place", ["pc.ram+12388", "pc.ram+0x3064", "0x3064", "12388"])
def test_read_of_a_place(ram: Ram, small: Path, place: str) -> None:
    assert good(ram(small, "--read", place, "7", "--raw")).out == b"changed"


def test_read_across_pieces(ram: Ram) -> None:
    done = good(ram(BASE, "--read", "pc.ram+1M", "3M", "--raw"))
    with open_memory(BASE) as memory:
        assert done.out == memory["pc.ram"].read(1 << 20, 3 << 20)


def test_read_where_no_memory_is(ram: Ram, small: Path) -> None:
    end = 64 * PAGE
    for place in ("0x3fff8", "pc.ram+0x3fff8"):
        text = good(ram(small, "--read", place, "24")).out.decode()
        assert text.splitlines()[0].startswith("0003fff8  00 00 00 00 00 00 00 00   ")
        assert text.splitlines()[1] == "00040000  no memory here: 16 bytes"
        assert good(ram(small, "--read", place, "24", "--raw")).out == bytes(24)
        assert good(ram(small, "--read", place, "24", "--json")).json["memory"] == [
            {"address": end - 8, "size": 8, "hex": "00" * 8},
            {"address": end, "size": 16, "hex": None},
        ]


@pytest.mark.parametrize(
    ("needle", "offsets"),
    [
        ("changed", [0x3064]),
        ("text:changed", [0x3064]),
        ("6368616e676564", [0x3064]),
        ("63 68 61 6e 67 65 64", [0x3064]),
        ("hex:63:68:61:6e", [0x3064]),
        ("border", [41 * PAGE - 3]),
        ("aaaaaaaaaaaaaaa", [41 * PAGE + 3, 41 * PAGE + 4]),
        ("text:deraa", [41 * PAGE]),
        ("not there", []),
    ],
)
def test_search(ram: Ram, small: Path, needle: str, offsets: list[int]) -> None:
    found = good(ram(small, "--search", needle, "--json", "--block", "pc.ram")).json
    assert [one["offset"] for one in found["matches"]] == offsets
    assert [one["address"] for one in found["matches"]] == offsets
    assert found["more"] is False


def test_search_for_hex_that_is_text(ram: Ram, small: Path) -> None:
    """What may be both is hex; ``text:`` decides."""
    assert good(ram(small, "--search", "aaaa", "--json")).json["matches"] == []
    assert len(good(ram(small, "--search", "text:aaaa", "--json")).json["matches"]) == 13


def test_search_for_zeros(ram: Ram, small: Path) -> None:
    """Also over pages that never came, and over the borders of all."""
    needle = bytes(5_000)
    found = good(ram(small, "--search", needle.hex(), "--json", "--block", "pc.ram")).json
    block = story().block("pc.ram")
    wanted: list[int] = []
    while (at := block.find(needle, wanted[-1] + 1 if wanted else 0)) >= 0:
        wanted.append(at)
    assert len(wanted) > 100_000
    assert [one["offset"] for one in found["matches"]] == wanted[:100_000]
    assert found["more"] is True


def test_search_shows_what_is_around(ram: Ram, small: Path) -> None:
    lines = good(ram(small, "--search", "video")).out.decode().splitlines()
    assert lines == [f"{ODD}+0x1000  ................video................", "1 match"]
    assert good(ram(small, "--search", "not there")).out == b"not found\n"


def test_search_without_a_layout(ram: Ram) -> None:
    with open_memory(ALPHA) as memory:
        block = memory["ram"]
        run = next(run for run in block.runs() if run.kind == "data")
        needle = block.read(run.start * block.page_size, 16).hex()
    (match, *_) = good(ram(ALPHA, "--search", f"hex:{needle}", "--json")).json["matches"]
    assert match["address"] is None
    done = good(ram(ALPHA, "--search", f"hex:{needle}", "--json", "--layout", "0=ram"))
    assert done.json["matches"][0]["address"] == done.json["matches"][0]["offset"]


def other_story() -> bytes:
    made = Story({"pc.ram": 64 * PAGE, "new": 4 * PAGE})
    for number in range(7):
        made.page("pc.ram", number, pattern(number))
    made.zero("pc.ram", 10)
    made.zero("pc.ram", 50)
    made.page("pc.ram", 40, bytes(PAGE - 3) + b"bor")
    made.page("pc.ram", 41, bytes(PAGE))
    made.zero("pc.ram", 4)
    return made.stream()


def test_diff(ram: Ram, small: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(other_story())
    found = good(ram(small, "--diff", tmp_path / "other", "--json")).json
    rows = [(one["address"] // PAGE, one["size"] // PAGE, one["kind"]) for one in found["changes"]]
    assert rows == [
        (3, 1, "changed"),
        (7, 3, "first only"),
        (11, 21, "first only"),
        (41, 1, "changed"),
        (50, 1, "second only"),
    ]
    assert (found["first_only"], found["second_only"]) == ([ODD], ["new"])
    text = good(ram(small, "--diff", tmp_path / "other")).out.decode()
    assert "  pc.ram  0x7000 to 0x9fff  first only\n" in text
    assert f"{ODD}: a block of the first file only" in text
    assert "pc.ram: 8 KiB changed" in text


def test_diff_of_the_same(ram: Ram, small: Path) -> None:
    assert good(ram(small, "--diff", small)).out == b"no page differs\n"


def test_diff_of_fixtures(ram: Ram) -> None:
    found = good(ram(BASE, "--diff", OTHER, "--block", "pc.ram", "--json")).json
    with open_memory(BASE) as one, open_memory(OTHER) as two:
        first, second = (memory["pc.ram"].read(0, 16 << 20) for memory in (one, two))
    differ = {n * PAGE for n in range(4096) if page(first, n) != page(second, n)}
    listed = {
        at
        for one in found["changes"]
        for at in range(one["address"], one["address"] + one["size"], PAGE)
    }
    assert listed == differ
    assert {one["kind"] for one in found["changes"]} == {"changed"}


def page(data: bytes, number: int) -> bytes:
    return data[number * PAGE : (number + 1) * PAGE]


@pytest.mark.parametrize(("kind", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG\r\n\x1a\n")])
def test_plot(ram: Ram, tmp_path: Path, kind: str, magic: bytes) -> None:
    done = good(ram(BASE, "--plot", tmp_path / f"out.{kind}"))
    assert done.out == b""
    assert (tmp_path / f"out.{kind}").read_bytes().startswith(magic)


def test_plot_of_small_blocks(ram: Ram, small: Path, tmp_path: Path) -> None:
    good(ram(small, "--plot", tmp_path / "OUT.SVG"))
    assert b"<svg" in (tmp_path / "OUT.SVG").read_bytes()


def test_plot_without_matplotlib(
    ram: Ram, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    one_line(ram(small, "--plot", tmp_path / "out.svg"), 2, "pip install 'cprtools[plot]'")
    assert written(tmp_path) == ["small.sav"]


# -- channels -------------------------------------------------------------------------


def channels(method: str) -> tuple[Path, list[Path]]:
    name = f"migration/11.1-q35-multifd-{method}"
    files = [fixture_path(f"{name}.mfd-{number}.xz") for number in range(2)]
    return fixture_path(f"{name}.sav.xz"), files


@pytest.mark.parametrize("method", ["none", "zlib", "zstd"])
def test_channels_in_any_order(ram: Ram, tmp_path: Path, method: str) -> None:
    main_channel, files = channels(method)
    for number, order in enumerate(permutations(files)):
        words = [word for file in order for word in ("--channel", file)]
        good(ram(main_channel, "--extract", tmp_path / str(number), *words))
    blocks = [(tmp_path / str(number) / "pc.ram.raw").read_bytes() for number in range(2)]
    assert blocks[0] == blocks[1]
    assert sum(any(page(blocks[0], number)) for number in range(2048)) > 100


@pytest.mark.parametrize("way", [(), ("--extract",), ("--physical",), ("--elf",)])
def test_a_channel_that_is_left_out(ram: Ram, tmp_path: Path, way: tuple[str, ...]) -> None:
    main_channel, files = channels("none")
    target = [*way, tmp_path / "out"] if way else []
    words = ("packets in the files of all channels (is one missing?)", "found")
    one_line(ram(main_channel, "--channel", files[1], *target), 1, *words)
    one_line(ram(main_channel, *target), 1, "without its other channels (--channel)")
    assert not [name for name in written(tmp_path) if name != "out"]
    assert way in ((), ("--extract",)) or not (tmp_path / "out").exists()
    assert way != ("--extract",) or written(tmp_path / "out") == []


def test_channels_of_both_files_of_a_diff(ram: Ram) -> None:
    main_channel, files = channels("zlib")
    first = [word for file in files for word in ("--channel", file)]
    second = [word for file in files for word in ("--other-channel", file)]
    done = good(ram(main_channel, "--diff", main_channel, *first, *second))
    assert done.out == b"no page differs\n"
    done = ram(main_channel, "--diff", main_channel, *first)
    assert done.code == 1
    assert "without its other channels" in done.err


def test_the_channel_of_preempt(ram: Ram, small: Path, tmp_path: Path) -> None:
    channel = tmp_path / "preempt"
    urgent = build.data_page(50 * PAGE, "pc.ram", data=pattern(50))
    channel.write_bytes(urgent + build.data_page(51 * PAGE, data=pattern(51)))
    good(ram(small, "--channel", channel, "--extract", tmp_path / "out"))
    data = (tmp_path / "out" / "pc.ram.raw").read_bytes()
    assert page(data, 50) + page(data, 51) == pattern(50) + pattern(51)
    done = good(ram(small, "--channel", channel, "--read", "pc.ram+50K", "4", "--raw"))
    assert done.out == bytes(4)
    done = good(ram(small, "--channel", channel, "--read", "pc.ram+0x32000", "4", "--raw"))
    assert done.out == pattern(50)[:4]
    # A pipe's pages are kept for it, and its end may be a mark.
    channel.write_bytes(urgent + build.eos())
    good(ram(small, "--channel", channel, "--physical", tmp_path / "mem"))
    assert page((tmp_path / "mem").read_bytes(), 50) == pattern(50)


def test_a_damaged_channel_is_named(ram: Ram, small: Path, tmp_path: Path) -> None:
    channel = tmp_path / "preempt"
    channel.write_bytes(build.data_page(0, "pc.ram")[:-1])
    done = ram(small, "--channel", channel, "--extract", tmp_path / "out")
    one_line(done, 1, f"channel {channel}")
    assert written(tmp_path / "out") == []
    main_channel, files = channels("none")
    short = tmp_path / "short"
    short.write_bytes(lzma.decompress(files[0].read_bytes())[:5000])
    done = ram(main_channel, "--no-map", "--channel", short, "--channel", files[1])
    assert done.code == 1
    assert f"channel {short}" in done.err


# -- wrong usage ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["--read", "0", "1", "--physical", "out"],
        ["--extract", "out", "--elf", "out"],
        ["--search", "x", "--diff", "y"],
        ["--raw"],
        ["--raw", "--extract", "out"],
        ["--raw", "--json", "--read", "0", "1"],
        ["--other-channel", "x"],
        ["--read", "nonsense", "1"],
        ["--read", "nope+1", "1"],
        ["--read", "0", "many"],
        ["--read", "0", "-1"],
        ["--read", "010", "0x"],
        ["--search", ""],
        ["--search", "hex:0"],
        ["--search", "text:"],
        ["--search", "x", "--block", "nope"],
        ["--plot", "out.gif"],
        ["--plot", "out"],
        ["--block", "nope", "--extract", "out"],
        ["--layout", "nonsense", "--physical", "out"],
        ["--layout", "0=nope", "--physical", "out"],
        ["--layout", "0=pc.ram:1T", "--elf", "out"],
        ["--layout", "0=pc.ram", "--layout", "1K=pc.ram", "--read", "0", "1"],
        ["--ram-block", "nope", "--read", "0", "1"],
        ["--layout", "0=pc.ram"],
        ["--ram-block", "pc.ram", "--extract", "out"],
        ["--block", "pc.ram", "--physical", "out"],
        ["--block", "pc.ram", "--read", "0", "1"],
        ["--json", "--plot", "out.svg"],
        ["--channel", "missing"],
        ["--diff", "missing"],
    ],
)
def test_wrong_usage(
    ram: Ram, small: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.parent)
    one_line(ram(small, *words), 2)
    left = [path for path in small.parent.rglob("*") if path.is_file()]
    assert left == [small]


@pytest.mark.parametrize("words", [[], ["--extract"], ["--read", "0"], ["--color", "blue"]])
def test_words_that_typer_refuses(ram: Ram, small: Path, words: list[str]) -> None:
    done = ram(*([small, *words] if words else []))
    assert done.code == 2
    assert done.err


# -- damage -----------------------------------------------------------------------------


def damaged() -> bytes:
    """The stream with the flags of one record changed, in the middle of a run."""
    data = bytearray(story().stream())
    at = data.index(pattern(5)) - 1
    data[at] = 0x80 | 0x20
    return bytes(data)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.sav"
    path.write_bytes(damaged())
    return path


@pytest.mark.parametrize("way", ["--extract", "--physical", "--elf"])
def test_a_damaged_file_leaves_nothing(ram: Ram, broken: Path, tmp_path: Path, way: str) -> None:
    out = tmp_path / "out"
    done = ram(broken, way, out)
    one_line(done, 1, str(broken), "ram / pc.ram", "unknown flags")
    assert done.out == b""
    assert written(out) == [] if way == "--extract" else not out.exists()
    assert written(tmp_path) == ["broken.sav", *(["out"] if way == "--extract" else [])]


@pytest.mark.parametrize("way", ["--extract", "--physical", "--elf"])
def test_a_damaged_file_does_not_touch_what_was_there(
    ram: Ram, broken: Path, tmp_path: Path, way: str
) -> None:
    out = tmp_path / "out"
    old = out / "pc.ram.raw" if way == "--extract" else out
    old.parent.mkdir(exist_ok=True)
    old.write_bytes(b"precious")
    assert ram(broken, way, out).code == 1
    assert old.read_bytes() == b"precious"


def test_keep_going(ram: Ram, broken: Path, tmp_path: Path) -> None:
    done = ram(broken, "--extract", tmp_path / "out", "--keep-going", "--json")
    one_line(done, 1, "unknown flags")
    lost = [hole for hole in done.json["holes"] if hole["why"] == "lost"]
    assert [(hole["block"], hole["address"], hole["size"]) for hole in lost] == [
        ("pc.ram", 5 * PAGE, PAGE)
    ]
    assert [gap["size"] for gap in done.json["gaps"]] == [PAGE + 8]
    wanted = bytearray(story().block("pc.ram"))
    wanted[5 * PAGE : 6 * PAGE] = bytes(PAGE)
    assert (tmp_path / "out" / "pc.ram.raw").read_bytes() == wanted
    assert (tmp_path / "out" / ODD_FILE).read_bytes() == story().block(ODD)


def test_keep_going_says_what_is_missing(ram: Ram, broken: Path, tmp_path: Path) -> None:
    done = ram(broken, "--physical", tmp_path / "mem", "--keep-going")
    one_line(done, 1, "unknown flags")
    text = done.out.decode()
    assert "pc.ram  0x5000 to 0x5fff  in damaged bytes: " in text
    assert "pc.ram  0x5000 to 0x5fff  not in the file" in text
    assert f"passed over {PAGE + 8} bytes of the stream at 0x" in text
    assert (tmp_path / "mem").stat().st_size == 64 * PAGE


def test_keep_going_for_the_table_and_for_looking(ram: Ram, broken: Path) -> None:
    done = ram(broken, "--json", "--keep-going")
    assert (done.code, done.json["blocks"][0]["data"]) == (1, 8)
    assert done.json["error"] is not None
    done = ram(broken, "--keep-going", "--read", "pc.ram+0x3064", "7", "--raw")
    assert (done.code, done.out) == (1, b"changed")
    done = ram(broken, "--read", "pc.ram+0x3064", "7", "--raw")
    assert (done.code, done.out) == (1, pattern(3)[100:107])


def test_keep_going_with_a_page_that_can_t_be_decoded(ram: Ram, tmp_path: Path) -> None:
    made = Story({"pc.ram": 8 * PAGE})
    for number in range(8):
        made.page("pc.ram", number, pattern(number))
    made.data += build.xbzrle_page(2 * PAGE, delta=b"\0\0")
    made.data += build.data_page(3 * PAGE, data=pattern(30))
    path = tmp_path / "bad.sav"
    path.write_bytes(made.stream())
    one_line(ram(path, "--extract", tmp_path / "none"), 1, "0x2000", "ram / pc.ram")
    assert written(tmp_path / "none") == []
    done = ram(path, "--extract", tmp_path / "out", "--keep-going", "--json")
    one_line(done, 1, "0x2000")
    (hole,) = done.json["holes"]
    assert (hole["address"], hole["size"], hole["why"]) == (2 * PAGE, PAGE, "bad")
    data = (tmp_path / "out" / "pc.ram.raw").read_bytes()
    assert page(data, 3) == pattern(30)


def test_keep_going_with_a_file_that_is_cut(ram: Ram, tmp_path: Path) -> None:
    path = tmp_path / "cut.sav"
    path.write_bytes(story().stream()[: story().stream().index(pattern(6)) + 10])
    one_line(ram(path, "--extract", tmp_path / "none"), 1, "is cut")
    done = ram(path, "--extract", tmp_path / "out", "--keep-going")
    one_line(done, 1, "is cut")
    data = (tmp_path / "out" / "pc.ram.raw").read_bytes()
    assert data == b"".join(pattern(n) for n in range(6)) + bytes(58 * PAGE)


# -- a system that refuses ----------------------------------------------------------------


@pytest.mark.parametrize("way", ["--physical", "--elf", "--plot"])
def test_a_folder_that_is_not_there(ram: Ram, small: Path, tmp_path: Path, way: str) -> None:
    out = tmp_path / "no" / "out.svg"
    one_line(ram(small, way, out), 2, str(out), "No such file or directory")


@pytest.mark.parametrize("way", ["--extract", "--physical", "--elf", "--plot"])
def test_a_folder_that_can_t_be_written(ram: Ram, small: Path, way: str) -> None:
    """Not even by root."""
    done = ram(small, way, "/proc/1/fdinfo/x.svg")
    one_line(done, 2, "/proc/1/fdinfo/x.svg")


def test_output_that_is_no_file(ram: Ram, small: Path, tmp_path: Path) -> None:
    one_line(ram(small, "--physical", tmp_path), 2, str(tmp_path), "directory")
    one_line(ram(small, "--extract", small), 2, str(small))


@pytest.mark.parametrize("way", ["--extract", "--physical", "--elf"])
@pytest.mark.parametrize("mapped", [False, True])
def test_a_full_disk(tmp_path: Path, way: str, mapped: bool) -> None:
    """As good as one: files may only be so long."""
    path, out = tmp_path / "in", tmp_path / "out"
    pages = [pattern(number) for number in range(64)]
    made = Story({"pc.ram": 64 * PAGE})
    for number, data in enumerate(pages):
        made.page("pc.ram", number, data)
    path.write_bytes(mapped_stream({"pc.ram": pages}) if mapped else made.stream())
    limit = 32 * PAGE

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [sys.executable, "-m", "cprtools", "ram", str(path), way, str(out)],
        capture_output=True,
        env=environment(PYTHONDONTWRITEBYTECODE="1"),
        preexec_fn=limited,
        check=False,
        timeout=60,
    )
    found = Done(done.returncode, done.stdout, done.stderr.decode())
    one_line(found, 2, "File too large")
    assert written(out) == [] if way == "--extract" else not out.exists()
    assert written(tmp_path) == (["in", "out"] if way == "--extract" else ["in"])


# -- stopped in the middle ------------------------------------------------------------------


@pytest.mark.parametrize("way", ["--extract", "--physical", "--elf"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9), (signal.SIGTERM, -15)]
)
def test_stopped_while_it_reads(
    tmp_path: Path, way: str, number: signal.Signals, code: int
) -> None:
    fifo, out = tmp_path / "fifo", tmp_path / "out"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-m", "cprtools", "ram", str(fifo), way, str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    with fifo.open("wb") as slow:
        slow.write(story().stream()[:-20_000])
        slow.flush()
        wait_until_it_reads(process)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (code, b"")
    assert written(tmp_path) in (["fifo"], ["fifo", "out"])
    assert not out.exists() or written(out) == []


def wait_until_it_reads(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process has taken all that its pipe holds, and asks for more."""
    deadline = time.monotonic() + 30
    seen = 0
    while seen < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        with contextlib.suppress(OSError):
            waits = Path(f"/proc/{process.pid}/wchan").read_text() == "pipe_read" or (
                Path(f"/proc/{process.pid}/syscall").read_text().startswith("0 0x")
            )
            seen = seen + 1 if waits else 0
        time.sleep(0.02)


def test_a_pipe_that_closes_early_ends_quietly(small: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "cprtools", "ram", str(small), "--read", "0", "256K", "--raw"],
        stdout=write,
        stderr=subprocess.PIPE,
        env=environment(),
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_help_lists_every_option(ram: Ram) -> None:
    text = good(ram("--help")).out.decode()
    for name in ("extract", "physical", "elf", "read", "search", "diff", "plot", "keep-going"):
        assert f"--{name}" in text
