"""What `cprtools ram` costs, against plain copies of the same bytes and QEMU's own script.

``python tests/bench/ram.py [--dir DIR] [--sizes 1024,4096] [--runs 5]`` makes the
streams with a real QEMU, measures and prints a table in Markdown. DIR should be
a tmpfs; streams that lie there are used again, all others are removed once they
were measured. A guest of 4 GiB needs 13 GiB there. Runs are taken in turn, so
that a busy moment hits all commands alike; the figures are medians, peaks the
largest. A bar that was missed is marked and ends in the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "bench"), str(ROOT / "fixtures" / "recipes")]

import ram_streams  # noqa: E402
from ram_streams import KINDS  # noqa: E402

import qemus  # noqa: E402

BENCH = ROOT / "tests" / "bench"
MIB = 1 << 20
SCRIPT_QEMU = "10.0"
PIPE_MIB = 16 << 10
UNTOUCHED_GIB = 64
MOST_PEAK_MIB = 60.0
LEAST_SPEED = 3e9


@dataclass(frozen=True)
class Cost:
    """What one command took: seconds, and the most memory of its own process."""

    seconds: float
    peak_mib: float


@dataclass(frozen=True)
class Command:
    """A command to measure.

    Attributes:
        argv: the command.
        feed: another one that writes its standard input.
        folder: where it runs.
        makes: a file or folder that it makes; removed before and after each run.
    """

    argv: Sequence[str | Path]
    feed: Sequence[str | Path] = ()
    folder: Path | None = None
    makes: Path | None = None

    def run(self) -> Cost:
        self.clean()
        if self.makes is not None and self.folder == self.makes:
            self.makes.mkdir()
        began = time.perf_counter()
        feeder = None
        if self.feed:
            feeder = subprocess.Popen(self.feed, stdout=subprocess.PIPE, env=environment())
        process = subprocess.Popen(
            self.argv,
            cwd=self.folder,
            env=environment(),
            stdin=subprocess.DEVNULL if feeder is None else feeder.stdout,
            stdout=subprocess.DEVNULL,
        )
        if feeder is not None and feeder.stdout is not None:
            feeder.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode or (feeder is not None and feeder.wait()):
            raise SystemExit(f"failed: {shlex.join(map(str, self.argv))}")
        return Cost(seconds, usage.ru_maxrss / 1024)

    def clean(self) -> None:
        if self.makes is not None and self.makes.is_dir():
            shutil.rmtree(self.makes)
        elif self.makes is not None:
            self.makes.unlink(missing_ok=True)


@dataclass
class Table:
    """The rows, printed as they come."""

    missed: int = 0
    _open: bool = False

    def row(self, what: str, cost: str, against: str, ratio: str, bar: str, *, met: bool) -> None:
        if not self._open:
            print("| what | s, peak MiB | against | ratio | bar | met |")
            print("| --- | --- | --- | --- | --- | --- |")
            self._open = True
        if not met:
            self.missed += 1
        verdict = ("yes" if met else "**no**") if bar else ""
        print(f"| {what} | {cost} | {against} | {ratio} | {bar} | {verdict} |", flush=True)

    def compare(
        self,
        what: str,
        costs: Mapping[str, Cost],
        against: str,
        bar: str,
        met: Callable[[float, float], bool],
        *,
        faster: bool = False,
        more: str = "",
    ) -> None:
        """Write a row of the command "ours" against another; `met` gets the seconds of both."""
        ours, other = costs["ours"], costs[against]
        ratio = other.seconds / ours.seconds if faster else ours.seconds / other.seconds
        fine = met(ours.seconds, other.seconds)
        small = ours.peak_mib <= MOST_PEAK_MIB
        self.row(
            what + more,
            f"{ours.seconds:.3f}, {ours.peak_mib:.0f}",
            f"{against} {other.seconds:.3f}",
            f"{ratio:.2f}{' x as fast' if faster else ''}",
            f"{bar}; {MOST_PEAK_MIB:.0f} MiB" if bar else "",
            met=fine and small,
        )


@dataclass
class Bench:
    """The measurements of one run of this script."""

    folder: Path
    runs: int
    table: Table = field(default_factory=Table)

    def measure(self, commands: Mapping[str, Command], runs: int = 0) -> dict[str, Cost]:
        """Run commands in turn; give medians of the times and the largest peaks."""
        found: dict[str, list[Cost]] = {name: [] for name in commands}
        for _ in range(runs or self.runs):
            for name, command in commands.items():
                found[name].append(command.run())
                command.clean()
        return {
            name: Cost(statistics.median(x.seconds for x in costs), max(x.peak_mib for x in costs))
            for name, costs in found.items()
        }

    # -- the table of blocks --------------------------------------------------------

    def scan(self, stream: Path, mib: int, kind: str) -> None:
        """The whole command against `cat`, and against the script where it takes long."""
        size = stream.stat().st_size
        commands = {"ours": cprtools("ram", stream, "--json"), "cat": Command(["cat", stream])}
        if mib >= 4096 and (script := analyze()) is not None:
            commands["analyze-migration.py"] = Command(
                [sys.executable, script, "-d", "state", "-f", stream]
            )
        costs = self.measure(commands)
        what = f"table, {mib // 1024} GiB, {KINDS[kind]}"
        bar, least = "1.6 x + 0.2 s", 0.0
        if kind == "m" and mib >= 4096:  # of a short run the start is too large a part
            bar, least = f"{bar}; {LEAST_SPEED / 1e9:.0f} GB/s", LEAST_SPEED
        self.table.compare(
            what,
            costs,
            "cat",
            bar,
            lambda a, b: a <= 1.6 * b + 0.2 and size >= least * a,
            more=f" ({size / costs['ours'].seconds / 1e9:.1f} GB/s)",
        )
        if "analyze-migration.py" in costs:
            self.table.compare(
                what, costs, "analyze-migration.py", "4 x", lambda a, b: b >= 4 * a, faster=True
            )

    def pipes(self, stream: Path, kind: str) -> None:
        """Standard input, plain and compressed."""
        packed = self.folder / f"{stream.name}.zst"
        subprocess.run(["zstd", "-qf", "-1", "-T2", stream, "-o", packed], check=True)
        plain = {
            "ours": cprtools("ram", "-", "--json", feed=["cat", stream]),
            "cat \\| cat": Command(["cat"], feed=["cat", stream]),
        }
        costs = self.measure(plain)
        what = f"1 GiB, {KINDS[kind]}"
        self.table.compare(f"table, stdin, {what}", costs, "cat \\| cat", "none", lambda *_: True)
        unpack = Command(["zstd", "-dc", packed])
        for name, command in (
            ("zstd on stdin", cprtools("ram", "-", "--json", feed=["cat", packed])),
            ("zstd file", cprtools("ram", packed, "--json")),
        ):
            costs = self.measure({"ours": command, "zstd -dc": unpack})
            self.table.compare(f"table, {name}, {what}", costs, "zstd -dc", "none", lambda *_: True)
        packed.unlink()

    def big_pipe(self) -> None:
        """A guest of 16 GiB through a pipe: the memory is what counts."""
        feed = [sys.executable, BENCH / "ram_streams.py", str(PIPE_MIB)]
        commands = {"ours": cprtools("ram", "-", "--json", feed=feed)}
        commands["writer \\| cat"] = Command(["cat"], feed=feed)
        costs = self.measure(commands, 1)
        what = f"table, stdin, {PIPE_MIB // 1024} GiB, half zero, written by Python"
        self.table.compare(what, costs, "writer \\| cat", "none", lambda *_: True)

    def untouched(self) -> None:
        """A mapped-ram file that is a hole."""
        stream = ram_streams.make_untouched(self.folder, UNTOUCHED_GIB)
        commands = {"ours": cprtools("ram", stream, "--json"), "python": Command(python("-c", ""))}
        what = f"table, mapped-ram, {UNTOUCHED_GIB} GiB untouched"
        costs = self.measure(commands)
        self.table.compare(what, costs, "python", "0.3 s", lambda a, _: a <= 0.3)
        stream.unlink()

    # -- extraction ------------------------------------------------------------------

    def extract(self, stream: Path, memory: Path, what: str, *, with_script: bool) -> None:
        """Extraction to new files, against copies to new files."""
        out, copy = self.folder / "out", self.folder / "copy"
        block = out / "pc.ram.raw"
        ours = cprtools("ram", stream, "--extract", out, makes=out)
        ours.run()
        subprocess.run(["cmp", block, memory], check=True)
        status = block.stat()
        holes = f"; {status.st_blocks * 512 // MIB} of {status.st_size // MIB} MiB on disk"
        plain = self.folder / "plain"
        subprocess.run(["cp", "--sparse=never", memory, plain], check=True)
        commands = {
            "ours": ours,
            "cp of the block": Command(["cp", "--sparse=never", plain, copy], makes=copy),
            "cp of the stream": Command(["cp", "--sparse=never", stream, copy], makes=copy),
        }
        if with_script and (script := analyze()) is not None:
            argv = [sys.executable, script, "-x", "-f", stream]
            commands["analyze-migration.py -x"] = Command(argv, folder=out, makes=out)
        costs = self.measure(commands)
        plain.unlink()
        for against in commands:
            if against.startswith("cp"):
                self.table.compare(
                    f"extract, {what}", costs, against, "1.5 x", lambda a, b: a <= 1.5 * b,
                    more=holes,
                )  # fmt: skip
            elif against != "ours":
                self.table.compare(
                    f"extract, {what}", costs, against, "2.5 x", lambda a, b: b >= 2.5 * a,
                    faster=True,
                )  # fmt: skip

    # -- in process --------------------------------------------------------------------

    def api(self, stream: Path, kind: str) -> None:
        """What a page costs in Python."""
        argv = python(BENCH / "ram_api.py", stream, str(self.runs))
        done = subprocess.run(argv, stdout=subprocess.PIPE, env=environment(), check=True)
        cost = json.loads(done.stdout)
        what = f"1 GiB, {KINDS[kind]}"
        self.table.row(
            f"index, in process, {what}",
            f"{cost['index']:.2f} us a page",
            f"reading {cost['plain']:.2f}",
            f"{cost['beyond']:.2f} us beyond",
            "0.3 us beyond",
            met=cost["beyond"] <= 0.3,
        )
        self.table.row(
            f"read all, in process, {what}",
            f"{cost['read']:.2f} us a page",
            "",
            "",
            "1 us",
            met=cost["read"] <= 1,
        )


def python(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, *arguments]


def cprtools(
    *arguments: str | Path, feed: Sequence[str | Path] = (), makes: Path | None = None
) -> Command:
    return Command(python("-m", "cprtools", *arguments), feed=feed, makes=makes)


def environment() -> dict[str, str]:
    """Ours, with the project's sources; bytecode is kept, as for an installed program."""
    paths = os.pathsep.join(str(ROOT / name) for name in (".", "formats", "proto"))
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": paths, "PYTHONPYCACHEPREFIX": CACHE.name}


