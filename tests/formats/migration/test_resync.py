"""Going on behind damage: what is read then is right, or said to be missing.

Damage of a page's contents or of its address can't be seen in a stream; so a page
may also be wrong if its record, as it is read, has damaged bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import migration as build
from builders.memory import Story, pattern
from cprformats.memory.batch import PageCode, RamBatch
from cprformats.memory.census import Census
from cprformats.memory.contents import Expander, write_batch
from cprformats.migration import MigrationStream, read_stream
from cprformats.migration.ramfeed import feed
from cprformats.migration.ramparts import RamBlock, RamContext
from cprformats.migration.resync import BETWEEN, INSIDE, Resync
from cprformats.migration.wire import RamFlag
from cprformats.source import BytesSource, Source, SpoolSource
from cprtools.memory.outcome import Hole, make_outcome
from cprtools.memory.sinks import Tee

PAGE = build.PAGE
STRIDE = 8 + PAGE
OURS = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
BLOCKS = {"pc.ram": 40, "pc.bios": 6, "vga": 12}


class Pages:
    """A writer that keeps pages in memory."""

    def __init__(self) -> None:
        self.blocks: dict[str, bytearray] = {}

    def restart(self) -> None:
        self.blocks.clear()

    def begin(self, blocks: Sequence[RamBlock], _source: Source) -> None:
        self.blocks.update((x.idstr, bytearray(x.used_length)) for x in blocks)

    def pages(self, batch: RamBatch, page_size: int, *, fresh: bool) -> None:
        write_batch(self, batch, page_size, fresh=fresh)

    def write(self, block: str, address: int, views: list[memoryview]) -> None:
        data = b"".join(views)
        self.blocks[block][address : address + len(data)] = data

    def zero(self, block: str, address: int, length: int) -> None:
        self.blocks[block][address : address + length] = bytes(length)

    def read(self, block: str, address: int, length: int) -> bytes:
        return bytes(self.blocks[block][address : address + length])


class Records:
    """A sink that notes where the record of each page lies; the last one counts."""

    def __init__(self) -> None:
        self.places: dict[tuple[str, int], tuple[int, int]] = {}

    def restart(self) -> None:
        self.places.clear()

    def blocks(self, blocks: Sequence[RamBlock], context: RamContext, source: Source) -> None:
        pass

    def pages(self, batch: RamBatch) -> None:
        at = batch.offset
        for number, kind in enumerate(batch.kinds, batch.address // PAGE):
            head = 8 if at > batch.offset else batch.head
            size = {PageCode.DATA: head + PAGE, PageCode.ZERO: head + 1}.get(
                PageCode(kind), batch.size
            )
            self.places[batch.block, number] = at, at + size
            at += size

    def mark(self, flag: RamFlag) -> None:
        pass

    def discard(self, block: str, start: int, length: int) -> None:
        pass


@dataclass
class Found:
    """What was read of a damaged stream."""

    stream: MigrationStream
    blocks: dict[str, bytearray]
    holes: Sequence[Hole]
    places: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)

    @property
    def sizes(self) -> list[int]:
        return [gap.size for gap in self.stream.gaps]

    def hole(self, why: str, block: str) -> list[tuple[int, int]]:
        """First page and number of pages of the holes of a kind."""
        return [
            (hole.address // PAGE, hole.size // PAGE)
            for hole in self.holes
            if (hole.why, hole.block) == (why, block)
        ]


def spooled(data: bytes) -> Source:
    return SpoolSource(io.BytesIO(data).read, keep_all=True)


def flowing(data: bytes) -> Source:
    """A pipe whose pages are gone once they were read."""
    return SpoolSource(io.BytesIO(data).read)


def read(data: bytes, source: Callable[[bytes], Source] = BytesSource) -> Found:
    census, pages, records = Census(), Pages(), Records()
    expander = Expander(pages, keep_going=True)
    sink = Tee(census, expander, records)
    stream = read_stream(source(data), sink=sink, keep_going=True)
    files = dict.fromkeys(pages.blocks, "")
    outcome = make_outcome(stream, census, expander.bad, files)
    return Found(stream, pages.blocks, outcome.holes, records.places)


def seed(block: str, number: int) -> bytes:
    return pattern(1000 * list(BLOCKS).index(block) + number)


def one_pass() -> Story:
    """Each block once, with zeros here and there, in sections of some pages."""
    story = Story({name: count * PAGE for name, count in BLOCKS.items()})
    for name, count in BLOCKS.items():
        for number in range(count):
            if number % 5 == 3:
                story.zero(name, number)
            else:
                story.page(name, number, seed(name, number))
            if number % 14 == 13:
                story.end_section()
    return story


def head_of(data: bytes, block: str, number: int) -> int:
    """Where the record of a page with data and CONTINUE begins."""
    return data.index(seed(block, number)) - 8


def damage(data: bytes, at: int, new: bytes, old: int | None = None) -> bytes:
    """Put other bytes in the place of `old` bytes, or of as many."""
    return data[:at] + new + data[at + (len(new) if old is None else old) :]


def check(story: Story, found: Found, harm: range | None = None) -> None:
    """Each page is right, or in a hole, or its record has damaged bytes."""
    missing = {
        (hole.block, number)
        for hole in found.holes
        for number in range(hole.address // PAGE, (hole.address + hole.size) // PAGE)
    }
    for name, pages in story.model.items():
        got = found.blocks.get(name)
        if got is None:  # not even the block list
            assert found.stream.error is not None
            continue
        for number, (wanted, _) in enumerate(pages):
            same = got[number * PAGE : (number + 1) * PAGE] == wanted
            if same or (name, number) in missing:
                continue
            begin, end = found.places[name, number]
            assert harm is not None, (name, number)
            assert begin <= harm.stop, (name, number)
            assert harm.start <= end, (name, number)


TRUTH = one_pass()
DATA = TRUTH.stream()
END = len(DATA)


# -- one record -----------------------------------------------------------------------


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("source", [BytesSource, spooled, flowing])
def test_a_flag_of_a_record_in_the_middle_of_a_run(
    bit: int, source: Callable[[bytes], Source]
) -> None:
    """Whatever the flag makes of it, no more than that page is missing."""
    at = head_of(DATA, "pc.ram", 6)
    found = read(damage(DATA, at + 7, bytes([DATA[at + 7] ^ 1 << bit])), source)
    check(TRUTH, found)
    wrong = {1 << bit} - {0x10, 0x80, 0x01}  # end mark and hook beside a page are passed over
    if wrong:
        assert found.sizes == [STRIDE]
        assert found.hole("lost", "pc.ram") == [(6, 1)]
        assert found.hole("never", "pc.ram") == [(6, 1)]
        assert found.stream.gaps[0].offset == at
        assert found.stream.error is found.stream.gaps[0].error


@pytest.mark.parametrize("source", [BytesSource, spooled, flowing])
def test_an_address_outside_of_the_block(source: Callable[[bytes], Source]) -> None:
    at = head_of(DATA, "pc.ram", 6)
    found = read(damage(DATA, at + 1, b"\xff"), source)
    check(TRUTH, found)
    assert found.sizes == [STRIDE]
    assert found.hole("lost", "pc.ram") == [(6, 1)]


def test_an_address_inside_of_the_block() -> None:
    """Nothing tells: the page is at another place, and its own never came."""
    at = head_of(DATA, "pc.ram", 6)
    found = read(damage(DATA, at + 5, b"\2"))
    assert found.stream.error is None
    assert (6, 1) in found.hole("never", "pc.ram")
    check(TRUTH, found, range(at + 5, at + 6))


@pytest.mark.parametrize("change", [b"\0", b"\3", b"\7", b"\xff"])
def test_the_length_of_a_name(change: bytes) -> None:
    """The pages up to the next name are of no known block."""
    at = DATA.index(build.text("pc.bios") + seed("pc.bios", 0))
    found = read(damage(DATA, at, change))
    check(TRUTH, found)
    if change != b"\7":
        assert found.hole("never", "pc.bios") == [(0, 6)]
        assert found.hole("never", "vga") == []


def test_bytes_over_several_pages() -> None:
    start, stop = head_of(DATA, "pc.ram", 5) + 50, head_of(DATA, "pc.ram", 11) + 3
    found = read(damage(DATA, start, b"\x55" * (stop - start)))
    check(TRUTH, found, range(start, stop))
    # 5 has damaged contents that nothing tells; 8 is a zero page.
    assert found.hole("lost", "pc.ram") == [(6, 6)]
    assert found.sizes == [5 * STRIDE + 9]


def test_zeros_over_several_pages() -> None:
    start, stop = head_of(DATA, "pc.ram", 5), head_of(DATA, "pc.ram", 11) + 3
    found = read(damage(DATA, start, bytes(stop - start)))
    check(TRUTH, found, range(start, stop))
    assert found.hole("lost", "pc.ram") == [(5, 6)]  # the head of 11 begins with zeros anyway


# -- bytes that are too many or missing ----------------------------------------------------


@pytest.mark.parametrize("count", [1, 5, 8, 9, 18, 100, STRIDE, 2 * STRIDE])
def test_bytes_that_are_too_many(count: int) -> None:
    """The pages behind can be of any block until one is named; the next section fits again."""
    at = head_of(DATA, "pc.ram", 5)
    found = read(damage(DATA, at, b"\x55" * count, old=0))
    check(TRUTH, found)
    assert found.hole("never", "pc.bios") == []
    assert found.hole("never", "vga") == []


@pytest.mark.parametrize("count", [1, 5, 8, 9, 100, PAGE, STRIDE, 3 * STRIDE, 3 * STRIDE + 1])
def test_bytes_that_are_missing(count: int) -> None:
    at = head_of(DATA, "pc.ram", 4)
    found = read(damage(DATA, at, b"", old=count))
    check(TRUTH, found, range(at, at + 1))
    assert found.hole("never", "vga") == []


def test_missing_bytes_that_had_the_name_of_another_block() -> None:
    """What follows is of pc.bios and must not become pages of pc.ram."""
    at = head_of(DATA, "pc.ram", 37)
    stop = head_of(DATA, "pc.bios", 1)
    for new in (b"\x55", b"\x55" * (stop - at), bytes(100)):
        found = read(damage(DATA, at, new, old=stop - at))
        check(TRUTH, found, range(at, at + 1))


def test_a_name_lost_at_the_end_of_a_section() -> None:
    """CONTINUE of the next section is of the block whose name is lost, not of the one before."""
    story = Story({"pc.ram": 16 * PAGE, "vga": 16 * PAGE})
    for number in range(7):
        story.page("pc.ram", number, pattern(number))
    story.page("vga", 0, pattern(100))
    story.end_section()
    for number in range(1, 6):
        story.page("vga", number, pattern(100 + number))
    story.end_section()
    for number in range(6, 9):
        story.page("vga", number, pattern(100 + number))
    story.page("pc.ram", 10, pattern(10))
    data = story.stream()
    start, stop = data.index(pattern(6)) - 8, data.index(pattern(100)) + 9
    found = read(damage(data, start, b"\x55" * (stop - start)))
    check(story, found)
    assert found.blocks["pc.ram"][: 6 * PAGE] == story.block("pc.ram")[: 6 * PAGE]
    assert found.blocks["pc.ram"][10 * PAGE : 11 * PAGE] == pattern(10)
    assert not any(found.blocks["vga"])
    assert found.stream.gaps[0].pages is None


# -- what is around records ------------------------------------------------------------------


def section_heads() -> list[int]:
    """Where PART sections begin."""
    head = build.part(2, footers=False)
    found = [DATA.index(head)]
    while (at := DATA.find(head, found[-1] + 1)) >= 0:
        found.append(at)
    return found


@pytest.mark.parametrize("offset", range(5))
def test_the_head_of_a_section(offset: int) -> None:
    at = section_heads()[0]
    found = read(damage(DATA, at + offset, b"\xc5"))
    check(TRUTH, found)
    assert found.hole("never", "pc.ram") == []
    assert found.sizes == [5]
    assert found.stream.gaps[0].offset == at


@pytest.mark.parametrize("offset", range(-5, 0))
def test_the_footer_of_a_section(offset: int) -> None:
    at = section_heads()[1]
    found = read(damage(DATA, at + offset, b"\xc5"))
    check(TRUTH, found)
    assert found.hole("never", "pc.ram") == []
    assert found.sizes == [10]
    assert found.stream.gaps[0].offset == at - 5


@pytest.mark.parametrize("offset", range(-13, -5))
def test_the_end_mark_of_a_section(offset: int) -> None:
    at = section_heads()[1]
    found = read(damage(DATA, at + offset, b"\xc5"))
    check(TRUTH, found)
    assert found.hole("never", "pc.ram") == []
    # The address of a mark means nothing.
    assert found.sizes == {-7: [8], -6: [0]}.get(offset, [])


def test_the_last_record_of_a_section() -> None:
    """The next section goes on where this one should have: nothing else is lost."""
    at = head_of(DATA, "pc.ram", 27)
    assert section_heads()[1] - at == STRIDE + 8 + 5
    found = read(damage(DATA, at, b"\xff" * 8))
    check(TRUTH, found)
    assert found.hole("lost", "pc.ram") == found.hole("never", "pc.ram") == [(27, 1)]
    assert found.sizes == [STRIDE + 8]


def test_a_section_boundary_overwritten() -> None:
    at, stop = head_of(DATA, "pc.ram", 27), head_of(DATA, "pc.ram", 29) + 5
    found = read(damage(DATA, at, b"\x55" * (stop - at)))
    check(TRUTH, found)
    assert found.hole("never", "pc.ram") == [(27, 3)]
    assert found.hole("lost", "pc.ram") == [(27, 3)]


def test_the_very_end() -> None:
    """No record follows; the footer does."""
    last = head_of(DATA, "vga", 11)
    found = read(damage(DATA, last, b"\xff" * 8))
    check(TRUTH, found)
    assert found.hole("never", "vga") == [(11, 1)]
    assert found.stream.end == END


@pytest.mark.parametrize("source", [BytesSource, spooled, flowing])
@pytest.mark.parametrize("left", [2, 6, 7, 14, 15, 100])
def test_nothing_behind_the_damage(left: int, source: Callable[[bytes], Source]) -> None:
    """The error is that of the damage, also where the bytes are gone."""
    found = read(damage(DATA, END - left, b"\xff" * left), source)
    check(TRUTH, found, range(END - left, END))
    error = found.stream.error
    if left != 100:
        assert error is not None
        assert error.offset >= END - 2 * left - 16


@pytest.mark.parametrize("source", [BytesSource, spooled, flowing])
def test_a_file_that_is_cut(source: Callable[[bytes], Source]) -> None:
    size = head_of(DATA, "pc.ram", 9) + 100
    found = read(DATA[:size], source)
    check(TRUTH, found)
    assert found.stream.error is not None
    assert "cut" in str(found.stream.error)
    assert found.hole("never", "pc.ram") == [(9, 31)]


def test_several_damages() -> None:
    data, places = DATA, [("pc.ram", 2), ("pc.ram", 9), ("pc.ram", 30), ("vga", 5), ("vga", 6)]
    for name, number in places:
        data = damage(data, head_of(DATA, name, number), b"\xff" * 8)
    for source in (BytesSource, spooled, flowing):
        found = read(data, source)
        check(TRUTH, found)
        assert found.hole("never", "pc.ram") == [(2, 1), (9, 1), (30, 1)]
        assert found.hole("never", "vga") == [(5, 2)]
        assert found.sizes == [STRIDE] * 3 + [2 * STRIDE]


def test_damage_in_the_last_section() -> None:
    """What comes at the end of a migration is in the END section."""
    story = Story({"pc.ram": 16 * PAGE})
    story.page("pc.ram", 0, pattern(0))
    story.end_section()
    records = b"".join(build.data_page(n * PAGE, data=pattern(n)) for n in range(1, 9))
    device = build.full(3, "dev", body=bytes(range(20)))
    data = story.stream()[:-1] + build.end(2, body=records + build.eos()) + device + build.eof()
    at = data.index(pattern(4)) - 8
    found = read(damage(data, at, b"\xff" * 8))
    assert found.hole("lost", "pc.ram") == [(4, 1)]
    assert found.hole("never", "pc.ram") == [(4, 1), (9, 7)]
    assert [section.idstr for section in found.stream.sections()][-1] == "dev"
    assert found.stream.end == len(data)


def test_pages_of_an_earlier_pass_are_kept() -> None:
    story = Story({"pc.ram": 16 * PAGE})
    for number in range(16):
        story.page("pc.ram", number, pattern(number))
    story.end_section()
    for number in range(4, 9):
        story.page("pc.ram", number, pattern(100 + number))
    data = story.stream()
    found = read(damage(data, data.index(pattern(106)) - 8, b"\xff" * 8))
    check(story, found)
    assert found.hole("lost", "pc.ram") == [(6, 1)]
    assert found.hole("never", "pc.ram") == []
    assert found.blocks["pc.ram"][6 * PAGE : 7 * PAGE] == pattern(6)


# -- any damage ---------------------------------------------------------------------------


@st.composite
def damages(draw: st.DrawFn) -> tuple[bytes, range]:
    """The stream with 1 to 64 bytes of its RAM part overwritten, taken out or put in."""
    first = head_of(DATA, "pc.ram", 1) - STRIDE
    near = [*section_heads(), *(head_of(DATA, n, k) for n in BLOCKS for k in (1, 5))]
    places = st.integers(first, END - 1) | st.builds(
        lambda at, by: at + by, st.sampled_from(near), st.integers(-40, 20)
    )
    start = draw(places)
    stop = min(start + draw(st.integers(0, 64)), END)
    new = draw(st.binary(min_size=stop - start, max_size=stop - start) | st.binary(max_size=64))
    return damage(DATA, start, new, old=stop - start), range(start, start + len(new))


@settings(OURS, max_examples=300)
@given(damages(), st.sampled_from([BytesSource, flowing]))
def test_what_is_read_is_right_or_said_to_be_missing(
    case: tuple[bytes, range], source: Callable[[bytes], Source]
) -> None:
    data, harm = case
    check(TRUTH, read(data, source), harm)


@settings(OURS, max_examples=100)
@given(damages())
def test_reading_again_gives_the_same(case: tuple[bytes, range]) -> None:
    """What was framed once is found again at the same places, for a second sink."""
    found, pages = read(case[0]), Pages()
    feed(found.stream, Expander(pages, keep_going=True))
    assert pages.blocks == found.blocks


@settings(OURS, max_examples=100)
@given(damages())
def test_gaps_are_in_order_and_inside_the_stream(case: tuple[bytes, range]) -> None:
    data, _ = case
    end = 0
    for gap in read(data).stream.gaps:
        assert end <= gap.offset <= gap.offset + gap.size <= len(data)
        end = gap.offset + gap.size


# -- without it ----------------------------------------------------------------------------


def test_nothing_changes_without_it() -> None:
    at = head_of(DATA, "pc.ram", 6)
    data = damage(DATA, at + 7, b"\x20")
    stream = read_stream(BytesSource(data))
    assert stream.gaps == ()
    assert stream.error is not None
    assert stream.error.offset == at
    assert stream.end <= at + STRIDE


def test_a_good_stream_has_no_gaps() -> None:
    found = read(DATA)
    check(TRUTH, found)
    assert (found.stream.error, found.stream.gaps, list(found.holes)) == (None, (), [])


# -- the search itself -----------------------------------------------------------------------


def resync(data: bytes, others: tuple[int, ...] = INSIDE, end: int | None = None) -> Resync:
    blocks = {name: RamBlock(name, n * PAGE, None, None, None) for name, n in BLOCKS.items()}
    return Resync(BytesSource(data), end, PAGE, blocks, 2, others)


@pytest.mark.parametrize("lead", [100, (1 << 20) - 4, 1 << 20, (1 << 20) + 100, 5 << 20])
def test_a_name_far_away_and_across_pieces(lead: int) -> None:
    record = build.zero_page(3 * PAGE, "vga")
    found = resync(b"\xff" * lead + record + bytes(9)).find(0, "pc.ram", 0)
    assert found is not None
    assert (found.offset, found.footer, found.pages) == (lead, False, None)


def test_the_search_ends_where_the_stream_does() -> None:
    data = b"\xff" * 3000 + build.zero_page(3 * PAGE, "vga")
    for end in (1, 500, 3000):
        assert resync(data, end=end).find(0, "pc.ram", 0) is None
    assert resync(b"").find(0, "pc.ram", 0) is None


def test_a_record_that_does_not_fit_is_passed_over() -> None:
    for distance, fits in (
        (STRIDE, True),
        (STRIDE - 1, False),
        (STRIDE + 9, False),
        (9, True),
        (8, False),
    ):
        data = b"\xff" * distance + build.zero_page(PAGE)
        found = resync(data).find(0, "pc.ram", 0)
        assert (found is not None) == fits, distance


def test_a_record_of_a_page_that_is_not_there_is_passed_over() -> None:
    data = b"\xff" * 9 + build.zero_page(6 * PAGE)
    assert resync(data).find(0, "pc.bios", 5 * PAGE) is None
    assert resync(data).find(0, "pc.ram", 5 * PAGE) is not None


def test_a_record_between_sections() -> None:
    data = b"\xff" * 5 + build.zero_page(6 * PAGE)
    assert resync(data).find(0, "pc.ram", 6 * PAGE) is None
    found = resync(data, BETWEEN).find(0, "pc.ram", 6 * PAGE)
    assert found is not None
    assert (found.offset, found.pages) == (5, 0)


def test_a_footer_needs_something_behind_it() -> None:
    for behind, fits in ((b"\2", True), (b"\0", True), (b"", False), (b"\x7f", False)):
        found = resync(b"\xff" * 9 + build.footer(2) + behind).find(0, "", 0)
        assert (found is not None and found.footer) == fits
