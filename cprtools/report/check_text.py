"""Answers of a check for people: the verdict first, then why, then what helps."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence

from cprtools.check.model import Answer, Case, Finding, Severity, Verdict
from cprtools.report.output import Column, Output

__all__ = ["write_answers", "write_page"]

_STYLES = {Severity.ERROR: "bad", Severity.WARNING: "warn", Severity.INFO: "dim"}
_VERDICTS = {Verdict.LOADS: "words", Verdict.FAILS: "bad", Verdict.UNDECIDED: "warn"}
_WIDTH = 100
_MOST_SAID = 12
_LABEL = 10


def write_page(write: Callable[[str], object], text: str) -> None:
    """Write the page of a code."""
    write(text)


def write_answers(out: Output, answers: Sequence[tuple[Case, Answer]]) -> None:
    """Write all answers; of several, a table of verdicts first."""
    if len(answers) > 1:
        _write_matrix(out, answers)
    for number, (case, answer) in enumerate(answers):
        if number or len(answers) > 1:
            out.line()
        _write_answer(out, case, answer)


def _write_matrix(out: Output, answers: Sequence[tuple[Case, Answer]]) -> None:
    columns = [
        Column("verdict"),
        Column("state", style="name", fold=True),
        Column("target", fold=True),
        Column("first finding", style="dim", fold=True),
    ]
    out.table(columns, (_row(case, answer) for case, answer in answers))


def _row(case: Case, answer: Answer) -> tuple[str, ...]:
    first = answer.findings[0].code if answer.findings else ""
    return answer.verdict, str(case.state), str(case.target.program), first


def _write_answer(out: Output, case: Case, answer: Answer) -> None:
    out.line(
        (f"{case.state}", "title"),
        f" in {case.target.program}: ",
        (answer.verdict, _VERDICTS[answer.verdict]),
        (f"  ({answer.engine})", "dim"),
    )
    for finding in answer.findings:
        _write_finding(out, finding)
    for one in answer.open:
        out.line("  ", ("to decide it".ljust(_LABEL + 4), "dim"), one)


def _write_finding(out: Output, finding: Finding) -> None:
    if finding.severity is not Severity.INFO:
        out.line()
    style = _STYLES[finding.severity]
    place = finding.section and f"  {finding.section}"
    instance = f" {finding.instance}" if finding.section and finding.instance else ""
    out.line("  ", (finding.severity, style), "  ", (finding.code, "name"), f"{place}{instance}")
    for label, text in _facts(finding):
        lines = textwrap.wrap(text, max((out.width or _WIDTH) - _LABEL - 4, 40)) or [""]
        for number, line in enumerate(lines):
            out.line("    ", ((label if not number else "").ljust(_LABEL), "dim"), line)


def _facts(finding: Finding) -> Iterator[tuple[str, str]]:
    yield "", finding.message
    if finding.severity is Severity.INFO:
        return
    for label, text in (
        ("field", finding.field),
        ("expected", finding.expected),
        ("found", finding.found),
        ("why", finding.why),
        ("do", finding.remedy),
    ):
        if text:
            yield label, text
    said = finding.qemu_says.splitlines()
    yield from (
        ("QEMU says" if not number else "", line) for number, line in enumerate(said[:_MOST_SAID])
    )
    if len(said) > _MOST_SAID:
        yield "", f"... {len(said) - _MOST_SAID} lines more"
