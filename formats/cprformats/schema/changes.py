"""The list of what changed between two descriptions, whatever it means.

Places in memory are left out, and sizes in memory where the wire doesn't take them
from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from cprformats.schema.difference import Change, ChangeKind
from cprformats.schema.model import Description, FieldFormat
from cprformats.schema.pairing import pair_names
from cprformats.schema.wireform import Kind, describe, elements, is_structure, leaf_of, marks

__all__ = ["Gap", "Step", "changes", "gaps", "hook_names", "moved_names", "priority_word"]

#: In 10.2 most functions got a variant that gives an error in words.
_SUFFIX: Final = "_errp"
#: (what is only in the old list, what is only in the new list), between common fields.
Gap = tuple[list[FieldFormat], list[FieldFormat]]
#: What stands alone, and the common field that follows (None at the end).
Step = tuple[Gap, tuple[FieldFormat, FieldFormat] | None]
_Same = Callable[[str, str], bool]
_Words = dict[int, str]


def changes(
    old: Description,
    new: Description,
    same: _Same,
    priorities: tuple[_Words, _Words] = ({}, {}),
) -> tuple[Change, ...]:
    """List what changed.

    Args:
        old: a description.
        new: its counterpart.
        same: whether two keys are counterparts.
        priorities: names of priorities in the old and in the new schema.
    """
    found = list(_heads(old, new, priorities))
    found += _field_changes(old, new, same)
    found += _check_changes(old, new)
    found += _subsection_changes(old, new)
    return tuple(found)


def _heads(
    old: Description, new: Description, priorities: tuple[_Words, _Words]
) -> Iterator[Change]:
    pairs = (
        (ChangeKind.NAME, old.name, new.name),
        (ChangeKind.VERSION, str(old.version_id), str(new.version_id)),
        (ChangeKind.MINIMUM, str(old.minimum_version_id), str(new.minimum_version_id)),
        (ChangeKind.UNMIGRATABLE, _yes(old.unmigratable), _yes(new.unmigratable)),
        (ChangeKind.EARLY_SETUP, _yes(old.early_setup), _yes(new.early_setup)),
        (
            ChangeKind.PRIORITY,
            priority_word(old, priorities[0]),
            priority_word(new, priorities[1]),
        ),
        (ChangeKind.HOOKS, ", ".join(hook_names(old)), ", ".join(hook_names(new))),
    )
    for kind, before, after in pairs:
        if before != after:
            yield Change(kind, "", before, after)


def priority_word(one: Description, names: _Words) -> str:
    """A priority's name; zero is "not set", which QEMU takes for the default."""
    return names.get(one.priority, str(one.priority)) if one.priority else "DEFAULT"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def hook_names(one: Description) -> list[str]:
    """Functions of a description, a variant counted as the same."""
    return list(dict.fromkeys(name.removesuffix(_SUFFIX) for name in one.hooks))


# -- fields ---------------------------------------------------------------------


def gaps(old: Sequence[FieldFormat], new: Sequence[FieldFormat]) -> Iterator[Step]:
    """What two lists of fields have alone, in front of each common one and at the end."""
    at_old = at_new = 0
    for a, b in pair_names(list(map(_label, old)), list(map(_label, new))):
        yield (list(old[at_old:a]), list(new[at_new:b])), (old[a], new[b])
        at_old, at_new = a + 1, b + 1
    yield (list(old[at_old:]), list(new[at_new:])), None


def _label(one: FieldFormat) -> str:
    """What fields are paired by; unused places all have one name."""
    return f"unused {one.size} {one.num}" if one.name == "unused" else one.name


def _field_changes(old: Description, new: Description, same: _Same) -> Iterator[Change]:
    ours = [one for one in old.fields if one.on_wire]
    theirs = [one for one in new.fields if one.on_wire]
    listed = list(gaps(ours, theirs))
    moved = moved_names([gap for gap, _ in listed])
    for gap, pair in listed:
        yield from _gap_changes(gap, moved, same)
        if pair is not None:
            yield from _pair_changes(*pair, same)


