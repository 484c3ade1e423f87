"""Compare how fields lie: by the target's descriptions, and with its own state.

Source: QEMU migration/vmstate.c (vmstate_load_state, vmstate_subsection_load), 5.2 to 11.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cprformats.migration import MigrationStream, Section
from cprformats.migration.byschema.disagree import Disagreement, compared
from cprformats.migration.byschema.resolve import Resolver
from cprformats.migration.byschema.state import Reason
from cprformats.migration.vmdesc import FieldDesc, VmsdDesc
from cprformats.schema.model import Description, Schema
from cprtools.check.messages import finding
from cprtools.check.probe_problem import Problem

__all__ = ["by_schema", "explained", "first_difference"]

#: Their conditions go by a number that another description reads (hw/scsi/esp.c, esp-pci.c).
_TANGLED: Final = frozenset(("esp", "pciespscsi"))


def by_schema(state: MigrationStream, resolver: Resolver, section: Section) -> Iterator[Problem]:
    """Give what keeps the target's descriptions from reading a section."""
    for one in compared(state, resolver, section):
        if one.kind is Reason.FIELD:
            continue  # both read the section to its end, and names are not on the wire
        code = {
            Reason.VERSION: "section-version",
            Reason.SUBSECTION: "unknown-subsection",
        }.get(one.kind, "section-footer")
        if code == "section-footer":
            code = _closer(state, resolver.schema, one)
        left = ""
        if one.kind in (Reason.LIMIT, Reason.DESCRIPTION):
            left = f"how the target reads {section.idstr}"
        says = str(one)
        if code == "section-footer":
            says = f"Missing section footer for {section.idstr}"
        made = finding(
            code,
            f"{section.name}: {one}",
            section=section.idstr,
            instance=section.instance_id,
            field=one.where,
            expected=one.expected,
            found=one.found,
            says=says,
        )
        yield Problem(one.offset, made, left)


def _closer(state: MigrationStream, schema: Schema, one: Disagreement) -> str:
    """Tell a subsection that is not known, and a number that a check refuses, from the rest."""
    head = state.source.read_at(one.offset, 257)
    if head[:1] == b"\5" and len(head) > 1:
        name = head[2 : 2 + head[1]].decode("latin-1")
        if one.where.removeprefix("end of ") == name.partition("/")[0]:
            return "section-version" if schema.named(name) else "unknown-subsection"
    if "0 behind" in one.expected:
        field = one.where.rpartition(".")[2]
        for each in schema.descriptions.values():
            named = any(item.name == field for item in each.fields)
            if named and not all(item.on_wire for item in each.fields):
                return "field-value"
    return "section-footer"


def first_difference(ours: VmsdDesc, theirs: VmsdDesc) -> tuple[str, str, bool] | None:
    """Give vmsd and name of the first field that only one side has, and whether it is ours."""
    here, there = _plain(ours), _plain(theirs)
    for name in dict.fromkeys((*here, *there)):
        if name not in there:
            return ours.vmsd_name, name, True
        if name not in here:
            return ours.vmsd_name, name, False
        one, other = here[name], there[name]
        if _total(ours, name) != _total(theirs, name) and not (one.inline or other.inline):
            return ours.vmsd_name, name, True
        if one.struct and other.struct and one.struct.vmsd_name == other.struct.vmsd_name:
            found = first_difference(one.struct, other.struct)
            if found is not None:
                return found
    others = {one.vmsd_name: one for one in theirs.subsections}
    for sub in ours.subsections:
        found = first_difference(sub, others.get(sub.vmsd_name, sub))
        if found is not None:
            return found
    return None


def _total(vmsd: VmsdDesc, name: str) -> int:
    return sum(one.count for one in vmsd.fields if one.name == name)


def _plain(vmsd: VmsdDesc) -> dict[str, FieldDesc]:
    return {one.name: one for one in vmsd.fields}


def explained(schema: Schema, vmsd: str, name: str, version: int, own: int) -> bool | None:
    """Say whether a field may be on one side only, or have another number of elements.

    A condition, and a number that is not read from the stream itself, follow from the
    device's properties: then both sides must agree. None if that can't be told.
    """
    plain = name.partition("[")[0]
    if vmsd in _TANGLED:
        return None
    for one in _named(schema, vmsd):
        for each in one.fields:
            if each.name not in (name, plain):
                continue
            if version != own:
                return True
            if each.count_from is not None:
                return any(other.offset == each.count_from.offset for other in one.fields)
            return not each.conditional
    return True


def _named(schema: Schema, vmsd: str) -> Iterator[Description]:
    yield from schema.named(vmsd)
