"""The engines there are, and in which order `auto` asks them.

Each engine registers itself here; one that is not there is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cprtools.check.messages import finding
from cprtools.check.model import Answer, Case, Engine, Finding, Severity, Verdict

__all__ = ["NAMES", "Choice", "answer"]


@dataclass(frozen=True, slots=True)
class Choice:
    """How a case is to be decided.

    Attributes:
        engine: ``static``, ``dry-run``, ``probe``, or ``auto`` for all in that order.
        may_run: the target may be run.
        seconds: how long each run of it may take.
    """

    engine: str = "auto"
    may_run: bool = True
    seconds: float = 60.0


def _static(_choice: Choice) -> Engine:
    from cprtools.check.static import Static  # noqa: PLC0415 (start-up time)

    return Static()


def _dry_run(choice: Choice) -> Engine:
    from cprtools.check.dryrun import DryRun  # noqa: PLC0415 (start-up time)

    return DryRun(choice.seconds)


def _probe(choice: Choice) -> Engine:
    from cprtools.check.probe import Probe  # noqa: PLC0415 (start-up time)

    return Probe(choice.seconds)


@dataclass(frozen=True, slots=True)
class _Known:
    make: Callable[[Choice], Engine] | None
    runs: bool


#: In the order in which `auto` asks. An engine without a maker is not there yet.
_ENGINES = {
    "static": _Known(_static, runs=False),
    "dry-run": _Known(_dry_run, runs=True),
    "probe": _Known(_probe, runs=True),
}
NAMES = (*_ENGINES, "auto")


def answer(case: Case, choice: Choice) -> Answer:
    """Ask engines, each of which knows more than the one before.

    Under `auto` the last that decides has the say: what the file and the command line tell
    is confirmed, or overruled, by the target itself where it may be run. The probe is
    asked where nothing else decides.

    Raises:
        OSError: a file can't be read, or the target can't be started.
        FormatError: the state can't be read.
    """
    found: list[Answer] = []
    for name, engine in _chosen(choice):
        if name == "probe" and choice.engine == "auto" and _decided(found):
            continue
        found.append(engine.answer(case))
    if not found:
        return _nobody(choice)
    decided = _decided(found)
    if decided is None:
        every = [one for each in found for one in each.findings]
        return replace(found[-1], findings=tuple(dict.fromkeys(every)))
    others = [one for each in found if each is not decided for one in _kept(each, decided)]
    return replace(decided, findings=tuple(dict.fromkeys((*decided.findings, *others))))


def _decided(found: Sequence[Answer]) -> Answer | None:
    """The last answer that decides."""
    decided = [one for one in found if one.verdict is not Verdict.UNDECIDED]
    return decided[-1] if decided else None


def _kept(other: Answer, decided: Answer) -> Sequence[Finding]:
    """What another engine said that is still worth knowing."""
    if other.verdict is Verdict.UNDECIDED:
        return ()
    if other.verdict is decided.verdict:
        known = {(one.code, one.section) for one in decided.findings}
        return [one for one in other.findings if (one.code, one.section) not in known]
    said = f"{other.engine} expected that it {other.verdict}"
    return [
        replace(one, severity=Severity.WARNING, message=f"{said}: {one.message}")
        for one in other.findings
    ]


def _chosen(choice: Choice) -> Sequence[tuple[str, Engine]]:
    names = list(_ENGINES) if choice.engine == "auto" else [choice.engine]
    known = [(name, _ENGINES[name]) for name in names]
    return [
        (name, one.make(choice))
        for name, one in known
        if one.make and (choice.may_run or not one.runs)
    ]


def _nobody(choice: Choice) -> Answer:
    wanted = "the dry run" if choice.engine == "auto" else f"the engine {choice.engine}"
    there = choice.engine == "auto" or _ENGINES[choice.engine].make is not None
    reason = f"--no-exec: {wanted} has to run the target" if there else f"{wanted} is not there"
    said = finding("engine-missing", reason, severity=Severity.WARNING)
    return Answer(Verdict.UNDECIDED, choice.engine, (said,), ("a dry run: without --no-exec",))
