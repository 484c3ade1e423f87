"""The elements of a field: alike ones at once, others one by one.

Source: QEMU migration/vmstate.c (vmstate_load_state, vmstate_save_state_v),
migration/vmstate-types.c (get_tmp, get_qtailq, get_qlist, get_gtree), 5.2 to 11.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cprformats.migration.byschema.infos import checked, fits, is_integer_type
from cprformats.migration.byschema.numbers import room, supposing
from cprformats.migration.byschema.plan import Bounds, Fixed, Run, Step, describe, plus
from cprformats.migration.byschema.state import Here, Reason, State
from cprformats.migration.byschema.trail import Opening, Shape, Trail
from cprformats.migration.vmdesc import FieldDesc

if TYPE_CHECKING:
    from cprformats.migration.byschema.search import Search

__all__ = ["elements", "run", "uncounted"]

_NULL, _FOLLOWS = 0x30, 0x31
_STRUCTURES: Final = ("struct", "vstruct", "tmp")


def elements(
    search: Search,
    step: Step,
    state: State,
    count: int,
    size: int | None,
    here: Here,
    rest: Bounds,
) -> list[State]:
    """Read so many elements of a field."""
    if count <= 0:
        return [state] if search.fits(state.offset, rest) else []
    if size is not None and not step.of_pointers and not _wanted_inside(step, here):
        return _bulk(search, step, step.name, state, count, size, here, rest)
    states = [state]
    for number in range(count):
        search.spend(len(states))
        after = plus(rest, step.element, count - 1 - number)
        name = f"{step.name}[{number}]" if count > 1 else step.name
        found: list[State] = []
        for one in states:
            found += _element(search, step, name, one, size, here, after)
        states = search.merged(found)
        if not states:
            break
    return states


def uncounted(
    search: Search, step: Step, states: list[State], here: Here, rest: Bounds
) -> list[State]:
    """Read elements whose number is nowhere: stop behind each that what follows allows."""
    source = step.field.count_from
    if source is None or not states:
        return []
    times, start = max(source.times, 1), states
    made: list[State] = []
    for number in range(room(search, step) + 1):
        search.spend(len(states))
        # A single element is not numbered.
        single = number * times == 1
        last = _some(search, step, step.name, start, range(1), here, rest) if single else states
        made += (
            supposing(one, here, source, number) for one in last if search.fits(one.offset, rest)
        )
        which = range(number * times, (number + 1) * times)
        states = _some(search, step, "", states, which, here, (rest[0], None, None))
        if not states:
            break
    return made


def _some(
    search: Search,
    step: Step,
    name: str,
    states: list[State],
    which: range,
    here: Here,
    rest: Bounds,
) -> list[State]:
    """The elements of these numbers that take a byte; `name` is that of a single one."""
    for number in which:
        called = name or f"{step.name}[{number}]"
        found: list[State] = []
        for one in states:
            more = _element(search, step, called, one, step.size, here, rest)
            found += (new for new in more if new.offset > one.offset)
        states = search.merged(found)
    return states


# -- alike ones -------------------------------------------------------------------


def run(search: Search, part: Run, states: list[State], rest: Bounds) -> list[State]:
    """Read steps that never vary."""
    made: list[State] = []
    fixed = part.fixed
    for state in states:
        start, end = state.offset, state.offset + fixed.size
        first = part.steps[0]
        if not search.fits(end, rest):
            search.no_room(first.name, start, fixed.size, rest)
        elif search.goes_through(start, end):
            _through_head(search, first.name, start, fixed.size)
        elif (bad := _first_bad(search, fixed, start)) is not None:
            name = _name_at(part, bad)
            search.fail(start + bad, Reason.VALUE, name, "a value of its type", "other bytes")
        else:
            made.append(state.at(state.trail.add(fixed.vmsd.fields, end)))
    return made


def _name_at(part: Run, offset: int) -> str:
    for step in part.steps:
        offset -= (step.size or 0) * (step.count or 0)
        if offset < 0:
            return step.name
    return part.steps[-1].name


def _through_head(search: Search, name: str, start: int, size: int) -> None:
    search.fail(start, Reason.SIZE, name, f"{size} bytes", "the head of a subsection in them")


def _first_bad(search: Search, fixed: Fixed, start: int) -> int | None:
    """Offset of the first value that can't be one, if there is any."""
    for place, length, info in fixed.checks:
        data = search.data[start + place : start + place + length]
        if not fits(info, data, strict=search.strict):
            return place
    return None