def moved_names(listed: Sequence[Gap]) -> set[str]:
    """Names that are left over on both sides; an unused place has no name of its own."""
    gone = {one.name for old, _ in listed for one in old}
    came = {one.name for _, new in listed for one in new}
    return (gone & came) - {"unused"}


def _gap_changes(gap: Gap, moved: set[str], same: _Same) -> Iterator[Change]:
    old, new = gap
    if len(old) == len(new) and all(
        _renamed(*pair, moved, same) for pair in zip(*gap, strict=True)
    ):
        for one, two in zip(old, new, strict=True):
            yield Change(ChangeKind.FIELD_RENAMED, one.name, one.name, two.name)
        return
    for one in old:
        if one.name not in moved:
            yield Change(ChangeKind.FIELD_REMOVED, one.name, _described(one), "")
    for two in new:
        if two.name in moved:
            yield Change(ChangeKind.FIELD_MOVED, two.name)
        else:
            yield Change(ChangeKind.FIELD_ADDED, two.name, "", _described(two))


def _renamed(old: FieldFormat, new: FieldFormat, moved: set[str], same: _Same) -> bool:
    if {old.name, new.name} & (moved | {"unused"}):
        return False
    return not any(True for _ in _pair_changes(old, new, same))


def _described(one: FieldFormat) -> str:
    notes = [describe(one)]
    notes += [f"since version {one.version_id}"] if one.version_id else []
    notes += ["conditional"] if one.conditional else []
    return ", ".join(notes)


def _pair_changes(old: FieldFormat, new: FieldFormat, same: _Same) -> Iterator[Change]:
    pairs = [
        (ChangeKind.FIELD_TYPE, _type(old), _type(new)),
        (ChangeKind.FIELD_COUNT, _number(old), _number(new)),
        (ChangeKind.FIELD_CONDITIONAL, _yes(old.conditional), _yes(new.conditional)),
        (ChangeKind.FIELD_VERSION, str(old.version_id), str(new.version_id)),
    ]
    if _type(old) == _type(new) and _size(old) != _size(new):
        pairs.append((ChangeKind.FIELD_SIZE, str(_size(old)), str(_size(new))))
    for before, after in ((old.nested, new.nested), (old.nested_key, new.nested_key)):
        if before and after and not same(before, after):
            pairs.append((ChangeKind.FIELD_NESTED, before, after))
    for kind, before, after in pairs:
        if before != after:
            yield Change(kind, new.name, before, after)


def _type(one: FieldFormat) -> str:
    marked = f", marks {marks(one)}" if marks(one) else ""
    if "VSTRUCT" in one.flags:
        return f"structure of version {one.struct_version_id}{marked}"
    return (one.info or ("structure" if one.nested else "")) + marked


def _number(one: FieldFormat) -> str:
    if one.count_from is None:
        return str(elements(one))
    return "variable" if one.count_from.times == 1 else f"variable x {one.count_from.times}"


def _size(one: FieldFormat) -> int | str:
    """Bytes of an element on the wire, as far as that is in the schema."""
    if is_structure(one) or one.nested:
        return ""
    if one.size_from is not None:
        return "variable" if one.size_from.times == 1 else f"variable x {one.size_from.times}"
    leaf = leaf_of(one)
    return one.size if leaf.kind is Kind.OPEN else leaf.width


# -- the rest ---------------------------------------------------------------------


def _check_changes(old: Description, new: Description) -> Iterator[Change]:
    before, after = (Counter(f.name for f in one.fields if not f.on_wire) for one in (old, new))
    for name in (before - after).elements():
        yield Change(ChangeKind.CHECK_REMOVED, name)
    for name in (after - before).elements():
        yield Change(ChangeKind.CHECK_ADDED, name)


def _subsection_changes(old: Description, new: Description) -> Iterator[Change]:
    before, after = (
        Counter(key.partition("#")[0] for key in one.subsections) for one in (old, new)
    )
    for name in (before - after).elements():
        yield Change(ChangeKind.SUBSECTION_REMOVED, name)
    for name in (after - before).elements():
        yield Change(ChangeKind.SUBSECTION_ADDED, name)
