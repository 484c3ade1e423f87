"""How much of what QEMU has is found, and how much of what is found is real.

``python tests/oracle/accuracy.py`` asks all machine types of all versions for a
dump, compares, looks up in QEMU's source what was not printed, and prints a table
in Markdown. Whatever is wrong is listed below it, and the exit code is then 1.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("tests/oracle", "tests", "fixtures/recipes")
sys.path[:0] = [str(ROOT / folder) for folder in FOLDERS]

import dumps  # noqa: E402
import sources  # noqa: E402
import test_schema_arm64 as arm64  # noqa: E402

import qemus  # noqa: E402
import qemus_foreign  # noqa: E402


@dataclass
class Measured:
    """One row; descriptions that are alike in all that a dump prints count once."""

    version: str
    target: str
    host: str
    machines: int
    printed: int
    recalled: int
    found: int
    confirmed: int
    wrong: list[str]
    excused: int = 0

    def row(self) -> str:
        besides = self.found - self.recalled
        recall = f"{self.recalled}/{self.printed} ({100 * self.recalled / self.printed:.1f}%)"
        if self.excused:
            recall += f", {self.excused} not built for this host"
        right = self.recalled + self.confirmed
        precision = f"{right}/{self.found} ({100 * right / self.found:.1f}%)"
        return (
            f"| {self.version} | {self.target} | {self.host} | {self.machines} | {recall} | "
            f"{besides} | {self.confirmed} | {precision} |"
        )


def measure(version: str, target: str, folder: Path) -> Measured:
    """A build for this host against the dumps of all its machine types."""
    names, wanted, failed = dumps.machines(version, target), set[dumps.Node](), []
    for name in names:
        try:
            wanted |= dumps.wanted_nodes(dumps.dumped(version, target, name, folder))
        except subprocess.CalledProcessError:
            failed.append(name)
    schema = dumps.found(version, target).schema
    have = dumps.have_nodes(schema, version)
    wrong = [f"machine type {name} does not start" for name in failed]
    wrong += [f"not found: {node[0]}" for node in wanted - have.keys()]
    return _count(version, target, "amd64", len(names) - len(failed), wanted, have, wrong)


def measure_foreign(version: str, target: str, folder: Path) -> Measured:
    """A build for arm64 against a dump of the build for this host."""
    wanted = dumps.wanted_nodes(dumps.dumped(version, target, "none", folder))
    schema = dumps.found_foreign(version, target).schema
    have = {
        arm64.smaller(version, node): key for node, key in dumps.have_nodes(schema, version).items()
    }
    missing = {node[0] for node in wanted - have.keys()}
    wrong = [f"not found: {name}" for name in missing if not arm64.expected_missing(name)]
    made = _count(version, target, qemus_foreign.ARCH, 1, wanted, have, wrong)
    made.excused = len(wanted - have.keys()) - len(wrong)
    return made


def _count(
    version: str,
    target: str,
    host: str,
    machines: int,
    wanted: set[dumps.Node],
    have: dict[dumps.Node, str],
    wrong: list[str],
) -> Measured:
    found = dumps.found if host == "amd64" else dumps.found_foreign
    schema = found(version, target).schema
    besides = [key for node, key in have.items() if node not in wanted]
    strange = sources.unconfirmed(schema, besides, version)
    return Measured(
        *(version, target, host, machines, len(wanted), len(wanted & have.keys())),
        found=len(have),
        confirmed=len(besides) - len(strange),
        wrong=[*wrong, *(f"false, or not in the source: {name}" for name in strange)],
    )


def everything(folder: Path) -> Iterator[Measured]:
    for version in qemus.VERSIONS:
        for target in ("x86_64", *dumps.TARGETS.get(version, ())):
            yield measure(version, target, folder)
    for version, target in arm64.CASES:
        yield measure_foreign(version, target, folder)


def main() -> int:
    print(
        "| QEMU | target | host | machine types | recall of those printed | not printed |", end=""
    )
    print(" of these in the source | precision |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for one in everything(Path(folder)):
            print(one.row(), flush=True)
            wrong += [f"{one.version} {one.target} {one.host}: {what}" for what in one.wrong]
    print("\n" + "\n".join(f"- {what}" for what in wrong) if wrong else "\nNothing is wrong.")
    return bool([what for what in wrong if "does not start" not in what])


if __name__ == "__main__":
    sys.exit(main())