def _wanted_inside(step: Step, here: Here) -> bool:
    """Whether a number to remember lies in a structure that would be read as a whole."""
    if step.fixed is None or not step.in_place or step.field.info:
        return False
    start = here.base + step.field.offset
    return any(start <= place < start + step.field.size for place in here.wanted)


def _bulk(
    search: Search,
    step: Step,
    name: str,
    state: State,
    count: int,
    size: int,
    here: Here,
    rest: Bounds,
) -> list[State]:
    """All elements at once: they are alike."""
    start = state.offset
    end = start + count * size
    if not search.fits(end, rest):
        search.no_room(step.name, start, count * size, rest)
        return []
    if search.goes_through(start, end):
        _through_head(search, step.name, start, count * size)
        return []
    if not _valid(search, step, start, count, size):
        search.fail(start, Reason.VALUE, step.name, f"a value of type {step.type}", "other bytes")
        return []
    desc = describe(step, size, count, name)
    if _joins(step, name):
        desc = replace(desc, partial=True)
    config = (start, size) if step.type == "pci config" else state.config
    made = State(state.trail.add(desc, end), state.known, config)
    if here.wanted and is_integer_type(step.type):
        made = _remember(search, step, made, start, count, size, here)
    return [made]


def _joins(step: Step, name: str) -> bool:
    """Whether a value behind a pointer may be one of an array that a vmdesc has as one entry."""
    return step.of_pointers and name != step.name and step.fixed is None


def _valid(search: Search, step: Step, start: int, count: int, size: int) -> bool:
    if step.fixed is None:
        data = search.data[start : start + count * size] if checked(step.type) else b""
        return not data or fits(step.type, data, strict=search.strict)
    if not step.fixed.checks:
        return True
    search.spend(count)
    firsts = range(start, start + count * size, size)
    return all(_first_bad(search, step.fixed, first) is None for first in firsts)


def _remember(
    search: Search, step: Step, state: State, start: int, count: int, size: int, here: Here
) -> State:
    """Keep the value of a field that a count is taken from."""
    if "POINTER" in step.field.flags:
        return state
    first, width = here.base + step.field.offset, step.field.size
    for place in here.wanted:
        number, odd = divmod(place - first, max(width, 1))
        if not odd and 0 <= number < count:
            at = start + number * size
            value = int.from_bytes(search.data[at : at + size])
            state = state.knowing(("n", here.object, place), value)
    return state


# -- one by one -------------------------------------------------------------------


def _element(
    search: Search, step: Step, name: str, state: State, size: int | None, here: Here, rest: Bounds
) -> list[State]:
    """One element, or the marker of a pointer that is NULL."""
    if not step.of_pointers:
        return _value(search, step, name, state, size, here, rest)
    start = state.offset
    marker = search.byte_at(start)
    if "ARRAY_OF_POINTER_AUTO_ALLOC" not in step.field.flags:
        made = _value(search, step, name, state, size, here, rest)
        return made + _null(search, step, name, "nullptr", state, rest)
    if marker != _FOLLOWS:
        return _null(search, step, name, "ptr-marker", state, rest)
    # A pointer that is not NULL makes two entries of one name: they are numbered.
    name = name if name.endswith("]") else f"{name}[0]"
    mark = FieldDesc(f"{name}_marker", "ptr-marker", 1)
    marked = state.at(state.trail.add(mark, start + 1))
    return _value(search, step, name, marked, size, here, rest)


def _null(
    search: Search, step: Step, name: str, type_name: str, state: State, rest: Bounds
) -> list[State]:
    start = state.offset
    if search.byte_at(start) != _NULL:
        search.fail(start, Reason.VALUE, name, "the marker of a pointer", "another byte")
        return []
    if not search.fits(start + 1, rest):
        return []
    null = FieldDesc(name, type_name, 1, partial=_joins(step, name))
    return [state.at(state.trail.add(null, start + 1))]


