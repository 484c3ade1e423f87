"""From a section and a schema to the description that the section was written by.

The last part of the section's idstr is the name of its description. Several
may have it; those count that load the section's version and read the body to
its end. What comes out has the form of a vmdesc's entry, so that all that
decodes by a vmdesc decodes by a schema too.

Source: QEMU migration/savevm.c (vmstate_register_with_alias_id, vmstate_save).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from cprformats.errors import Unsupported
from cprformats.migration.byschema.opaque import Opaque
from cprformats.migration.byschema.plan import Plan
from cprformats.migration.byschema.planning import Plans
from cprformats.migration.byschema.search import MAX_WORK, Search
from cprformats.migration.byschema.state import Failure, Reason, State, versions
from cprformats.migration.byschema.trail import MANY, Gap, Trail, described
from cprformats.migration.locate import is_followed
from cprformats.migration.model import Configuration, Section
from cprformats.migration.rules import find_handler
from cprformats.migration.vmdesc import DeviceDesc, VmsdDesc
from cprformats.migration.wire import SectionType
from cprformats.schema.model import Description, Schema
from cprformats.source import Source

__all__ = ["Resolved", "Resolver", "check_schema"]

#: Device sections of real machines stay below 20 MB.
_MAX_BODY_BYTES: Final = 64 << 20
#: The same for one whose end is only looked for.
_MAX_UNKNOWN_BYTES: Final = 8 << 20
#: PART and END go with handlers that write by hand.
_DESCRIBED: Final = (SectionType.START, SectionType.FULL)
#: Fields and structures of one section; real ones have some 10,000.
_MAX_PARTS: Final = 100_000
#: Sections are asked for several times: to be counted, to be shown.
_MAX_KEPT: Final = 1024


def _wraps(outer: VmsdDesc, inner: VmsdDesc) -> bool:
    """Whether a description has one field, which is a structure of the other description."""
    if len(outer.fields) != 1 or outer.subsections:
        return False
    struct = outer.fields[0].struct
    return struct is not None and (struct.fields, struct.subsections) == (
        inner.fields,
        inner.subsections,
    )


def _outer(fitting: Iterable[VmsdDesc]) -> VmsdDesc | None:
    """The one description that fits, or the one that only wraps all others.

    A device on one bus may be no more than the chip, which another device has
    registered itself: ISA's floppy controller has one field, of all that the
    controller has. The fields are the same either way.
    """
    listed = list(fitting)
    for vmsd in listed:
        if all(vmsd is other or _wraps(vmsd, other) for other in listed):
            return vmsd
    return None


def _inner(fitting: Iterable[VmsdDesc]) -> VmsdDesc | None:
    """What several descriptions wrap, each in a field of another name: without that field."""
    fitting = list(fitting)
    inner = {one.fields[0].struct if len(one.fields) == 1 else None for one in fitting}
    if len(inner) != 1 or any(one.subsections for one in fitting):
        return None
    struct = inner.pop()
    version = fitting[0].version
    return None if struct is None else replace(struct, version=version)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a schema says of a section.

    Attributes:
        vmsd: the description in the form of a vmdesc; None where nothing fits.
        keys: keys of the schema's descriptions that fit, also where none is decided for.
        undecided: bytes of which more than one reading fits.
        ways: how many readings they have, at the place that has most.
        failure: why nothing fits; None where something does.
    """

    vmsd: VmsdDesc | None
    keys: tuple[str, ...] = ()
    undecided: int = 0
    ways: int = 1
    failure: Failure | None = None

    def device(self, section: Section) -> DeviceDesc | None:
        """The same as the entry of a vmdesc."""
        if self.vmsd is None:
            return None
        return DeviceDesc(section.idstr, section.instance_id, self.vmsd)


def check_schema(schema: Schema) -> None:
    """Check that a schema has what sections can be read by.

    Raises:
        Unsupported: it has no types, as that of ``-dump-vmstate``, or no descriptions.
    """
    if schema.origin != "elf":
        raise Unsupported(
            "schema: expected one read out of a QEMU binary, which has types and offsets; "
            f"found one of origin {schema.origin!r}"
        )
    if not schema.descriptions:
        raise Unsupported(f"schema: expected descriptions, found none: {schema.reason}")


