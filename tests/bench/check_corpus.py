"""Compare an engine's answers with what real QEMUs did (fixtures/truth): per cause, and in all.

    python tests/bench/check_corpus.py --engine dry-run [--only PATTERN] [--json FILE]

A pair agrees if the truth is `loaded` and the verdict `loads`, or `failed` and `fails`.
Of failures, the first error finding should name the section, device or RAM block that the
target's stderr blames, and a cause of the same class.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in (".", "formats", "proto", "fixtures/recipes")]

import truth_table  # noqa: E402
from cprformats.errors import FormatError  # noqa: E402
from cprtools.check.engines import NAMES, Choice, answer  # noqa: E402
from cprtools.check.model import Answer, Case, Severity, Target  # noqa: E402
from qemus import qemu_path  # noqa: E402

#: Which codes belong to a cause of the truth table.
CAUSES = {
    "start": {"target-arguments", "target-host"},
    "machine-type": {"machine-type", "machine-unknown"},
    "configuration": {"configuration"},
    "capability": {"capability", "capability-unknown", "capability-refused", "postcopy"},
    "uuid": {"uuid"},
    "unknown-section": {"unknown-section"},
    "version": {"section-version"},
    "subsection": {"unknown-subsection"},
    "footer": {"section-footer"},
    "field": {"field-value"},
    "post-load": {"device-refused", "virtio-queues", "virtio-backend"},
    "pci-config": {"pci-config"},
    "features": {"virtio-features", "virtio-backend"},
    "queue-size": {"virtio-queues"},
    "ram-block": {"ram-block-unknown", "ram-block-page"},
    "ram-size": {"ram-block-size"},
    "ram-pages": {"ram-pages"},
    "unmigratable": {"unmigratable"},
    "command": {"command-unknown"},
    "damaged": {"not-a-stream", "stream-damaged", "stream-cut"},
    "crash": {"target-crashed"},
}


@dataclass(frozen=True, slots=True)
class Row:
    """One pair and its answer."""

    id: str
    cause: str
    truth: str
    verdict: str
    code: str
    section: str
    true_section: str
    seconds: float

    @property
    def agrees(self) -> bool:
        """A state that can't be read is refused, too (exit status 2)."""
        return (self.truth, self.verdict) in (
            ("loaded", "loads"),
            ("failed", "fails"),
            ("failed", "unreadable"),
        )

    @property
    def wrong(self) -> bool:
        return self.verdict != "undecided" and not self.agrees

    @property
    def names_section(self) -> bool:
        return self.true_section in self.section or not self.true_section

    @property
    def names_cause(self) -> bool:
        return self.code in CAUSES.get(self.cause, {self.code})


def decide(table: truth_table.Table, pair: truth_table.Pair, choice: Choice) -> Row:
    """Have an engine answer one pair."""
    with tempfile.TemporaryDirectory(prefix="cprtools-corpus-") as name:
        folder, before = Path(name), Path.cwd()
        state = table.state(pair, folder)
        target = Target(
            qemu_path(pair.version, "x86_64"),
            arguments=tuple(pair.words(folder)),
            machine=pair.machine,
            capabilities=pair.capabilities,
        )
        os.chdir(folder)
        start = time.monotonic()
        try:
            verdict, code, section = _said(answer(Case(state, target), choice))
        except FormatError:
            verdict, code, section = "unreadable", "not-a-stream", ""
        finally:
            os.chdir(before)
    seconds = time.monotonic() - start
    return Row(
        pair.id, pair.cause, pair.verdict, verdict, code, section, pair.section, round(seconds, 2)
    )


def _said(found: Answer) -> tuple[str, str, str]:
    errors = [one for one in found.findings if one.severity is Severity.ERROR]
    first = errors[0] if errors else found.findings[0] if found.findings else None
    return found.verdict, first.code if first else "", first.section if first else ""


def report(rows: Iterable[Row]) -> None:
    """Print the table per cause, and what disagrees."""
    rows = list(rows)
    print(f"{'cause':<17}{'pairs':>6}{'agree':>7}{'wrong':>7}{'open':>6}{'section':>9}{'class':>7}")
    causes = Counter(row.cause or "loads" for row in rows)
    for cause, number in sorted(causes.items()):
        some = [row for row in rows if (row.cause or "loads") == cause]
        _line(cause, number, some)
    _line("all", len(rows), rows)
    bad_yes = [row for row in rows if row.verdict == "loads" and row.truth != "loaded"]
    bad_no = [row for row in rows if row.verdict == "fails" and row.truth != "failed"]
    print(f"wrong loads: {len(bad_yes)}, wrong fails: {len(bad_no)}")
    times = sorted(row.seconds for row in rows)
    if times:
        print(f"seconds: median {times[len(times) // 2]}, most {times[-1]}")
    for row in rows:
        if not row.agrees:
            print(f"  {row.id}: {row.truth}, {row.verdict} ({row.code} {row.section})")
        elif row.truth == "failed" and not (row.names_section and row.names_cause):
            print(f"  {row.id}: {row.cause} {row.true_section!r}, named {row.code} {row.section!r}")


def _line(cause: str, number: int, rows: list[Row]) -> None:
    agree = sum(row.agrees for row in rows)
    wrong = sum(row.wrong for row in rows)
    undecided = sum(row.verdict == "undecided" for row in rows)
    failed = [row for row in rows if row.agrees and row.truth == "failed"]
    section = sum(row.names_section for row in failed)
    kind = sum(row.names_cause for row in failed)
    print(f"{cause:<17}{number:>6}{agree:>7}{wrong:>7}{undecided:>6}{section:>9}{kind:>7}")


def main() -> int:
    """Run it; 1 if a `loads` is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engine", choices=NAMES, default="dry-run")
    parser.add_argument("--only", default="*", help="ids of pairs, as a pattern")
    parser.add_argument("--every", type=int, default=1, help="take each n-th pair only")
    parser.add_argument("--json", type=Path, help="write the rows to a file")
    parser.add_argument("--no-exec", action="store_true")
    words = parser.parse_args()
    table, choice = truth_table.load(), Choice(words.engine, not words.no_exec)
    pairs = [pair for pair in table.pairs if fnmatch.fnmatch(pair.id, words.only)]
    rows = [decide(table, pair, choice) for pair in pairs[:: words.every]]
    report(rows)
    if words.json:
        text = json.dumps([{name: getattr(row, name) for name in Row.__slots__} for row in rows])
        words.json.write_text(text)
    return int(any(row.verdict == "loads" and row.truth != "loaded" for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
