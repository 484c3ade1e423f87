"""Compare device sections: the state's with those that the target saves itself, and its schema.

Of one section all that may be wrong is gathered, and the first in the order of
bytes is told: that is where the loader stops.

Source: QEMU migration/savevm.c (find_se, qemu_loadvm_section_start_full), migration/vmstate.c
(vmstate_load_state, vmstate_subsection_load), migration/vmstate-types.c (get_*_equal), 5.2 to 11.1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from cprformats.codecs import Value
from cprformats.errors import FormatError
from cprformats.fields import Field
from cprformats.migration import MigrationStream, Section
from cprformats.migration.wire import SectionType
from cprformats.schema.model import Schema
from cprtools.check.messages import finding
from cprtools.check.probe_layout import by_schema, explained, first_difference
from cprtools.check.probe_pci import Bars, Path, check_mask, path_of
from cprtools.check.probe_problem import Problem
from cprtools.check.probe_virtio import virtio_problems

__all__ = ["Sections"]

#: Handlers that take a state though they save none now.
_SILENT: Final = frozenset(("ram", "dirty-bitmap", "block", "globalstate", "cpu-throttle"))
#: Values that a device has from its properties, and that its hooks compare; by vmsd and field.
_FIXED: Final = frozenset(
    (
        ("virtio-gpu-scanouts", "max_outputs"),
        ("cpu", "env.fpregs_format_vmstate"),
        ("virtio-mem-device", "addr"),
        ("virtio-mem-device", "region_size"),
        ("virtio-mem-device", "block_size"),
        ("virtio-mem-device", "node"),
    )
)
#: The first release whose hpet compares the number of its timers (hw/timer/hpet.c).
_TIMERS_SINCE: Final = (10, 0)
#: Source: qapi/run-state.json, RunState, 5.2 to 11.1.
_RUN_STATES: Final = frozenset(
    [
        "debug",
        "inmigrate",
        "internal-error",
        "io-error",
        "paused",
        "postmigrate",
        "prelaunch",
        "finish-migrate",
        "restore-vm",
        "running",
        "save-vm",
        "shutdown",
        "suspended",
        "watchdog",
        "guest-panicked",
        "colo",
        "preconfig",
    ]
)
_UNKNOWN: Final = (
    "Unknown savevm section or instance '{}' {}. Make sure that your current VM setup matches your "
    "saved VM setup, including any hotplugged devices"
)
_SUBSECTION: Final = re.compile(r"subsection '[^']*'")
_CONFIG: Final = "pci config"


@dataclass(slots=True)
class Sections:
    """The target's sections, and comparisons with them.

    Attributes:
        own: what the target saved.
        schema: what it can load; None where it can't be read.
        bars: base addresses of its PCI devices.
        features: host features of its virtio devices, by idstr.
        release: of the target.
        reader: reads the state's bytes, by offset and size.
    """

    own: MigrationStream
    schema: Schema | None
    bars: Mapping[Path, Bars]
    features: Mapping[str, int | None]
    release: tuple[int, int]
    reader: Callable[[int, int], bytes]
    _by_key: dict[tuple[str, int], Section] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for section in self.own.sections():
            if section.type in (SectionType.START, SectionType.FULL):
                self._by_key[section.idstr, section.instance_id] = section

    # -- one section -------------------------------------------------------------------

    def problems(self, state: MigrationStream, section: Section) -> list[Problem]:
        """Give what is wrong with a section, in the order in which the loader meets it."""
        own = self._by_key.get((section.idstr, section.instance_id))
        if own is None:
            found = self._missing(section)
        elif section.version > own.version:
            found = [self._too_new(section, own)]
        elif section.holds_ram:
            found = []
        else:
            found = list(self._body(state, section, own))
        return sorted(found, key=lambda one: one.offset)

    def _missing(self, section: Section) -> list[Problem]:
        if section.idstr in _SILENT:
            return []
        says = _UNKNOWN.format(section.idstr, section.instance_id)
        made = finding(
            "unknown-section",
            f"the target has no section {section.name}",
            section=section.idstr,
            instance=section.instance_id,
            expected="no such section",
            found=f"{section.idstr} {section.instance_id}",
            says=says,
        )
        left = self._may_be_silent(section.idstr)
        return [Problem(section.offset, made, left)]

    def _may_be_silent(self, idstr: str) -> str:
        """A description that is sent only if needed may be there and not be in its own state."""
        if self.schema is None:
            return ""
        named = self.schema.named(idstr.rpartition("/")[2])
        if named and all("needed" in one.hooks for one in named):
            return f"whether the target has {idstr}, which saves nothing at the moment"
        return ""

    def _too_new(self, section: Section, own: Section) -> Problem:
        says = f"savevm: unsupported version {section.version} for '{section.idstr}' v{own.version}"
        made = finding(
            "section-version",
            f"{section.name} has version {section.version}, the target loads up to {own.version}",
            section=section.idstr,
            instance=section.instance_id,
            expected=f"version {own.version} at most",
            found=f"version {section.version}",
            says=says,
        )
        return Problem(section.offset, made)

    # -- its body -----------------------------------------------------------------------

    def _body(
        self,
        state: MigrationStream,
        section: Section,
        own: Section,
    ) -> Iterator[Problem]:
        failed = False
        if state.resolver is not None:
            for problem in by_schema(state, state.resolver, section):
                failed = failed or not problem.open
                yield problem
        try:
            tree, said = replace(state, resolver=None).decode(section)
            if section.description is None and state.resolver is not None:
                tree, said = state.decode(section)
            mine, _ = self.own.decode(own)
        except FormatError as error:
            yield self._unread(section, str(error))
            return
        notices = [one for one in said if "schema" not in one]
        yield from self._values(section, tree, mine)
        yield from virtio_problems(self, section, tree, mine)
        if not failed:
            yield from self._shape(section, own)
            if notices and not _is_old(section):
                yield self._unread(section, notices[0])

    def _unread(self, section: Section, why: str) -> Problem:
        made = finding(
            "unknown-subsection" if _SUBSECTION.search(why) else "section-footer",
            f"{section.name}: its fields are not as its description says: {why}",
            section=section.idstr,
            instance=section.instance_id,
            says=f"Missing section footer for {section.idstr}",
        )
        return Problem(section.body_end, made)

    def _values(self, section: Section, tree: Field, mine: Field) -> Iterator[Problem]:
        """Compare what must be the same on both sides."""
        theirs = {path: one for path, one, _ in _walk(mine)}
        yield from _strangers(section, tree, self.schema)
        yield from self._hooks(section, tree, mine)
        for path, one, vmsd in _walk(tree):
            local = theirs.get(path)
            if local is None:
                continue
            if one.type == _CONFIG:
                yield from self._config(section, one, local)
            elif _is_fixed(one, vmsd) and one.value != local.value:
                yield _differs(section, one, path, local.value)

    def _hooks(self, section: Section, tree: Field, mine: Field) -> Iterator[Problem]:
        """Checks of single devices that a hook makes, and whose outcome the values tell."""
        if section.idstr == "hpet" and self.release >= _TIMERS_SINCE:
            ours, theirs = (_named_value(one, "num_timers") for one in (tree, mine))
            if ours is not None and theirs is not None and ours.value != theirs.value:
                yield _differs(section, ours, ".body.num_timers", theirs.value)
        if section.idstr == "globalstate":
            state = tree.get("body.runstate")
            text = bytes(self.reader(state.offset, state.size)) if state is not None else b""
            word = text.partition(b"\0")[0].decode("latin-1")
            if state is not None and word not in _RUN_STATES:
                made = finding(
                    "device-refused",
                    f"globalstate: {word!r} is no run state",
                    section=section.idstr,
                    instance=section.instance_id,
                    field="runstate",
                    found=word,
                    says=f"invalid parameter value: {word}",
                )
                yield Problem(state.offset, made)

    def _config(self, section: Section, one: Field, local: Field) -> Iterator[Problem]:
        theirs = bytes(self.own.source.read_at(local.offset, local.size))
        path = path_of(section.idstr)
        bars = self.bars.get(path, {}) if path else {}
        mask = check_mask(local, theirs, bars)
        ours = self.reader(one.offset, min(one.size, local.size))
        for at, (here, there, bits) in enumerate(zip(ours, theirs, mask, strict=False)):
            if (here ^ there) & bits:
                says = f"Bad config data: i={at:#x} read: {here:x} device: {there:x}"
                made = finding(
                    "pci-config",
                    f"{section.name}: {_register(local, local.offset + at)} differs: {says}",
                    section=section.idstr,
                    instance=section.instance_id,
                    field=_register(local, local.offset + at),
                    expected=f"{there:#x}",
                    found=f"{here:#x}",
                    says=f"get_pci_config_device: {says}",
                )
                yield Problem(one.offset, made)
                return

    # -- the layout of fields -----------------------------------------------------------

    def _shape(self, section: Section, own: Section) -> Iterator[Problem]:
        """Fields that one side has and the other has not, where no version tells why."""
        ours, theirs = section.description, own.description
        if ours is None or theirs is None or ours.old_style or theirs.old_style:
            return
        left = first_difference(ours.vmsd, theirs.vmsd)
        if left is None or self.schema is None:
            return
        vmsd, name, here = left
        made = finding(
            "section-footer",
            f"{section.name}: the field {name} of {vmsd} is "
            + ("not what the target reads" if here else "missing, and the target reads it"),
            section=section.idstr,
            instance=section.instance_id,
            field=name,
            says=f"Missing section footer for {section.idstr}",
        )
        fine = explained(self.schema, vmsd, name, section.version, own.version)
        if fine is None:
            left_open = f"how the target reads {name} of {section.idstr}"
            yield Problem(section.body_end, made, left_open)
        elif not fine:
            yield Problem(section.body_end, made)


def _is_old(section: Section) -> bool:
    return section.description is not None and section.description.old_style


def _walk(tree: Field) -> Iterator[tuple[str, Field, str]]:
    """Give values and configuration spaces with their paths, and the vmsd that they are of."""
    seen: Counter[str] = Counter()
    stack = [(child, "", tree.type) for child in reversed(tree.children)]
    while stack:
        node, above, vmsd = stack.pop()
        path = f"{above}.{node.name}"
        seen[path] += 1
        if seen[path] > 1:
            path = f"{path}#{seen[path]}"
        if node.codec or node.type == _CONFIG:
            yield path, node, vmsd
        if node.type != _CONFIG:
            stack += [(child, path, node.type) for child in reversed(node.children)]


def _named_value(tree: Field, start: str) -> Field | None:
    return next((one for _, one, _ in _walk(tree) if one.name.startswith(start)), None)


def _strangers(section: Section, tree: Field, schema: Schema | None) -> Iterator[Problem]:
    """A subsection whose name does not begin with its parent's is not seen as one.

    So a loader leaves it, and finds no footer (migration/vmstate.c: vmstate_subsection_load).
    """
    for parent in _groups(tree):
        for sub in parent.children:
            head = sub.children[0] if sub.children else None
            if head is None or head.type != "subsection" or not parent.type:
                continue
            named = sub.type.startswith(parent.type) or parent.type == "virtio"
            if named:
                yield from _head_problems(section, sub, head, schema)
            else:
                made = finding(
                    "section-footer",
                    f"{section.name}: the subsection {sub.name} is not named after {parent.type}, "
                    "so that no QEMU loads it",
                    section=section.idstr,
                    instance=section.instance_id,
                    field=sub.name,
                    says=f"Missing section footer for {section.idstr}",
                )
                yield Problem(section.body_end, made)


def _head_problems(
    section: Section, sub: Field, head: Field, schema: Schema | None
) -> Iterator[Problem]:
    """Compare name and version of a subsection with the target's descriptions."""
    name, version = head.get("idstr"), head.get("version")
    if schema is None or name is None or version is None or not isinstance(version.value, int):
        return
    label = str(name.value)
    known = schema.named(label)
    if not known:
        says = f"VM subsection '{label}' does not exist"
        code = "unknown-subsection"
    elif all(version.value > one.version_id for one in known):
        code = "section-version"
        says = f"{label}: incoming version_id {version.value} is too new"
    else:
        return
    made = finding(
        code,
        f"{section.name}: {says}",
        section=section.idstr,
        instance=section.instance_id,
        field=sub.name,
        found=f"{label} {version.value}",
        says=says,
    )
    yield Problem(head.offset, made)


def _groups(tree: Field) -> Iterator[Field]:
    stack = [tree]
    while stack:
        node = stack.pop()
        if node.children:
            yield node
            stack += node.children


def _is_fixed(one: Field, vmsd: str) -> bool:
    return one.type.endswith(" equal") or (vmsd, one.name) in _FIXED


def _differs(section: Section, one: Field, path: str, local: Value) -> Problem:
    equal = one.type.endswith(" equal")
    says = ""
    if isinstance(one.value, int) and isinstance(local, int):
        says = f"{one.value:x} != {local:x}"
    made = finding(
        "field-value",
        f"{section.name}: {one.name} is {one.value!r}, and {local!r} on the target",
        section=section.idstr,
        instance=section.instance_id,
        field=path.removeprefix(".body."),
        expected=repr(local),
        found=repr(one.value),
        says=says if equal else f"Input validation failed: {section.idstr}/{one.name}",
    )
    return Problem(one.offset, made)


def _register(config: Field, offset: int) -> str:
    for part in config.children:
        if part.offset <= offset < part.end:
            inner = next((one for one in part.children if one.offset <= offset < one.end), None)
            return f"{part.name}.{inner.name}" if inner else part.name
    return f"{offset - config.offset:#x}"
