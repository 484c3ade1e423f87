"""Feed mutated fixtures to everything that reads, and say which input broke it.

::

    python tests/property/fuzz.py --count 100000 --seed 1 --jobs 2

Each input has its own seed, `SEED:NUMBER`, with which it is made again:
``--only SEED:NUMBER`` runs just that one and shows the whole traceback,
``--save FILE`` keeps it. Exit 1 if any input ended in a traceback or a hang.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in ("tests", "fixtures/recipes", "proto", "formats", "."):
    sys.path.insert(0, str(ROOT / folder))

from fuzzing import bases, exercise, mutate  # noqa: E402

from checks import Hang, watchdog  # noqa: E402

ALARM_S = 10


def made(seed: int, number: int, pool: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """Give the input of this number: the base's name and the mutated bytes."""
    rng = random.Random(f"{seed}:{number}")
    name, data = pool[rng.randrange(len(pool))]
    return name, mutate(data, [other for _, other in pool], rng)


def run(seed: int, numbers: range, pool: list[tuple[str, bytes]], *, tell: bool) -> Counter[str]:
    """Run inputs; gives how many ended how, faults as ``FAULT ...``."""
    ends: Counter[str] = Counter()
    begin = last = time.monotonic()
    for number in numbers:
        name, data = made(seed, number, pool)
        started = time.monotonic()
        try:
            with watchdog(ALARM_S):
                ends[exercise(data)] += 1
        except (Exception, Hang) as fault:  # noqa: BLE001 (that is what is looked for)
            where = traceback.extract_tb(fault.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            text = f"FAULT {type(fault).__name__} at {place}: {fault}"
            print(f"{seed}:{number} from {name!r}: {text[:300]}", flush=True)
            ends["fault"] += 1
        if time.monotonic() - started > 1:
            slow = time.monotonic() - started
            print(f"{seed}:{number} from {name!r}: slow, {slow:.1f} s", flush=True)
        if tell and time.monotonic() - last > 30:
            last = time.monotonic()
            done = (number - numbers.start) // numbers.step + 1
            print(f"{done} of {len(numbers)} after {last - begin:.0f} s", file=sys.stderr)
    return ends


def show(seed: int, number: int, pool: list[tuple[str, bytes]], save: Path | None) -> int:
    """Run one input in the open."""
    name, data = made(seed, number, pool)
    print(f"{len(data)} bytes from {name!r}")
    if save is not None:
        save.write_bytes(data)
    with watchdog(ALARM_S):
        print(exercise(data))
    return 0


def forked(seed: int, count: int, jobs: int, pool: list[tuple[str, bytes]]) -> int:
    """Share the numbers among processes; gives the exit code."""
    children = []
    for job in range(jobs):
        child = os.fork()
        if child == 0:
            ends = run(seed, range(job, count, jobs), pool, tell=job == 0)
            print(f"job {job}: {dict(ends)}", flush=True)
            os._exit(1 if ends["fault"] else 0)
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


def main() -> int:
    parser = argparse.ArgumentParser(description="fuzz the readers with mutated fixtures")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", metavar="SEED:NUMBER")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    pool = sorted(bases().items())
    total = sum(len(data) for _, data in pool)
    print(f"{len(pool)} bases of {total // len(pool)} bytes on average")
    if options.only:
        seed, number = map(int, options.only.split(":"))
        return show(seed, number, pool, options.save)
    begin = time.monotonic()
    code = forked(options.seed, options.count, options.jobs, pool)
    print(f"{options.count} inputs in {time.monotonic() - begin:.0f} s, exit {code}")
    return code


if __name__ == "__main__":
    sys.exit(main())
