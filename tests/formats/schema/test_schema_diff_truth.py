"""Verdicts against a QEMU in small (builders/formatpairs.py) that really saves and loads."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from builders.formatpairs import TOP, Byte, Refused, World, grown, random_schema
from cprformats.schema.diff import diff_schemas
from cprformats.schema.difference import DifferenceKind, Verdict
from cprformats.schema.meaning import Judge
from cprformats.schema.model import Schema

WORLDS = 12


def comes_through(sender: Schema, receiver: Schema, world: World) -> bool:
    """Whether it is loaded, and each field that both have got its own bytes."""
    try:
        got = world.load(receiver, world.save(sender), sender.descriptions[TOP].version_id)
    except Refused:
        return False
    sent = {name for one in sender.descriptions.values() for name in (f.name for f in one.fields)}
    return all(owned(name, got[name]) for name in got if name in sent and name != "unused")


def owned(name: str, found: list[Byte]) -> bool:
    return {byte[0] for byte in found} == {name}


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**32))
def test_verdicts_are_true(seed: int) -> None:
    random = Random(seed)
    old = random_schema(random)
    new = grown(random, old)
    for sender, receiver in ((old, new), (new, old)):
        judge = Judge(sender, receiver)
        meaning = judge.section(sender.descriptions[TOP], receiver.descriptions[TOP])
        outcomes = {
            comes_through(sender, receiver, World(Random(world))) for world in range(WORLDS)
        }
        if meaning.verdict is Verdict.LOADS:
            assert outcomes == {True}, meaning
        if meaning.verdict is Verdict.FAILS:
            assert outcomes == {False}, meaning


def test_the_small_qemu_tells_all_three_apart() -> None:
    """Else the test above would prove nothing."""
    seen = set()
    for seed in range(300):
        random = Random(seed)
        old = random_schema(random)
        new = grown(random, old)
        meaning = Judge(old, new).section(old.descriptions[TOP], new.descriptions[TOP])
        outcomes = tuple(
            sorted({comes_through(old, new, World(Random(world))) for world in range(WORLDS)})
        )
        seen.add((meaning.verdict, outcomes))
    assert {(Verdict.LOADS, (True,)), (Verdict.FAILS, (False,))} <= seen
    assert (Verdict.DEPENDS, (False, True)) in seen


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_nothing_differs_from_itself(seed: int) -> None:
    one = random_schema(Random(seed))
    found = diff_schemas(one, one)
    assert found.differences == ()
    assert found.compared == len(one.descriptions)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_the_other_way_round(seed: int) -> None:
    random = Random(seed)
    old = random_schema(random)
    new = grown(random, old)
    forth, back = diff_schemas(old, new), diff_schemas(new, old)
    added, removed = DifferenceKind.ADDED, DifferenceKind.REMOVED
    assert [one.after for one in forth.of_kind(added)] == [
        one.before for one in back.of_kind(removed)
    ]
    assert len(forth.differences) == len(back.differences)
    for one, two in zip(forth.differences, back.differences, strict=True):
        assert (one.before, one.after) == (two.after, two.before)
        assert (one.old_in_new, one.new_in_old) == (two.new_in_old, two.old_in_new)
