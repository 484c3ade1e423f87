"""The ``virtio`` field: every transport, devices with a part of their own, damage."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import virtio as build
from builders.migration import device, field, full, stream, subsection, vmdesc
from checks import clean, read
from cprformats.codecs import codec
from cprformats.fields import Field, Kind, leaves, tally
from cprformats.names import words

VERSION_1 = 1 << 32
CTRL_GUEST_OFFLOADS = 1 << 2
PATH = "0000:00:03.0/"


def section(
    name: str, data: bytes, *, path: str = PATH, version: int = 1, described: bool = True
) -> tuple[Field, tuple[str, ...]]:
    """Frame a stream with one virtio section, decode it, give the field and the notices."""
    return decode(stream_of(name, data, path=path, version=version, described=described))


def stream_of(
    name: str, data: bytes, *, path: str = PATH, version: int = 1, described: bool = True
) -> bytes:
    fields = [field("virtio", "virtio", len(data))]
    entry = device(path + name, fields, vmsd=name, version=version)
    body = full(1, path + name, version=version, body=data)
    return stream(body, description=vmdesc(entry) if described else b"")


def decode(data: bytes) -> tuple[Field, tuple[str, ...]]:
    found = clean(data)
    tree, notices = found.decode(next(iter(found.sections())))
    return tree["body"].children[0], notices


def whole(name: str, data: bytes, **more: Any) -> Field:
    """Decode a section of which every byte has a meaning."""
    tree, notices = section(name, data, **more)
    assert notices == ()
    assert tally([tree]).raw == 0
    return tree


def value(tree: Field, *path: str) -> Any:
    """The value of a leaf; names may have dots, so each is an argument."""
    return node(tree, *path).value


def node(tree: Field, *path: str) -> Field:
    for name in path:
        tree = next(child for child in tree.children if child.name == name)
    return tree


def names(tree: Field) -> list[str]:
    return [child.name for child in tree.children]


def said(tree: Field, *path: str) -> tuple[str, ...]:
    leaf = node(tree, *path)
    assert isinstance(leaf.value, int)
    return words(leaf.meaning, leaf.value)


# -- transports -------------------------------------------------------------------


def test_legacy_pci_rng() -> None:
    data = build.virtio(
        build.pci(0x1005, vectors=2),
        status=7,
        queues=[build.queue(8, 0x1000, 3, vector=1)],
        tail=subsection("virtio/extra_state"),
    )
    tree = whole("virtio-rng", data)
    assert node(tree, "transport").type == "virtio-pci"
    assert said(tree, "transport", "config_vector") == ("NO_VECTOR",)
    assert said(tree, "status") == ("ACKNOWLEDGE", "DRIVER", "DRIVER_OK")
    assert value(tree, "queue[0]", "vring.desc") == 0x1000
    assert value(tree, "queue[0]", "last_avail_idx") == 3
    assert value(tree, "queue[0]", "vector") == 1
    assert node(tree, "virtio/extra_state", "head").children[0].kind is Kind.SUBSECTION_HEAD


@pytest.mark.parametrize("vectors", [0, 1, 8, 9])
@pytest.mark.parametrize("express", [False, True])
def test_pci_config_tells_size_and_vectors(vectors: int, express: bool) -> None:
    queue = build.queue(64, vector=1 if vectors else None)
    data = build.virtio(build.pci(vectors=vectors, express=express), queues=[queue, queue])
    tree = whole("virtio-rng", data)
    assert node(tree, "transport", "pci_device", "config").size == (4096 if express else 256)
    assert ("vector" in names(node(tree, "queue[1]"))) == bool(vectors)
    assert ("msix" in names(node(tree, "transport"))) == bool(vectors)


def test_modern_state_with_its_own_subsection() -> None:
    tail = build.features64(VERSION_1) + build.virtqueues((0x10, 0x20))
    tail += build.modern_state(0, 1, words=(2, 0))
    tail += subsection("virtio/started", b"\1") + subsection("virtio/disabled", b"\0")
    queues = [build.queue(256, vector=0)]
    tree = whole("virtio-net", net_field(tail=tail, queues=queues))
    modern = node(tree, "virtio/extra_state", "extra_state", "virtio_pci/modern_state")
    assert said(modern, "guest_features[1]") == ("VERSION_1",)
    assert value(modern, "vqs", "[0]", "desc") == (0x1000, 1)
    assert value(modern, "vqs", "[0]", "enabled") is True
    more = node(modern, "virtio_pci/modern_state/features128")
    assert said(more, "guest_features[0]") == ("GUEST_UDP_TUNNEL_GSO",)
    assert value(tree, "virtio/virtqueues", "vq", "[0]", "vring.used") == 0x20
    assert value(tree, "virtio/started", "started") is True
    assert value(tree, "virtio/disabled", "disabled") is False


def test_rows_not_in_use_are_one_leaf() -> None:
    queues = [build.queue(256)] * 3
    tail = build.packed_virtqueues() + subsection("virtio/broken", b"\1")
    tree = whole("virtio-rng", build.virtio(build.pci(), queues=queues, tail=tail))
    rows = node(tree, "virtio/packed_virtqueues", "vq")
    assert names(rows) == ["[0]", "[1]", "[2]", "[3...]"]
    assert value(rows, "[2]", "used_wrap_counter") is True
    assert value(rows, "[3...]")[:5] == (0, 1, 0, 1, 0)
    assert len(value(rows, "[3...]")) == 5 * 1021


def test_rows_of_many_queues_are_not_all_named() -> None:
    data = build.virtio(build.pci(), queues=[build.queue(8)] * 1024, tail=build.virtqueues((1, 2)))
    rows = node(whole("virtio-rng", data), "virtio/virtqueues", "vq")
    assert names(rows)[-1] == "[128...]"


@pytest.mark.parametrize("path", ["virtio-mmio@000000000a003e00/", ""])
def test_mmio(path: str) -> None:
    queues = [build.queue(128, 0x4000, 1, align=4096)]
    data = build.virtio(build.mmio(), queues=queues, tail=build.mmio_state())
    tree = whole("virtio-rng", data, path=path)
    assert value(tree, "transport", "guest_page_shift") == 12
    assert value(tree, "queue[0]", "vring.align") == 4096
    state = node(tree, "virtio/extra_state", "extra_state", "virtio_mmio/state")
    assert value(state, "vqs", "[0]", "used") == (0x3000, 0)


@pytest.mark.parametrize("orb", [False, True])
@pytest.mark.parametrize("summary", [False, True])
def test_ccw_has_subsections_in_its_middle(orb: bool, summary: bool) -> None:
    transport = build.ccw(5, orb=orb, summary_offset=summary)
    data = build.virtio(transport, config=bytes(8), queues=[build.queue(64, vector=0)])
    tree = whole("virtio-net", data + build.net(), path="/fe.0.0005/", version=11)
    assert value(tree, "transport", "sch", "devno") == 5
    assert value(tree, "transport", "revision") == -1
    assert ("s390_subch_dev/orb" in names(node(tree, "transport", "sch"))) == orb
    assert value(tree, "queue[0]", "vector") == 0


def test_pci_behind_a_bridge_of_another_name() -> None:
    path = "pci@800000020000000:01.0/"
    tree = whole("virtio-rng", build.virtio(build.pci()), path=path)
    assert node(tree, "transport").type == "virtio-pci"


# -- configuration space ------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "transport", "tail", "expected"),
    [
        (PATH, build.pci(), b"", 0x0100),
        (PATH, build.pci(), subsection("virtio/device_endian", b"\2"), 0x0001),
        ("/fe.0.0000/", build.ccw(), b"", 0x0001),
        ("/fe.0.0000/", build.ccw(), subsection("virtio/device_endian", b"\1"), 0x0100),
        ("/fe.0.0000/", build.ccw(), build.features64(VERSION_1), 0x0100),
    ],
)
def test_config_order(path: str, transport: bytes, tail: bytes, expected: int) -> None:
    data = build.virtio(transport, config=bytes(6) + b"\0\1", part=build.net(), tail=tail)
    tree = whole("virtio-net", data, path=path)
    assert value(tree, "config", "status") == expected


def test_config_may_be_cut_and_may_be_longer() -> None:
    cut, notices = section("virtio-blk", blk_field(config=bytes(10)))
    assert names(node(cut, "config")) == ["capacity", "rest"]
    assert tally([cut]).raw == 2
    assert "configuration space" in notices[0]
    long, notices = section("virtio-balloon", build.virtio(build.pci(), config=bytes(40)))
    assert tally([long]).raw == 24
    assert len(notices) == 2  # and the part is not there


def test_input_config_goes_by_what_was_asked() -> None:
    name = struct.pack("<3B5x", 1, 0, 4) + b"Keys".ljust(29, b"\0")
    assert value(input_device(name), "config", "u", "string") == "Keys"
    ids = struct.pack("<3B5x4H", 3, 0, 8, 6, 0x627, 1, 2)
    assert value(input_device(ids), "config", "u", "vendor") == 0x627
    bits = struct.pack("<3B5x", 0x11, 1, 2) + b"\3\4" + bytes(6)
    assert value(input_device(bits), "config", "u", "bitmap") == (3, 4)
    nothing = bytes(37)
    assert names(node(input_device(nothing), "config", "u")) == ["unused"]


def input_device(config: bytes) -> Field:
    return whole("virtio-input", build.virtio(build.pci(), config=config))


def test_9p_tag() -> None:
    tree = whole("virtio-9p", build.virtio(build.pci(), config=b"\3\0tag\0\0"))
    assert value(tree, "config", "tag") == "tag"


# -- devices ------------------------------------------------------------------------


def net_field(**more: Any) -> bytes:
    more = {"config": bytes(8), "part": build.net()} | more
    return build.virtio(build.pci(vectors=3), **more)


def test_net_one_pair() -> None:
    macs = [b"\1\0\x5e\0\0\1", b"\x33\x33\0\0\0\1"]
    tree = whole("virtio-net", net_field(part=build.net(macs)), version=11)
    part = node(tree, "part")
    assert value(part, "mac") == (0x52, 0x54, 0, 0, 0, 1)
    assert len(value(part, "mac_table.macs")) == 12
    assert "queue_pairs" not in names(part)


@pytest.mark.parametrize("current", [0, 1, 4])
@pytest.mark.parametrize("offloads", [None, 1 << 7])
@pytest.mark.parametrize("tail", [b"", build.features64(VERSION_1)])
def test_net_several_pairs(current: int, offloads: int | None, tail: bytes) -> None:
    features = 0 if offloads is None else CTRL_GUEST_OFFLOADS
    data = net_field(
        features=features, part=build.net(pairs=(4, current), offloads=offloads), tail=tail
    )
    part = node(whole("virtio-net", data), "part")
    assert value(part, "queue_pairs", "curr_queue_pairs") == current
    if offloads is not None:
        assert said(part, "curr_guest_offloads") == ("GUEST_TSO4",)


@pytest.mark.parametrize("tail", [b"", build.features64(VERSION_1)])
def test_net_offloads_of_one_pair(tail: bytes) -> None:
    part = build.net(offloads=1 << 46)
    data = net_field(features=CTRL_GUEST_OFFLOADS, part=part, tail=tail)
    tree = whole("virtio-net", data)
    assert said(tree, "part", "curr_guest_offloads") == ("GUEST_UDP_TUNNEL_GSO",)


@pytest.mark.parametrize("version", [1, 2])
def test_net_rss_of_both_versions(version: int) -> None:
    rss = b"\1\1\0" + struct.pack(">I", 3) * version + struct.pack(">HH", 2, 0)
    rss += bytes(40) + struct.pack(">HH", 0, 1)
    tail = subsection("virtio-net-device/rss", rss, version)
    data = net_field(part=build.net(tail=tail), tail=build.features64(1 << 60))
    found = node(whole("virtio-net", data), "part", "virtio-net-device/rss")
    assert said(found, "runtime_hash_types") == ("IPv4", "TCPv4")
    assert ("supported_hash_types" in names(found)) == (version == 2)
    assert value(found, "indirections_table") == (0, 1)


def test_net_backend_state_is_payload() -> None:
    chunks = struct.pack(">I", 5) + b"state" + bytes(4)
    tail = subsection("virtio-net-device/backend", chunks, 0)
    tree = whole("virtio-net", net_field(part=build.net(tail=tail)))
    found = node(tree, "part", "virtio-net-device/backend", "backend", "chunk[0]")
    assert (found.value, found.kind) == (b"state", Kind.PAYLOAD)


@pytest.mark.parametrize("name", ["virtio-balloon-device", "vitio-balloon-device"])
def test_balloon_with_the_name_as_5_2_spells_it(name: str) -> None:
    part = bytes(8) + subsection("virtio-balloon-device/free-page-report", bytes(7) + b"\3")
    part += subsection(f"{name}/page-poison", b"\0\0\0\xaa")
    data = build.virtio(build.pci(), config=bytes(16), part=part, tail=build.features64(0))
    tree = whole("virtio-balloon", data)
    assert value(tree, "part", f"{name}/page-poison", "poison_val") == 0xAA
    hint = ("part", "virtio-balloon-device/free-page-report", "free_page_hint_status")
    assert said(tree, *hint) == ("DONE",)


def blk_field(*requests: bytes, **more: Any) -> bytes:
    part = b"".join(b"\1" + request for request in requests) + b"\0"
    return build.virtio(build.pci(0x1042, vectors=2), part=part, **more)


IN, OUT = [(0x5000, 512), (0x6000, 1)], [(0x7000, 16)]


@pytest.mark.parametrize("order", ["<", ">"])
def test_blk_request_in_flight(order: str) -> None:
    queues = [build.queue(256, vector=0)]
    data = blk_field(build.element(IN, OUT, order=order), queues=queues)
    found = node(whole("virtio-blk", data, version=2), "part", "requests", "[0]", "element")
    assert value(found, "index") == 7
    assert value(found, "in_addr") == (0x5000, 0x6000)
    assert value(found, "in_sg") == (0, 512, 0, 1)
    assert value(found, "out_addr") == (0x7000,)


def test_blk_requests_of_packed_rings_and_several_queues() -> None:
    request = struct.pack(">I", 1) + build.element(IN, OUT, ndescs=3)
    queues = [build.queue(256, vector=0)] * 2
    tail = build.features64(1 << 34) + build.packed_virtqueues()
    tree = whole("virtio-blk", blk_field(request, request, queues=queues, tail=tail))
    found = node(tree, "part", "requests", "[1]")
    assert value(found, "vq_index") == 1
    assert value(found, "element", "ndescs") == 3


def test_serial_ports() -> None:
    port = struct.pack(">IBBI", 0, 1, 1, 0)
    busy = struct.pack(">IBBIIQ", 1, 1, 0, 1, 2, 3) + build.element([], OUT)
    part = struct.pack(">HHIIII", 0, 0, 40, 3, 0, 2) + port + busy
    queues = [build.queue(32)] * (2 * (40 + 1))
    data = build.virtio(build.pci(), config=bytes(12), queues=queues, part=part)
    found = node(whole("virtio-console", data, version=3), "part", "ports")
    assert value(found, "ports_map") == (3, 0)
    assert value(found, "port[1]", "iov_offset") == 3
    assert value(found, "port[1]", "element", "out_addr") == (0x7000,)


@pytest.mark.parametrize("version", [1, 2])
def test_iommu_domains(version: int) -> None:
    bypass = b"\1" if version == 2 else b""
    mapping = b"\1" + struct.pack(">QQQI", 0x1000, 0x1FFF, 0x8000, 3)
    domain = struct.pack(">II", 9, 1) + mapping + b"\0" + b"\1\0\0\0\x18\0" + bypass
    part = struct.pack(">I", 1) + b"\1" + struct.pack(">Q", 9) + domain + b"\0" + bypass
    data = build.virtio(build.pci(), config=bytes(40), part=part, tail=build.features64(0))
    tree = whole("virtio-iommu", data, version=version)
    found = node(tree, "part", "domains", "[0]", "value")
    assert said(found, "mappings", "[0]", "flags") == ("READ", "WRITE")
    assert value(found, "endpoint_list", "[0]", "id") == 0x18
    assert ("bypass" in names(found)) == (version == 2)


def test_mem_in_both_forms() -> None:
    early = build.virtio(build.pci(), config=bytes(56), part=bytes(16))
    assert "bitmap" not in names(node(whole("virtio-mem", early), "part"))
    sizes = struct.pack(">QQQIQQQ", 1 << 32, 200 << 21, 1 << 21, 0, 0, 0, 0)
    data = build.virtio(build.pci(), config=bytes(56), part=sizes + bytes(31) + b"\1")
    assert value(whole("virtio-mem", data), "part", "bitmap") == (0, 0, 0, 1)


def test_nsm_registers() -> None:
    data = build.virtio(build.pci(), part=(b"\1" + bytes(48)) * 32)
    assert value(whole("virtio-nsm", data), "part", "pcrs", "[31]", "locked") is True


def gpu(state: bytes, *, outer: bytes = b"", blob: int = 0) -> tuple[Field, tuple[str, ...]]:
    data = build.virtio(build.pci(), config=bytes(16))
    fields = [field("virtio", "virtio", len(data)), field("virtio-gpu", "virtio-gpu", len(state))]
    subs = None
    if blob:
        name = "virtio-gpu/blob"
        subs = [{"vmsd_name": name, "version": 1, "fields": [field(name, "blob", blob)]}]
    entry = device(PATH + "virtio-gpu", fields, vmsd="virtio-gpu", subsections=subs)
    body = full(1, PATH + "virtio-gpu", body=data + state + outer)
    found = clean(stream(body, description=vmdesc(entry)))
    tree, notices = found.decode(next(iter(found.sections())))
    return tree["body"], notices


@pytest.mark.parametrize("scanout", [40, 64])
def test_gpu_resources_and_scanouts(scanout: int) -> None:
    resource = struct.pack(">5IQI", 5, 4, 2, 2, 1, 0x9000, 32) + bytes(range(32))
    state = resource + bytes(4) + struct.pack(">II", 1, 2) + bytes(2 * scanout)
    blob = struct.pack(">IIIQI", 6, 4096, 1, 0xA000, 4096) + bytes(4)
    outer = subsection("virtio-gpu/blob", blob)
    tree, notices = gpu(state, outer=outer, blob=len(blob))
    assert notices == ()
    assert said(tree, "virtio-gpu", "resource[0]", "format") == ("B8G8R8X8_UNORM",)
    assert value(tree, "virtio-gpu", "resource[0]", "iov") == (0x9000, 32)
    assert value(tree, "virtio-gpu", "resource[0]", "pixels") == bytes(range(32))
    assert tally([tree]).raw == 0


@pytest.mark.parametrize("state", [b"", bytes(7), bytes(12) + bytes(9), b"\xff" * 40])
def test_gpu_damage_stays_raw(state: bytes) -> None:
    tree, notices = gpu(state)
    assert tally([tree]).raw == len(state)
    assert "'virtio-gpu' does not fit" in notices[0]


def test_codec_of_rows() -> None:
    how = codec("{u16,i8,u32}be[2]")
    data = b"\0\1\xff\0\0\0\2" * 2
    assert how.size == len(data)
    assert how.decode(data) == (1, -1, 2) * 2
    assert how.encode((1, -1, 2) * 2) == data
    assert codec("{u16}le[1]").decode(b"\1\0") == (1,)
    with pytest.raises(KeyError):
        codec("{u16,}be[1]")


# -- what is not known ----------------------------------------------------------------


def test_unknown_subsection_ends_at_the_next_known_one() -> None:
    tail = subsection("virtio/vendor", b"?" * 9) + subsection("virtio/started", b"\1")
    tree, notices = section("virtio-rng", build.virtio(build.pci(), tail=tail))
    assert value(tree, "virtio/vendor", "data") == b"?" * 9
    assert value(tree, "virtio/started", "started") is True
    assert "virtio/vendor" in notices[0]


def test_unknown_device_goes_by_its_pci_id() -> None:
    data = build.virtio(build.pci(0x1040 + 18), config=bytes(8), part=b"???")
    tree, notices = section("vendor-input", data)
    assert node(tree, "config").children[0].meaning == "virtio-input-select"
    assert node(tree, "part").kind is Kind.RAW
    assert len(notices) == 2


def test_part_that_does_not_fit_stays_raw_alone() -> None:
    data = net_field(part=build.net()[:-1], tail=subsection("virtio/started", b"\1"))
    tree, notices = section("virtio-net", data)
    assert node(tree, "part").kind is Kind.RAW
    assert value(tree, "virtio/started", "started") is True
    assert "part of net does not fit" in notices[0]


def test_too_many_queues() -> None:
    data = build.virtio(build.pci())[:-4] + struct.pack(">I", 1025)
    tree, notices = section("virtio-rng", data)
    assert tally([tree]).raw == len(data)
    assert "at most 1024" in notices[0]


ENDLESS = {
    "virtio-iommu": struct.pack(">I", 60_000) + (b"\1" + bytes(18)) * 60_000,
    "virtio-console": struct.pack(">HHII", 0, 0, 0, 60_000) + bytes(600_000),
    "virtio-net": build.net()
    + subsection("virtio-net-device/backend", (b"\0\0\0\1x") * 60_000 + bytes(4), 0),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_lists_have_a_limit(name: str) -> None:
    tree, notices = section(name, build.virtio(build.pci(), part=ENDLESS[name]))
    assert node(tree, "part").kind is Kind.RAW
    assert any("more than" in notice or "at most" in notice for notice in notices)


def test_without_description_the_footer_bounds_it() -> None:
    data = net_field(queues=[build.queue(256, vector=0)], tail=build.features64(VERSION_1))
    tree = whole("virtio-net", data, version=11, described=False)
    assert said(tree, "virtio/64bit_features", "guest_features") == ("VERSION_1",)


def test_without_description_gpu_stays_raw() -> None:
    tree, notices = section("virtio-gpu", build.virtio(build.pci()), described=False)
    assert tree.kind is Kind.RAW
    assert any("without a description" in notice for notice in notices)


SAMPLES = {
    "virtio-net": net_field(
        queues=[build.queue(256, vector=0)],
        part=build.net([bytes(6)], pairs=(2, 2)),
        tail=build.features64(VERSION_1) + build.virtqueues((1, 2)) + build.modern_state(),
    ),
    "virtio-blk": blk_field(build.element(IN, OUT), queues=[build.queue(256, vector=0)]),
    "virtio-console": build.virtio(
        build.pci(),
        queues=[build.queue(32)] * 4,
        part=struct.pack(">HHIII", 0, 0, 1, 1, 1) + bytes(10),
    ),
    "virtio-iommu": build.virtio(build.pci(), config=bytes(40), part=bytes(6)),
}


@pytest.mark.parametrize("name", SAMPLES)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_cut_or_garbled_is_never_a_crash(name: str, data: st.DataObject) -> None:
    sample = bytearray(SAMPLES[name])
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, min(len(sample) - 1, 1200)))
        sample[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(sample)))
    changed = bytes(sample[:cut] if data.draw(st.booleans()) else sample)
    tree, _ = section(name, changed or b"\0")
    assert sum(leaf.size for leaf in leaves(tree)) == max(len(changed), 1)


def test_a_stream_cut_inside_is_told() -> None:
    data = stream_of("virtio-net", SAMPLES["virtio-net"])
    found = read(data[:3000])
    assert found.error is not None or list(found.sections())
    found.tally()