class Resolver:
    """Resolves sections of one stream by one schema.

    Args:
        schema: what the binary can load.
        source: the stream's bytes.

    Raises:
        Unsupported: the schema has no types; that of ``-dump-vmstate`` has none.
    """

    def __init__(self, schema: Schema, source: Source) -> None:
        check_schema(schema)
        self.schema = schema
        self.source = source
        self.page_size, self.machine = 4096, ""
        self._plans = Plans(schema)
        self._names = _by_name(schema)
        self._known: OrderedDict[tuple[int, int], Resolved] = OrderedDict()

    def learn(self, page_size: int, configuration: Configuration | None) -> None:
        """Take what the stream says of the target: page size in bytes, machine type."""
        self.page_size = page_size
        self.machine = configuration.machine if configuration is not None else ""

    def candidates(self, idstr: str) -> list[tuple[str, Description]]:
        """Descriptions that a section may be of, with their name on the wire.

        A name can have slashes itself; so each end of the idstr counts. Where none
        has the name, it may be of one that gets its name when QEMU runs.
        """
        found: list[tuple[str, Description]] = []
        name = idstr
        while True:
            found += ((name, one) for one in self._names.get(name, ()))
            _, slash, name = name.partition("/")
            if not slash:
                break
        last = idstr.rpartition("/")[2]
        return found or [(last, one) for one in self._names.get("", ()) if one.fields]

    def resolve(self, section: Section) -> Resolved:
        """Find what is in a section whose end is known."""
        at = (section.body_offset, section.body_size)
        found = self._known.get(at)
        if found is None:
            found = self._known[at] = self._resolve(section)
            if len(self._known) > _MAX_KEPT:
                self._known.popitem(last=False)
        return found

    def describe(self, section: Section) -> tuple[Section, tuple[str, ...]]:
        """The section with a description, if one fits; and what people should know of it."""
        if section.type not in _DESCRIBED or section.holds_ram:
            return section, ()
        found = self.resolve(section)
        said: list[str] = []
        if found.vmsd is not None and found.undecided:
            ways = f"{found.ways} or more" if found.ways == MANY else f"{found.ways}"
            said.append(
                f"{section.name}: {found.undecided} bytes kept raw: undecided, "
                f"{ways} readings by the schema fit"
            )
        elif found.vmsd is None:
            said = _why(section, found)
        return replace(section, description=found.device(section)), tuple(said)

    def end(self, head: Section, limit: int | None) -> int | None:
        """Offset where a section ends that has no footer, by its description alone.

        None unless there is just one place where it can end and something can follow.

        Args:
            head: the section, whose body size is not known.
            limit: where the data ends that it may be in; None for the source's end.
        """
        count = _MAX_UNKNOWN_BYTES
        count = count if limit is None else min(count, limit - head.body_offset)
        data = self.source.read_at(head.body_offset, max(count, 0))
        named, _ = self._loadable(head)
        readings, _ = self._readings(head, data, None, named)
        ends = {head.body_offset + reading.state.offset for reading in readings}
        found = [end for end in ends if is_followed(self.source, end, limit)]
        return found[0] if len(found) == 1 else None

    def _loadable(self, section: Section) -> tuple[list[tuple[str, Description]], Failure | None]:
        """The candidates that load the section's version, or why there are none."""
        named = self.candidates(section.idstr)
        if not named:
            return [], Failure(0, Reason.DESCRIPTION, section.idstr, "a description", "none")
        fitting = [
            (name, one)
            for name, one in named
            if one.minimum_version_id <= section.version <= one.version_id
        ]
        if fitting:
            return fitting, None
        known = " or ".join(sorted({versions(one) for _, one in named}))
        return [], Failure(0, Reason.VERSION, "version", known, str(section.version))

    def _resolve(self, section: Section) -> Resolved:
        named, failure = self._loadable(section)
        if failure is not None:
            return Resolved(None, failure=failure)
        if section.body_size > _MAX_BODY_BYTES:
            failure = Failure(
                0, Reason.LIMIT, "body", f"at most {_MAX_BODY_BYTES} bytes", str(section.body_size)
            )
            return Resolved(None, failure=failure)
        data = self.source.read_at(section.body_offset, section.body_size)
        found, failure = self._readings(section, data, len(data), named)
        if not found:
            return Resolved(None, failure=failure)
        return _chosen(section, found)

    def _readings(
        self,
        section: Section,
        data: bytes,
        end: int | None,
        named: list[tuple[str, Description]],
    ) -> tuple[list[_Reading], Failure | None]:
        """All readings by all candidates: of what QEMU writes, or else of what it loads."""
        found: list[_Reading] = []
        for strict in (True, False):
            for name, one in named:
                search = self._search(section, data, end, one, strict=strict)
                try:
                    states = search.run(self._plan(one, section), name)
                except Unsupported as error:
                    # Others may fit, and so may this one: that is no answer.
                    expected = f"at most {MAX_WORK} steps"
                    return [], Failure(0, Reason.LIMIT, name, expected, error.message)
                found += (_Reading(name, one.key, state) for state in states)
            if found:
                return found, None
        return [], None if end is None else self._diagnosis(section, data, named)

    def _plan(self, one: Description, section: Section) -> Plan:
        plan = self._plans.plan(one.key, section.version)
        assert plan is not None, one.key
        return plan

    def _search(
        self, section: Section, data: bytes, end: int | None, one: Description, *, strict: bool
    ) -> Search:
        opaque = Opaque(self.source, section, self.page_size, self.machine)
        heads = _heads(self._plans.heads(one.key), data)
        return Search(self._plans, data, end, opaque, heads=heads, strict=strict)

    def _diagnosis(
        self, section: Section, data: bytes, named: list[tuple[str, Description]]
    ) -> Failure:
        """How far the bytes fit, if nothing is asked of the end."""
        found = Failure(0, Reason.SIZE, named[0][0], "what is described", f"{len(data)} bytes")
        for name, one in named:
            search = self._search(section, data, None, one, strict=False)
            try:
                states = search.run(self._plan(one, section), name)
            except Unsupported:
                states = []
            for state in states:
                left = f"{len(data) - state.offset} more"
                search.fail(state.offset, Reason.SIZE, f"end of {name}", "no more bytes", left)
            if search.failure is not None and search.failure.offset >= found.offset:
                found = search.failure
        return found


