"""Differences between schemas in few words, the same in text and in the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from cprformats.schema.difference import Change, ChangeKind, Difference, DifferenceKind, Role

__all__ = ["brief", "change_words", "is_part", "owner", "sorted_for_reading"]

#: `one` is the change.
_WORDS: Final = {
    ChangeKind.FIELD_ADDED: "+ {one.name} ({one.after})",
    ChangeKind.FIELD_REMOVED: "- {one.name} ({one.before})",
    ChangeKind.FIELD_RENAMED: "{one.before} renamed {one.after}?",
    ChangeKind.FIELD_MOVED: "{one.name} moved",
    ChangeKind.CHECK_ADDED: "+ check {one.name}",
    ChangeKind.CHECK_REMOVED: "- check {one.name}",
    ChangeKind.SUBSECTION_ADDED: "+ subsection {one.name}",
    ChangeKind.SUBSECTION_REMOVED: "- subsection {one.name}",
}
#: Where it now is, and where it no longer is.
_SWITCHES: Final = {
    ChangeKind.EARLY_SETUP: ("sent before RAM", "sent after RAM"),
    ChangeKind.UNMIGRATABLE: ("forbids migration", "no longer forbids migration"),
    ChangeKind.FIELD_CONDITIONAL: ("{one.name} now conditional", "{one.name} now unconditional"),
}
_FIELD: Final = {
    ChangeKind.FIELD_TYPE: "type",
    ChangeKind.FIELD_COUNT: "number",
    ChangeKind.FIELD_SIZE: "size",
    ChangeKind.FIELD_NESTED: "structure",
    ChangeKind.FIELD_VERSION: "since version",
}


def change_words(one: Change) -> str:
    """One change in words."""
    if one.kind is ChangeKind.HOOKS:
        return _functions(one)
    words = _WORDS.get(one.kind, "")
    if one.kind in _SWITCHES:
        words = _SWITCHES[one.kind][one.after != "yes"]
    if words:
        return words.format(one=one)
    what = f"{one.name}: {_FIELD[one.kind]}" if one.kind in _FIELD else one.kind.value
    return f"{what} {one.before or 'none'} -> {one.after or 'none'}"


def _functions(one: Change) -> str:
    before, after = (text.split(", ") if text else [] for text in (one.before, one.after))
    words = [f"+ {name}()" for name in after if name not in before]
    words += [f"- {name}()" for name in before if name not in after]
    return ", ".join(words) or "functions in another order"


def brief(changes: Iterable[Change], most: int) -> str:
    """The first of the changes, and how many more there are."""
    words = [change_words(one) for one in changes]
    rest = len(words) - most
    shown = words if rest <= 1 else [*words[:most], f"{rest} more"]
    return "; ".join(shown)


def owner(one: Difference) -> str:
    """The device that a difference belongs to, or how many share it."""
    if not one.users:
        return one.name
    if len(one.users) <= 2:
        return ", ".join(one.users)
    return f"{len(one.users)} devices"


def is_part(one: Difference) -> bool:
    """Whether it came or went with what uses it, so that its user says it all."""
    return one.kind is not DifferenceKind.CHANGED and one.role is not Role.TOP


def sorted_for_reading(differences: Iterable[Difference]) -> Iterator[Difference]:
    """By device, each device's own description first; what several share comes last."""
    yield from sorted(
        differences,
        key=lambda one: (len(one.users) > 1, owner(one).lower(), bool(one.users), one.name),
    )
