"""What `diff_schemas` finds, change by change, and what it says of loading."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from builders.schemas import description, dump, dumped, dumped_field, field, schema
from cprformats.errors import Unsupported
from cprformats.schema.diff import diff_schemas
from cprformats.schema.difference import (
    Change,
    ChangeKind,
    Difference,
    DifferenceKind,
    Meaning,
    Role,
    Rule,
    Verdict,
)
from cprformats.schema.dump import read_dump
from cprformats.schema.model import CountFrom, Description, FieldFormat
from cprformats.schema.pairing import pair_names

LOADS, DEPENDS, FAILS = Verdict.LOADS, Verdict.DEPENDS, Verdict.FAILS
X, Y = field("x"), field("y")
N = CountFrom("uint32", 8)


def only(old: Description, new: Description, *others: Description) -> Difference:
    """The difference of two descriptions, which is the only one."""
    found = diff_schemas(schema(old, *others), schema(new, *others)).differences
    assert len(found) == 1
    return found[0]


def between(old: tuple[FieldFormat, ...], new: tuple[FieldFormat, ...], **more: Any) -> Difference:
    return only(description("d", *old), description("d", *new, **more))


def verdicts(one: Difference) -> tuple[Verdict, Verdict]:
    return one.old_in_new.verdict, one.new_in_old.verdict


def rules(one: Meaning) -> dict[str, Rule]:
    return {reason.what: reason.rule for reason in one.reasons}


def kinds(one: Difference) -> list[tuple[ChangeKind, str]]:
    return [(change.kind, change.name) for change in one.changes]


# -- versions ----------------------------------------------------------------------


def test_a_new_version_with_new_fields() -> None:
    late = field("late", version_id=2)
    one = between((X,), (X, late), version_id=2)
    assert kinds(one) == [(ChangeKind.VERSION, ""), (ChangeKind.FIELD_ADDED, "late")]
    assert verdicts(one) == (LOADS, FAILS)
    assert rules(one.old_in_new) == {"late": Rule.GATED}
    assert rules(one.new_in_old) == {"version 2": Rule.TOO_NEW}
    assert one.new_in_old.reasons[0].text == "version 2 is of a newer version than this loads"


def test_a_minimum_that_went_up() -> None:
    one = between((X,), (X,), version_id=3, minimum_version_id=2)
    assert verdicts(one) == (FAILS, FAILS)
    assert rules(one.old_in_new) == {"version 1": Rule.TOO_OLD}


def test_a_version_of_a_nested_structure_is_not_on_the_wire() -> None:
    top = description("top", field("in", info="", nested="in", flags=("STRUCT",)))
    old = description("in", X)
    new = description("in", X, field("late", version_id=2), version_id=2)
    found = diff_schemas(schema(top, old), schema(top, new)).differences
    assert [(one.name, one.role, one.users) for one in found] == [("in", Role.NESTED, ("top",))]
    assert verdicts(found[0]) == (FAILS, FAILS)
    assert rules(found[0].old_in_new) == {"late": Rule.MISSING}


def test_a_list_is_read_in_the_version_of_its_field() -> None:
    """get_qtailq passes field->version_id, so the new field is not expected."""
    listed = field("q", info="qtailq", nested="in", version_id=1)
    top = description("top", X, listed)
    old, new = description("in", X), description("in", X, field("late", version_id=2), version_id=2)
    found = diff_schemas(schema(top, old), schema(replace(top, fields=(Y, listed)), new))
    by_name = {one.name: one for one in found.differences}
    assert verdicts(by_name["top"]) == (LOADS, DEPENDS)
    assert rules(by_name["top"].new_in_old)["q (in)"] is Rule.NESTED


@pytest.mark.parametrize("name", ["virtio", "virtio-net-device", "VFIOPCIDevice"])
def test_what_is_loaded_by_hand_has_no_version_on_the_wire(name: str) -> None:
    late = field("late", version_id=2)
    one = only(description(name, X), description(name, X, late, version_id=2))
    assert verdicts(one) == (FAILS, FAILS)
    assert rules(one.old_in_new) == {"late": Rule.MISSING, name: Rule.OWN_VERSION}
    bumped = only(description(name, X), description(name, X, version_id=2))
    assert verdicts(bumped) == (DEPENDS, DEPENDS)


# -- fields --------------------------------------------------------------------------


def test_a_field_more() -> None:
    one = between((X,), (X, Y))
    assert verdicts(one) == (FAILS, FAILS)
    assert one.changes == (Change(ChangeKind.FIELD_ADDED, "y", "", "uint32"),)
    assert rules(one.old_in_new) == {"y": Rule.MISSING}
    assert rules(one.new_in_old) == {"y": Rule.EXTRA}


def test_a_conditional_field_more() -> None:
    one = between((X,), (X, replace(Y, conditional=True)))
    assert verdicts(one) == (DEPENDS, DEPENDS)


def test_newly_conditional() -> None:
    one = between((X, Y), (X, replace(Y, conditional=True)))
    assert kinds(one) == [(ChangeKind.FIELD_CONDITIONAL, "y")]
    assert verdicts(one) == (DEPENDS, DEPENDS)
    assert rules(one.old_in_new) == {"y": Rule.RECEIVER_TEST}
    assert rules(one.new_in_old) == {"y": Rule.SENDER_TEST}


def test_a_removed_field_leaves_an_unused_place() -> None:
    hole = field("unused", info="unused_buffer", size=4)
    one = between((X, Y), (X, hole))
    assert verdicts(one) == (LOADS, LOADS)
    assert rules(one.old_in_new) == {"y": Rule.DROPPED}
    assert rules(one.new_in_old) == {"y": Rule.UNUSED}
    assert verdicts(between((X, Y), (X, replace(hole, size=5)))) == (FAILS, FAILS)


def test_one_byte_too_many_here_may_be_one_too_few_there() -> None:
    """The SCSI card of 10.0 in 8.2, which loads it: see the live test."""
    one = between(
        (X, field("ti_cmd", info="uint8", size=1, conditional=True)),
        (X, field("mig_ti_cmd", info="uint8", size=1, conditional=True), field("drq_state")),
    )
    assert verdicts(one) == (DEPENDS, DEPENDS)


def test_fields_in_another_order() -> None:
    one = between((X, Y), (Y, X))
    assert [kind for kind, _ in kinds(one)] == [ChangeKind.FIELD_MOVED]
    assert verdicts(one) == (FAILS, FAILS)
    assert set(rules(one.old_in_new).values()) == {Rule.MOVED}


def test_another_name() -> None:
    one = between((X, Y), (X, field("z")))
    assert one.changes == (Change(ChangeKind.FIELD_RENAMED, "y", "y", "z"),)
    assert verdicts(one) == (LOADS, LOADS)
    assert rules(one.old_in_new) == {"z": Rule.RENAMED}


@pytest.mark.parametrize(
    ("new", "kind", "verdict", "rule"),
    [
        ({"info": "int32"}, ChangeKind.FIELD_TYPE, LOADS, None),
        ({"info": "uint64", "size": 8}, ChangeKind.FIELD_TYPE, FAILS, Rule.SIZE),
        ({"info": "uint32 equal"}, ChangeKind.FIELD_TYPE, DEPENDS, Rule.COMPARED),
        ({"info": "virtio-gpu"}, ChangeKind.FIELD_TYPE, DEPENDS, Rule.HAND),
        ({"num": 2}, ChangeKind.FIELD_COUNT, FAILS, Rule.COUNT),
        ({"count_from": N}, ChangeKind.FIELD_COUNT, DEPENDS, Rule.VARIABLE),
        ({"info": "uint8", "size": 1, "num": 4}, ChangeKind.FIELD_TYPE, DEPENDS, Rule.REREAD),
        ({"version_id": 1}, ChangeKind.FIELD_VERSION, LOADS, None),
    ],
)
def test_other_types_and_numbers(
    new: dict[str, Any], kind: ChangeKind, verdict: Verdict, rule: Rule | None
) -> None:
    one = between((X, Y), (X, field("y", **new)))
    assert kinds(one)[0] == (kind, "y")
    assert one.old_in_new.verdict is verdict
    assert rules(one.old_in_new) == ({} if rule is None else {"y": rule})


@pytest.mark.parametrize(
    ("info", "old", "new", "verdict"),
    [
        ("buffer", 4, 5, FAILS),
        ("unused_buffer", 4, 5, FAILS),
        ("pci config", 256, 4096, DEPENDS),
    ],
)
def test_sizes_that_are_on_the_wire(info: str, old: int, new: int, verdict: Verdict) -> None:
    one = between((field("b", info=info, size=old),), (field("b", info=info, size=new),))
    assert one.changes == (Change(ChangeKind.FIELD_SIZE, "b", str(old), str(new)),)
    assert verdicts(one) == (verdict, verdict)


@pytest.mark.parametrize(
    "other",
    [
        field("y", offset=64),
        field("y", size=8, info="timer"),
        field("y", info="", nested="in", size=100),
        field("y", count_from=CountFrom("uint32", 99)),
        field("y", flags=("POINTER",), err_hint="another"),
    ],
)
def test_memory_is_no_difference(other: FieldFormat) -> None:
    plain = replace(other, offset=0, flags=(), err_hint="")
    if other.count_from:
        plain = replace(plain, count_from=N)
    if other.nested:
        plain = replace(plain, size=8)
    inner = description("in", X)
    old, new = (schema(description("d", one), inner) for one in (plain, other))
    assert diff_schemas(old, new).differences == ()


def test_members_of_a_structure_as_members_of_the_outer_one() -> None:
    inner = description("in", X, Y)
    nested = field("in", info="", nested="in", flags=("STRUCT",))
    old = description("d", field("a"), nested, field("b"))
    new = description("d", field("a"), X, Y, field("b"))
    one = only(old, new, inner)
    assert verdicts(one) == (LOADS, LOADS)
    swapped = only(old, replace(new, fields=(field("a"), Y, X, field("b"))), inner)
    assert verdicts(swapped) == (FAILS, FAILS)


def test_a_buffer_cut_into_fields() -> None:
    """As globalstate from 8.2 to 10.0."""
    cut = (field("b", info="buffer", size=3), field("n", info="uint8", size=1))
    one = between((field("b", info="buffer", size=4),), cut)
    assert verdicts(one) == (LOADS, LOADS)
    assert rules(one.old_in_new) == {"b": Rule.SAME_BYTES}


def test_marks_in_arrays_of_pointers() -> None:
    inner = description("in", X)
    flags = ("ARRAY", "ARRAY_OF_POINTER")
    plain = field("p", info="", nested="in", num=3, flags=flags)
    marked = replace(plain, flags=(*flags, "ARRAY_OF_POINTER_AUTO_ALLOC"))
    one = only(description("d", plain), description("d", marked), inner)
    assert verdicts(one) == (DEPENDS, DEPENDS)  # all NULL, it is the same
    assert rules(one.old_in_new) == {"p": Rule.MARKERS}


def test_a_new_check() -> None:
    check = field("in range", info="", size=0, flags=("MUST_EXIST",), conditional=True)
    one = between((X,), (X, check))
    assert kinds(one) == [(ChangeKind.CHECK_ADDED, "in range")]
    assert verdicts(one) == (DEPENDS, LOADS)


# -- descriptions --------------------------------------------------------------------


def test_subsections() -> None:
    late = description("d/late", Y, hooks=("needed",))
    old, new = description("d", X), description("d", X, subsections=("d/late",))
    found = {one.name: one for one in diff_schemas(schema(old), schema(new, late)).differences}
    assert kinds(found["d"]) == [(ChangeKind.SUBSECTION_ADDED, "d/late")]
    assert verdicts(found["d"]) == verdicts(found["d/late"]) == (LOADS, DEPENDS)
    assert found["d/late"].role is Role.SUBSECTION
    always = replace(late, hooks=())
    found = {one.name: one for one in diff_schemas(schema(old), schema(new, always)).differences}
    assert verdicts(found["d"]) == (LOADS, FAILS)


def test_of_two_subsections_of_one_name_the_first_is_taken() -> None:
    """As of 11.1's sd-card: its second one is loaded with the format of the first."""
    first, second = (description(key, X, hooks=("needed",)) for key in ("d/a", "d/a#2"))
    second = replace(second, fields=(X, Y))
    one = description("d", X, subsections=("d/a",))
    both = replace(one, subsections=("d/a", "d/a#2"))
    found = diff_schemas(schema(one, first), schema(both, first, second)).differences
    by_key = {each.after: each for each in found}
    assert verdicts(by_key["d"]) == (LOADS, DEPENDS)
    assert rules(by_key["d"].new_in_old) == {"d/a": Rule.SUBSECTION}