def _why(section: Section, found: Resolved) -> list[str]:
    """Why a section has no description, in words; nothing where none is to be expected."""
    failure = found.failure
    if failure is None:
        keys = ", ".join(found.keys)
        return [f"{section.name}: undecided, these descriptions of the schema fit: {keys}"]
    if failure.reason is Reason.DESCRIPTION and find_handler(section.idstr) is not None:
        return []
    return [f"{section.name}: by the schema: {failure}"]


@dataclass(frozen=True, slots=True)
class _Reading:
    name: str
    key: str
    state: State


def _by_name(schema: Schema) -> dict[str, list[Description]]:
    """Descriptions that sections can be of; where no code refers to any, all of the name."""
    found: dict[str, list[Description]] = {}
    for one in schema.descriptions.values():
        found.setdefault(one.name, []).append(one)
    return {
        name: [one for one in listed if one.registered] or listed for name, listed in found.items()
    }


def _chosen(section: Section, found: list[_Reading]) -> Resolved:
    """The one reading, or of readings by several descriptions what they have in common."""
    keys = tuple(sorted({reading.key for reading in found}))
    made = [described(one.state.trail, one.name, section.version) for one in found]
    whole: VmsdDesc | None = made[0]
    if len(made) > 1:
        # Comparing goes through all of them; those of a real binary are small.
        small = all(map(_is_small, made))
        distinct = list(dict.fromkeys(made)) if small else []
        whole = _outer(distinct) or _inner(distinct)
    if whole is None:
        return Resolved(None, keys, section.body_size, len(made))
    at = made.index(whole) if whole in made else 0
    gaps = _gaps(found[at].state.trail)
    ways = max((gap.ways for gap in gaps), default=1)
    return Resolved(whole, keys, sum(gap.size for gap in gaps), ways)


def _is_small(vmsd: VmsdDesc) -> bool:
    """Whether a description has no more parts, all written out, than real ones."""
    waiting, count = [vmsd], 0
    while waiting and count < _MAX_PARTS:
        one = waiting.pop()
        count += 1 + len(one.fields)
        waiting += one.subsections
        for field in one.fields:
            waiting += field.inline
            if field.struct is not None:
                waiting.append(field.struct)
    return count < _MAX_PARTS


def _gaps(trail: Trail) -> list[Gap]:
    return [node.event for node in trail.events() if isinstance(node.event, Gap)]


def _heads(names: Iterable[str], data: bytes) -> list[int]:
    """Where heads of subsections of these names stand: more than chance puts there."""
    encoded = [re.escape(_head(name)) for name in names]
    if not encoded:
        return []
    pattern = re.compile(b"|".join(encoded))
    return [match.start() for match in pattern.finditer(data)]


def _head(name: str) -> bytes:
    text = name.encode("utf-8", "surrogateescape")
    return bytes([SectionType.SUBSECTION, len(text) & 0xFF]) + text
