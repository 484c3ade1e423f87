"""The CONFIGURATION section: no id, no length, no footer, subsections by peeking."""

from __future__ import annotations

import contextlib
import uuid

import pytest

from builders import migration as build
from checks import assert_error, assert_tiles, clean, read
from cprformats.encode import encode
from cprformats.errors import Damaged, Truncated, Unsupported
from cprformats.fields import Kind
from cprformats.migration.configuration import read_configuration
from cprformats.reader import Reader
from cprformats.source import BytesSource

UUID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
WHOLE = build.configuration(
    "virt-10.0",
    target_page_bits=14,
    capabilities=["x-ignore-shared", "mapped-ram"],
    uuid=UUID.bytes,
)


def reader(data: bytes) -> Reader:
    return Reader(BytesSource(data))


def test_all_of_it() -> None:
    here = reader(WHOLE)
    found = read_configuration(here)
    assert found.machine == "virt-10.0"
    assert found.target_page_bits == 14
    assert found.capabilities == ("x-ignore-shared", "mapped-ram")
    assert found.uuid == str(UUID)
    tree = here.finish("all")
    assert_tiles([tree])
    assert b"".join(encode([tree])) == WHOLE
    bits = tree["configuration"].children[3]
    assert bits.name == "configuration/target-page-bits"
    assert bits["head.version"].value == 1
    assert bits["head.type"].kind is Kind.SUBSECTION_HEAD
    assert bits["target_page_bits"].kind is Kind.CONFIGURATION


def test_the_bare_form_of_2_4() -> None:
    found = read_configuration(reader(build.configuration("pc-i440fx-2.4")))
    assert (found.machine, found.target_page_bits, found.uuid) == ("pc-i440fx-2.4", None, None)
    assert found.capabilities == ()


def test_the_name_has_no_nul() -> None:
    here = reader(build.configuration("pc") + b"\0")
    read_configuration(here)
    assert here.peek(2) == b"\0"


def test_a_subsection_is_only_what_has_the_name_in_front() -> None:
    """05 and another name is not ours: what follows is the next part of the stream."""
    here = reader(build.configuration("pc") + build.subsection("ram/x"))
    read_configuration(here)
    assert here.peek(1) == b"\5"


def test_no_section_id_and_no_footer_follow() -> None:
    stream = clean(build.stream(build.configuration("pc"), build.full(3, "dev", body=b"\1")))
    assert stream.machine == "pc"
    assert [x.idstr for x in stream.sections()] == ["dev"]


def test_no_configuration_at_all() -> None:
    """send-configuration=off, xen-save-devices-state, COLO."""
    stream = clean(build.stream(build.full(3, "dev", body=b"\1")))
    assert stream.configuration is None
    assert stream.machine == ""


def test_target_page_bits_decide_how_ram_is_read() -> None:
    body = build.block_list(build.block("ram0", 1 << 14))
    body += build.data_page(0, "ram0", data=b"\1" * (1 << 14)) + build.eos()
    stream = clean(build.stream(build.configuration(
        "virt", target_page_bits=14), build.start(2, body=body)))  # fmt: skip
    assert stream.page_size == 1 << 14
    assert stream.ram.per_block[0].stream_bytes == 8 + 5 + (1 << 14)


@pytest.mark.parametrize("bits", [0, 7, 21, 63, 0xFFFFFFFF])
def test_absurd_page_bits_are_shown_and_not_used(bits: int) -> None:
    stream = read(build.stream(build.configuration("virt", target_page_bits=bits)))
    assert stream.error is None
    assert stream.configuration is not None
    assert stream.configuration.target_page_bits == bits
    assert stream.page_size == 4096


def test_an_unknown_subsection_is_said() -> None:
    data = build.configuration("pc", more=build.subsection("configuration/new", b"abc"))
    with pytest.raises(Unsupported) as caught:
        read_configuration(reader(data))
    assert_error(
        caught.value, Unsupported, len(data) - 3, ("configuration", "configuration/new"),
        "unknown subsection 'configuration/new'",
    )  # fmt: skip


def test_a_name_of_four_gigabytes() -> None:
    with pytest.raises(Damaged) as caught:
        read_configuration(reader(b"\7\xff\xff\xff\xffpc"))
    assert_error(caught.value, Damaged, 5, ("configuration",), "at most 4096, found 4294967295")


def test_a_count_of_four_billion_capabilities() -> None:
    contents = b"\xff\xff\xff\xff" + b"\1a" * 300
    more = build.subsection("configuration/capabilities", contents)
    with pytest.raises(Damaged) as caught:
        read_configuration(reader(build.configuration("pc", more=more)))
    assert "caps_count: expected at most 256, found 4294967295" in caught.value.message


@pytest.mark.parametrize("size", range(1, len(WHOLE)))
def test_cut_anywhere(size: int) -> None:
    """A cut in front of a subsection can't be seen here, each other one is."""
    here = reader(WHOLE[:size])
    with contextlib.suppress(Truncated):
        read_configuration(here)
    assert here.offset <= size
    tree = here.finish("all")
    assert_tiles([tree])
    assert b"".join(encode([tree])) == WHOLE[: here.offset]
