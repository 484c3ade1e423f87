"""Making plans: what of a schema's description is known before any byte is read.

Source: QEMU migration/vmstate.c (vmstate_field_exists, vmstate_n_elems,
vmstate_size, vmfield_name_num, vmfield_get_type_name), 5.2 to 11.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby, islice
from typing import Final

from cprformats.migration.byschema.deciding import COUNTS, DECIDED_BY
from cprformats.migration.byschema.infos import ELEMENTS, checked, wire_name, wire_size
from cprformats.migration.byschema.plan import ANY, Bounds, Fixed, Plan, Run, Step, describe, plus
from cprformats.migration.vmdesc import FieldDesc, VmsdDesc
from cprformats.schema.model import Description, FieldFormat, Schema

__all__ = ["Plans"]

_HEAD_BYTES: Final = 6
#: A structure that nests itself; real ones nest some ten deep.
_MAX_DEPTH: Final = 40
#: Numbers that the fields of one object go by; real ones have some ten.
_MAX_WANTS: Final = 4096
#: Fixed elements with more checks than this are read one by one.
_MAX_CHECKS: Final = 64


class Plans:
    """The plans of one schema, each made once."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._made: dict[tuple[str, int], Plan | None] = {}
        self._open: list[tuple[str, int]] = []
        self._heads: dict[str, frozenset[str]] = {}

    def plan(self, key: str, version: int | None = None) -> Plan | None:
        """The plan of a description, at its own version unless said.

        None where the schema has no such description, or it is one that is being made.
        """
        one = self.schema.descriptions.get(key)
        if one is None:
            return None
        at = (key, one.version_id if version is None else version)
        if at not in self._made:
            if at in self._open or len(self._open) > _MAX_DEPTH:
                return None
            self._open.append(at)
            try:
                self._made[at] = self._make(one, at[1])
            finally:
                self._open.pop()
        return self._made[at]

    def heads(self, key: str) -> frozenset[str]:
        """Names of the subsections of a description, and of all that it uses."""
        if key not in self._heads:
            descriptions = self.schema.descriptions
            self._heads[key] = frozenset(
                descriptions[sub].name
                for one in self.schema.reachable(key)
                for sub in one.subsections
                if sub in descriptions
            )
        return self._heads[key]

    def _make(self, one: Description, version: int) -> Plan:
        subsections: dict[str, str] = {}
        for key in one.subsections:
            sub = self.schema.descriptions.get(key)
            if sub is not None:
                subsections.setdefault(sub.name, key)
        tail = self._tail(subsections)
        steps = self._steps(one, version, tail)
        bounds = plus(_bounds(steps[0]), steps[0].after) if steps else tail
        wants = Counter(islice(self._wants(steps, subsections), _MAX_WANTS))
        fixed = None if one.subsections else _fixed(one.name, version, steps)
        parts = tuple(_parts(steps))
        return Plan(one, version, parts, bounds, tail, wants, fixed, subsections)

    def _tail(self, subsections: dict[str, str]) -> Bounds:
        most: int | None = 0
        for name, key in subsections.items():
            sub = self.plan(key)
            if sub is None or sub.bounds[1] is None or most is None:
                return 0, None, 0
            most += _HEAD_BYTES + len(name.encode()) + sub.bounds[1]
        return 0, most, 0

    def _steps(self, one: Description, version: int, tail: Bounds) -> tuple[Step, ...]:
        made: list[Step] = []
        after = tail
        later: set[int] = set()
        for field, name in reversed(list(_named(one))):
            if not field.on_wire or not (field.conditional or field.version_id <= version):
                continue
            test = field.test if field.conditional else 0
            step = self._step(field, name)
            decided_by = _decided_by(one, field) if field.conditional else None
            step = replace(
                step,
                after=after,
                repeats=test in later,
                room=_room(one, field),
                decided_by=decided_by,
                usual=COUNTS.get((one.name, field.name)),
            )
            later.update({test} - {0})
            after = plus(after, _bounds(step))
            made.append(step)
        return tuple(reversed(made))

    def _step(self, field: FieldFormat, name: str) -> Step:
        nested, fixed, bounds = self._nested(field)
        info = wire_name(field.info)
        size: int | None
        if field.size_from is not None:
            size, bounds, type_name = None, ANY, info
        elif nested is not None and info in ("", "tmp"):
            size = fixed.size if fixed is not None else None
            type_name = info or ("vstruct" if "VSTRUCT" in field.flags else "struct")
        else:
            size, type_name = wire_size(info, field.size, field.name), info
            bounds = _of_info(info) if size is None else (size, size, size)
        if "ARRAY_OF_POINTER" in field.flags:
            bounds = (1, *plus(bounds, (1, 1, 1))[1:])
        return Step(field, name, type_name, size, fixed, nested, bounds)

    def _nested(self, field: FieldFormat) -> tuple[tuple[str, int] | None, Fixed | None, Bounds]:
        if not field.nested:
            return None, None, ANY
        version = field.struct_version_id if "VSTRUCT" in field.flags else None
        plan = self.plan(field.nested, version)
        if plan is None:
            one = self.schema.descriptions.get(field.nested)
            number = one.version_id if one is not None and version is None else version or 0
            return (field.nested, number), None, ANY
        return (field.nested, plan.version), plan.fixed, plan.bounds

    def _wants(self, steps: tuple[Step, ...], subsections: dict[str, str]) -> Iterator[int]:
        """Offsets, in the object at hand, that its own fields and those inside it ask for."""
        for step in steps:
            for number in (step.field.count_from, step.field.size_from):
                if number is not None:
                    yield number.offset
            if step.decided_by is not None:
                yield step.decided_by
            if step.nested is not None and step.in_place and not step.field.info:
                inner = self.plan(*step.nested)
                for offset, times in inner.wants.items() if inner is not None else ():
                    yield from (step.field.offset + offset for _ in range(min(times, 2)))
        for key in subsections.values():
            sub = self.plan(key)
            for offset, times in sub.wants.items() if sub is not None else ():
                yield from (offset for _ in range(min(times, 2)))


