"""Random damage to ELF files, built and real: our error or a schema, in time."""

from __future__ import annotations

import random
import re
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qemus
from builders.elf import Image, field_entry
from checks import watchdog
from cprformats.errors import FormatError
from cprformats.schema.elf import read_elf
from cprformats.schema.walk import read_schema
from cprformats.source import BytesSource

OURS = settings(
    deadline=None,  # the watchdog's is harder
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize=True,
)


@cache
def pool() -> tuple[bytes, ...]:
    """Small programs of both machines with each kind of relocation."""
    made = []
    for arch, kind in (("x86_64", "rela"), ("aarch64", "relr"), ("x86_64", "rel")):
        image = Image(arch=arch)
        entries = [field_entry(image, "x"), field_entry(image, "y", info="vmstate_info_bool")]
        late = image.description("timer/late", fields=image.fields([]), hooks=["needed"])
        image.description("timer", fields=image.fields(entries), subsections=[late])
        image.refer(image.description("stuck", unmigratable=1, version=0, minimum=0))
        made.append(image.build(kind))
    return tuple(made)


def run(data: bytes, seconds: float = 5) -> str:
    with watchdog(seconds):
        try:
            schema = read_schema([("it", BytesSource(data))])
        except FormatError:
            return "refused"
    assert schema.reason or schema.descriptions
    return "read" if schema.descriptions else "empty"


base = st.deferred(lambda: st.sampled_from(pool()))


@settings(OURS, max_examples=300)
@given(base, st.data())
def test_flipped_bits(data: bytes, draw: st.DataObject) -> None:
    changed = bytearray(data)
    bits = draw.draw(st.lists(st.integers(0, 8 * len(data) - 1), min_size=1, max_size=20))
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    run(bytes(changed))


@settings(OURS, max_examples=200)
@given(base, st.data())
def test_words_replaced_by_numbers_that_mean_something(data: bytes, draw: st.DataObject) -> None:
    numbers = st.sampled_from(
        [0, 1, 7, 64, 0xFFFF, 0x1000, 0x100000, 0x7FFFFFFF, 1 << 32, 1 << 63, (1 << 64) - 1]
    )
    changed = bytearray(data)
    for place in draw.draw(st.lists(st.integers(0, len(data) // 8 - 1), min_size=1, max_size=8)):
        changed[8 * place : 8 * place + 8] = draw.draw(numbers).to_bytes(8, "little")
    run(bytes(changed))


@settings(OURS, max_examples=150)
@given(base, st.data())
def test_any_end(data: bytes, draw: st.DataObject) -> None:
    size = draw.draw(st.integers(0, len(data)))
    run(data[:size] + draw.draw(st.binary(max_size=40)))


@settings(OURS, max_examples=100)
@given(st.binary(max_size=300))
def test_any_bytes_behind_a_header(data: bytes) -> None:
    run(b"\x7fELF\x02\x01\x01" + data)
    run(pool()[0][:64] + data)


@pytest.mark.live
@pytest.mark.parametrize("version", ["5.2", "11.1"])
def test_a_real_qemu_with_bytes_changed(version: str) -> None:
    """In its headers, its dynamic table, and all over its data."""
    wrapper = qemus.qemu_path(version).read_text()
    program = re.search(r"--library-path \S+ (\S+)", wrapper)
    assert program
    good = Path(program[1]).read_bytes()
    data_segments = [one for one in read_elf(BytesSource(good)).segments if one.writable]
    rng = random.Random(version)
    answers = []
    for at in range(24):
        bad = bytearray(good)
        places = [rng.randrange(64 + 12 * 56) for _ in range(at % 2)]
        for one in data_segments:
            places += [one.offset + rng.randrange(one.file_bytes) for _ in range(200 * (at % 3))]
        for place in places:
            bad[place] ^= 1 << rng.randrange(8)
        answers.append(run(bytes(bad), 60))
    assert answers.count("read") > 6
