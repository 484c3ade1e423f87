"""What differs between two schemas, and what it means for loading: the results.

"Old" is the first schema, "new" the second. A verdict is about the format only:
functions of QEMU (pre_load, post_load) may refuse what the format lets through.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "Change",
    "ChangeKind",
    "Difference",
    "DifferenceKind",
    "Meaning",
    "Reason",
    "Role",
    "Rule",
    "SchemaDiff",
    "Verdict",
]


class Verdict(StrEnum):
    """Whether one binary loads what the other one wrote, as far as the format goes."""

    LOADS = "loads"
    #: On something that is decided when QEMU runs; the reasons say on what.
    DEPENDS = "depends"
    #: Refused, or taken for something else than it is.
    FAILS = "fails"

    @property
    def rank(self) -> int:
        """0 for the best."""
        return list(Verdict).index(self)


class Rule(StrEnum):
    """Why; the value is the sentence, which follows the name of a field or description.

    Source, where not said otherwise: QEMU migration/vmstate.c, releases 5.2 to 11.1.
    """

    # vmstate_load_state compares the version with version_id and minimum_version_id.
    TOO_NEW = "is of a newer version than this loads"
    TOO_OLD = "is of an older version than this loads"
    # vmstate_field_exists
    GATED = "came with a later version, so is not expected"
    SENDER_TEST = "is always expected, and sent only if a test says so"
    RECEIVER_TEST = "is always sent, and expected only if a test says so"
    # The fields have no names on the wire: what is left over or missing moves all behind it.
    # qemu_loadvm_section_start_full (migration/savevm.c) then finds no footer.
    EXTRA = "is sent, and not expected"
    MISSING = "is expected, and not sent"
    MOVED = "is read from another place than it was written to"
    SIZE = "has another size"
    COUNT = "has another number of elements"
    VARIABLE = "has a fixed number of elements on one side and a variable one on the other"
    REREAD = "is the same bytes, read as another type"
    HAND = "has a hand-written format, another one or of another size"
    MARKERS = "has other marks for elements that are NULL"
    NESTED = "is a structure that changed"
    UNKNOWN = "has a format that is not in these files"
    DEEP = "is nested too deep to follow"
    # get_*_equal and get_int32_le (migration/vmstate-types.c)
    COMPARED = "must now have the value that the loading side has"
    # VMS_MUST_EXIST
    CHECK = "is a check that can refuse"
    # vmstate_subsection_load
    UNKNOWN_SUBSECTION = "is a subsection that is not known"
    SUBSECTION = "is a subsection that changed"
    ABSENT_SUBSECTION = "is a subsection that is not sent, which is fine"
    # qemu_loadvm_section_start_full: find_se
    UNKNOWN_SECTION = "is a section that is not known, if the machine has such a device"
    ABSENT_SECTION = "is never sent, and nothing asks for it: the device stays as after a reset"
    # qemu_savevm_state_blocked (migration/savevm.c), asked on saving and on loading
    UNMIGRATABLE = "forbids migration"
    # Lists, trees and temporary structures take the field's version (vmstate-types.c).
    OWN_VERSION = "is loaded by a function that passes a version of its own"
    # Notes: no harm in them.
    UNUSED = "is filled with zeros by the sender"
    DROPPED = "is sent, and skipped as unused"
    RENAMED = "has the same bytes under another name"
    SAME_BYTES = "has the same bytes, in other structures"
    ORDER = "is sent at another place among the sections, which is found by name"
    HOOK = "is a function that the other side lacks, and may refuse"
    USERS = "is part of another description, whose verdict counts"


class Role(StrEnum):
    """How a description is used; one of several: the first that fits."""

    #: By no other description: a section of its own, or called by hand-written code.
    TOP = "top"
    NESTED = "nested"
    SUBSECTION = "subsection"


class DifferenceKind(StrEnum):
    """What became of a description."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    #: Same structure, other name: a guess.
    RENAMED = "renamed?"


class ChangeKind(StrEnum):
    """What changed in a description."""

    NAME = "name"
    VERSION = "version_id"
    MINIMUM = "minimum_version_id"
    UNMIGRATABLE = "unmigratable"
    EARLY_SETUP = "early_setup"
    PRIORITY = "priority"
    HOOKS = "functions"
    FIELD_ADDED = "field added"
    FIELD_REMOVED = "field removed"
    FIELD_RENAMED = "field renamed?"
    FIELD_MOVED = "field moved"
    FIELD_TYPE = "field type"
    FIELD_COUNT = "field count"
    FIELD_SIZE = "field size"
    FIELD_NESTED = "field nested"
    FIELD_CONDITIONAL = "field conditional"
    FIELD_VERSION = "field version"
    CHECK_ADDED = "check added"
    CHECK_REMOVED = "check removed"
    SUBSECTION_ADDED = "subsection added"
    SUBSECTION_REMOVED = "subsection removed"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a verdict is what it is, or (with `LOADS`) what is worth knowing.

    Attributes:
        verdict: what this alone would give.
        rule: which rule of QEMU's loader.
        what: the field, subsection or description.
    """

    verdict: Verdict
    rule: Rule
    what: str

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.what} {self.rule.value}"


@dataclass(frozen=True, slots=True)
class Meaning:
    """A verdict for one direction, with its reasons, the worst first."""

    verdict: Verdict = Verdict.LOADS
    reasons: tuple[Reason, ...] = ()

    @classmethod
    def of(cls, reasons: Iterable[Reason]) -> Meaning:
        """The worst of the reasons decides."""
        unique = dict.fromkeys(reasons)
        ordered = sorted(unique, key=lambda one: -one.verdict.rank)
        return cls(ordered[0].verdict, tuple(ordered)) if ordered else cls()


@dataclass(frozen=True, slots=True)
class Change:
    """One change; `before` and `after` are words, empty where there is none.

    Attributes:
        kind: what sort.
        name: of the field or subsection, empty for the description itself.
        before: in the old schema.
        after: in the new one.
    """

    kind: ChangeKind
    name: str = ""
    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """A description that is not the same in both schemas.

    Attributes:
        kind: added, removed, changed or renamed.
        name: in the new schema, or where it is removed in the old one.
        before: key in the old schema, empty where it was added.
        after: key in the new schema, empty where it was removed.
        role: how it is used.
        changes: in the order of the description; empty for added and removed ones.
        old_in_new: whether the new binary loads it from an old state.
        new_in_old: whether the old binary loads it from a new state.
        users: names of the top-level descriptions that reach it, itself left out.
    """

    kind: DifferenceKind
    name: str
    before: str
    after: str
    role: Role
    changes: tuple[Change, ...]
    old_in_new: Meaning
    new_in_old: Meaning
    users: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SchemaDiff:
    """All that differs.

    Attributes:
        differences: by name.
        compared: how many descriptions of the old schema have a counterpart.
        devices_removed: device types of the old schema only; known where both schemas
            are from a dump, or joined with one.
        devices_added: device types of the new schema only, likewise.
        devices_changed: device types whose description has another name now, so that
            its section is another one: (type, old name, new name).
    """

    differences: tuple[Difference, ...]
    compared: int
    devices_removed: tuple[str, ...] = ()
    devices_added: tuple[str, ...] = ()
    devices_changed: tuple[tuple[str, str, str], ...] = ()

    def of_kind(self, kind: DifferenceKind) -> tuple[Difference, ...]:
        """Those of one kind."""
        return tuple(one for one in self.differences if one.kind == kind)
