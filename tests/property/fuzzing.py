"""What the property tests and fuzz.py share: small bases, mutations, and one run over an input.

A base is a whole file of a few KB: a fixture as it is where that is small, and
else one device section of a fixture with its description, framed anew. So a
run takes a few milliseconds and each rule gets its share of the mutations.
"""

from __future__ import annotations

import json
import lzma
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import cprtools
from builders import migration as build
from builders.migration import Pairs
from checks import entries, fixture_path
from cprformats.encode import encode
from cprformats.errors import FormatError
from cprformats.fields import leaves
from cprformats.guest import cpu_states, elf_core
from cprformats.memory.census import Census
from cprformats.migration import MigrationStream, Piece, Section, read_stream
from cprformats.source import BytesSource
from cprtools.inspector.select import Selection
from cprtools.memory.looking import changes, search
from cprtools.memory.opening import Memory, RamFile, open_memory
from cprtools.memory.outcome import make_outcome
from cprtools.memory.physical import PhysicalMemory, find_layout
from cprtools.report.document import DocumentStyle, write_document
from cprtools.report.json_out import JsonEmitter

__all__ = ["bases", "exercise", "exercise_ram", "mutate"]

#: A base is no longer than this.
LARGEST = 24_000
MOST_LEAVES = 600
Name = str
Rng = random.Random


# -- bases ------------------------------------------------------------------------


def bases(every: int = 1) -> dict[Name, bytes]:
    """Small files by name: those that are small as they are, and carved sections.

    Args:
        every: carve only each so-many-th of the fixtures.
    """
    found: dict[Name, bytes] = {}
    streams = []
    for name, entry in sorted(entries().items()):
        if not fixture_path(name).exists():
            continue  # test_corpus.py says so
        data = fixture_path(name).read_bytes()
        if entry["kind"] in ("migration", "xen"):
            if name.endswith((".sav.xz", ".bin.xz")) and entry["bytes"] < 60_000:
                streams.append(name)
        elif name.endswith(".xz"):
            plain = lzma.decompress(data)
            found[f"{name}, plain"] = plain[:LARGEST]
            if len(plain) <= 4 * LARGEST:
                found[name] = data
        elif len(data) <= LARGEST:
            found[name] = data
    for name in streams[::every]:
        _carve(name, lzma.decompress(fixture_path(name).read_bytes()), found)
    found["built"] = _built()
    return found


def _carve(name: Name, data: bytes, found: dict[Name, bytes]) -> None:
    """Make a stream of its own of each device section that no stream before had."""
    stream = read_stream(BytesSource(data))
    release = name.rpartition("/")[2].partition("-")[0]
    front = b"".join(
        data[x.field.offset : x.field.end]
        for x in stream.items
        if isinstance(x, Piece) and x.name in ("header", "configuration")
    )
    texts = _descriptions(data, stream)
    for section in stream.sections():
        key = (section.idstr, section.instance_id)
        vmsd = section.description.vmsd.vmsd_name if section.description else section.idstr
        label = f"{release} {vmsd}"
        if section.idstr == "ram" or label in found:
            continue
        if sum(1 for _ in leaves(stream.decode(section)[0])) > MOST_LEAVES:
            continue
        made = _section_stream(front, data[section.offset : section.end], texts.get(key))
        if len(made) <= LARGEST:
            found[label] = made
    ram = b"".join(data[x.offset : x.end] for x in stream.sections() if x.idstr == "ram")
    if len(ram) < LARGEST:
        found[f"ram of {name}"] = front + ram + build.eof()


def _descriptions(data: bytes, stream: MigrationStream) -> dict[tuple[str, int], Any]:
    piece = next((x for x in stream.items if isinstance(x, Piece) and x.name == "vmdesc"), None)
    if piece is None:
        return {}
    text = data[piece.field.offset + 5 : piece.field.end].decode()
    top = dict(json.loads(text, object_pairs_hook=Pairs))
    return {(dict(x)["name"], dict(x)["instance_id"] % (1 << 32)): x for x in top["devices"]}


def _section_stream(front: bytes, section: bytes, description: Any) -> bytes:
    end = build.eof() if description is None else build.eof() + build.vmdesc(description)
    return front + section + end


