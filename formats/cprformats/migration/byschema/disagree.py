"""Where a stream and a schema disagree, section by section.

That a section fits says that its bytes can be loaded as what they are. What a
loader checks beyond that (values that must be equal, hooks) is not known here.

Source: QEMU migration/savevm.c (qemu_loadvm_section_start_full),
migration/vmstate.c (vmstate_load_state).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from cprformats.fields import Field
from cprformats.migration.byschema.resolve import Resolved, Resolver
from cprformats.migration.byschema.state import Reason
from cprformats.migration.byschema.trail import UNDECIDED
from cprformats.migration.device import decode_section
from cprformats.migration.model import Section
from cprformats.migration.rules import find_handler
from cprformats.migration.stream import MigrationStream
from cprformats.migration.wire import SectionType
from cprformats.schema.model import Schema

__all__ = ["Disagreement", "disagreements"]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One section that a schema reads otherwise than the stream says, or not at all.

    Attributes:
        section: the section's idstr.
        instance: its instance id.
        kind: what is wrong: no such description, a version or subsection that it does
            not load, a size or value that can't be, or (`FIELD`) another field than the
            stream's own description has.
        offset: where, absolute in the stream's layer.
        where: the field or description.
        expected: what the schema has, in words.
        found: what the stream has.
    """

    section: str
    instance: int
    kind: Reason
    offset: int
    where: str
    expected: str
    found: str

    def __str__(self) -> str:
        name = f"{self.section}/{self.instance}" if self.instance else self.section
        place = f"{name} / {self.where}" if self.where not in ("", self.section) else name
        return f"{place}: schema has {self.expected}, stream has {self.found}, at {self.offset:#x}"


def disagreements(stream: MigrationStream, schema: Schema) -> tuple[Disagreement, ...]:
    """Compare all device sections of a stream with a schema, in file order.

    Raises:
        Unsupported: the schema has no types (that of a dump).
    """
    resolver = stream.resolver
    if resolver is None or resolver.schema is not schema:
        resolver = Resolver(schema, stream.source)
        resolver.learn(stream.page_size, stream.configuration)
    return tuple(
        found for section in stream.sections() for found in compared(stream, resolver, section)
    )


def compared(
    stream: MigrationStream, resolver: Resolver, section: Section
) -> Iterator[Disagreement]:
    """The disagreements of one section: none or one."""
    if section.type not in (SectionType.START, SectionType.FULL) or section.holds_ram:
        return
    if section.description is not None and section.description.old_style:
        return
    resolved = resolver.resolve(section)
    failure = resolved.failure
    if failure is None:
        yield from _fields(stream, section, resolved)
        return
    if failure.reason is Reason.DESCRIPTION and not failure.offset and _by_hand(section):
        return
    yield Disagreement(
        section.idstr,
        section.instance_id,
        failure.reason,
        section.body_offset + failure.offset,
        failure.what,
        failure.expected,
        failure.found,
    )


def _by_hand(section: Section) -> bool:
    return section.description is None and find_handler(section.idstr) is not None


def _fields(
    stream: MigrationStream, section: Section, resolved: Resolved
) -> Iterator[Disagreement]:
    """The first field that the stream's own description has otherwise."""
    if section.description is None or len(resolved.keys) != 1 or resolved.vmsd is None:
        return
    described = replace(section, description=resolved.device(section))
    ours, theirs = (_leaves(stream, one) for one in (described, section))
    for offset in sorted(ours.keys() | theirs.keys()):
        expected, found = ours.get(offset, "nothing"), theirs.get(offset, "nothing")
        if expected != found and UNDECIDED not in expected:
            yield Disagreement(
                section.idstr, section.instance_id, Reason.FIELD, offset, "", expected, found
            )
            return
        if UNDECIDED in expected:
            return


def _leaves(stream: MigrationStream, section: Section) -> dict[int, str]:
    """Path and type of each leaf of a body, by its offset."""
    tree, _ = decode_section(
        stream.source, section, page_size=stream.page_size, machine=stream.machine
    )
    found: dict[int, str] = {}
    for body in tree.children:
        if body.name == "body":
            _collect(body, "", found)
    return found


def _collect(field: Field, path: str, found: dict[int, str]) -> None:
    for child in field.children:
        name = f"{path}.{child.name}" if path else child.name
        if child.codec and child.size:
            found[child.offset] = f"{name} ({child.type}, {child.size} bytes)"
        _collect(child, name, found)