def test_a_subsections_version_is_one_byte() -> None:
    old = description("d/a", X, hooks=("needed",), version_id=256, minimum_version_id=0)
    new = replace(old, version_id=1)
    top = description("d", subsections=("d/a",))
    assert verdicts(only(old, new, top))[0] is LOADS


def test_added_and_removed() -> None:
    found = diff_schemas(schema(description("a", X)), schema(description("b", X)))
    assert [(one.kind, one.name) for one in found.differences] == [
        (DifferenceKind.REMOVED, "a"),
        (DifferenceKind.ADDED, "b"),
    ]
    assert [verdicts(one) for one in found.differences] == [(DEPENDS, LOADS), (LOADS, DEPENDS)]


def test_renamed_with_the_same_structure() -> None:
    three = (X, Y, field("z"))
    one = only(description("a", *three), description("b", *three))
    assert (one.kind, one.before, one.after) == (DifferenceKind.RENAMED, "a", "b")
    assert verdicts(one) == (DEPENDS, DEPENDS)
    # Two that look alike: nobody knows which is which.
    twins = diff_schemas(
        schema(description("a", *three)), schema(description("b", *three), description("c", *three))
    )
    assert {each.kind for each in twins.differences} == {
        DifferenceKind.ADDED,
        DifferenceKind.REMOVED,
    }


