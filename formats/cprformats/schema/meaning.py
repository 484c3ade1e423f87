"""Whether one binary loads what another wrote, as far as the formats go.

The fields that the sender writes stand against those that the receiver expects at
the version that it is told. What both have in common is compared one by one; what
lies between must be the same bytes. Nothing here asks what a function of QEMU
would decide: where it depends on one, the verdict is that it depends.

Source: QEMU migration/vmstate.c (vmstate_load_state, vmstate_save_state_v,
vmstate_subsection_load), migration/savevm.c (qemu_loadvm_section_start_full),
releases 5.2 to 11.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cprformats.schema.changes import Gap, Step, gaps, moved_names
from cprformats.schema.difference import Meaning, Reason, Rule, Verdict
from cprformats.schema.fitting import fit, fit_values, places
from cprformats.schema.fitting import moved as moved_places
from cprformats.schema.model import Description, FieldFormat, Schema
from cprformats.schema.reasons import (
    count_reasons,
    first_name,
    fitting_notes,
    forbidden,
    gated,
    is_certain,
    leaf_reasons,
    may_be_none,
    new_checks,
    new_hooks,
    soft,
    unknown_format,
    weighed,
)
from cprformats.schema.wireform import (
    LISTS,
    Flattener,
    is_structure,
    leaf_of,
    marks,
    present,
    received_version,
    sent_version,
)

__all__ = ["Judge"]

_DEEPEST: Final = 64
#: Places over which one change of structure may reach.
_MOST_JOINED: Final = 32
_LOADS, _DEPENDS, _FAILS = Verdict.LOADS, Verdict.DEPENDS, Verdict.FAILS
#: More than any two QEMUs need by far.
_MOST_LOOKS: Final = 1 << 17
_Memo = tuple[str, int, str, int]


class Judge:
    """Judges one direction.

    Args:
        sender: the schema of the binary that wrote the state.
        receiver: that of the binary to load it.
    """

    def __init__(self, sender: Schema, receiver: Schema) -> None:
        self.sender = sender
        self.receiver = receiver
        self._out = Flattener(sender, sending=True)
        self._in = Flattener(receiver, sending=False)
        self._known: dict[_Memo, Meaning] = {}
        self._open: set[_Memo] = set()
        self._looped: set[_Memo] = set()
        self._supposed: dict[_Memo, Meaning] = {}
        self._left = _MOST_LOOKS

    # -- descriptions -------------------------------------------------------------

    def section(self, sent: Description, own: Description, mask: int = -1) -> Meaning:
        """A description whose version is on the wire.

        Args:
            sent: the sender's.
            own: the receiver's.
            mask: bits of the version that the receiver keeps: a subsection's is a byte.
        """
        version = sent.version_id & mask
        # Of a subsection it is not asked.
        reasons = list(forbidden(sent, own)) if mask == -1 else []
        if version > own.version_id:
            reasons.append(Reason(_FAILS, Rule.TOO_NEW, f"version {version}"))
        elif version < own.minimum_version_id:
            reasons.append(Reason(_FAILS, Rule.TOO_OLD, f"version {version}"))
        else:
            reasons.extend(gated(own, version))
            reasons.extend(self.body(sent, sent.version_id, own, version).reasons)
        return Meaning.of(reasons)

    def nested(self, sent: Description, own: Description) -> Meaning:
        """A description whose version is not on the wire: each side goes by its own."""
        return self.body(sent, sent.version_id, own, own.version_id)

    def body(self, sent: Description, written: int, own: Description, read: int) -> Meaning:
        """Fields and subsections, written in one version and read in another."""
        memo = (sent.key, written, own.key, read)
        if memo in self._known:
            return self._known[memo]
        if memo in self._open:
            self._looped.add(memo)
            return self._supposed.get(memo, Meaning())
        if len(self._open) >= _DEEPEST or self._left <= 0:
            return Meaning.of([Reason(_DEPENDS, Rule.DEEP, sent.name)])
        found = self._settled(memo, sent, own)
        self._known[memo] = found
        return found

    def _settled(self, memo: _Memo, sent: Description, own: Description) -> Meaning:
        """What holds itself is supposed to load, and looked at again if it doesn't."""
        before = len(self._known)
        for _ in Verdict:
            found = self._look(memo, sent, own)
            supposed = self._supposed.get(memo, Meaning()).verdict
            if memo not in self._looped or found.verdict is supposed:
                return found
            self._supposed[memo] = found
            for late in list(self._known)[before:]:
                del self._known[late]
        return Meaning.of([Reason(_DEPENDS, Rule.DEEP, sent.name)])

    def _look(self, memo: _Memo, sent: Description, own: Description) -> Meaning:
        self._left -= 1
        self._open.add(memo)
        reasons = self._fields(present(sent, memo[1]), present(own, memo[3]))
        reasons += self._subsections(sent, own)
        self._open.discard(memo)
        reasons += new_checks(sent, own)
        reasons += new_hooks(sent, own)
        return Meaning.of(reasons)

    # -- fields ---------------------------------------------------------------------

    def _fields(self, sent: list[FieldFormat], expected: list[FieldFormat]) -> list[Reason]:
        listed = [part for step in gaps(sent, expected) for part in _parts(step)]
        moved = moved_names([gap for gap, _ in listed])
        # Over nothing but fields that are not there, a field moves to where it was.
        surely = _FAILS if all(map(is_certain, (*sent, *expected))) else _DEPENDS
        reasons: list[Reason] = []
        left: Gap = ([], [])
        at = 0
        while at < len(listed):
            found = self._step(listed[at], dict.fromkeys(moved, surely))
            more = 0
            if Meaning.of(found).verdict is not _LOADS:
                more = self._reshaped(listed[at : at + _MOST_JOINED], moved)
                found = [Reason(_LOADS, Rule.SAME_BYTES, first_name(listed[at]))] if more else found
            if Meaning.of(found).verdict is not _LOADS:
                _add(left, listed[at])
            reasons += found
            at += more or 1
        return weighed(reasons, self._fit(*left))

    def _step(self, step: Step, moved: dict[str, Verdict]) -> list[Reason]:
        gap, pair = step
        found = list(self._gap(gap, moved))
        return found if pair is None else [*found, *self._pair(*pair)]

    def _reshaped(self, steps: list[Step], moved: set[str]) -> int:
        """How many steps together are the same bytes in other structures; 0 if none."""
        joined: Gap = ([], [])
        for count, step in enumerate(steps, 1):
            _add(joined, step)
            here, there = ({one.name for one in side} & moved for side in joined)
            # What moved is to be seen where it was and where it is.
            if here == there and self._same_bytes(*joined):
                return count
        return 0

    def _same_bytes(self, sent: list[FieldFormat], expected: list[FieldFormat]) -> bool:
        """Whether the same values are there: bytes that fit, and names at the same places."""
        out, own = self._out.leaves(sent), self._in.leaves(expected)
        if out is None or own is None or fit(out, own) is not _LOADS:
            return False
        here, there = places(out), places(own)
        return bool(here.keys() & there.keys()) and not moved_places(here, there)

    def _gap(self, gap: Gap, moved: dict[str, Verdict]) -> Iterator[Reason]:
        sent, expected = gap
        if not sent and not expected:
            return
        verdict = self._fit(sent, expected)
        if not any(one.name in moved for one in (*sent, *expected)) and (
            verdict is _LOADS or self._renamed(sent, expected)
        ):
            yield from fitting_notes(sent, expected)
            return
        names = {one.name for one in expected}
        for one in sent:
            if one.name not in moved:
                yield Reason(soft(one, verdict), Rule.EXTRA, one.name)
            elif one.name not in names:
                yield Reason(soft(one, moved[one.name]), Rule.MOVED, one.name)
        for one in expected:
            if one.name in moved:
                yield Reason(soft(one, moved[one.name]), Rule.MOVED, one.name)
            else:
                yield Reason(soft(one, verdict), Rule.MISSING, one.name)

    def _fit(self, sent: list[FieldFormat], expected: list[FieldFormat]) -> Verdict:
        out, own = self._out.leaves(sent), self._in.leaves(expected)
        return _DEPENDS if out is None or own is None else fit_values(out, own)

    def _renamed(self, sent: list[FieldFormat], expected: list[FieldFormat]) -> bool:
        """Whether each field has become one of another name, by what is nested in them."""
        return len(sent) == len(expected) and all(
            Meaning.of(self._pair(one, two)).verdict is _LOADS
            and not one.conditional
            and not two.conditional
            for one, two in zip(sent, expected, strict=True)
        )

    def _pair(self, sent: FieldFormat, own: FieldFormat) -> Iterator[Reason]:
        """A field that both have."""
        maybe = sent.conditional and own.conditional
        for one in self._compare(sent, own):
            weak = maybe and one.verdict is _FAILS
            yield Reason(_DEPENDS, one.rule, one.what) if weak else one
        if sent.conditional != own.conditional:
            rule = Rule.SENDER_TEST if sent.conditional else Rule.RECEIVER_TEST
            yield Reason(_DEPENDS, rule, own.name)

    def _compare(self, sent: FieldFormat, own: FieldFormat) -> Iterator[Reason]:
        if not sent.nested or not own.nested or sent.info != own.info:
            yield from self._compare_leaves(sent, own)
            return
        name = own.name
        if marks(sent) != marks(own):
            yield Reason(_DEPENDS, Rule.MARKERS, name)
            return
        yield from count_reasons(sent, own)
        found = self._nested(sent, own)
        found += self._tree_keys(sent, own)
        verdict = Meaning.of(found).verdict
        if verdict is not _LOADS:
            weak = may_be_none(sent, own) or own.info in LISTS or bool(marks(own))
            rules = {one.rule for one in found if one.verdict is verdict}
            rule = Rule.UNKNOWN if rules == {Rule.UNKNOWN} else Rule.NESTED
            yield Reason(_DEPENDS if weak else verdict, rule, f"{name} ({own.nested})")

    def _nested(self, sent: FieldFormat, own: FieldFormat) -> list[Reason]:
        one = self.sender.descriptions.get(sent.nested)
        two = self.receiver.descriptions.get(own.nested)
        if one is None or two is None:
            return unknown_format(sent.nested, own.nested)
        written, read = sent_version(sent, one), received_version(own, two)
        return list(self.body(one, written, two, read).reasons)

    def _tree_keys(self, sent: FieldFormat, own: FieldFormat) -> list[Reason]:
        if not sent.nested_key and not own.nested_key:
            return []
        one = self.sender.descriptions.get(sent.nested_key)
        two = self.receiver.descriptions.get(own.nested_key)
        if one is None or two is None:
            return unknown_format(sent.nested_key, own.nested_key)
        return list(self.body(one, one.version_id, two, own.version_id).reasons)

    def _compare_leaves(self, sent: FieldFormat, own: FieldFormat) -> Iterator[Reason]:
        if is_structure(sent) or is_structure(own):
            verdict = self._fit([sent], [own])
            if verdict is not _LOADS:
                yield Reason(verdict, Rule.NESTED, own.name)
            return
        one, two = leaf_of(sent), leaf_of(own)
        if one.size and two.size:
            yield from leaf_reasons(sent, own)
        elif one.ident != two.ident or bool(one.size) != bool(two.size):
            variable = bool(one.size) != bool(two.size) and sent.info == own.info
            yield Reason(_DEPENDS, Rule.VARIABLE if variable else Rule.HAND, own.name)

    # -- subsections ----------------------------------------------------------------

    def _subsections(self, sent: Description, own: Description) -> Iterator[Reason]:
        known: dict[str, Description] = {}
        for key in own.subsections:
            one = self.receiver.descriptions.get(key)
            if one is not None:
                known.setdefault(one.name, one)  # of several with one name, QEMU takes the first
        absent = dict.fromkeys(known)
        for key in sent.subsections:
            one = self.sender.descriptions.get(key)
            if one is None:
                yield Reason(_DEPENDS, Rule.UNKNOWN, key)
                continue
            absent.pop(one.name, None)
            yield from self._subsection(one, known.get(one.name))
        for name in absent:
            yield Reason(_LOADS, Rule.ABSENT_SUBSECTION, name)

    def _subsection(self, sent: Description, own: Description | None) -> Iterator[Reason]:
        always = "needed" not in sent.hooks and self.sender.origin == "elf"
        if own is None:
            yield Reason(_FAILS if always else _DEPENDS, Rule.UNKNOWN_SUBSECTION, sent.name)
            return
        verdict = self.section(sent, own, 0xFF).verdict
        if verdict is not _LOADS:
            yield Reason(verdict if always else _DEPENDS, Rule.SUBSECTION, sent.name)


def _parts(step: Step) -> Iterator[Step]:
    """What stands alone, and the common field behind it."""
    gap, pair = step
    if any(gap):
        yield gap, None
    if pair is not None:
        yield ([], []), pair


def _add(gap: Gap, step: Step) -> None:
    """Put a step's fields, common ones too, behind those of a gap."""
    (sent, expected), pair = step
    gap[0].extend(sent)
    gap[1].extend(expected)
    if pair is not None:
        gap[0].append(pair[0])
        gap[1].append(pair[1])
