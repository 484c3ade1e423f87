"""What reading a schema out of a binary costs, against `cat` and `readelf -r` of the same file.

``python tests/bench/schema.py [--runs 5]`` reads each QEMU that the tests know, as
`cprtools schema` does where nothing was read before, and prints a table in
Markdown. Commands are run in turn, so that a busy moment hits all alike; the
figures are medians, peaks the largest. A binary that takes longer than 1.5 s or
more than 150 MiB is marked, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("tests/oracle", "fixtures/recipes")]

import dumps  # noqa: E402

import qemus  # noqa: E402
import qemus_foreign  # noqa: E402

MIB = 1 << 20
MOST_SECONDS = 1.5
MOST_PEAK_MIB = 150.0
BESIDES = (("10.0", "aarch64"),)


@dataclass(frozen=True)
class Cost:
    """Seconds, and the most memory that one process took."""

    seconds: float
    peak_mib: float


def cost(line: Sequence[str | Path], folder: str) -> Cost:
    """Run a command to its end."""
    paths = os.pathsep.join(str(ROOT / name) for name in ("", "formats", "proto"))
    env = {**os.environ, "PYTHONPATH": paths, "XDG_CACHE_HOME": folder, "LC_ALL": "C"}
    began = time.perf_counter()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(map(str, line))}")
    return Cost(seconds, usage.ru_maxrss / 1024)


def commands(program: Path) -> dict[str, list[str | Path]]:
    ours: list[str | Path] = [sys.executable, "-m", "cprtools", "schema", "--no-modules", program]
    return {
        "cold": [*ours, "--no-cache"],
        "kept": ours,
        "cat": ["cat", program],
        "readelf": ["readelf", "-rW", program],
    }


def measure(program: Path, runs: int) -> dict[str, Cost]:
    """Each command that many times, in turn; the first round warms the page cache."""
    seen: dict[str, list[Cost]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for at in range(runs + 1):
            for name, line in commands(program).items():
                made = cost(line, folder)
                if at:
                    seen.setdefault(name, []).append(made)
    return {
        name: Cost(
            statistics.median(one.seconds for one in costs), max(one.peak_mib for one in costs)
        )
        for name, costs in seen.items()
    }


def programs() -> Iterator[tuple[str, Path]]:
    for version, target in (*((one, "x86_64") for one in qemus.VERSIONS), *BESIDES):
        yield f"{version} {target}", dumps.files_of(version, target)[0]
    for version in qemus_foreign.PACKAGES:
        for target in ("x86_64", "aarch64"):
            name = f"{version} {target}, for {qemus_foreign.ARCH} hosts"
            yield name, qemus_foreign.foreign_files(version, target)[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    print("| binary | MiB | cold, s | peak, MiB | to `cat` | to `readelf -r` | kept, s | met |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    missed = 0
    for name, program in programs():
        found = measure(program, runs)
        cold = found["cold"]
        met = cold.seconds <= MOST_SECONDS and cold.peak_mib <= MOST_PEAK_MIB
        missed += not met
        ratios = (cold.seconds / found[other].seconds for other in ("cat", "readelf"))
        print(
            f"| {name} | {program.stat().st_size / MIB:.0f} | {cold.seconds:.2f} "
            f"| {cold.peak_mib:.0f} | {' | '.join(f'{ratio:.1f}' for ratio in ratios)} "
            f"| {found['kept'].seconds:.2f} | {'yes' if met else '**no**'} |",
            flush=True,
        )
    return missed


if __name__ == "__main__":
    sys.exit(bool(main()))
