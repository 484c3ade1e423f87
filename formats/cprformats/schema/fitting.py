"""Whether the bytes that one side writes are those that the other reads."""

from __future__ import annotations

from collections.abc import Sequence

from cprformats.schema.difference import Verdict
from cprformats.schema.wireform import Kind, Leaf

__all__ = ["fit", "fit_values", "lay", "moved", "places"]


def fit(sent: Sequence[Leaf], expected: Sequence[Leaf]) -> Verdict:
    """Lay the bytes side by side.

    Returns:
        `LOADS`: the same bytes, read as what they were written as. `DEPENDS`: something
        is conditional or of open length, or read as another type. `FAILS`: one side has
        more bytes than the other can have.
    """
    if all(map(_plain, (*sent, *expected))):
        return lay(sent, expected)
    if len(sent) == len(expected) and all(
        _alike(one, two) for one, two in zip(sent, expected, strict=True)
    ):
        return Verdict.LOADS
    # At least so many bytes are there; only what is open can make up for a difference.
    out, own = _least(sent), _least(expected)
    if out > own and all(map(_plain, expected)):
        return Verdict.FAILS
    if own > out and all(map(_plain, sent)):
        return Verdict.FAILS
    return Verdict.DEPENDS


def fit_values(sent: Sequence[Leaf], expected: Sequence[Leaf]) -> Verdict:
    """Lay the bytes side by side, and see that fields of one name are at one place."""
    verdict = fit(sent, expected)
    if verdict is not Verdict.LOADS or not moved(places(sent), places(expected)):
        return verdict
    certain = all(map(_plain, (*sent, *expected)))
    return Verdict.FAILS if certain else Verdict.DEPENDS


def moved(sent: dict[str, list[object]], expected: dict[str, list[object]]) -> bool:
    """Whether a name is at other places."""
    return any(sent[name] != expected[name] for name in sent.keys() & expected.keys())


def places(leaves: Sequence[Leaf]) -> dict[str, list[object]]:
    """Where each name stands: by bytes from the start, or from the last open place."""
    found: dict[str, list[object]] = {}
    at = after = 0
    for leaf in leaves:
        if leaf.kind is not Kind.UNUSED:
            found.setdefault(leaf.name, []).append((after, at, leaf.ident))
        at += leaf.size
        if not _plain(leaf):
            at, after = 0, after + 1
    return found


def _plain(leaf: Leaf) -> bool:
    return leaf.kind is not Kind.OPEN and not leaf.conditional


def _least(leaves: Sequence[Leaf]) -> int:
    return sum(leaf.size for leaf in leaves if _plain(leaf))


def _alike(one: Leaf, two: Leaf) -> bool:
    """Whether two leaves are the same bytes, or both missing.

    Under another name the condition may be another one.
    """
    if one.gates != two.gates:
        return False
    if Kind.OPEN in {one.kind, two.kind}:
        return one.kind is two.kind and one.ident == two.ident
    return lay([one], [two]) is Verdict.LOADS


def lay(sent: Sequence[Leaf], expected: Sequence[Leaf]) -> Verdict:
    """Lay bytes of known length side by side, piece by piece, as if none were conditional."""
    verdict = Verdict.LOADS
    out, own = list(reversed(sent)), list(reversed(expected))
    left = right = 0
    while out and own:
        left, right = left or out[-1].size, right or own[-1].size
        step = min(left, right)
        if step and not _readable(out[-1], own[-1]):
            verdict = Verdict.DEPENDS
        left, right = left - step, right - step
        if not left:
            out.pop()
        if not right:
            own.pop()
    rest = left + right + sum(one.size for one in (*out, *own))
    return Verdict.FAILS if rest else verdict


def _readable(sent: Leaf, own: Leaf) -> bool:
    """Whether bytes keep their meaning: numbers of one width, or mere bytes."""
    if own.compared and not sent.compared:
        return False
    if {Kind.UNUSED, Kind.UNTYPED} & {sent.kind, own.kind}:
        return True
    if sent.kind is own.kind:
        return sent.kind is Kind.BYTES or sent.width == own.width
    return next(one.width for one in (sent, own) if one.kind is Kind.NUMBER) == 1