def test_forbidding_migration() -> None:
    one = between((X,), (X,), unmigratable=True)
    assert verdicts(one) == (FAILS, FAILS)
    assert set(rules(one.old_in_new).values()) == {Rule.UNMIGRATABLE}


def test_order_of_sections_does_no_harm() -> None:
    one = between((X,), (X,), early_setup=True, priority=3)
    assert kinds(one) == [(ChangeKind.EARLY_SETUP, ""), (ChangeKind.PRIORITY, "")]
    assert verdicts(one) == (LOADS, LOADS)
    assert set(rules(one.old_in_new).values()) == {Rule.ORDER}


def test_functions() -> None:
    one = between((X,), (X,), hooks=("post_load", "needed"))
    assert one.changes == (Change(ChangeKind.HOOKS, "", "", "post_load, needed"),)
    assert rules(one.old_in_new) == {"post_load": Rule.HOOK}
    renamed = [description("d", X, hooks=(name,)) for name in ("post_load", "post_load_errp")]
    assert diff_schemas(*map(schema, renamed)).differences == ()


def test_descriptions_of_one_name_go_by_their_fields() -> None:
    a, b = description("d", X, Y, field("a")), description("d#2", field("b"), field("c"))
    b2 = replace(b, key="d", fields=(*b.fields, field("late")))
    found = diff_schemas(schema(a, b), schema(b2, replace(a, key="d#2"))).differences
    assert [(one.before, one.after) for one in found] == [("d#2", "d")]


