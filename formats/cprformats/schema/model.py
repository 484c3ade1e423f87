"""What a QEMU binary can load, as data: its state descriptions and their fields.

A description that several others use is one node, named by its key; so a cycle
(a structure that nests itself) is a key that leads back, and nothing has to be
copied. `Schema.reachable` walks them, each once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

__all__ = ["Binary", "CountFrom", "Description", "FieldFormat", "Schema"]


@dataclass(frozen=True, slots=True)
class CountFrom:
    """A number that is read from the object while it is loaded.

    Attributes:
        kind: its type: "int32", "uint32", "uint16" or "uint8".
        offset: where it lies in the object, in bytes.
        times: what it is multiplied with.
    """

    kind: str
    offset: int
    times: int = 1


@dataclass(frozen=True, slots=True)
class FieldFormat:
    """One VMStateField.

    Attributes:
        name: as in the source, mostly the name of the member.
        offset: in the object, in bytes.
        size: of one element in memory, in bytes; what `size_from` multiplies
            where that is given. Of arrays of pointers up to 10.2: of a pointer.
        num: elements, as the structure says: 0 where the field is no array.
        count_from: where the number of elements comes from, for arrays of variable size.
        size_from: where the size of an element comes from, for variable buffers.
        start: a second offset, whose use depends on `info` (lists: the link).
        flags: VMS_* names, low bits first.
        info: name of the VMStateInfo, "" for structures.
        version_id: the first version of the description that has the field.
        struct_version_id: the version to use of a VSTRUCT.
        conditional: a function of QEMU decides whether the field is there.
        nested: key of the description of the elements, "" without one.
        nested_key: key of the description of a tree's keys, "" without one.
        err_hint: what QEMU says if the value is wrong.
        test: tells functions of `conditional` fields apart: those of one object with
            the same number are the same function; 0 where none is known. The number
            means nothing in another binary, so it is left out of comparisons.
    """

    name: str
    offset: int
    size: int
    num: int
    count_from: CountFrom | None
    size_from: CountFrom | None
    start: int
    flags: tuple[str, ...]
    info: str
    version_id: int
    struct_version_id: int
    conditional: bool
    nested: str = ""
    nested_key: str = ""
    err_hint: str = ""
    test: int = field(default=0, compare=False)

    @property
    def on_wire(self) -> bool:
        """Whether it is ever sent; a VMSTATE_VALIDATE entry is only a check."""
        return "MUST_EXIST" not in self.flags


@dataclass(frozen=True, slots=True)
class Description:
    """One VMStateDescription.

    Attributes:
        key: its name, with ``#2``, ``#3``, ... (in order of address) where others
            have the same name.
        name: as on the wire; "" where QEMU sets it when it runs (eepro100's).
        version_id: what is written.
        minimum_version_id: the oldest version that is loaded.
        unmigratable: a machine with such a device can't be migrated.
        early_setup: it is sent before RAM.
        priority: MigrationPriority as a number; its meaning depends on the release.
        hooks: names of the functions that it has, such as "post_load".
        fields: in wire order, checks included.
        subsections: keys, in wire order.
        address: where it lies in the object's image.
        object: name of the binary or module that it is from.
        registered: code, or data that is no list of fields or subsections, refers to
            it: only then can a section be of it. True where that is not known.
    """

    key: str
    name: str
    version_id: int
    minimum_version_id: int
    unmigratable: bool
    early_setup: bool
    priority: int
    hooks: tuple[str, ...]
    fields: tuple[FieldFormat, ...]
    subsections: tuple[str, ...]
    address: int
    object: str
    registered: bool = field(default=True, compare=False)

    def references(self) -> Iterator[str]:
        """Keys of the descriptions that this one names, with repetitions."""
        for one in self.fields:
            yield from (key for key in (one.nested, one.nested_key) if key)
        yield from self.subsections


@dataclass(frozen=True, slots=True)
class Binary:
    """What is known of one ELF file of the schema.

    Attributes:
        name: as it was given by the caller.
        arch: of the host: "x86_64" or "aarch64".
        kind: "exec" or "dyn".
        build_id: hexadecimal, "" without one.
        stripped: it has no symbol table besides the dynamic one.
    """

    name: str
    arch: str
    kind: str
    build_id: str
    stripped: bool


@dataclass(frozen=True, slots=True)
class Schema:
    """The state formats of a binary and its modules.

    Attributes:
        binaries: the program first, then modules.
        era: the layouts that were recognized, in words; "" where there are none.
        descriptions: by key, in order of address.
        rejected: how many records looked like a description at first sight, by what
            ruled them out.
        missing: symbols of descriptions that are used, but that no file here brings.
        reason: why there are no descriptions, "" where there are.
        origin: where the descriptions are from: "elf", or "dump" for the output of
            ``-dump-vmstate``, which has no types (`info` is empty), no hooks, no
            offsets and of the flags only ARRAY.
        machine: the machine that a dump was made with, "" without one.
        devices: key of the description of each device type, by the type's name. Only
            a running QEMU knows them: from a dump, or a dump joined with files.
        unlinked: device types of the dump whose description the files lack.
        left_out: why modules beside the program were not read, by file name.
        provenance: where the files are from, in words, of a schema that was published.
    """

    binaries: tuple[Binary, ...]
    era: str
    descriptions: Mapping[str, Description]
    rejected: Mapping[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    reason: str = ""
    origin: str = "elf"
    machine: str = ""
    devices: Mapping[str, str] = field(default_factory=dict)
    unlinked: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)

    def named(self, name: str) -> tuple[Description, ...]:
        """All descriptions of that name, in order of address."""
        return tuple(one for one in self.descriptions.values() if one.name == name)

    def reachable(self, key: str) -> Iterator[Description]:
        """A description and all that it uses, each once, outermost first."""
        seen: set[str] = set()
        waiting = [key]
        while waiting:
            one = self.descriptions.get(waiting.pop())
            if one is None or one.key in seen:
                continue
            seen.add(one.key)
            yield one
            waiting.extend(reversed(list(one.references())))

    def roots(self) -> tuple[Description, ...]:
        """Descriptions that no other one uses."""
        used = {key for one in self.descriptions.values() for key in one.references()}
        return tuple(one for one in self.descriptions.values() if one.key not in used)
