"""What ``cprtools check`` does with its arguments: decide each case, have them written."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cprformats.errors import FormatError
from cprtools.check.codes import close_to, explain
from cprtools.check.engines import Choice, answer
from cprtools.check.model import Answer, Case, Target, Verdict
from cprtools.cli.exits import Exit, Misuse
from cprtools.report.output import complain, raw_output, standard_output

__all__ = ["Request", "explain_code", "run"]

_EXITS = {Verdict.LOADS: Exit.GOOD, Verdict.FAILS: Exit.DAMAGED, Verdict.UNDECIDED: Exit.UNDECIDED}
#: From bad to good.
_WORST = (Exit.USAGE, Exit.DAMAGED, Exit.UNDECIDED, Exit.GOOD)


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments; see `cprtools.cli.check`."""

    states: tuple[str, ...]
    targets: tuple[str, ...]
    elf: str | None = None
    machine: str = ""
    capabilities: tuple[str, ...] = ()
    arguments: tuple[str, ...] | None = None
    engine: str = "auto"
    may_run: bool = True
    seconds: float = 60.0
    format: str = "table"
    colour: str = "auto"


def explain_code(code: str) -> Exit:
    """Print the page of a code.

    Raises:
        Misuse: there is no such code.
    """
    from cprtools.report.check_text import write_page  # noqa: PLC0415 (start-up time)

    try:
        text = explain(code)
    except KeyError:
        close = ", ".join(close_to(code)) or "see docs/findings.md"
        raise Misuse(f"--explain: there is no code {code!r} ({close})") from None
    write_page(raw_output(), text)
    return Exit.GOOD


def run(request: Request) -> Exit:
    """Decide every case and show the answers.

    A state that can't be read is complained of, and the others are decided.

    Raises:
        Misuse: something is missing.
        OSError: a target can't be started, or the output can't be written.
    """
    # What was started and written has to go, too, when a supervisor ends this process.
    signal.signal(signal.SIGTERM, _interrupt)
    cases = list(_cases(request))
    exits, answers = [], list[tuple[Case, Answer]]()
    choice = Choice(request.engine, request.may_run, request.seconds)
    for case in cases:
        try:
            answers.append((case, answer(case, choice)))
        except FormatError as error:
            complain(f"{case.state}: {error}")
            exits.append(Exit.USAGE)
    exits += [_EXITS[one.verdict] for _, one in answers]
    if answers:
        _show(request, answers)
    return min(exits, key=_WORST.index)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _cases(request: Request) -> Iterator[Case]:
    if not request.states:
        raise Misuse("expected a STATE; found none")
    if not request.targets:
        raise Misuse("expected --target QEMU; found none")
    if request.elf is not None and len(request.targets) > 1:
        raise Misuse("--elf: belongs to one --target, found several")
    capabilities = dict(map(_pair, request.capabilities))
    elf = None if request.elf is None else Path(request.elf)
    for state in request.states:
        for program in request.targets:
            target = Target(Path(program), elf, request.arguments, request.machine, capabilities)
            yield Case(Path(state), target)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise Misuse(
            f"--target-capability: expected NAME=on, NAME=off or NAME=VALUE, found {text!r}"
        )
    return name, value


def _show(request: Request, answers: Sequence[tuple[Case, Answer]]) -> None:
    if request.format == "json":
        from cprtools.report.check_json import write_answers_json  # noqa: PLC0415 (start-up time)

        write_answers_json(raw_output(), answers)
    elif request.format == "junit":
        from cprtools.report.check_junit import write_junit  # noqa: PLC0415

        write_junit(raw_output(), answers)
    else:
        from cprtools.report.check_text import write_answers  # noqa: PLC0415

        write_answers(standard_output(request.colour), answers)
