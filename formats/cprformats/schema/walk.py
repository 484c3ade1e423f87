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

from cprformats.errors import Damaged, FormatError, Unsupported
from cprformats.schema.assemble import assemble
from cprformats.schema.choose import WELL_KNOWN, choose
from cprformats.schema.debugfiles import alternate_link, build_id_of
from cprformats.schema.dwarf import read_layouts
from cprformats.schema.elf import Elf, read_elf
from cprformats.schema.eras import Era
from cprformats.schema.model import Binary, Schema
from cprformats.schema.records import NotOne, RawDescription, Records
from cprformats.schema.references import References, references
from cprformats.schema.space import SPACING, Space
from cprformats.schema.symbols import exported
from cprformats.source import Source

__all__ = ["load_space", "read_schema"]

_MAX_OBJECTS: Final = 256
_MAX_DESCRIPTIONS: Final = 1 << 16
#: Reasons that most pointers to a text have: these were never candidates.
_NO_CANDIDATE: Final = frozenset({"versions", "outside", "name"})


def read_schema(files: Sequence[tuple[str, Source]], debug: Sequence[Source] = ()) -> Schema:
    """Read the state formats of a program and its modules.

    Args:
        files: name and contents; the program first, so that modules find its symbols.
        debug: debug information of the first file that is kept apart from it, then the
            file of dwz that this refers to, if it does.

    Returns:
        A schema; where no description was found, one with a `reason`.

    Raises:
        WrongFormat: a file is no ELF file.
        Unsupported: a file is for another machine, or larger than any QEMU.
        Truncated: a file ends before what its headers name.
        Damaged: the tables of a file contradict themselves, or the debug information
            is that of another build.
    """
    space = load_space(files)
    told = _told(space, debug)
    binaries = tuple(
        _facts(name, one.elf) for (name, _), one in zip(files, space.objects, strict=True)
    )
    places = list(_named_places(space))
    records = choose(space, places, told.eras)
    if records is None:
        reason = (
            f"no state description among {len(places)} pointers to a text"
            if places
            else "no pointer to a text"
        )
        return Schema(binaries, "", {}, reason=reason)
    search = _Search(space, records)
    start = records.era.description.name
    search.run(address - start for address, _ in places)
    descriptions, missing = assemble(records, search.found.values(), search.registered())
    return Schema(
        binaries,
        records.era.label + told.why_not,
        descriptions,
        dict(+search.rejected),
        tuple(sorted(missing)),
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


@dataclass(frozen=True, slots=True)
class _Told:
    """What debug information says, or why it says nothing."""

    eras: tuple[Era, ...] = ()
    why_not: str = ""


def _told(space: Space, debug: Sequence[Source]) -> _Told:
    """Ask the debug information of the first file, its own where no other is given."""
    if not space.objects:
        return _Told()
    elf = space.objects[0].elf
    sources = list(debug) or ([elf.source] if elf.debug else [])
    if not sources:
        return _Told()
    if debug:
        _check_build(elf.build_id, build_id_of(sources[0]), "the debug information")
    try:
        if len(sources) > 1:
            link = alternate_link(sources[0])
            wanted = link.build_id if link else ""
            _check_build(wanted, build_id_of(sources[1]), "the file of dwz")
        return _Told(read_layouts(*sources[:2]))
    except FormatError as problem:
        if debug:
            raise
        return _Told((), f"; its debug information was not used: {problem}")


def _check_build(wanted: str, found: str, what: str) -> None:
    if wanted and found and wanted != found:
        raise Damaged.mismatch(f"the build id of {what}", wanted, found, offset=0, path=("DWARF",))


def _facts(name: str, elf: Elf) -> Binary:
    return Binary(name, elf.arch, elf.kind, elf.build_id, elf.stripped)


def _named_places(space: Space) -> Iterator[tuple[int, bool]]:
    """Addresses of all pointers to a text, and whether it is a well-known name."""
    for address, target in space.words_at():
        text = space.text(target) if target else None
        if text is not None:
            yield address, text in WELL_KNOWN


def _may_be_empty(raw: RawDescription, subsections: bool) -> bool:
    """Without fields it has subsections, or is there to forbid migration and does no more.

    A minimum above the version would forbid what QEMU itself has written.
    """
    forbids = raw.unmigratable and not raw.hooks
    sane = raw.minimum_version_id <= raw.version_id
    return sane and bool(raw.fields or subsections or forbids)


@dataclass(slots=True)
class _Search:
    """Sorts candidates into found and rejected.

    Attributes:
        found: accepted descriptions by address.
        rejected: counts of the others by reason.
        users: what refers to candidates.
    """

    space: Space
    records: Records
    found: dict[int, RawDescription] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    users: References = field(default_factory=lambda: References(frozenset(), {}))

    def registered(self) -> frozenset[int]:
        """Addresses of those that more than lists of fields and subsections refer to."""
        size = self.records.era.field.size
        lists = [
            (raw.fields, size * len(self.records.fields(raw.fields)))
            for raw in self.found.values()
            if raw.fields
        ]
        lists += [
            (raw.subsections, 8 * len(self.records.subsections(raw.subsections)))
            for raw in self.found.values()
            if raw.subsections
        ]
        ranges = sorted((start, start + length) for start, length in lists)
        return frozenset(at for at in self.found if self.users.outside(at, ranges))

    def run(self, addresses: Iterator[int]) -> None:
        """Look at all addresses, then at what the accepted ones name."""
        weak: dict[int, RawDescription] = {}
        for address in addresses:
            raw = self._look(address)
            if raw is None:
                continue
            if self._has_fields(raw):
                self.found[address] = raw
            elif _may_be_empty(raw, self._has_subsections(raw)):
                weak[address] = raw
            else:
                self.rejected["no fields"] += 1
        self._unnamed()
        self.users = references(self.space, {*weak, *self.found})
        used = weak.keys() & {*self.users.code, *self.users.data}
        self.found.update((at, weak[at]) for at in used)
        self.rejected["no fields, and nothing refers to it"] += len(weak) - len(used)
        self._follow()
        self.found = dict(sorted(self.found.items()))

    def _unnamed(self) -> None:
        """Take descriptions whose name is set at run time, known by their fields.

        Source: QEMU hw/net/eepro100.c (e100_nic_realize), which copies one and names it.
        """
        layout = self.records.era.description
        distance, name = layout.fields, layout.name
        for slot, word in self.space.words_at(name - distance):
            if word == 0 and self.records.version(slot - distance):
                try:
                    raw = self.records.description(slot - distance, unnamed=True)
                    if self.records.fields(raw.fields):
                        self._check_subsections(raw)
                        self.found[raw.address] = raw
                except NotOne:
                    continue

    def _look(self, address: int, *, unnamed: bool = False) -> RawDescription | None:
        """A description whose lists can be read, or None with the reason counted."""
        try:
            raw = self.records.description(address, unnamed=unnamed)
            if raw.fields:
                self.records.fields(raw.fields)
            self._check_subsections(raw)
        except NotOne as reason:
            if str(reason) not in _NO_CANDIDATE:
                self.rejected[str(reason)] += 1
            return None
        return raw

    def _check_subsections(self, raw: RawDescription) -> None:
        """Each entry of the list must be a description itself."""
        if raw.subsections:
            for address in self.records.subsections(raw.subsections):
                self.records.description(address)

    def _has_subsections(self, raw: RawDescription) -> bool:
        return bool(raw.subsections and self.records.subsections(raw.subsections))

    def _has_fields(self, raw: RawDescription) -> bool:
        if not raw.fields:
            return False
        return bool(self.records.era.end or self.records.fields(raw.fields))

    def _follow(self) -> None:
        """Take in what accepted descriptions name, however little it has.

        Even nothing: hw/acpi/acpi-cpu-hotplug-stub.c defines vmstate_cpu_hotplug as zeros.
        """
        name = self.records.era.description.name
        waiting = list(self.found.values())
        while waiting:
            for address in self.records.targets(waiting.pop()):
                if address in self.found or not self.space.is_data(address):
                    continue
                if len(self.found) > _MAX_DESCRIPTIONS:
                    raise Unsupported(f"expected at most {_MAX_DESCRIPTIONS} descriptions")
                raw = self._look(address, unnamed=self.space.word(address + name) == 0)
                if raw is not None:
                    self.found[address] = raw
                    waiting.append(raw)
