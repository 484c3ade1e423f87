"""Answers of a check as JUnit XML, for pipelines: a case that is undecided is no success."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from xml.sax.saxutils import escape as escape_xml
from xml.sax.saxutils import quoteattr

from cprtools.check.model import Answer, Case, Verdict
from cprtools.report.words import escape

__all__ = ["write_junit"]


def write_junit(write: Callable[[str], object], answers: Sequence[tuple[Case, Answer]]) -> None:
    """Write one test case for each state and target."""
    fails = sum(answer.verdict is Verdict.FAILS for _, answer in answers)
    errors = sum(answer.verdict is Verdict.UNDECIDED for _, answer in answers)
    write('<?xml version="1.0" encoding="UTF-8"?>\n')
    write(
        f'<testsuite name="cprtools check" tests="{len(answers)}" failures="{fails}" '
        f'errors="{errors}">\n'
    )
    for case, answer in answers:
        write("".join(_case(case, answer)))
    write("</testsuite>\n")


def _case(case: Case, answer: Answer) -> Iterator[str]:
    name = f"{case.state} in {case.target.program}"
    yield f'  <testcase classname="check.{answer.engine}" name={_attribute(name)}>\n'
    lines = "\n".join(_lines(answer))
    first = answer.findings[0] if answer.findings else None
    if answer.verdict is not Verdict.LOADS:
        tag = "failure" if answer.verdict is Verdict.FAILS else "error"
        code, message = (first.code, first.message) if first else ("undecided", "")
        yield f"    <{tag} type={_attribute(code)} message={_attribute(message)}>"
        yield f"{escape_xml(lines)}</{tag}>\n"
    elif lines:
        yield f"    <system-out>{escape_xml(lines)}</system-out>\n"
    yield "  </testcase>\n"


def _attribute(text: str) -> str:
    return quoteattr(_plain(text))


def _plain(text: str) -> str:
    """Escape what XML can't hold."""
    return escape(text).encode("ascii", "backslashreplace").decode()


def _lines(answer: Answer) -> Iterator[str]:
    for one in answer.findings:
        yield _plain(f"{one.severity} {one.code}: {one.message}")
        if one.remedy and one.severity == "error":
            yield _plain(f"  what helps: {one.remedy}")
        yield from (_plain(f"  QEMU: {line}") for line in one.qemu_says.splitlines())
    yield from (_plain(f"to decide it: {one}") for one in answer.open)