def analyze() -> Path | None:
    """QEMU's script, if its source package can be had."""
    try:
        return qemus.source_package(SCRIPT_QEMU) / "scripts" / "analyze-migration.py"
    except qemus.QemuUnavailable:
        return None


def run(bench: Bench, sizes: Sequence[int]) -> None:
    """Measure all; each stream is made, measured and removed before the next."""
    for mib in sizes:
        for kind in KINDS:
            with Made(bench.folder) as made:
                stream = made.stream(mib, kind)
                bench.scan(stream, mib, kind)
                if mib <= 1024 or kind == "a":
                    what = f"{mib // 1024} GiB, {KINDS[kind]}"
                    memory = ram_streams.guest_memory(bench.folder, mib, kind)
                    bench.extract(stream, memory, what, with_script=mib <= 1024)
                if mib <= 1024:
                    bench.api(stream, kind)
                    bench.pipes(stream, kind)
    with Made(bench.folder) as made:
        stream = made.stream(1024, "b", mapped=True)
        memory = ram_streams.guest_memory(bench.folder, 1024, "b")
        what = f"mapped-ram, 1 GiB, {KINDS['b']}"
        bench.extract(stream, memory, what, with_script=False)  # the script reads no mapped-ram
    bench.untouched()
    bench.big_pipe()


class Made:
    """The files of one stream; those that were not there before are removed at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        self._before = set(self._folder.iterdir())
        return self

    def stream(self, mib: int, kind: str, *, mapped: bool = False) -> Path:
        return ram_streams.make(self._folder, mib, kind, mapped=mapped)

    def __exit__(self, *_: object) -> None:
        for path in set(self._folder.iterdir()) - self._before:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dir", type=Path, help="where the streams go; default: on /dev/shm")
    parser.add_argument("--sizes", default="1024,4096", help="of the guests, in MiB")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as temporary:
        bench = Bench((arguments.dir or Path(temporary)).resolve(), arguments.runs)
        bench.folder.mkdir(exist_ok=True)
        run(bench, sizes)
    return 1 if bench.table.missed else 0


CACHE = tempfile.TemporaryDirectory(prefix="cprtools-bench-")

if __name__ == "__main__":
    sys.exit(main())
