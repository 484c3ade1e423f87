"""Answers of a check as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from cprtools.check.model import Answer, Case, Verdict

__all__ = ["CHECK_SCHEMA_VERSION", "worst", "write_answers_json"]

CHECK_SCHEMA_VERSION = 1
_WORST = (Verdict.FAILS, Verdict.UNDECIDED, Verdict.LOADS)


def worst(answers: Sequence[tuple[Case, Answer]]) -> Verdict:
    """Give the worst verdict."""
    return min((answer.verdict for _, answer in answers), key=_WORST.index)


def write_answers_json(
    write: Callable[[str], object], answers: Sequence[tuple[Case, Answer]]
) -> None:
    """Write one answer as it is, several as `results` with the worst verdict before them."""
    documents = [_document(case, answer) for case, answer in answers]
    document: dict[str, object] = {"schema_version": CHECK_SCHEMA_VERSION}
    if len(documents) == 1:
        document |= documents[0]
    else:
        document |= {"verdict": worst(answers), "results": documents}
    write(json.dumps(document, indent=1) + "\n")


def _document(case: Case, answer: Answer) -> dict[str, object]:
    return {
        "verdict": answer.verdict,
        "engine": answer.engine,
        "state": str(case.state),
        "target": str(case.target.program),
        "machine": case.target.machine,
        "open": list(answer.open),
        "findings": [asdict(finding) for finding in answer.findings],
    }
