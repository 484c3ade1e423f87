"""The probe: the target is asked what it would save itself, and the state is compared with that.

The target runs with the given command line, paused, with inert stand-ins; it
never sees the state. It says `loads` where all that a loader compares is the
same on both sides, `fails` at the first difference that a loader stops at.
What only the loader itself finds out (hooks that compute, guest memory) stays
unseen: docs/check-probe.md lists it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from cprformats.errors import FormatError
from cprformats.migration import Command, MigrationStream, Section
from cprformats.migration.byschema.resolve import Resolver
from cprformats.migration.wire import SectionType
from cprformats.schema.model import Schema
from cprtools.check import probe_frame
from cprtools.check.attempt import Ending, Stage
from cprtools.check.cage import Cage
from cprtools.check.dryrun import _arguments, _host, _Judge
from cprtools.check.messages import finding
from cprtools.check.model import Answer, Case, Finding, Severity, Verdict
from cprtools.check.probe_pci import path_of
from cprtools.check.probe_ports import Ports
from cprtools.check.probe_problem import Problem
from cprtools.check.probe_run import Asked, ask
from cprtools.check.probe_sections import Sections
from cprtools.check.probe_virtio import virtio_config
from cprtools.check.standins import Rewritten, rewrite
from cprtools.memory.opening import Memory, open_memory
from cprtools.schemas.opening import open_schema
from cprtools.statefile import open as open_state

__all__ = ["Probe"]

_NAME: Final = "probe"


class Probe:
    """The engine.

    Args:
        seconds: how long the target may take.
    """

    name = _NAME

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = seconds

    def answer(self, case: Case) -> Answer:
        """Answer one case.

        Raises:
            OSError: a file can't be read, or the target can't be started.
            FormatError: the state can't be read.
        """
        if case.target.arguments is None:
            said = finding(
                "no-arguments", "the target's command line is not known", severity=Severity.WARNING
            )
            return Answer(Verdict.UNDECIDED, _NAME, (said,), ("the target's arguments, behind --",))
        with Cage() as cage, open_memory(case.state) as memory:
            line = rewrite(_arguments(case), _host(cage, memory, case.target.capabilities))
            words = [str(case.target.program.absolute()), *line.words]
            words += ["-display", "none", "-monitor", "none", "-S"]
            features: dict[str, int | None] = {}

            def more(asked: Asked, hmp: Callable[[str], str]) -> None:
                features.update(_features(asked, hmp))

            asked = ask(
                cage, words, case.target.capabilities, self.seconds, line.memory_bytes, more
            )
            if asked.state is None:
                return self._no_state(case, line, asked)
            return _Compare(case, line, asked, memory, features).answer()

    def _no_state(self, case: Case, line: Rewritten, asked: Asked) -> Answer:
        """It did not start, refused something, or does not save."""
        outcome = asked.outcome
        if "non-migratable" in asked.blocked:
            section = asked.blocked.partition("'")[2].partition("'")[0]
            one = finding("unmigratable", asked.blocked, section=section, says=asked.blocked)
            return Answer(Verdict.FAILS, _NAME, (one,))
        judged = outcome.stage is Stage.START or outcome.ending is not Ending.GONE
        if judged and outcome.ending is not Ending.LOADED:
            answer = _Judge(case, line, outcome, self.seconds).answer()
            if outcome.stage is not Stage.LOAD:
                return Answer(answer.verdict, _NAME, answer.findings, answer.open)
        why = asked.blocked or outcome.refused or outcome.text[-500:] or str(outcome.ending)
        one = finding("not-looked-at", f"it saves no state: {why}", severity=Severity.WARNING)
        return Answer(Verdict.UNDECIDED, _NAME, (one,), ("a dry run",))


def _features(asked: Asked, hmp: Callable[[str], str]) -> Iterator[tuple[str, int | None]]:
    """Ask each virtio device on PCI what it offers."""
    if asked.state is None:
        return
    ports = Ports(hmp)
    with open_state(asked.state) as opened:
        stream = opened.stream
        for section in stream.sections():
            path = path_of(section.idstr)
            if path is None or section.type not in (SectionType.START, SectionType.FULL):
                continue
            config = virtio_config(stream.decode(section)[0])
            if config is not None:
                yield section.idstr, ports.features(path, config)


@dataclass(frozen=True, slots=True)
class _Compare:
    """Compares the state with what the target saved."""

    case: Case
    line: Rewritten
    asked: Asked
    memory: Memory
    features: dict[str, int | None]

    def answer(self) -> Answer:
        """Give the answer."""
        schema, note = self._schema()
        assert self.asked.state is not None
        with ExitStack() as stack:
            own = stack.enter_context(open_state(self.asked.state, schema=schema)).stream
            state = self.memory.stream
            if schema is not None and state.vmdesc is None:
                state = stack.enter_context(open_state(self.case.state, schema=schema)).stream
            elif schema is not None:
                resolver = Resolver(schema, state.source)
                resolver.learn(state.page_size, state.configuration)
                state = replace(state, resolver=resolver)
            return self._answer(self._problems(state, own, schema), note)

    def _schema(self) -> tuple[Schema | None, str]:
        target = self.case.target
        try:
            return open_schema(str(target.elf or self.asked.program or target.program)), ""
        except (FormatError, OSError) as error:
            return None, f"what the target's file says of its formats: {error}"

    def _problems(
        self, state: MigrationStream, own: MigrationStream, schema: Schema | None
    ) -> list[Problem]:
        """All problems up to the first that makes the load fail."""
        found: list[Problem] = []
        for problem in self._all(state, own, schema):
            found.append(problem)
            if not problem.open:
                break
        return found

    def _all(
        self, state: MigrationStream, own: MigrationStream, schema: Schema | None
    ) -> Iterator[Problem]:
        asked, on = self.asked, self.case.target.capabilities
        for one in probe_frame.channels(state, on):
            yield Problem(state.offset, one)
        for one in probe_frame.configuration(state, own, asked, on):
            yield Problem(state.offset, one)
        sections = Sections(
            own,
            schema,
            asked.bars,
            self.features,
            probe_frame.release(asked),
            state.source.read_at,
        )
        yield from self._items(state, own, sections)

    def _items(
        self,
        state: MigrationStream,
        own: MigrationStream,
        sections: Sections,
    ) -> Iterator[Problem]:
        asked, on = self.asked, self.case.target.capabilities
        first = True
        for item in state.flat():
            if isinstance(item, Command):
                for one in probe_frame.commands(item, asked):
                    yield Problem(item.offset, one)
            if not isinstance(item, Section):
                continue
            if item.type in (SectionType.START, SectionType.FULL):
                yield from sections.problems(state, item)
                if item.holds_ram:
                    for one in probe_frame.blocks(state, asked):
                        yield Problem(item.offset, one)
                    for one in probe_frame.addresses(state, own):
                        yield Problem(item.offset, one)
                    for one in probe_frame.pages(state, asked, on):
                        yield Problem(item.offset, one)
            if first:
                first = False
                yield from _footers(state, own, item)
        error = state.error or self.memory.error
        damage = probe_frame.damage(error) if error is not None else None
        if damage is not None:
            yield Problem(state.end, damage)

    def _answer(self, problems: list[Problem], note: str) -> Answer:
        left = [one.open for one in problems if one.open]
        failed = [one.finding for one in problems if not one.open]
        notes = [finding("stand-in", text, severity=Severity.INFO) for text in self.line.notes]
        if failed and not left:
            return Answer(Verdict.FAILS, _NAME, (*failed, *notes))
        left += self.line.unsure
        if note:
            left.append(note)
        warnings = [_open(text) for text in dict.fromkeys(left)]
        if failed:
            return Answer(Verdict.FAILS, _NAME, (*failed, *warnings, *notes))
        if left:
            return Answer(
                Verdict.UNDECIDED, _NAME, (*warnings, *notes), (*dict.fromkeys(left), "a dry run")
            )
        return Answer(Verdict.LOADS, _NAME, tuple(notes))


def _open(text: str) -> Finding:
    return finding("not-looked-at", text, severity=Severity.WARNING)


def _footers(state: MigrationStream, own: MigrationStream, item: Section) -> Iterator[Problem]:
    """Both sides must have footers, or none (migration/savevm.c: check_section_footer)."""
    if state.footers is None or own.footers is None or state.footers == own.footers:
        return
    if own.footers:
        says = f"Missing section footer for {item.idstr}"
        made = finding(
            "section-footer", "the stream has no section footers", section=item.idstr, says=says
        )
    else:
        says = "Unknown savevm section type 126"
        made = finding("stream-damaged", "the target expects no section footers", says=says)
    yield Problem(item.body_end, made)