def _named(one: Description) -> Iterator[tuple[FieldFormat, str]]:
    """Fields with their names; names that repeat are numbered, checks count too."""
    total = Counter(field.name for field in one.fields)
    seen: Counter[str] = Counter()
    for field in one.fields:
        number = seen[field.name]
        seen[field.name] += 1
        yield field, f"{field.name}[{number}]" if total[field.name] > 1 else field.name


def _decided_by(one: Description, field: FieldFormat) -> int | None:
    name = DECIDED_BY.get((one.name, field.name))
    if name is None:
        return None
    return next((other.offset for other in one.fields if other.name == name), None)


def _room(one: Description, field: FieldFormat) -> int | None:
    """Elements of an array in place that lie in front of the next member that is described.

    A field of one of the elements is named after the array.
    """
    if "POINTER" in field.flags or field.count_from is None or not field.size:
        return None
    behind = [
        other.offset
        for other in one.fields
        if other.offset >= field.offset + field.size and not other.name.startswith(f"{field.name}[")
    ]
    return (min(behind) - field.offset) // field.size if behind else None


def _bounds(step: Step) -> Bounds:
    count = step.count
    whole = ANY if count is None else plus((0, 0, 0), step.element, count)
    return (0, *whole[1:]) if step.field.conditional else whole


def _of_info(info: str) -> Bounds:
    if info in ELEMENTS:
        return (5 if info == "gtree" else 1), None, None
    return ANY


def _parts(steps: tuple[Step, ...]) -> Iterator[Step | Run]:
    """The steps, with those that never vary and stand beside each other as one."""
    for plain, group in groupby(steps, key=lambda step: _fixed("", 0, (step,)) is not None):
        listed = tuple(group)
        fixed = _fixed("", 0, listed) if plain and len(listed) > 1 else None
        if fixed is None:
            yield from listed
        else:
            yield Run(listed, fixed, listed[-1].after)


def _fixed(name: str, version: int, steps: tuple[Step, ...]) -> Fixed | None:
    """Steps as a description that is fixed, if nothing in them varies."""
    fields: list[FieldDesc] = []
    checks: list[tuple[int, int, str]] = []
    at = 0
    for step in steps:
        count = step.count
        varies = step.field.conditional or step.of_pointers or step.type == "pci config"
        if step.size is None or count is None or varies:
            return None
        if count:
            fields.append(describe(step, step.size, count))
            checks += _checks(step, at, step.size, count)
        if len(checks) > _MAX_CHECKS:
            return None
        at += step.size * count
    return Fixed(at, VmsdDesc(name, version, tuple(fields)), tuple(checks))


def _checks(step: Step, at: int, size: int, count: int) -> Iterator[tuple[int, int, str]]:
    if step.fixed is None:
        if checked(step.type):
            yield at, size * count, step.type
        return
    for number in range(min(count, _MAX_CHECKS + 1)):
        for place, length, info in step.fixed.checks:
            yield at + number * size + place, length, info
