"""RAM sections: the block list with its optional words, every kind of record, state across."""

from __future__ import annotations

import pytest

from builders import migration as build
from checks import assert_error, assert_tiles, clean, read
from cprformats.encode import encode
from cprformats.errors import Damaged, Truncated, Unsupported
from cprformats.fields import Kind, leaves
from cprformats.migration import Located, MigrationStream
from cprformats.migration.ram import RamWalker
from cprformats.migration.ramfields import run_fields
from cprformats.migration.ramparts import PageKind, RamBlocks, RamContext, RamMark, RamRun
from cprformats.migration.wire import RamFlag
from cprformats.source import BytesSource

PAGE = build.PAGE
MIB = 1 << 20
LIST = build.block_list(build.block("pc.ram", MIB), build.block("rom", 2 * PAGE))


def stream(body: bytes, *before: bytes) -> bytes:
    return build.stream(*before, build.start(2, body=body))


def runs(found: MigrationStream) -> list[RamRun]:
    made = []
    for section in found.sections():
        parts = found.ram_walker(section).parts()
        made += [part for part in parts if isinstance(part, RamRun)]
    return made


def counts(found: MigrationStream) -> dict[str, dict[str, int]]:
    return {
        x.block.idstr: {kind.value: count for kind, count in x.pages.items() if count}
        for x in found.ram.per_block
    }


def body_error(body: bytes, *before: bytes) -> tuple[MigrationStream, int]:
    """Frame a stream whose RAM body breaks; gives it and the body's offset."""
    found = read(stream(body, *before))
    assert found.error is not None
    return found, 8 + sum(map(len, before)) + 17


# -- the block list -----------------------------------------------------------------


def test_the_block_list() -> None:
    found = clean(stream(LIST + build.eos()))
    assert {name: x.used_length for name, x in found.ram.blocks.items()} == {
        "pc.ram": MIB,
        "rom": 2 * PAGE,
    }
    assert found.ram.blocks["rom"].page_size is found.ram.blocks["rom"].address is None


def test_the_total_ends_the_list_not_a_zero() -> None:
    """The list's end is not marked: the lengths add up to the total."""
    found = clean(stream(LIST + build.zero_page(0, "rom") + build.eos()))
    assert counts(found)["rom"] == {"zero": 1}


def test_lengths_that_overshoot_the_total() -> None:
    body = build.block_list(build.block("a", 2 * PAGE), total=PAGE)
    found, at = body_error(body)
    assert_error(
        found.error, Damaged, at + len(body), ("ram",),
        "sum of the blocks' lengths: expected 0x1000, found 0x2000",
    )  # fmt: skip


def test_an_empty_block_list() -> None:
    assert clean(stream(build.block_list() + build.eos())).ram.blocks == {}


def test_a_block_of_length_zero() -> None:
    body = build.block_list(build.block("empty", 0), build.block("a", PAGE)) + build.eos()
    assert list(clean(stream(body)).ram.blocks) == ["empty", "a"]


def test_page_sizes_come_only_behind_postcopy_advise() -> None:
    """postcopy-ram is not in the stream but for this command."""
    body = build.block_list(build.block("huge", 2 * MIB, page_size=2 * MIB), build.block("b", PAGE))
    found = clean(stream(body + build.eos(), build.postcopy_advise()))
    assert found.ram.context.postcopy
    assert found.ram.blocks["huge"].page_size == 2 * MIB
    assert found.ram.blocks["b"].page_size is None
    assert clean(stream(LIST + build.eos())).ram.context.postcopy is False


def test_page_size_of_the_last_block() -> None:
    body = build.block_list(build.block("a", PAGE), build.block("huge", 2 * MIB, page_size=2 * MIB))
    found = clean(stream(body + build.eos(), build.postcopy_advise()))
    assert found.ram.blocks["huge"].page_size == 2 * MIB