def test_what_many_use_is_one_difference() -> None:
    inner = description("in", X)
    tops = [
        description(f"t{n}", field("in", info="", nested="in", flags=("STRUCT",)))
        for n in range(30)
    ]
    one = only(inner, replace(inner, fields=(X, Y)), *tops)
    assert (one.name, len(one.users)) == ("in", 30)


def test_a_description_in_no_file() -> None:
    far = field("far", info="", nested="symbol:far", flags=("STRUCT",))
    one = only(description("d", far, X), description("d", replace(far, nested="symbol:other"), X))
    assert kinds(one) == [(ChangeKind.FIELD_NESTED, "far")]
    assert verdicts(one) == (DEPENDS, DEPENDS)
    assert set(rules(one.old_in_new).values()) == {Rule.UNKNOWN}


# -- structures that hold themselves, and hostile ones ----------------------------------


def test_cycles() -> None:
    own = field("own", info="", nested="d", flags=("STRUCT", "VARRAY_UINT32"), count_from=N)
    one = only(description("d", X, own), description("d", X, own, Y))
    assert verdicts(one) == (DEPENDS, DEPENDS)
    assert one.users == ()


def test_cycles_over_others() -> None:
    """What b holds is worse than it seems at first: a, which is not finished then."""
    to_b = field("b", info="", nested="b", flags=("STRUCT",), count_from=N)
    to_a = field("a", info="", nested="a", flags=("STRUCT",), count_from=N)
    b = description("b", to_a)
    old, new = description("a", to_b, X), description("a", to_b, X, Y)
    top_old = description("top", replace(to_b, count_from=None), X)
    top_new = replace(top_old, fields=(*top_old.fields[:1], field("z")))
    found = diff_schemas(schema(old, b, top_old), schema(new, b, top_new)).differences
    by_name = {one.name: one for one in found}
    assert verdicts(by_name["a"]) == verdicts(by_name["top"]) == (DEPENDS, DEPENDS)
    assert rules(by_name["top"].old_in_new) == {"b (b)": Rule.NESTED, "z": Rule.RENAMED}


