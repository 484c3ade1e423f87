"""RAM blocks and sections of a state against what the target will have.

Source: QEMU migration/ram.c (parse_ramblocks, parse_ramblock), system/physmem.c
(qemu_ram_resize), migration/savevm.c (qemu_loadvm_section_start_full, check_section_footer),
hw/pci/pci.c (get_pci_config_device), hw/virtio/virtio.c (virtio_load).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cprformats.errors import FormatError
from cprformats.fields import Field, leaves
from cprformats.migration.byschema.disagree import Disagreement, compared
from cprformats.migration.byschema.resolve import Resolver
from cprformats.migration.byschema.state import Reason
from cprformats.migration.model import Located, Section
from cprformats.migration.ramparts import RamBlock
from cprformats.migration.stream import MigrationStream
from cprformats.migration.wire import SectionType
from cprformats.schema.model import Schema
from cprtools.check.messages import finding
from cprtools.check.model import Finding
from cprtools.check.static_expect import Expected
from cprtools.check.static_facts import Known
from cprtools.check.static_pci import capabilities_of, config_of, equal_values, shape_of

__all__ = ["check_blocks", "check_sections"]

#: Handlers that are there without any device.
_ALWAYS = ("dirty-bitmap", "block")
_SLOTTED = ("piix4_pm", "ICH9LPC")
#: Blocks that may change their size when they are loaded.
_RESIZABLE = ("/rom@",)
#: Offered to legacy drivers only; a modern register does not show them.
_OLD_BITS = 1 << 24 | 1 << 27 | 1 << 30
_LEGACY_BITS = _OLD_BITS | 1 << 6 | 1 << 7
#: Their firmware fills more than half of it, in each release.
_EXPRESS, _SLOT_SHIFT = 0x10, 19
#: qapi/run-state.json, RunState.
_RUN_STATES = frozenset(
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
#: Versions of handlers that have no description.
_HANDLERS = {"ram": 4, "slirp": 4}
_MOST_QUEUES = 1024
_VGA_ROM = 64 << 10
_CODES = {
    Reason.VERSION: "section-version",
    Reason.SUBSECTION: "unknown-subsection",
    Reason.SIZE: "section-footer",
}


def check_blocks(stream: MigrationStream, expected: Expected) -> Iterator[Finding | str]:
    """Findings, and as text what is open."""
    for block in stream.ram.blocks.values():
        name, size = block.idstr, block.used_length
        if name not in expected.blocks:
            if name.startswith(_RESIZABLE) and name not in expected.lacking:
                continue
            model = expected.roms.get(name.rpartition("/")[0])
            if model is not None and name.endswith(".rom"):
                if size != _VGA_ROM or not re.search("vga|bochs|qxl", model.lower()):
                    yield f"the size of the RAM block {name}"
                continue
            if expected.holes and name not in expected.lacking:
                yield f"whether the target has the RAM block {name}"
                continue
            yield finding(
                "ram-block-unknown",
                f"the target has no RAM block {name}",
                section=name,
                expected="no such block",
                found=name,
                says=f'Unknown ramblock "{name}", cannot accept migration',
            )
            continue
        ours = expected.blocks[name]
        mapped = block.mapped
        if mapped is not None and mapped.pages_offset and mapped.page_size != stream.page_size:
            yield finding(
                "ram-pages",
                f"RAM block {name}: pages of "
                f"{mapped.page_size} bytes, the target's have {stream.page_size}",
                section="ram",
                expected=str(stream.page_size),
                found=str(mapped.page_size),
                says=f"Migration mapped-ram header has invalid page_size {mapped.page_size} "
                f"(expected {stream.page_size})",
            )
        if block.address:
            yield f"the address of the RAM block {name}"
        if ours is None:
            if name == "isa-bios":
                continue
            yield f"the size of the RAM block {name}"
        elif ours != size and block.mapped is not None and block.mapped.pages_offset:
            yield from _mapped(stream, block, ours)
        elif ours != size and not name.startswith(_RESIZABLE):
            if name.endswith(".rom"):
                yield f"the size of the RAM block {name}"
                continue
            yield finding(
                "ram-block-size",
                f"RAM block {name} has {size} bytes in the state, {ours} on the target",
                section=name,
                expected=f"{ours:#x} bytes",
                found=f"{size:#x} bytes",
                says=f"Size mismatch: {name}: {ours:#x} != {size:#x}: Invalid argument",
            )


def _mapped(stream: MigrationStream, block: RamBlock, ours: int) -> Iterator[Finding]:
    """Of mapped RAM only what lies behind the target's block is refused."""
    assert block.mapped is not None
    bits = stream.source.read_at(block.mapped.bitmap_offset, block.mapped.bitmap_size)
    first = ours // block.mapped.page_size
    if int.from_bytes(bits[first // 8 :], "little") >> first % 8:
        yield finding(
            "ram-pages",
            f"RAM block {block.idstr}: pages in use beyond the target's {ours} bytes",
            section=block.idstr,
            expected=f"{ours:#x} bytes",
            found=f"{block.used_length:#x} bytes",
            says=f"page outside of ramblock {block.idstr} range",
        )


class _Sections:
    """Looks at the sections of one stream."""

    def __init__(
        self, stream: MigrationStream, schema: Schema, expected: Expected | None, *, counted: bool
    ) -> None:
        self.stream = stream
        self.expected = expected
        self.schema = schema
        self.resolver = stream.resolver or Resolver(schema, stream.source)
        self.resolver.learn(stream.page_size, stream.configuration)
        self.counted = counted

    def check(self, section: Section) -> Iterator[Finding | str]:
        expected = self.expected
        if expected is not None:
            there = section.idstr in _ALWAYS
            there = there or section.instance_id in expected.sections.get(section.idstr, ())
            if not there and not expected.holes:
                yield _unknown(section)
                return
            if not there:
                yield f"whether the target has the section {section.idstr}"
                return
        if section.located is Located.CUT or section.idstr in _ALWAYS:
            return
        tree, complaints = self.stream.decode(section)
        if expected is not None:
            unequal = list(self._equal(section, tree, expected))
            yield from unequal
            if any(not isinstance(one, str) for one in unequal):
                return
        if section.idstr.endswith("/pciespscsi"):
            yield f"{section.idstr}: releases differ in how they read it (hw/scsi/esp-pci.c)"
        described = section.description
        if described is not None and described.vmsd.version not in (section.version, 0):
            yield f"{section.idstr}: its version is another than in the description"
        if complaints and self.stream.resolver is None:
            yield f"{section.idstr}: {complaints[0]}"
        found = list(self._by_schema(section))
        certain = [one for one in found if not isinstance(one, str)]
        yield from found
        if certain or expected is None:
            return
        if section.idstr.rpartition("/")[2] in _SLOTTED:
            yield from _slots(section, tree, expected)
        if section.idstr in expected.pci:
            known = expected.pci[section.idstr]
            if known is None:
                yield f"the configuration space of {section.idstr}"
            else:
                yield from self._pci(section, tree, known)
        if section.idstr == "globalstate":
            yield from _run_state(section, tree)
        if "virtio-" in section.idstr:
            yield from _virtio(section, tree)
        if section.idstr.endswith("/virtio-console"):
            yield from _ports(section, tree, expected)

    def _by_schema(self, section: Section) -> Iterator[Finding | str]:
        try:
            found = list(compared(self.stream, self.resolver, section))
        except FormatError as error:
            yield f"{section.idstr}: {error}"
            return
        for one in found:
            code = _CODES.get(one.kind)
            if code == "section-version" and one.where == "version":
                yield from _version(section, one, self.resolver)
            elif code is not None and code != "section-version":
                yield _of(one, code)
            elif one.kind is not Reason.DESCRIPTION and one.kind is not Reason.FIELD:
                yield f"{section.idstr}: {one}"

    def _equal(self, section: Section, tree: Field, expected: Expected) -> Iterator[Finding | str]:
        ours = expected.equals.get(f"{section.idstr}/{section.instance_id}", {})
        theirs = equal_values(tree)
        bridge = section.idstr == "PCIBUS" and section.instance_id  # each has four pins
        if theirs.keys() - ours.keys() and not bridge:
            yield f"{section.idstr}: {min(theirs.keys() - ours.keys())}, which must be equal"
        for path in theirs.keys() & ours.keys():
            if ours[path] != theirs[path]:
                yield finding(
                    "field-value",
                    f"{section.idstr}: {path} is {theirs[path]} in "
                    f"the state, {ours[path]} on the target",
                    section=section.idstr,
                    instance=section.instance_id,
                    field=path,
                    expected=ours[path],
                    found=theirs[path],
                    says=f"{theirs[path]} != {ours[path]}",
                )
                return

    def _pci(self, section: Section, tree: Field, known: Known) -> Iterator[Finding | str]:
        _, config = config_of(tree, self.stream.source)
        if not config:
            return
        theirs = shape_of(config)
        for at in sorted(known.shape):
            ours = known.shape[at]
            if theirs.get(at) != ours:
                if at not in known.certain:
                    yield f"{section.idstr}: configuration space at {at:#x}"
                    continue
                yield finding(
                    "pci-config",
                    f"{section.idstr}: configuration space differs at {at:#x}",
                    section=section.idstr,
                    instance=section.instance_id,
                    field=f"{at:#x}",
                    expected=ours,
                    found=theirs.get(at, "nothing"),
                    says=f"get_pci_config_device: Bad config data: i={at:#x}",
                )
                return
        path = section.idstr.rpartition("/")[0]
        if self.expected is not None and path in self.expected.devices:
            yield from _slot(section, config, self.expected.devices[path].values)
        if known.features is not None:
            yield from _features(section, tree, known.features)
        if self.counted and known.queues:
            yield from _queues(section, tree, known.queues)


def check_sections(
    stream: MigrationStream, schema: Schema, expected: Expected | None, *, counted: bool
) -> Iterator[Finding | str]:
    """Findings in the order of the stream, and as text what is open.

    Args:
        stream: the state.
        schema: the target's.
        expected: what the target will have, if that is known.
        counted: the target compares the sizes of virtqueues.
    """
    looking = _Sections(stream, schema, expected, counted=counted)
    for section in stream.sections():
        if section.type not in (SectionType.START, SectionType.FULL):
            continue
        newest = _HANDLERS.get(section.idstr, section.version)
        if section.version > newest:
            yield finding(
                "section-version",
                f"{section.idstr} has version {section.version}, the target takes {newest}",
                section=section.idstr,
                instance=section.instance_id,
                expected=str(newest),
                found=str(section.version),
                says=f"unsupported version {section.version} for '{section.idstr}' v{newest}",
            )
        elif section.idstr != "ram":
            yield from looking.check(section)


def _slot(section: Section, config: bytes, values: dict[str, str]) -> Iterator[Finding]:
    """The number of a port's slot is in its slot capabilities.

    Source: QEMU hw/pci/pcie.c: pcie_cap_slot_init.
    """
    at = next((at for at, kind in capabilities_of(config) if kind == _EXPRESS), None)
    if at is None or not values.get("slot", "").isdigit():
        return
    theirs = int.from_bytes(config[at + 20 : at + 24], "little") >> _SLOT_SHIFT
    if theirs != int(values["slot"]):
        yield finding(
            "pci-config",
            f"{section.idstr}: slot {theirs} in the state, {values['slot']} on the target",
            section=section.idstr,
            instance=section.instance_id,
            field=f"{at + 20:#x}",
            expected=values["slot"],
            found=str(theirs),
            says=f"get_pci_config_device: Bad config data: i={at + 22:#x}",
        )


def _run_state(section: Section, tree: Field) -> Iterator[Finding]:
    """The run state is a name that the target must know (migration/global_state.c)."""
    for leaf in leaves(tree):
        text = leaf.value.partition(b"\0")[0] if isinstance(leaf.value, bytes) else b""
        name = text.decode(errors="replace")
        if leaf.name == "data" and name and name not in _RUN_STATES:
            yield finding(
                "device-refused",
                f"{section.idstr}: there is no run state {name!r}",
                section=section.idstr,
                instance=section.instance_id,
                field="runstate",
                found=name,
                says=f"invalid parameter value: {name}",
            )


def _virtio(section: Section, tree: Field) -> Iterator[Finding]:
    """What any target refuses: the most queues are 1024 (VIRTIO_QUEUE_MAX)."""
    for leaf in leaves(tree):
        most = {"queues": _MOST_QUEUES, "queue_sel": _MOST_QUEUES - 1}.get(leaf.name)
        if most is not None and isinstance(leaf.value, int) and leaf.value > most:
            yield finding(
                "device-refused",
                f"{section.idstr}: {leaf.name} is {leaf.value:#x}",
                section=section.idstr,
                instance=section.instance_id,
                field=leaf.name,
                expected=f"{most} at most",
                found=str(leaf.value),
                says=f"Invalid number of virtqueues: {leaf.value:#x}"
                if most == _MOST_QUEUES
                else "",
            )
            return


def _features(section: Section, tree: Field, offered: int) -> Iterator[Finding | str]:
    values = [leaf.value for leaf in leaves(tree) if leaf.name == "guest_features"]
    accepted = next((one for one in reversed(values) if isinstance(one, int)), 0)
    hidden = _LEGACY_BITS if not accepted >> 32 & 1 else _OLD_BITS
    if section.idstr.endswith("/virtio-balloon") and accepted >> 4 & 1:
        yield f"{section.idstr}: page poisoning, whose state not every release reads"
    refused = accepted & ~offered & ~hidden
    if refused:
        yield finding(
            "virtio-features",
            f"{section.idstr}: the driver uses features "
            f"{refused:#x} that the target does not offer",
            section=section.idstr,
            instance=section.instance_id,
            expected=f"{offered:#x}",
            found=f"{accepted:#x}",
            says=f"Features {accepted:#x} unsupported. Allowed features: {offered:#x}",
        )


def _queues(section: Section, tree: Field, sizes: tuple[int, ...]) -> Iterator[Finding]:
    """Since 11.1 a queue may not be longer than the target makes it."""
    found = [leaf.value for leaf in leaves(tree) if leaf.name == "vring.num"]
    for number, (theirs, ours) in enumerate(zip(found, sizes, strict=False)):
        if isinstance(theirs, int) and theirs > ours:
            yield finding(
                "virtio-queues",
                f"{section.idstr}: queue {number} has {theirs} "
                f"entries, on the target {ours} at most",
                section=section.idstr,
                instance=section.instance_id,
                field=f"queue[{number}].vring.num",
                expected=f"{ours} at most",
                found=str(theirs),
                says=f"VQ {number} vring.num {theirs} exceeds allocated max {ours}",
            )
            return


def _slots(section: Section, tree: Field, expected: Expected) -> Iterator[Finding]:
    """The slots for memory are an array without a count (hw/acpi/memory_hotplug.c)."""
    waiting, theirs = [tree], -1
    while waiting:
        one = waiting.pop()
        if re.search("memhp|memory_hotplug|memory hotplug", one.name + one.type):
            found = [leaf.name for leaf in leaves(one) if leaf.name == "is_inserting"]
            theirs = max(theirs, len(found))
        waiting.extend(child for child in one.children if child.children)
    if theirs >= 0 and theirs != expected.slots:
        yield finding(
            "section-footer",
            f"{section.idstr}: {theirs} slots for memory devices in the state, "
            f"{expected.slots} on the target (-m slots=)",
            section=section.idstr,
            field="memhp_state.devs",
            expected=str(expected.slots),
            found=str(theirs),
            says=f"Missing section footer for {section.idstr}",
        )


def _ports(section: Section, tree: Field, expected: Expected) -> Iterator[Finding | str]:
    """Which ports there are must be equal.

    Source: QEMU hw/char/virtio-serial-bus.c: virtio_serial_load_device.
    """
    ours = expected.ports.get(section.idstr.rpartition("/")[0])
    theirs: set[int] = set()
    for leaf in leaves(tree):
        if leaf.name.startswith("ports_map") and isinstance(leaf.value, int | tuple):
            words = leaf.value if isinstance(leaf.value, tuple) else (leaf.value,)
            theirs = {
                32 * number + bit
                for number, word in enumerate(words)
                for bit in range(32)
                if isinstance(word, int) and word >> bit & 1
            }
    if ours is None or not theirs:
        yield f"the ports of {section.idstr}"
    elif theirs | {0} != ours | {0}:
        yield finding(
            "device-refused",
            f"{section.idstr}: ports {sorted(theirs)} in the state, {sorted(ours)} on the target",
            section=section.idstr,
            instance=section.instance_id,
            field="ports_map",
            expected=str(sorted(ours)),
            found=str(sorted(theirs)),
        )


def _unknown(section: Section) -> Finding:
    return finding(
        "unknown-section",
        f"the target has no section {section.name}",
        section=section.idstr,
        instance=section.instance_id,
        expected="no such section",
        found=section.name,
        says=f"Unknown savevm section or instance '{section.idstr}' {section.instance_id}",
    )


def _version(section: Section, one: Disagreement, resolver: Resolver) -> Iterator[Finding]:
    named = [each for _, each in resolver.candidates(section.idstr)]
    newest = max(each.version_id for each in named)
    says = f"unsupported version {section.version} for '{section.idstr}' v{newest}"
    if section.version <= newest:
        oldest = min(each.minimum_version_id for each in named)
        says = (
            f"{named[0].name}: incoming version_id {section.version} is too old for "
            f"local minimum version_id {oldest}"
        )
    yield finding(
        "section-version",
        f"{section.idstr} has version {section.version}, the target takes {one.expected}",
        section=section.idstr,
        instance=section.instance_id,
        expected=one.expected,
        found=str(section.version),
        says=says,
    )


def _of(one: Disagreement, code: str) -> Finding:
    return finding(
        code,
        f"{one.section}: the target has {one.expected}, the state {one.found}",
        section=one.section,
        instance=one.instance,
        field=one.where,
        expected=one.expected,
        found=one.found,
        says=f"Missing section footer for {one.section}" if code == "section-footer" else "",
    )
