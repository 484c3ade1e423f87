"""Reasons for verdicts that need no more than the two descriptions or fields.

Source: QEMU migration/vmstate.c and vmstate-types.c, releases 5.2 to 11.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from cprformats.schema.changes import Step, hook_names
from cprformats.schema.difference import Reason, Rule, Verdict
from cprformats.schema.fitting import lay
from cprformats.schema.model import Description, FieldFormat
from cprformats.schema.wireform import elements, is_structure, leaf_of

__all__ = [
    "count_reasons",
    "first_name",
    "fitting_notes",
    "forbidden",
    "gated",
    "is_certain",
    "leaf_reasons",
    "may_be_none",
    "new_checks",
    "new_hooks",
    "soft",
    "unknown_format",
    "weighed",
]

_LOADS, _DEPENDS, _FAILS = Verdict.LOADS, Verdict.DEPENDS, Verdict.FAILS
#: Rules that change how many bytes there are.
_BYTES: Final = frozenset({Rule.COUNT, Rule.EXTRA, Rule.MISSING, Rule.NESTED, Rule.SIZE})


def weighed(reasons: list[Reason], together: Verdict) -> list[Reason]:
    """Where bytes are too many at one place, others may be too few at another.

    So it went from 10.0 to 8.2 with the SCSI card am53c974, which loads: `drq_state` is
    one byte too many, `ti_cmd` is one byte that is only expected.

    Args:
        reasons: of all places.
        together: whether the bytes of all places that don't fit, fit together.
    """
    if together is _FAILS:
        return reasons
    return [
        Reason(_DEPENDS, one.rule, one.what)
        if one.verdict is _FAILS and one.rule in _BYTES
        else one
        for one in reasons
    ]


def first_name(step: Step) -> str:
    """The first field of a step."""
    (sent, expected), pair = step
    first: FieldFormat = (*expected, *sent, *(pair or ()))[0]
    return first.name


def forbidden(sent: Description, own: Description) -> Iterator[Reason]:
    """Migration that one side forbids altogether; where both do, nothing changed."""
    if sent.unmigratable != own.unmigratable:
        yield Reason(_FAILS, Rule.UNMIGRATABLE, "the sender" if sent.unmigratable else "this side")


def gated(own: Description, version: int) -> Iterator[Reason]:
    """Fields that came later than the version that is loaded."""
    for one in own.fields:
        if one.on_wire and not one.conditional and version < one.version_id <= own.version_id:
            yield Reason(_LOADS, Rule.GATED, one.name)


def new_checks(sent: Description, own: Description) -> Iterator[Reason]:
    """Checks that the sender lacks; it may send what they refuse."""
    before = {one.name for one in sent.fields if not one.on_wire}
    for one in own.fields:
        if not one.on_wire and one.name not in before:
            yield Reason(_DEPENDS, Rule.CHECK, one.name)


def new_hooks(sent: Description, own: Description) -> Iterator[Reason]:
    """Functions of the reader that the sender lacks."""
    for name in hook_names(own):
        if name in {"pre_load", "post_load"} and name not in hook_names(sent):
            yield Reason(_LOADS, Rule.HOOK, name)


def is_certain(one: FieldFormat) -> bool:
    """Whether a field is there in any case, with at least one byte."""
    return not one.conditional and (is_structure(one) or bool(leaf_of(one).size))


def soft(one: FieldFormat, verdict: Verdict) -> Verdict:
    """The verdict for a field that only one side has, and that may not be there at all."""
    return verdict if is_certain(one) and verdict is not _LOADS else _DEPENDS


def may_be_none(*fields: FieldFormat) -> bool:
    """Whether there may be no element at all."""
    return all(one.count_from is not None for one in fields)


def count_reasons(sent: FieldFormat, own: FieldFormat) -> Iterator[Reason]:
    """Numbers of elements that differ."""
    if (sent.count_from is None) != (own.count_from is None):
        yield Reason(_DEPENDS, Rule.VARIABLE, own.name)
    elif sent.count_from is None and elements(sent) != elements(own):
        yield Reason(_FAILS, Rule.COUNT, own.name)


def leaf_reasons(sent: FieldFormat, own: FieldFormat) -> Iterator[Reason]:
    """Two fields of known size."""
    one, two = leaf_of(sent), leaf_of(own)
    if one.size != two.size:
        rule = Rule.COUNT if one.width == two.width else Rule.SIZE
        yield Reason(_FAILS, rule, own.name)
    elif two.compared and not one.compared:
        yield Reason(_DEPENDS, Rule.COMPARED, own.name)
    elif lay([one], [two]) is not _LOADS:
        yield Reason(_DEPENDS, Rule.REREAD, own.name)


def unknown_format(sent: str, own: str) -> list[Reason]:
    """Two descriptions of which at least one is in no file; the same symbol is the same."""
    return [] if sent == own else [Reason(_DEPENDS, Rule.UNKNOWN, own or sent)]


def fitting_notes(sent: Iterable[FieldFormat], expected: Iterable[FieldFormat]) -> Iterator[Reason]:
    """What is worth knowing of places that fit."""
    ours, theirs = list(sent), list(expected)
    for own in theirs:
        if own.name != "unused":
            unused = any(map(_is_unused, ours))
            yield Reason(_LOADS, Rule.UNUSED if unused else Rule.RENAMED, own.name)
    if any(map(_is_unused, theirs)):
        for one in ours:
            if one.name != "unused":
                yield Reason(_LOADS, Rule.DROPPED, one.name)


def _is_unused(one: FieldFormat) -> bool:
    return one.name == "unused" and one.info in {"", "unused_buffer"}