def test_a_long_chain_and_a_wide_tree() -> None:
    def doubled(at: int, more: tuple[FieldFormat, ...]) -> Description:
        nested = f"d{at + 1}" if at < 500 else ""
        pair = [field(n, info="", nested=nested, flags=("STRUCT",)) for n in "ab"]
        return description(f"d{at}", *(pair if nested else (X, *more)))

    old, new = (schema(*(doubled(at, more) for at in range(501))) for more in ((), (Y,)))
    start = time.process_time()
    found = diff_schemas(old, new).differences
    assert time.process_time() - start < 60
    assert [one.name for one in found] == ["d500"]
    assert verdicts(found[0]) == (FAILS, FAILS)


def test_structures_without_members_many_times_over() -> None:
    empty = description("empty")
    many = field("many", info="", nested="empty", num=(1 << 31) - 1, flags=("STRUCT", "ARRAY"))
    one = only(description("d", many, X), description("d", many, Y, X), empty)
    assert verdicts(one) == (FAILS, FAILS)


def test_too_many_fields() -> None:
    fields = tuple(field(f"f{n}") for n in range(3000))
    huge = schema(*(description(f"d{n}", *fields) for n in range(30)))
    with pytest.raises(Unsupported, match="at most 32768 fields"):
        diff_schemas(huge, huge)


def test_pairs_of_names() -> None:
    found = pair_names("abcabba", "cbabac")
    assert len(found) == 4
    assert "".join("abcabba"[a] for a, _ in found) == "".join("cbabac"[b] for _, b in found)
    assert pair_names([], ["a"]) == []
    long = [str(n) for n in range(2000)]
    found = pair_names(long, long[::-1])
    assert len(found) >= 1
    assert all(long[a] == long[::-1][b] for a, b in found)


# -- dumps -----------------------------------------------------------------------------


def test_dumps_have_no_types() -> None:
    elf = schema(description("d", X, field("n", num=2), hooks=("post_load",), priority=2))
    same = read_dump(dump(dev=dumped("d", dumped_field("x"), dumped_field("n", num=2))))
    assert diff_schemas(elf, same).differences == ()
    other = read_dump(dump(dev=dumped("d", dumped_field("x"), dumped_field("n", num=3))))
    (one,) = diff_schemas(elf, other).differences
    assert kinds(one) == [(ChangeKind.FIELD_COUNT, "n")]
    assert verdicts(one) == (FAILS, FAILS)


def test_dumps_without_numbers_prove_less() -> None:
    """Before 8.0 a dump says of an array how large an element is, and no more."""
    one, two = (read_dump(dump(dev=dumped("d", dumped_field("x", size=size)))) for size in (4, 1))
    (found,) = diff_schemas(one, two).differences
    assert verdicts(found) == (DEPENDS, DEPENDS)


def test_device_types() -> None:
    old = read_dump(dump(gone=dumped("a"), moved=dumped("a"), kept=dumped("a")))
    new = read_dump(dump(moved=dumped("b"), kept=dumped("a"), come=dumped("b")))
    found = diff_schemas(old, new)
    assert (found.devices_removed, found.devices_added) == (("gone",), ("come",))
    assert found.devices_changed == (("moved", "a", "b"),)
