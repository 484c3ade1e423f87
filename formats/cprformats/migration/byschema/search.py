"""Find which fields a body holds: all readings that end where it ends, kept side by side.

A description leaves open what only a running QEMU knows: whether a conditional
field is there, how many elements an array has whose count is not in the stream,
whether a pointer is NULL. Each possibility is followed, a step at a time, and
dropped as soon as a byte, or the place of the end, rules it out. Two that
reach the same place knowing the same are one from there on (`Trail.meet`); so
there are never more at a time than there are places, and no reading is lost.

What is known is kept in `State.known`: numbers that later counts are taken
from, and results of test functions that decide over several fields.

Source: QEMU migration/vmstate.c (vmstate_load_state, vmstate_subsection_load),
5.2 to 11.1.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from cprformats.errors import Unsupported
from cprformats.migration.byschema.elements import elements, run, uncounted
from cprformats.migration.byschema.numbers import numbers
from cprformats.migration.byschema.opaque import Opaque
from cprformats.migration.byschema.plan import Bounds, Plan, Run, Step, plus
from cprformats.migration.byschema.planning import Plans
from cprformats.migration.byschema.state import Failure, Here, Reason, State, versions
from cprformats.migration.byschema.trail import Opening, Shape, Trail
from cprformats.migration.wire import SectionType

__all__ = ["MAX_WORK", "Search"]

#: Elements and readings looked at in one section; real ones take some 10,000.
MAX_WORK: Final = 400_000
_MAX_DEPTH: Final = 60
_HEAD_BYTES: Final = 6


class Search:
    """Reads one body.

    Args:
        plans: of the schema.
        data: from the body's first byte on.
        end: size of the body; None where it is not known, and any place may be the end.
        opaque: tells the size of fields that hand-written functions wrote.
        heads: places, in order, where a head of a subsection stands, or looks as if.
        strict: take bytes only for what QEMU makes of them, not for all that it loads:
            no field goes through the head of a subsection.
    """

    def __init__(
        self,
        plans: Plans,
        data: bytes,
        end: int | None,
        opaque: Opaque,
        *,
        heads: Sequence[int] = (),
        strict: bool = False,
    ) -> None:
        self.plans = plans
        self.data = data
        self.end = end
        self.limit = len(data) if end is None else end
        self.opaque = opaque
        self.heads = heads
        self.strict = strict
        self.failure: Failure | None = None
        self._work = 0

    def run(self, plan: Plan, name: str) -> list[State]:
        """All readings that end at the body's end; by place where that is not known.

        Args:
            plan: of the section's description.
            name: the description's, which may have got it when QEMU ran.

        Raises:
            Unsupported: it would take more work than any real section.
        """
        here = Here(0, 0, 0, plan.wants)
        states = self.description(plan, name, [State(Trail(), {})], here, (0, 0, 0))
        return self.merged(State(state.trail, {}) for state in states)

    # -- what the parts of the search share ---------------------------------------

    def spend(self, amount: int = 1) -> None:
        """Count work.

        Raises:
            Unsupported: it is more than any real section takes.
        """
        self._work += amount
        if self._work > MAX_WORK:
            raise Unsupported(f"more than {MAX_WORK} steps to tell what is in a section")

    def byte_at(self, offset: int) -> int:
        """A byte of the body; -1 behind its end."""
        return self.data[offset] if offset < self.limit else -1

    def fits(self, offset: int, rest: Bounds) -> bool:
        """Whether what must follow, and no more than can follow, has room."""
        return offset + rest[0] <= self.limit and not self.least(offset, rest)

    def least(self, offset: int, rest: Bounds) -> int:
        """How many bytes there must be before what follows has too few."""
        most = self._most(offset, rest)
        return 0 if self.end is None or most is None else max(self.end - most - offset, 0)

    def _most(self, offset: int, rest: Bounds) -> int | None:
        """The most that may follow: without subsections, where no more heads of any come."""
        return rest[1] if self.heads and offset <= self.heads[-1] else rest[2]

    def goes_through(self, start: int, end: int) -> bool:
        """Whether the head of a subsection stands between two places."""
        at = bisect_left(self.heads, start)
        return self.strict and at < len(self.heads) and self.heads[at] < end

    def fail(self, offset: int, reason: Reason, what: str, expected: str, found: str) -> None:
        """Note why a reading comes to nothing; that which got furthest is kept."""
        if self.failure is None or offset >= self.failure.offset:
            self.failure = Failure(offset, reason, what, expected, found)

    def no_room(self, name: str, start: int, size: int, rest: Bounds) -> None:
        """Note that so many bytes are too many, or too few."""
        left = self.limit - start
        if size + rest[0] > left:
            expected = f"{size} bytes and {rest[0]} behind them"
            self.fail(start, Reason.SIZE, name, expected, f"{left}")
        else:
            expected = f"{size} bytes and at most {self._most(start + size, rest)} behind them"
            self.fail(start, Reason.SIZE, name, expected, f"{left}")

    def merged(self, states: Iterable[State]) -> list[State]:
        """The readings, those that are at one place and know the same as one."""
        listed = list(states)
        if len(listed) < 2:
            return listed
        self.spend(sum(1 + len(state.known) // 4 for state in listed))
        found: dict[object, State] = {}
        for state in listed:
            key = (state.offset, state.config, frozenset(state.known.items()))
            same = found.get(key)
            found[key] = state if same is None else same.at(same.trail.meet(state.trail))
        return list(found.values())

    # -- descriptions -------------------------------------------------------------

    def description(
        self, plan: Plan, name: str, states: list[State], here: Here, after: Bounds
    ) -> list[State]:
        """Read the fields and subsections of one description.

        Args:
            plan: of the description.
            name: the description's.
            states: the readings up to it, at least one.
            here: where in the objects it is applied.
            after: bounds of what follows it.
        """
        if here.level > _MAX_DEPTH:
            most = f"at most {_MAX_DEPTH} levels"
            self.fail(states[0].offset, Reason.LIMIT, name, most, "more")
            return []
        for part in plan.parts:
            rest = plus(part.after, after)
            if isinstance(part, Step):
                states = self._step(part, states, here, rest)
            elif here.wanted:
                states = self._one_by_one(part, states, here, after)
            else:
                states = run(self, part, states, rest)
            if not states:
                return []
        states = self._subsections(plan, name, states, here, after)
        return self.merged(state.forgetting("t", here.level) for state in states)

    def _one_by_one(self, part: Run, states: list[State], here: Here, after: Bounds) -> list[State]:
        for step in part.steps:
            states = self._step(step, states, here, plus(step.after, after))
        return states

    def _subsections(
        self, plan: Plan, name: str, states: list[State], here: Here, after: Bounds
    ) -> list[State]:
        done: list[State] = []
        while states:
            found: list[State] = []
            for state in states:
                head = self._head(name, state.offset)
                if head is not None:
                    found += self._subsection(plan, head, state, here, plus(plan.tail, after))
                elif self.fits(state.offset, after):
                    done.append(state)
                else:
                    self.no_room(f"end of {name}", state.offset, 0, after)
            states = self.merged(found)
        return self.merged(done)

    def _head(self, name: str, offset: int) -> tuple[str, int] | None:
        """Name and version of the subsection that begins here, if it is one of `name`."""
        data = self.data
        if offset + _HEAD_BYTES > self.limit or data[offset] != SectionType.SUBSECTION:
            return None
        size = data[offset + 1]
        end = offset + 2 + size
        own = name.encode("utf-8", "surrogateescape")
        if size <= len(own) or end + 4 > self.limit or not data.startswith(own, offset + 2):
            return None
        sub = data[offset + 2 : end].decode("utf-8", "surrogateescape")
        return sub, int.from_bytes(data[end : end + 4])

    def _subsection(
        self, plan: Plan, head: tuple[str, int], state: State, here: Here, after: Bounds
    ) -> list[State]:
        name, version = head
        key = plan.subsections.get(name)
        if key is None:
            what = f"subsection of {plan.description.name}"
            known = ", ".join(plan.subsections) or "none"
            self.fail(state.offset, Reason.SUBSECTION, what, known, name)
            return []
        one = self.plans.schema.descriptions[key]
        if not one.minimum_version_id <= version <= one.version_id:
            what = f"version of {name}"
            self.fail(state.offset, Reason.VERSION, what, versions(one), str(version))
            return []
        sub = self.plans.plan(key, version)
        if sub is None:
            return []
        opening = Opening(Shape.SUBSECTION, name, "", name, version)
        offset = state.offset + _HEAD_BYTES + len(name.encode("utf-8", "surrogateescape"))
        begun = [state.at(state.trail.add(opening, offset))]
        inner = replace(here, level=here.level + 1)
        made = self.description(sub, name, begun, inner, after)
        return [one.at(one.trail.close(one.offset)) for one in made]

    # -- fields -------------------------------------------------------------------

    def _step(self, step: Step, states: list[State], here: Here, rest: Bounds) -> list[State]:
        if not step.field.conditional:
            return self.merged(self._present(step, states, here, rest))
        there: list[State] = []
        done: list[State] = []
        key = ("t", here.level, step.field.test)
        for state in states:
            known = self._decided(step, state, here)
            remember = step.repeats and known is None
            if known is not False:
                there.append(state.knowing(key, 1) if remember else state)
            if not known and self.fits(state.offset, rest):
                done.append(state.knowing(key, 0) if remember else state)
        done += self._present(step, there, here, rest)
        if not step.repeats:
            done = [state.without(key) for state in done]
        return self.merged(done)

    def _decided(self, step: Step, state: State, here: Here) -> bool | None:
        """Whether a conditional field is there, if that is known."""
        found = None
        if step.field.test:
            found = state.known.get(("t", here.level, step.field.test))
        if step.decided_by is not None and self.strict:
            found = state.known.get(("n", here.object, here.base + step.decided_by))
        return None if found is None else bool(found)

    def _present(self, step: Step, states: list[State], here: Here, rest: Bounds) -> list[State]:
        made: list[State] = []
        unknown: list[State] = []
        for state in states:
            for count, size, one in numbers(self, step, state, here, rest):
                self.spend()
                if count is None:
                    unknown.append(one)
                else:
                    made += elements(self, step, one, count, size, here, rest)
        return made + uncounted(self, step, unknown, here, rest)