def _built() -> bytes:
    """A stream with every kind of part and of RAM record."""
    ram = build.block_list(build.block("r", 8 * build.PAGE)) + build.zero_page(0, "r")
    ram += build.xbzrle_page(4096) + build.compressed_page(8192) + build.zero_page(12288)
    fields = [build.field("a", "uint8", 1), build.field("b", "uint16", 2, array_len=3)]
    return build.stream(
        build.configuration(target_page_bits=12, capabilities=["x"], uuid=bytes(16)),
        build.ping(1),
        build.postcopy_advise(),
        build.start(2, body=ram + build.eos()),
        build.discard("r", [(0, 4096)]),
        build.packaged(build.command(4), build.full(3, "in", body=bytes(7)), build.command(5)),
        build.end(2, body=build.ram_mark(0x200) + build.eos()),
        build.full(4, "dev", body=bytes(7)),
        description=build.vmdesc(build.device("in", fields), build.device("dev", fields)),
        padding=bytes(8),
    )


# -- mutations ----------------------------------------------------------------------

_EXTREMES = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\1"]
_EXTREMES += [b"\0\0\xff\xff", b"\xff", b"\0", b"\5", b"\x7e", b"\xff" * 8, b"\0\1\0\0"]


def mutate(data: bytes, others: list[bytes], rng: Rng) -> bytes:
    """Change a file in one to four ways."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        data = rng.choice(_WAYS)(data, others, rng)
    return data[: 4 * LARGEST]


def _flip(data: bytes, _: list[bytes], rng: Rng) -> bytes:
    changed = bytearray(data)
    for _number in range(rng.choice((1, 1, 2, 8, 40))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _extreme(data: bytes, _: list[bytes], rng: Rng) -> bytes:
    """Put an extreme number in the place of a length, a count or anything else."""
    at, value = rng.randrange(len(data) + 1), rng.choice(_EXTREMES)
    return data[:at] + value + data[at + len(value) :]


def _cut(data: bytes, _: list[bytes], rng: Rng) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _remove(data: bytes, _: list[bytes], rng: Rng) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice((1, 2, 4, 8, 30, 300)) :]


def _insert(data: bytes, _: list[bytes], rng: Rng) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 4, 30))) + data[at:]


def _repeat(data: bytes, _: list[bytes], rng: Rng) -> bytes:
    at, size = rng.randrange(len(data) + 1), rng.choice((1, 4, 30, 300))
    return data[:at] + data[at : at + size] * rng.choice((2, 5)) + data[at + size :]


def _splice(data: bytes, others: list[bytes], rng: Rng) -> bytes:
    """The front of one file and the tail of another."""
    other = rng.choice(others)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _swap(data: bytes, others: list[bytes], rng: Rng) -> bytes:
    """Put sections of two streams behind each other, in another order, or twice."""
    sections = [_sections(x) for x in (data, rng.choice(others))]
    pool = sections[0] + sections[1]
    if not pool:
        return _flip(data, others, rng)
    rng.shuffle(pool)
    end = data.rfind(b"\0\6")
    return data[:8] + b"".join(pool[: rng.randrange(1, 6)]) + data[max(end, 0) :]


def _sections(data: bytes) -> list[bytes]:
    try:
        stream = read_stream(BytesSource(data))
    except FormatError:
        return []
    return [data[x.offset : x.end] for x in stream.items if isinstance(x, Section)]


def _description(data: bytes, others: list[bytes], rng: Rng) -> bytes:
    """Change the vmdesc as JSON, and give it its new length."""
    at = data.rfind(b"\0\6")
    text = data[at + 6 :].rstrip(b"\0")
    try:
        top = json.loads(text, object_pairs_hook=Pairs)
    except ValueError:
        return _extreme(data, others, rng)
    for _ in range(rng.choice((1, 1, 3, 10))):
        nodes = list(_nodes(top))
        if nodes:
            _change(rng.choice(nodes), nodes, rng)
    return data[: at + 1] + build.vmdesc(raw=build._json(top))


def _nodes(value: Any) -> Iterator[Any]:
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            yield node
            stack += [x[1] for x in node] if isinstance(node, Pairs) else node


_NUMBERS = [0, 1, 2, 3, 4, 8, 255, 65_536, -1, 1 << 31, (1 << 32) - 1, 1 << 60, 1 << 70]
_WORDS = ["uint8", "uint16", "uint64", "bool", "struct", "buffer", "virtio", "pci config", "tmp"]
_WORDS += ["qtailq", "gtree", "nullptr", "ptr-marker", "msix state", "bitmap", "timer", "fpureg"]
_KEYS = ["array_len", "index", "size", "struct", "fields", "subsections", "vmsd_name", "version"]


def _change(node: Any, nodes: list[Any], rng: Rng) -> None:
    pairs = isinstance(node, Pairs)
    at = rng.randrange(len(node)) if node else None
    way = rng.randrange(6)
    if at is None or way == 0:
        value = rng.choice([*_NUMBERS, *_WORDS, [], None, 1.5, True])
        node.append((rng.choice(_KEYS), value) if pairs else value)
    elif way == 1:
        del node[at]
    elif way == 2:
        node.insert(at, node[rng.randrange(len(node))])
    elif way == 3 and not _inside(node, other := rng.choice(nodes)):
        node[at] = (node[at][0], other) if pairs else other
    else:
        old = node[at][1] if pairs else node[at]
        value = rng.choice(_WORDS if isinstance(old, str) else _NUMBERS)
        node[at] = (node[at][0], value) if pairs else value


def _inside(node: Any, other: Any) -> bool:
    """Say whether `other` holds `node`: putting it there would make a ring."""
    return any(x is node for x in _nodes(other))


_WAYS: list[Callable[[bytes, list[bytes], Rng], bytes]] = [
    _flip, _extreme, _extreme, _cut, _remove, _insert, _repeat, _splice, _swap, _description,
    _description,
]  # fmt: skip


# -- one run --------------------------------------------------------------------------


def exercise(data: bytes, *, report: bool = True) -> str:
    """Open, count, walk, write again and report one input; gives how it ended.

    Anything but a FormatError is a fault and goes through.
    """
    file = os.memfd_create("input")
    try:
        os.write(file, data)
        return _exercise(f"/proc/self/fd/{file}", report)
    finally:
        os.close(file)


def _exercise(path: str, report: bool) -> str:
    try:
        with cprtools.open(path, keep_all=True) as state:
            for layer in state.layers:
                counts = layer.content.tally()
                size = sum(len(piece) for piece in encode(layer.content.walk()))
                assert layer.content.error is not None or counts.total == size, (counts, size)
            if report:
                style = DocumentStyle(None, Selection())
                write_document(JsonEmitter(lambda _: None), path, state, style)
            return "damaged" if state.error is not None else "good"
    except FormatError as error:
        str(error)
        return "refused"


#: A block can claim any length; what is read of it is no more.
MOST_READ = 1 << 20


def exercise_ram(data: bytes) -> str:
    """Do with one input what ``cprtools ram --keep-going`` does; gives how it ended."""
    file = os.memfd_create("input")
    try:
        os.write(file, data)
        path = f"/proc/self/fd/{file}"
        _holes(path)
        with open_memory(path, keep_going=True) as memory:
            _look(memory)
            return "damaged" if memory.error is not None else "good"
    except FormatError as error:
        str(error)
        return "refused"
    finally:
        os.close(file)


def _holes(path: str) -> None:
    """List the holes: each is inside its block."""
    census = Census()
    with RamFile(path) as file:
        stream = file.read(census, keep_going=True)
        sizes = {block.idstr: block.size for block in census.report()}
        outcome = make_outcome(stream, census, (), dict.fromkeys(sizes, "file"))
        for hole in outcome.holes:
            assert 0 <= hole.address < hole.address + hole.size, hole
            assert hole.address < sizes[hole.block], hole


def _look(memory: Memory) -> None:
    for block in memory.values():
        size = min(block.size, MOST_READ)
        try:
            assert len(block.read(0, size)) == size
        except FormatError:
            continue  # a page that can't be decoded, or one of mapped-ram behind the end
        if block.size <= MOST_READ:
            assert list(changes(block, block)) == []
            next(search(block, b"QEMU"), None)
    try:
        layout = find_layout(memory.stream)
        cpus = cpu_states(memory.stream)
        elf_core(layout, cpus.states, arch="x86_64")
        for _ in PhysicalMemory(layout, memory).read(0, MOST_READ):
            pass
    except FormatError as error:
        str(error)
