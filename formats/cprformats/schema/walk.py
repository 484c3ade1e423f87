"""Every state description of a binary and its modules, found by structure.

Each pointer to a text may be the name of one. What stands around it must then be
sane versions, functions that lead to code, and a list of fields with an end.
What has no fields (or, before 8.0, only an end that is all zero) must be used by
code or data besides. All that accepted ones name is taken with them.

Source: QEMU include/migration/vmstate.h (struct VMStateDescription).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from cprformats.errors import Unsupported
from cprformats.schema.assemble import assemble
from cprformats.schema.choose import choose
from cprformats.schema.elf import Elf, read_elf
from cprformats.schema.model import Binary, Schema
from cprformats.schema.records import NotOne, RawDescription, Records
from cprformats.schema.references import referred
from cprformats.schema.space import SPACING, Space
from cprformats.schema.symbols import exported
from cprformats.source import Source

__all__ = ["load_space", "read_schema"]

_MAX_OBJECTS: Final = 256
_MAX_DESCRIPTIONS: Final = 1 << 16
#: Reasons that most pointers to a text have: these were never candidates.
_NO_CANDIDATE: Final = frozenset({"versions", "outside", "name"})


def read_schema(files: Sequence[tuple[str, Source]]) -> Schema:
    """Read the state formats of a program and its modules.

    Args:
        files: name and contents; the program first, so that modules find its symbols.

    Returns:
        A schema; where no description was found, one with a `reason`.

    Raises:
        WrongFormat: a file is no ELF file.
        Unsupported: a file is for another machine, or larger than any QEMU.
        Truncated: a file ends before what its headers name.
        Damaged: the tables of a file contradict themselves.
    """
    space = load_space(files)
    binaries = tuple(
        _facts(name, one.elf) for (name, _), one in zip(files, space.objects, strict=True)
    )
    places = list(_named_places(space))
    records = choose(space, places)
    if records is None:
        reason = (
            f"no state description among {len(places)} pointers to a text"
            if places
            else "no pointer to a text"
        )
        return Schema(binaries, "", {}, reason=reason)
    search = _Search(space, records)
    search.run(address for address, _ in places)
    descriptions, missing = assemble(records, search.found.values())
    return Schema(
        binaries, records.era.label, descriptions, dict(search.rejected), tuple(sorted(missing))
    )


def load_space(files: Sequence[tuple[str, Source]]) -> Space:
    """Put the files into one address space, symbols resolved among them.

    Raises:
        FormatError: as `read_schema`.
    """
    if len(files) > _MAX_OBJECTS:
        raise Unsupported(f"expected at most {_MAX_OBJECTS} files, found {len(files)}")
    elves = [(name, read_elf(source)) for name, source in files]
    exports: dict[str, int] = {}
    if len(elves) > 1:
        for at, (_, elf) in enumerate(elves):
            for symbol, address in exported(elf).items():
                exports.setdefault(symbol, at * SPACING + address)
    space = Space()
    for name, elf in elves:
        space.add(name, elf, exports)
    return space


def _facts(name: str, elf: Elf) -> Binary:
    return Binary(name, elf.arch, elf.kind, elf.build_id, elf.stripped)


def _named_places(space: Space) -> Iterator[tuple[int, str]]:
    """Address and text of all pointers to a text."""
    for address in space.pointers():
        target = space.word(address)
        text = None if not target else space.text(target)
        if text is not None:
            yield address, text


def _may_be_empty(raw: RawDescription) -> bool:
    """Without fields it has subsections, or is there to forbid migration and does no more."""
    forbids = raw.unmigratable and not raw.hooks
    return bool(raw.fields or raw.subsections or forbids)


@dataclass(slots=True)
class _Search:
    """Sorts candidates into found and rejected.

    Attributes:
        found: accepted descriptions by address.
        rejected: counts of the others by reason.
    """

    space: Space
    records: Records
    found: dict[int, RawDescription] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)

    def run(self, addresses: Iterator[int]) -> None:
        """Look at all addresses, then at what the accepted ones name."""
        weak: dict[int, RawDescription] = {}
        for address in addresses:
            raw = self._look(address)
            if raw is None:
                continue
            if self._has_fields(raw):
                self.found[address] = raw
            elif _may_be_empty(raw):
                weak[address] = raw
            else:
                self.rejected["no fields"] += 1
        self._unnamed()
        used = referred(self.space, weak)
        self.found.update((at, weak[at]) for at in used)
        self.rejected["no fields, and nothing refers to it"] += len(weak) - len(used)
        self._follow()
        self.found = dict(sorted(self.found.items()))

    def _unnamed(self) -> None:
        """Take descriptions whose name is set at run time, known by their fields.

        Source: QEMU hw/net/eepro100.c (e100_nic_realize), which copies one and names it.
        """
        distance = self.records.era.description.fields
        for slot in self.space.pointers():
            if self.space.word(slot - distance) == 0:
                try:
                    raw = self.records.description(slot - distance, unnamed=True)
                    if raw.version_id and self.records.fields(raw.fields):
                        self.found[raw.address] = raw
                except NotOne:
                    continue

    def _look(self, address: int, *, unnamed: bool = False) -> RawDescription | None:
        """A description whose lists can be read, or None with the reason counted."""
        try:
            raw = self.records.description(address, unnamed=unnamed)
            if raw.fields:
                self.records.fields(raw.fields)
            if raw.subsections:
                self._check_subsections(raw)
        except NotOne as reason:
            if str(reason) not in _NO_CANDIDATE:
                self.rejected[str(reason)] += 1
            return None
        return raw

    def _check_subsections(self, raw: RawDescription) -> None:
        """Each entry of the list must be a description itself."""
        for address in self.records.subsections(raw.subsections):
            self.records.description(address)

    def _has_fields(self, raw: RawDescription) -> bool:
        if not raw.fields:
            return False
        return bool(self.records.era.end or self.records.fields(raw.fields))

    def _follow(self) -> None:
        """Take in what accepted descriptions name, however little it has.

        Even nothing: hw/acpi/acpi-cpu-hotplug-stub.c defines vmstate_cpu_hotplug as zeros.
        """
        waiting = list(self.found.values())
        while waiting:
            for address in self.records.targets(waiting.pop()):
                if address in self.found or not self.space.is_data(address):
                    continue
                if len(self.found) > _MAX_DESCRIPTIONS:
                    raise Unsupported(f"expected at most {_MAX_DESCRIPTIONS} descriptions")
                raw = self._look(address, unnamed=self.space.word(address) == 0)
                if raw is not None:
                    self.found[address] = raw
                    waiting.append(raw)
