"""Which description, and which field, of one schema is which of another.

Descriptions go by name; of several with one name those with the most alike fields
belong together. What has no counterpart may have been renamed: same fields, another
name. Fields go by name in order, as many as possible without crossing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cprformats.schema.model import Description, FieldFormat, Schema

__all__ = ["Pairs", "pair_descriptions", "pair_names"]

#: Of one name there are never many; beyond this, order decides.
_MOST_COMPARED: Final = 10_000
#: Cells of the table that finds the longest common sequence.
_MOST_CELLS: Final = 1 << 16
#: A description that is alike by half is taken for a variant of the other.
_ALIKE: Final = 0.5
#: With fewer fields, equal structure proves nothing.
_RENAMED_FIELDS: Final = 3

_Print = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Counterparts, as pairs of keys.

    Attributes:
        same: of the same name; one description may be in several pairs, where one
            became two or two became one.
        renamed: of the same structure.
        removed: keys of the old schema without counterpart.
        added: keys of the new schema without counterpart.
    """

    same: tuple[tuple[str, str], ...]
    renamed: tuple[tuple[str, str], ...]
    removed: tuple[str, ...]
    added: tuple[str, ...]


def pair_descriptions(old: Schema, new: Schema) -> Pairs:
    """Find the counterpart of each description."""
    ours, theirs = _by_name(old), _by_name(new)
    same: list[tuple[str, str]] = []
    for name, group in ours.items():
        same.extend(_pair_group(group, theirs.get(name, [])))
    removed = _without(old, {one for one, _ in same})
    added = _without(new, {one for _, one in same})
    renamed = list(_renamed(removed, added))
    gone, came = {one for one, _ in renamed}, {one for _, one in renamed}
    return Pairs(
        tuple(same),
        tuple(renamed),
        tuple(one.key for one in removed if one.key not in gone),
        tuple(one.key for one in added if one.key not in came),
    )


def _by_name(schema: Schema) -> dict[str, list[Description]]:
    groups: dict[str, list[Description]] = defaultdict(list)
    for one in schema.descriptions.values():
        groups[one.name].append(one)
    return groups


def _without(schema: Schema, keys: set[str]) -> list[Description]:
    return [one for key, one in schema.descriptions.items() if key not in keys]


def _pair_group(old: list[Description], new: list[Description]) -> Iterator[tuple[str, str]]:
    """Pair descriptions of one name: equal ones first, then the most alike."""
    if len(old) == len(new) == 1:
        yield old[0].key, new[0].key
        return
    equal = list(_equal(old, new))
    yield from equal
    left = _rest(old, {one for one, _ in equal})
    right = _rest(new, {one for _, one in equal})
    if len(left) * len(right) > _MOST_COMPARED:
        yield from zip((one.key for one in left), (one.key for one in right), strict=False)
        return
    made = list(_most_alike(left, right))
    yield from made
    # What remains on one side only may be a variant of one that has its counterpart.
    for one in _rest(left, {key for key, _ in made}):
        yield from ((one.key, two.key) for two in _variant(one, new))
    for two in _rest(right, {key for _, key in made}):
        yield from ((one.key, two.key) for one in _variant(two, old))


def _rest(group: list[Description], keys: set[str]) -> list[Description]:
    return [one for one in group if one.key not in keys]


def _equal(old: list[Description], new: list[Description]) -> Iterator[tuple[str, str]]:
    """Pair those with the same structure, in their order."""
    waiting: dict[_Print, list[Description]] = defaultdict(list)
    for one in reversed(new):
        waiting[_whole_print(one)].append(one)
    for one in old:
        found = waiting.get(_whole_print(one))
        if found:
            yield one.key, found.pop().key


def _most_alike(old: list[Description], new: list[Description]) -> Iterator[tuple[str, str]]:
    scores = [(_alike(one, two), a, b) for a, one in enumerate(old) for b, two in enumerate(new)]
    scores.sort(key=lambda score: (-score[0], score[1], score[2]))
    taken: set[int] = set()
    done: set[int] = set()
    for _, a, b in scores:
        if a not in taken and b not in done:
            taken.add(a)
            done.add(b)
            yield old[a].key, new[b].key