def _value(
    search: Search, step: Step, name: str, state: State, size: int | None, here: Here, rest: Bounds
) -> list[State]:
    if step.type in ("qtailq", "qlist"):
        return _list(search, step, name, state, here, rest)
    if step.type == "gtree":
        return _tree(search, step, name, state, here, rest)
    if step.nested is not None and step.type in _STRUCTURES:
        shape = Shape.STRUCT if step.type == "struct" else Shape.INLINE
        return _nested(search, step, shape, name, state, here, rest)
    sizes: Iterable[int] = (
        (size,) if size is not None else search.opaque.sizes(search, step, state, rest)
    )
    made: list[State] = []
    for one in sizes:
        search.spend()
        made += _bulk(search, step, name, state, 1, one, here, rest)
    return made


def _nested(
    search: Search,
    step: Step,
    shape: Shape,
    name: str,
    state: State,
    here: Here,
    rest: Bounds,
    key: str = "",
) -> list[State]:
    """One object that has a description of its own."""
    assert step.nested is not None
    plan = search.plans.plan(key) if key else search.plans.plan(*step.nested)
    if plan is None:
        wanted = f"the description {key or step.nested[0]}"
        search.fail(state.offset, Reason.DESCRIPTION, step.name, wanted, "none")
        return []
    called = plan.description.name
    opening = Opening(shape, name, step.type, called, plan.version)
    begun = [state.at(state.trail.add(opening, state.offset))]
    level = here.level + 1
    if step.in_place and shape is Shape.STRUCT:
        inner = Here(level, here.base + step.field.offset, here.object, here.wanted)
    else:
        inner = Here(level, 0, level, plan.wants)
    made = search.description(plan, called, begun, inner, rest)
    closed = [one.at(one.trail.close(one.offset)) for one in made]
    if inner.object != here.object:
        closed = [one.forgetting("n", inner.object) for one in closed]
    return closed


# -- lists and trees ----------------------------------------------------------------


def _list(
    search: Search, step: Step, name: str, state: State, here: Here, rest: Bounds
) -> list[State]:
    """Elements, each behind a 1, and a 0."""
    opening = Opening(Shape.LIST, name, step.type)
    states = [state.at(state.trail.add(opening, state.offset))]
    done: list[State] = []
    while states:
        search.spend(len(states))
        found: list[State] = []
        for one in states:
            marker = search.byte_at(one.offset)
            if marker == 0 and search.fits(one.offset + 1, rest):
                done.append(one.at(one.trail.close(one.offset + 1)))
            elif marker == 1:
                found += _behind_marker(search, step, one, here, rest, ("",))
            else:
                search.fail(one.offset, Reason.VALUE, name, "a list's marker", "another byte")
        states = search.merged(found)
    return search.merged(done)


def _tree(
    search: Search, step: Step, name: str, state: State, here: Here, rest: Bounds
) -> list[State]:
    """A count of nodes, for each a 1, its key and its value, and a 0."""
    start = state.offset + 4
    count = int.from_bytes(search.data[state.offset : start])
    opening = Opening(Shape.LIST, name, step.type)
    states = [state.at(state.trail.add(opening, start))]
    described = bool(step.field.nested_key)
    keys = (step.field.nested_key, "") if described else ("",)
    for _ in range(count):
        search.spend(len(states))
        found: list[State] = []
        for one in states:
            if search.byte_at(one.offset) == 1:
                found += _behind_marker(search, step, one, here, rest, keys, 0 if described else 8)
        states = search.merged(found)
        if not states:
            break
    ended = [one for one in states if search.byte_at(one.offset) == 0]
    if not ended:
        search.fail(start, Reason.VALUE, name, f"a tree of {count} nodes", "other bytes")
    ended = [one for one in ended if search.fits(one.offset + 1, rest)]
    return [one.at(one.trail.close(one.offset + 1)) for one in ended]


def _behind_marker(
    search: Search,
    step: Step,
    state: State,
    here: Here,
    rest: Bounds,
    keys: tuple[str, ...],
    skip: int = 0,
) -> list[State]:
    """One element behind its marker: one description, or those of key and value."""
    trail = state.trail
    # The marker, and a key that is a bare number, belong to the list and are no event.
    moved = Trail(trail.before, trail.event, trail.offset + 1 + skip)
    states = [state.at(moved)]
    after = (rest[0] + 1, None, None)
    for key in keys:
        found: list[State] = []
        for one in states:
            found += _nested(search, step, Shape.ELEMENT, "", one, here, after, key)
        states = found
    return states
