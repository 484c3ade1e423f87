"""How long cprtools takes to start, as a ratio to ``python -c pass``.

Run it on a quiet machine: ``python tests/bench/startup.py [ROUNDS]``. Rounds
are taken in turn, so that a busy moment hits all commands alike; the figure
is the best of the rounds. Bounds: ``--version`` 0.12 s, first output of
``inspect`` on a small stream 0.3 s.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "tests" / "cprtools"))


def first_output(command: list[str], env: dict[str, str]) -> float:
    """Seconds up to the first byte of output, or to the end if there is none."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        seconds = time.perf_counter() - began
        process.stdout.read()
    assert process.returncode == 0
    return seconds


def main() -> None:
    from tool import sample

    paths = os.pathsep.join(str(ROOT / name) for name in (".", "formats", "proto"))
    env = {**os.environ, "PYTHONPATH": paths}
    python = [sys.executable]
    with tempfile.NamedTemporaryFile(suffix=".sav") as file:
        file.write(sample())
        file.flush()
        commands = {
            "python -c pass": [*python, "-c", "pass"],
            "cprtools --version": [*python, "-m", "cprtools", "--version"],
            "cprtools inspect, first output": [*python, "-m", "cprtools", "inspect", file.name],
        }
        best = dict.fromkeys(commands, float("inf"))
        for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 10):
            for name, command in commands.items():
                best[name] = min(best[name], first_output(command, env))
    bare = best["python -c pass"]
    for name, seconds in best.items():
        print(f"{name:<32} {seconds:6.3f} s   x {seconds / bare:5.1f}")


if __name__ == "__main__":
    main()