def test_an_advise_without_words_is_not_for_ram() -> None:
    """Both words are missing when only dirty bitmaps need postcopy."""
    found = clean(stream(LIST + build.eos(), build.postcopy_advise(None)))
    assert found.ram.context.postcopy is False


def test_addresses_come_with_ignore_shared() -> None:
    body = build.block_list(build.block("a", PAGE, address=0xFFFC0000), build.block(
        "b", PAGE, address=0))  # fmt: skip
    configuration = build.configuration(capabilities=["x-ignore-shared"])
    found = clean(stream(body + build.eos(), configuration))
    assert found.ram.context.ignore_shared
    assert [x.address for x in found.ram.blocks.values()] == [0xFFFC0000, 0]


def test_the_total_counts_ignored_blocks_too() -> None:
    body = build.block_list(
        build.block("shared", 64 * MIB, address=0), build.block("a", PAGE, address=1 << 32)
    )
    configuration = build.configuration(capabilities=["x-ignore-shared"])
    found = clean(stream(body + build.zero_page(0, "a") + build.eos(), configuration))
    assert counts(found) == {"shared": {}, "a": {"zero": 1}}


def test_cpr_modes_send_a_list_and_no_pages() -> None:
    data = build.stream(build.start(2, body=LIST + build.eos()), build.end(2, body=build.eos()))
    assert counts(clean(data)) == {"pc.ram": {}, "rom": {}}


def test_more_blocks_than_anybody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cprformats.migration.ram._MAX_BLOCKS", 3)
    blocks = [build.block(f"b{n}", 0) for n in range(9)]
    found, at = body_error(build.block_list(*blocks, build.block("c", PAGE)))
    assert_error(found.error, Unsupported, at + 8 + 3 * 11, ("ram",), "more than 3 RAMBlocks")


def test_more_block_lists_than_anybody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cprformats.migration.ram._MAX_BLOCKS", 3)
    lists = [build.block_list(build.block(f"b{n}", PAGE)) for n in range(9)]
    found, _ = body_error(b"".join(lists))
    assert isinstance(found.error, Unsupported)


# -- pages --------------------------------------------------------------------------


def test_pages_that_follow_each_other_are_one_run() -> None:
    body = LIST + build.data_page(0, "pc.ram")
    body += b"".join(build.data_page(n * PAGE) for n in range(1, 100)) + build.eos()
    (run,) = runs(clean(stream(body)))
    assert (run.block, run.address, run.count, run.kind) == ("pc.ram", 0, 100, PageKind.DATA)
    assert run.named
    assert run.size == 100 * (8 + PAGE) + 7


