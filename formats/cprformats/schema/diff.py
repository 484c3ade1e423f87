"""What changed between two schemas, and what it means for loading, in both directions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from cprformats.errors import Unsupported
from cprformats.schema.changes import changes, priority_word
from cprformats.schema.difference import (
    Change,
    Difference,
    DifferenceKind,
    Meaning,
    Reason,
    Role,
    Rule,
    SchemaDiff,
    Verdict,
)
from cprformats.schema.meaning import Judge
from cprformats.schema.model import Description, Schema
from cprformats.schema.pairing import pair_descriptions
from cprformats.schema.priorities import priority_names
from cprformats.schema.untyped import has_numbers, without_types
from cprformats.schema.uses import Uses

__all__ = ["diff_schemas"]

#: Loaded by vmstate_load_state with a version that is not from the wire: hw/virtio/virtio.c,
#: virtio-pci.c, virtio-mmio.c (load functions), hw/vfio/pci.c, hw/display/virtio-gpu.c,
#: hw/scsi/spapr_vscsi.c, hw/s390x/virtio-ccw.c, migration/savevm.c, migration/cpr.c. 5.2 to 11.1.
_BY_HAND: Final = frozenset(
    {
        "CprState",
        "VFIOPCIDevice",
        "configuration",
        "s390_virtio_ccw_dev",
        "spapr_vscsi_req",
        "virtio",
        "virtio-gpu-scanouts",
        "virtio_mmio",
        "virtio_pci",
    }
)
#: Fields, and descriptions, of a schema that is compared.
_MOST: Final = 1 << 15
#: Steps upwards through all users of all that differs; more only a hostile file needs.
_MOST_STEPS: Final = 1 << 20


def diff_schemas(old: Schema, new: Schema) -> SchemaDiff:
    """Compare two schemas.

    Where one is from a dump, which has no types and functions, they are left out of
    the other as well.

    Raises:
        Unsupported: a schema has more fields than any QEMU.
    """
    for one in (old, new):
        _check_size(one)
    if "dump" in {old.origin, new.origin}:
        numbers = has_numbers(old) and has_numbers(new)
        old, new = (without_types(one, numbers=numbers) for one in (old, new))
    return _Differ(old, new).run()


def _check_size(schema: Schema) -> None:
    """A QEMU for Arm has some 3,000 fields; hostile files name one list many times."""
    fields = sum(len(one.fields) + len(one.subsections) for one in schema.descriptions.values())
    for what, found in (("fields", fields), ("descriptions", len(schema.descriptions))):
        if found > _MOST:
            raise Unsupported(f"expected at most {_MOST} {what} to compare, found {found}")


class _Differ:
    def __init__(self, old: Schema, new: Schema) -> None:
        self.old, self.new = old, new
        self.forward, self.backward = Judge(old, new), Judge(new, old)
        self.roles = Uses(old), Uses(new)
        self.pairs = pair_descriptions(old, new)
        self.same = {*self.pairs.same, *self.pairs.renamed}
        self.priorities = priority_names(old), priority_names(new)
        self.partners = _partners(self.same, 0), _partners(self.same, 1)
        self.steps = _MOST_STEPS
        self.meanings: dict[tuple[str, str], tuple[Meaning, Meaning]] = {}

    def run(self) -> SchemaDiff:
        """Compare all."""
        found = [*self._changed(), *self._lone()]
        found.sort(key=lambda one: (one.name, one.after, one.before))
        compared = len({one for one, _ in self.same})
        if not self.old.devices or not self.new.devices:
            return SchemaDiff(tuple(found), compared)
        return SchemaDiff(tuple(found), compared, *_devices(self.old, self.new))

    def _changed(self) -> Iterator[Difference]:
        for pairs, kind in (
            (self.pairs.same, DifferenceKind.CHANGED),
            (self.pairs.renamed, DifferenceKind.RENAMED),
        ):
            for before, after in pairs:
                one, two = self.old.descriptions[before], self.new.descriptions[after]
                listed = changes(one, two, self._is_same, self.priorities)
                if listed:
                    yield self._difference(kind, one, two, listed)

    def _is_same(self, before: str, after: str) -> bool:
        here = before in self.old.descriptions, after in self.new.descriptions
        return before == after if here == (False, False) else (before, after) in self.same

    def _difference(
        self, kind: DifferenceKind, one: Description, two: Description, listed: tuple[Change, ...]
    ) -> Difference:
        old_in_new, new_in_old = self._pair_meaning(one, two)
        return Difference(
            kind,
            two.name,
            one.key,
            two.key,
            self.roles[1].role(two.key),
            listed,
            old_in_new,
            new_in_old,
            self.roles[1].users(two.key),
        )

    def _pair_meaning(self, one: Description, two: Description) -> tuple[Meaning, Meaning]:
        known = self.meanings.get((one.key, two.key))
        if known is None:
            order = self._order(one, two)
            known = (
                self._judged(self.forward, one, two, self.roles, order),
                self._judged(self.backward, two, one, self.roles[::-1], order),
            )
            self.meanings[one.key, two.key] = known
        return known

    def _judged(
        self,
        judge: Judge,
        sent: Description,
        own: Description,
        roles: tuple[Uses, ...],
        order: list[Reason],
    ) -> Meaning:
        """By all the ways in which both are used."""
        uses = roles[0].roles(sent.key) | roles[1].roles(own.key)
        reasons: list[Reason] = []
        if Role.NESTED in uses:
            reasons += judge.nested(sent, own).reasons
        if Role.SUBSECTION in uses:
            reasons += judge.section(sent, own, 0xFF).reasons
        if Role.TOP in uses:
            reasons += _top(judge, sent, own)
        return Meaning.of([*reasons, *order])

    def _order(self, one: Description, two: Description) -> list[Reason]:
        """Sections are found by name, so their order does no harm."""
        before, after = (
            priority_word(each, words)
            for words, each in zip(self.priorities, (one, two), strict=True)
        )
        if before == after and one.early_setup == two.early_setup:
            return []
        return [Reason(Verdict.LOADS, Rule.ORDER, two.name)]

    # -- what only one side has -------------------------------------------------------

    def _lone(self) -> Iterator[Difference]:
        for key in self.pairs.removed:
            one = self.old.descriptions[key]
            meanings = self._lone_meaning(one, 0)
            yield Difference(
                DifferenceKind.REMOVED,
                one.name,
                key,
                "",
                self.roles[0].role(key),
                (),
                meanings[0],
                meanings[1],
                self.roles[0].users(key),
            )
        for key in self.pairs.added:
            one = self.new.descriptions[key]
            meanings = self._lone_meaning(one, 1)
            yield Difference(
                DifferenceKind.ADDED,
                one.name,
                "",
                key,
                self.roles[1].role(key),
                (),
                meanings[1],
                meanings[0],
                self.roles[1].users(key),
            )

    def _lone_meaning(self, one: Description, side: int) -> tuple[Meaning, Meaning]:
        """Where the side that has it writes, and where the other one writes."""
        if self.roles[side].role(one.key) is Role.TOP:
            unknown = Reason(Verdict.DEPENDS, Rule.UNKNOWN_SECTION, one.name)
            absent = Reason(Verdict.LOADS, Rule.ABSENT_SECTION, one.name)
            return Meaning.of([unknown]), Meaning.of([absent])
        writes, reads = self._users_verdicts(one.key, side)
        return (
            Meaning.of([Reason(writes, Rule.USERS, one.name)]),
            Meaning.of([Reason(reads, Rule.USERS, one.name)]),
        )

    def _users_verdicts(self, key: str, side: int) -> tuple[Verdict, Verdict]:
        """The worst of the nearest users; those without counterpart count as `_lone_meaning`."""
        writes, reads = [Verdict.LOADS], [Verdict.LOADS]
        for user in self._nearest(key, side):
            pairs = self.partners[side].get(user, [])
            if not pairs:
                writes.append(Verdict.DEPENDS)
            for pair in pairs:
                meanings = self._pair_meaning(
                    self.old.descriptions[pair[0]], self.new.descriptions[pair[1]]
                )
                writes.append(meanings[side].verdict)
                reads.append(meanings[1 - side].verdict)
        return max(writes, key=lambda one: one.rank), max(reads, key=lambda one: one.rank)

    def _nearest(self, key: str, side: int) -> Iterator[str]:
        """Users upwards, up to such that have a counterpart or that nothing uses."""
        seen, waiting = {key}, [key]
        while waiting and self.steps > 0:
            at = waiting.pop()
            users = self.roles[side].by(at)
            self.steps -= 1 + len(users)
            if at != key and (at in self.partners[side] or not users):
                yield at
                continue
            waiting.extend(one for one in users if one not in seen)
            seen.update(users)


_Changed = tuple[tuple[str, str, str], ...]


def _devices(old: Schema, new: Schema) -> tuple[tuple[str, ...], tuple[str, ...], _Changed]:
    """Device types removed, added, and with a description of another name."""
    ours, theirs = (
        {device: one.descriptions[key].name for device, key in one.devices.items()}
        for one in (old, new)
    )
    changed = tuple(
        (device, ours[device], theirs[device])
        for device in sorted(ours.keys() & theirs.keys())
        if ours[device] != theirs[device]
    )
    return tuple(sorted(ours.keys() - theirs)), tuple(sorted(theirs.keys() - ours)), changed


def _top(judge: Judge, sent: Description, own: Description) -> Iterator[Reason]:
    if sent.name != own.name:
        yield Reason(Verdict.DEPENDS, Rule.UNKNOWN_SECTION, sent.name)
    by_hand = own.name in _BY_HAND or (
        own.name.startswith("virtio-") and own.name.endswith("-device")
    )
    if not by_hand:
        yield from judge.section(sent, own).reasons
        return
    yield from judge.nested(sent, own).reasons
    if (sent.version_id, sent.minimum_version_id) != (own.version_id, own.minimum_version_id):
        yield Reason(Verdict.DEPENDS, Rule.OWN_VERSION, own.name)


def _partners(pairs: set[tuple[str, str]], side: int) -> dict[str, list[tuple[str, str]]]:
    """Pairs by their old (0) or new (1) key."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for pair in sorted(pairs):
        found[pair[side]].append(pair)
    return found
