"""Play the new QEMU: take what an old one handed over by exec, and say what it is and what lacks.

Each descriptor of the state is looked at (kind, size, flags), memory is mapped shared and its
contents summed up. Three things can be missing: an entry that somebody wanted, a RAM block that
the stream lists and no descriptor brings, and (open, but in no state) whatever QEMU let slip
through its exec without a name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from cprformats.errors import FormatError
from cprformats.migration import read_stream
from cprformats.source import BytesSource
from cprproto.errors import HostError, StateError
from cprproto.fds.evidence import look, open_numbers
from cprproto.fds.kinds import LOOKS
from cprproto.state.qcpr import CprState, Inherited, read_state
from cprproto.stock.memory import map_shared

__all__ = ["Adopted", "Adoption", "Unnamed", "Want", "adopt", "decode_wants", "report"]

_FORMAT = 1
_STANDARD = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class Want:
    """What the new side expects of one descriptor.

    Attributes:
        name: of the entry.
        kind: see `cprproto.fds.kinds`.
        id: of the entry.
        size: in bytes; None for any.
        sha256: of the contents, as hexadecimal digits; None for any.
    """

    name: str
    kind: str
    id: int = 0
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Adopted:
    """One descriptor of the state.

    Attributes:
        name: of the entry.
        id: of the entry.
        number: of the descriptor.
        looks: what it is; ``not open`` where it is nothing.
        link: what /proc shows.
        size: in bytes; 0 for what has no size.
        sha256: of the memory, mapped shared; empty for what can't be mapped.
        findings: what is wrong with it.
    """

    name: str
    id: int
    number: int
    looks: str
    link: str
    size: int
    sha256: str
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unnamed:
    """A descriptor that was inherited and is in no state.

    Attributes:
        number: of the descriptor.
        looks: what it is.
        link: what /proc shows.
    """

    number: int
    looks: str
    link: str


@dataclass(frozen=True, slots=True)
class Adoption:
    """All that was inherited.

    Attributes:
        descriptors: in the order of the state.
        not_handed_over: one line for each thing that lacks.
        unnamed: open, and in no state.
        has_vfio: the state has the list of VFIO devices (10.1 on).
        vfio: names of devices that are open through iommufd.
    """

    descriptors: tuple[Adopted, ...]
    not_handed_over: tuple[str, ...]
    unnamed: tuple[Unnamed, ...]
    has_vfio: bool
    vfio: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Nothing lacks and nothing is wrong."""
        return not self.not_handed_over and not any(x.findings for x in self.descriptors)


def adopt(
    data: bytes, wants: Sequence[Want] = (), *, stream: bytes = b"", known: Iterable[int] = ()
) -> Adoption:
    """Look at all that the state names.

    Args:
        data: the state.
        wants: what should be there.
        stream: the migration stream that goes with it, if there is one yet.
        known: other numbers that the caller has open.

    Raises:
        StateError: the state, or the stream, is not one.
    """
    state = read_state(data)
    wanted = {(want.name, want.id): want for want in wants}
    found = tuple(_adopted(x, wanted.get((x.name, x.id))) for x in state.entries)
    twice = _twice(state)
    found = tuple(x if n not in twice else _with(x, twice[n]) for n, x in enumerate(found))
    lacks = (*_lacking(state, wants), *_blocks_lacking(state, stream))
    named = {x.number for x in found}
    others = (look(number) for number in open_numbers() if number not in named)
    skip = {*_STANDARD, *known}
    unnamed = (Unnamed(x.number, x.looks, x.link) for x in others if x and x.number not in skip)
    return Adoption(found, lacks, tuple(unnamed), state.has_vfio, state.vfio)


def _twice(state: CprState) -> dict[int, str]:
    """Places of entries whose name was there before: QEMU takes the first."""
    first: dict[tuple[str, int], int] = {}
    twice: dict[int, str] = {}
    for place, entry in enumerate(state.entries):
        number = first.setdefault((entry.name, entry.id), entry.number)
        if number != entry.number:
            twice[place] = f"the name was there before, as {number}; QEMU takes that one"
    return twice


def _with(adopted: Adopted, finding: str) -> Adopted:
    values = {name: getattr(adopted, name) for name in Adopted.__slots__}
    return Adopted(**{**values, "findings": (*adopted.findings, finding)})


def _adopted(entry: Inherited, want: Want | None) -> Adopted:
    seen = look(entry.number)
    if seen is None:
        text = "the number is not open: close-on-exec was left on, or it was never there"
        return Adopted(entry.name, entry.id, entry.number, "not open", "", 0, "", (text,))
    findings: list[str] = []
    digest = ""
    if seen.looks in LOOKS["ram"] and seen.size:
        try:
            digest = _digest(entry.number, seen.size)
        except HostError as problem:
            findings.append(str(problem))
    if want is not None:
        findings += _against(want, seen.looks, seen.size, digest)
    return Adopted(
        *(entry.name, entry.id, entry.number, seen.looks, seen.link, seen.size, digest),
        findings=tuple(findings),
    )


def _digest(number: int, size: int) -> str:
    with map_shared(number, size) as memory:
        return hashlib.sha256(memory).hexdigest()


def _against(want: Want, looks: str, size: int, digest: str) -> list[str]:
    found: list[str] = []
    if looks not in LOOKS.get(want.kind, ()):
        found.append(f"should be {want.kind}, and is {looks}")
    if want.size not in {None, size}:
        found.append(f"should have {want.size} bytes, and has {size}")
    if want.sha256 not in {None, digest}:
        found.append("the contents are not those that were wanted")
    return found


def _lacking(state: CprState, wants: Sequence[Want]) -> list[str]:
    there = {(entry.name, entry.id) for entry in state.entries}
    return [
        f"{want.name} id {want.id} ({want.kind}) is not in the state"
        for want in wants
        if (want.name, want.id) not in there
    ]


def _blocks_lacking(state: CprState, stream: bytes) -> list[str]:
    """RAM blocks that the stream lists, and whose contents nobody brings."""
    if not stream:
        return []
    try:
        blocks = read_stream(BytesSource(stream)).ram.blocks.values()
    except FormatError as problem:
        raise StateError(f"stream: {problem}") from None
    there = {entry.name for entry in state.entries}
    return [
        f"RAM block {block.idstr} of {block.used_length} bytes: no descriptor, contents are lost"
        for block in blocks
        if block.idstr not in there
    ]


def report(adoption: Adoption) -> bytes:
    """Give an adoption as JSON."""
    words = {"format": _FORMAT, "is_whole": adoption.is_whole, **asdict(adoption)}
    return json.dumps(words, indent=1).encode() + b"\n"


def decode_wants(data: bytes) -> tuple[Want, ...]:
    """Read wants from JSON: a list of objects with the attributes of `Want`.

    Raises:
        StateError: it is something else.
    """
    try:
        items: list[Mapping[str, object]] = json.loads(data)
        wants = tuple(Want(**item) for item in items)  # type: ignore[arg-type]
    except (ValueError, TypeError, RecursionError) as problem:
        raise StateError(f"no list of wants: {problem}") from None
    for want in wants:
        if want.kind not in LOOKS:
            raise StateError(f"{want.name}: there is no kind {want.kind!r} of descriptor")
    return wants
