"""Random damage ends in our error or in success, in time, whatever it hits."""

from __future__ import annotations

import random
from functools import cache

from fuzzing import bases, exercise, exercise_ram, mutate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checks import watchdog

OURS = settings(
    deadline=None,  # the watchdog's is harder
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize=True,
)


@cache
def pool() -> list[bytes]:
    return [data for _, data in sorted(bases(every=20).items()) if data]


def run(data: bytes) -> None:
    with watchdog(5):
        assert exercise(data) in ("good", "damaged", "refused")


base = st.deferred(lambda: st.sampled_from(pool()))


@settings(OURS, max_examples=400)
@given(base, st.data())
def test_flipped_bits(data: bytes, draw: st.DataObject) -> None:
    changed = bytearray(data)
    bits = draw.draw(st.lists(st.integers(0, 8 * len(data) - 1), min_size=1, max_size=20))
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    run(bytes(changed))


@settings(OURS, max_examples=300)
@given(base, st.data())
def test_changed_inserted_and_deleted_bytes(data: bytes, draw: st.DataObject) -> None:
    start = draw.draw(st.integers(0, len(data)))
    stop = draw.draw(st.integers(start, min(start + 64, len(data))))
    run(data[:start] + draw.draw(st.binary(max_size=64)) + data[stop:])


@settings(OURS, max_examples=200)
@given(st.binary(max_size=400))
def test_any_bytes_behind_a_header(data: bytes) -> None:
    run(b"QEVM\0\0\0\3" + data)
    run(b"QCPR\0\0\0\1" + data)
    run(data)


@settings(OURS, max_examples=400)
@given(st.integers(0, 1 << 32))
def test_mutated_structure(seed: int) -> None:
    rng = random.Random(seed)
    run(mutate(rng.choice(pool()), pool(), rng))


@settings(OURS, max_examples=400)
@given(st.integers(0, 1 << 32))
def test_memory_of_a_mutated_structure(seed: int) -> None:
    rng = random.Random(seed)
    with watchdog(5):
        exercise_ram(mutate(rng.choice(pool()), pool(), rng))