def _variant(one: Description, group: list[Description]) -> list[Description]:
    """The most alike of a group, if it is alike enough."""
    if not 0 < len(group) <= 100:
        return []
    best = max(group, key=lambda other: _alike(one, other))
    return [best] if _alike(one, best) >= _ALIKE else []


def _alike(one: Description, two: Description) -> float:
    """Share of the fields that both have, 0 to 1."""
    ours, theirs = Counter(map(_print, one.fields)), Counter(map(_print, two.fields))
    total = max(ours.total(), theirs.total())
    return (ours & theirs).total() / total if total else 1.0


def _print(one: FieldFormat) -> _Print:
    """What a field is, but for its place in memory."""
    return (one.name, one.info, one.num, bool(one.nested), one.conditional, one.version_id)


def _whole_print(one: Description) -> _Print:
    names = tuple(key.partition("#")[0] for key in one.references())
    return (*_structure(one), names)


def _structure(one: Description) -> _Print:
    """A print without any other description's name: those may be renamed with it."""
    versions = (one.version_id, one.minimum_version_id, len(one.subsections))
    return (*map(_print, one.fields), *versions)


def _renamed(removed: list[Description], added: list[Description]) -> Iterator[tuple[str, str]]:
    """Pair what has the same structure, where just one on each side has it."""
    gone, came = _by_print(removed), _by_print(added)
    for key, group in gone.items():
        others = came.get(key, [])
        if len(group) == len(others) == 1:
            yield group[0].key, others[0].key


def _by_print(group: list[Description]) -> dict[_Print, list[Description]]:
    prints: dict[_Print, list[Description]] = defaultdict(list)
    for one in group:
        if len(one.fields) >= _RENAMED_FIELDS:
            prints[_structure(one)].append(one)
    return prints


# -- sequences of names -----------------------------------------------------------


def pair_names(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """Positions of a longest common subsequence; of a long one, some common subsequence.

    Returns:
        Pairs of positions, both rising.
    """
    start = _common(old, new)
    end = min(_common(old[::-1], new[::-1]), len(old) - start, len(new) - start)
    left, right = old[start : len(old) - end], new[start : len(new) - end]
    if len(left) * len(right) <= _MOST_CELLS:
        middle = _longest(left, right)
    else:
        middle = _greedy(left, right)
    pairs = [(at, at) for at in range(start)]
    pairs += [(start + a, start + b) for a, b in middle]
    pairs += [(len(old) - at, len(new) - at) for at in range(end, 0, -1)]
    return pairs


def _common(old: Sequence[str], new: Sequence[str]) -> int:
    count = 0
    for one, two in zip(old, new, strict=False):
        if one != two:
            break
        count += 1
    return count


def _longest(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """The textbook table, filled from the end so that it is read from the start."""
    rows = [[0] * (len(new) + 1)]
    for one in reversed(old):
        below, row = rows[-1], [0] * (len(new) + 1)
        for b in range(len(new) - 1, -1, -1):
            row[b] = below[b + 1] + 1 if one == new[b] else max(below[b], row[b + 1])
        rows.append(row)
    rows.reverse()
    pairs, a, b = [], 0, 0
    while a < len(old) and b < len(new):
        if old[a] == new[b]:
            pairs.append((a, b))
            a, b = a + 1, b + 1
        elif rows[a + 1][b] >= rows[a][b + 1]:
            a += 1
        else:
            b += 1
    return pairs


def _greedy(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    places: dict[str, list[int]] = defaultdict(list)
    for at, name in enumerate(new):
        places[name].append(at)
    for found in places.values():
        found.reverse()
    pairs, last = [], -1
    for at, name in enumerate(old):
        found = places.get(name, [])
        while found and found[-1] <= last:
            found.pop()
        if found:
            last = found.pop()
            pairs.append((at, last))
    return pairs