def test_a_gap_another_kind_and_another_block_end_a_run() -> None:
    body = LIST + build.zero_page(0, "pc.ram") + build.zero_page(PAGE) + build.zero_page(3 * PAGE)
    body += build.data_page(4 * PAGE) + build.zero_page(0, "rom") + build.zero_page(PAGE)
    found = clean(stream(body + build.eos()))
    assert [(x.block, x.address // PAGE, x.count, x.kind.value) for x in runs(found)] == [
        ("pc.ram", 0, 2, "zero"),
        ("pc.ram", 3, 1, "zero"),
        ("pc.ram", 4, 1, "data"),
        ("rom", 0, 2, "zero"),
    ]
    assert counts(found) == {"pc.ram": {"zero": 3, "data": 1}, "rom": {"zero": 2}}


def test_the_name_holds_on_in_the_next_section() -> None:
    data = build.stream(
        build.start(2, body=LIST + build.eos()),
        build.part(2, body=build.zero_page(0, "rom") + build.eos()),
        build.part(2, body=build.zero_page(PAGE) + build.eos()),
        build.end(2, body=build.data_page(0, "pc.ram") + build.data_page(PAGE) + build.eos()),
    )
    found = clean(data)
    assert [(x.block, x.address // PAGE) for x in runs(found)] == [
        ("rom", 0), ("rom", 1), ("pc.ram", 0),
    ]  # fmt: skip
    # Each section can be walked by itself.
    sections = list(found.sections())
    (run,) = [x for x in found.ram_walker(sections[2]).parts() if isinstance(x, RamRun)]
    assert run.block == "rom"


def test_a_page_sent_twice_counts_twice() -> None:
    body = LIST + build.data_page(0, "pc.ram") + build.data_page(0) + build.eos()
    assert counts(clean(stream(body)))["pc.ram"] == {"data": 2}


def test_a_zero_page_has_a_fill_byte() -> None:
    found = clean(stream(LIST + build.zero_page(0, "rom", fill=0x5A) + build.eos()))
    (run,) = runs(found)
    (tree,) = run_fields(found.source, run, PAGE)
    assert tree["fill"].value == 0x5A
    assert tree["idstr"].value == "rom"


def test_xbzrle_pages() -> None:
    body = LIST + build.data_page(0, "pc.ram") + build.xbzrle_page(0, delta=b"\0\1\xff" * 9)
    body += build.xbzrle_page(PAGE, "rom", delta=b"") + build.eos()
    found = clean(stream(body))
    assert counts(found) == {"pc.ram": {"data": 1, "xbzrle": 1}, "rom": {"xbzrle": 1}}
    (tree,) = run_fields(found.source, runs(found)[1], PAGE)
    assert (tree["encoding"].value, tree["length"].value) == (1, 27)
    assert tree["delta"].kind is Kind.PAGE


def test_compressed_pages_of_old_versions() -> None:
    page = bytes(range(256)) * 16
    body = LIST + build.compressed_page(0, "pc.ram", data=page) + build.compressed_page(PAGE)
    found = clean(stream(body + build.eos()))
    assert counts(found)["pc.ram"] == {"compressed": 2}
    assert [x.count for x in runs(found)] == [1, 1]


def test_a_compressed_page_longer_than_a_page_can_be() -> None:
    body = LIST + build.compressed_page(0, "pc.ram", packed=b"")[:-4] + b"\xff\xff\xff\xff"
    found, at = body_error(body)
    assert_error(
        found.error, Damaged, at + len(LIST), ("ram", "pc.ram"),
        "compressed page: expected at most", "4294967299",
    )  # fmt: skip


def test_hook_and_multifd_flush_stand_alone() -> None:
    body = LIST + build.ram_mark(0x200) + build.ram_mark(0x80) + build.eos()
    found = clean(stream(body))
    (section,) = found.sections()
    parts = list(found.ram_walker(section).parts())
    assert isinstance(parts[0], RamBlocks)
    assert [x.flag for x in parts if isinstance(x, RamMark)] == [
        RamFlag.MULTIFD_FLUSH, RamFlag.HOOK, RamFlag.EOS,
    ]  # fmt: skip


def test_flags_stand_below_the_target_page_size() -> None:
    """With pages of 1 KiB the offset begins at bit 10."""
    body = build.block_list(build.block("r", 4096))
    body += build.zero_page(1024, "r") + build.data_page(2048, data=b"\1" * 1024) + build.eos()
    data = build.stream(build.start(2, body=body), description=build.vmdesc(page_size=1024))
    assert [(x.address, x.kind.value) for x in runs(clean(data))] == [
        (1024, "zero"), (2048, "data"),
    ]  # fmt: skip


@pytest.mark.parametrize("bits", [10, 12, 13, 14, 16])
def test_each_page_size(bits: int) -> None:
    size = 1 << bits
    body = build.block_list(build.block("r", 4 * size))
    body += b"".join(
        build.data_page(n * size, "r" if n == 0 else None, data=b"\1" * size) for n in range(4)
    )
    configuration = build.configuration(target_page_bits=bits)
    (run,) = runs(clean(stream(body + build.eos(), configuration)))
    assert run.count == 4


# -- damage -------------------------------------------------------------------------


def test_a_page_behind_its_block() -> None:
    found, at = body_error(LIST + build.zero_page(2 * PAGE, "rom") + build.eos())
    assert_error(
        found.error, Damaged, at + len(LIST), ("ram", "rom"),
        "page 0x2000: expected an offset below 0x2000, found 0x2000",
    )  # fmt: skip


def test_a_page_of_an_unknown_block() -> None:
    found, at = body_error(LIST + build.zero_page(0, "vga") + build.eos())
    assert_error(
        found.error, Damaged, at + len(LIST), ("ram", "vga"),
        "unknown RAMBlock 'vga'; listed: pc.ram, rom",
    )  # fmt: skip


def test_continue_before_any_name() -> None:
    found, at = body_error(LIST + build.zero_page(0) + build.eos())
    assert_error(found.error, Damaged, at + len(LIST), ("ram",), "unknown RAMBlock ''")


@pytest.mark.parametrize("flags", [0, 0x001, 0x020, 0x400, 0x800])
def test_unknown_flags(flags: int) -> None:
    found, at = body_error(LIST + build.ram_word(0, flags) + bytes(20))
    assert_error(found.error, Damaged, at + len(LIST), ("ram",), f"unknown flags {flags:#x}")


@pytest.mark.parametrize("flags", [0x00A, 0x048, 0x102])
def test_two_kinds_of_contents(flags: int) -> None:
    found, at = body_error(LIST + build.ram_word(0, flags) + build.text("rom") + bytes(9000))
    assert_error(
        found.error, Damaged, at + len(LIST), ("ram", "rom"), f"contradicting flags {flags:#x}"
    )


def test_cut_at_every_byte_of_heads() -> None:
    body = LIST + build.zero_page(0, "rom") + build.xbzrle_page(0) + build.compressed_page(PAGE)
    body += build.data_page(0, "pc.ram") + build.data_page(PAGE) + build.eos()
    whole = stream(body)
    at = 8 + 17
    for size in [*range(at, at + 300), at + 4400, at + 4500, len(whole) - 10]:
        if size >= at + len(body):
            continue
        found = read(whole[:size])
        assert isinstance(found.error, Truncated), size
        assert found.error.offset <= size
        assert found.error.path[0] == "ram"
        (section,) = found.sections()
        assert section.located is Located.CUT
        assert sum(leaf.size for part in found.walk() for leaf in leaves(part)) == section.end
        assert found.tally().total == section.end


def test_a_walker_stays_inside_its_bound() -> None:
    body = LIST + build.data_page(0, "pc.ram") + build.eos()
    walker = RamWalker(BytesSource(body), 0, RamContext(PAGE), {}, end=len(body) - 9)
    with pytest.raises(Truncated) as caught:
        list(walker.parts())
    assert_error(caught.value, Truncated, len(LIST), ("ram", "pc.ram"), "page record is cut")


# -- fields of runs -----------------------------------------------------------------


def test_fields_of_a_long_run_come_in_bounded_groups() -> None:
    count = 2500
    body = build.block_list(build.block("r", count * PAGE)) + build.zero_page(0, "r")
    body += b"".join(build.zero_page(n * PAGE) for n in range(1, count)) + build.eos()
    found = clean(stream(body))
    (run,) = runs(found)
    trees = list(run_fields(found.source, run, PAGE))
    assert [tree.name for tree in trees] == ["r+0x0", "r+0x400000", "r+0x800000"]
    assert max(len(tree.children) for tree in trees) <= 2 * 1024 + 2
    assert_tiles(trees, run.offset)
    assert b"".join(encode(trees)) == body[-8 - run.size : -8]


def test_the_counts_of_framing_are_those_of_the_tree() -> None:
    body = LIST + build.data_page(0, "pc.ram") + build.zero_page(PAGE) + build.xbzrle_page(0)
    body += build.compressed_page(3 * PAGE) + build.ram_mark(0x200) + build.eos()
    found = clean(stream(body))
    sizes: dict[Kind, int] = {}
    for tree in found.walk():
        for leaf in leaves(tree):
            sizes[leaf.kind] = sizes.get(leaf.kind, 0) + leaf.size
    assert found.tally().by_kind == sizes
