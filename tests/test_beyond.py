"""What QEMU's own script fails on, each as a test that it works here."""

from __future__ import annotations

import lzma
import os
import subprocess
import sys

import pytest

import cprtools
from builders import migration as build
from checks import clean, entries, fixture_names, fixture_path
from cprformats.fields import Kind, leaves
from cprformats.migration import Located, read_stream
from cprformats.migration.ramparts import PageKind
from cprformats.source import BytesSource

PAGE = build.PAGE


def test_a_stream_with_postcopy_ram_on() -> None:
    """The script takes a block's page size for the next block's name."""
    blocks = build.block_list(
        build.block("huge", 4 << 20, page_size=2 << 20), build.block("pc.bios", PAGE)
    )
    found = clean(
        build.stream(
            build.configuration(),
            build.command(1),
            build.ping(1),
            build.postcopy_advise(0x201000),
            build.start(2, body=blocks + build.zero_page(0, "pc.bios") + build.eos()),
        )
    )
    assert found.ram.blocks["huge"].page_size == 2 << 20
    assert found.ram.blocks["pc.bios"].page_size is None


@pytest.mark.parametrize("name", [x for x in fixture_names("migration", "postcopy") if ".sav" in x])
def test_a_capture_with_postcopy_ram_on(name: str) -> None:
    with cprtools.open(fixture_path(name)) as state:
        assert state.error is None
        assert state.stream.ram.blocks


@pytest.mark.parametrize("name", fixture_names("migration", "virtio", "q35")[:8])
def test_virtio_devices_are_fields(name: str) -> None:
    """The script shows one line of hex for each virtio device."""
    with cprtools.open(fixture_path(name)) as state:
        stream = state.stream
        sections = [x for x in stream.sections() if "/virtio-" in x.idstr]
        assert sections
        for section in sections:
            tree = stream.decode(section)[0]
            raw = sum(x.size for x in leaves(tree) if x.kind is Kind.RAW)
            assert raw == 0, section.idstr
            names = {x.name for x in leaves(tree)}
            assert len(names) > 10, (section.idstr, names)


def _vfio(*records: bytes) -> bytes:
    return b"".join(records) + build.be64(0xFFFFFFFFEF100001)


def test_vfio_sections() -> None:
    """The script knows no such section: its contents have no description."""
    data = build.be64(0xFFFFFFFFEF100004) + build.be64(5000) + b"\x5a" * 5000
    body = _vfio(data)
    setup = build.be64(0xFFFFFFFFEF100003) + _vfio()
    made = build.stream(
        build.configuration(),
        build.start(7, "0000:00:03.0/vfio", version=1, body=setup),
        build.part(7, body=body),
        build.end(7, body=_vfio()),
        description=build.vmdesc(build.old_style("0000:00:03.0/vfio", 5024)),
    )
    found = clean(made)
    sections = list(found.sections())
    assert [x.body_size for x in sections] == [16, 5024, 8]
    assert {x.located for x in sections} == {Located.ITSELF}
    tree = found.decode(sections[1])[0]
    kinds = {x.kind for x in leaves(tree["body"])}
    assert Kind.RAW not in kinds
    assert Kind.PAYLOAD in kinds


def test_xbzrle() -> None:
    """The script says that XBZRLE is not supported yet."""
    ram = build.block_list(build.block("pc.ram", 2 * PAGE)) + build.data_page(0, "pc.ram")
    found = clean(build.stream(build.start(2, body=ram + build.xbzrle_page(0) + build.eos())))
    assert found.ram.per_block[0].pages[PageKind.XBZRLE] == 1


def test_captures_with_xbzrle() -> None:
    """Not each source that may send a delta does; some do."""
    count = 0
    for name in fixture_names("migration", "xbzrle"):
        with cprtools.open(fixture_path(name)) as state:
            assert state.error is None
            count += sum(x.pages.get(PageKind.XBZRLE, 0) for x in state.stream.ram.per_block)
    assert count > 0


def test_keys_that_repeat_in_the_description() -> None:
    """A list's elements are written into one object; the script keeps the last of them."""
    element = [build.field("v", "uint8", 1)]
    keys = [("name", "list"), ("type", "qtailq")]
    for _ in range(3):
        keys += [("vmsd_name", "node"), ("version", 1), ("fields", element)]
    device = build.device("dev", [build.Pairs([*keys, ("size", 7)]), build.field("z", "uint8", 1)])
    body = b"\1\x0a\1\x0b\1\x0c\0" + b"\x63"
    found = clean(build.stream(build.full(1, "dev", body=body), description=build.vmdesc(device)))
    (section,) = found.sections()
    tree, notices = found.decode(section)
    assert notices == ()
    values = [x.value for x in leaves(tree["body"]) if x.name == "v"]
    assert values == [0x0A, 0x0B, 0x0C]
    assert tree["body.z"].value == 0x63


@pytest.mark.parametrize("name", fixture_names(None, "no-vmdesc") + fixture_names("xen"))
def test_no_description_at_all(name: str) -> None:
    """The script needs one; here footers say where a section ends."""
    with cprtools.open(fixture_path(name)) as state:
        stream = state.stream
        assert state.error is None
        assert stream.vmdesc is None
        devices = [x for x in stream.sections() if x.idstr != "ram"]
        assert len(devices) > 10
        assert {x.located for x in devices} <= {Located.FOOTER, Located.ITSELF}
        assert stream.ram.blocks or entries()[name]["kind"] == "xen"


def test_sections_are_the_same_with_and_without_the_description() -> None:
    """Footers alone give every end that the description gives."""
    compared = 0
    for name in fixture_names("migration", "tcg")[::12]:
        data = lzma.decompress(fixture_path(name).read_bytes())
        whole = read_stream(BytesSource(data))
        if whole.vmdesc is None or not whole.footers:
            continue
        size = next(x.field.offset for x in whole.items if getattr(x, "name", "") == "vmdesc")
        bare = read_stream(BytesSource(data[:size]))
        assert bare.error is None
        assert [(x.idstr, x.end) for x in bare.sections()] == [
            (x.idstr, x.end) for x in whole.sections()
        ]
        compared += 1
    assert compared > 5


def test_a_stream_from_a_pipe() -> None:
    """The script seeks; here one pass does."""
    name = fixture_names("migration", "q35", "virtio")[0]
    data = lzma.decompress(fixture_path(name).read_bytes())
    code = (
        "import cprtools; s = cprtools.open('-'); t = s.layers[-1].content.tally();"
        "print(s.error, s.stream.machine, len(list(s.stream.sections())), t.total, t.unknown)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=data,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    direct = read_stream(BytesSource(data))
    count = len(list(direct.sections()))
    assert done.stdout.decode() == f"None {direct.machine} {count} {len(data)} 0\n"
