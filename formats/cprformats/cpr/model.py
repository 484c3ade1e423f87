"""What reading a CPR state file gives: frozen values with their places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cprformats.errors import FormatError
from cprformats.fields import Field, Tally, tally
from cprformats.source import Source

__all__ = ["CprFd", "CprMemfd", "CprState", "CprVfioDevice"]


@dataclass(frozen=True, slots=True)
class CprFd:
    """One named descriptor, or in the older form a named value.

    Attributes:
        name: what QEMU looks it up by, together with `id`.
        id: tells equal names apart: an interrupt vector, a group number, else 0.
        fd: descriptor number in the process that wrote the file; None where the
            descriptor went beside the data (cpr-transfer). With `is_value` it is
            the value itself.
        is_value: the number is data: no descriptor is behind it.
        offset: of the entry in the file, in bytes.
    """

    name: str
    id: int
    fd: int | None
    is_value: bool = False
    offset: int = 0


@dataclass(frozen=True, slots=True)
class CprMemfd:
    """Size of one RAM block of the older form, whose descriptor has the same name.

    Attributes:
        name: as in the list of descriptors.
        id: as in the list of descriptors.
        length: used length, in bytes.
        max_length: in bytes.
        align: in bytes.
        offset: of the entry in the file, in bytes.
    """

    name: str
    id: int
    length: int
    max_length: int
    align: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class CprVfioDevice:
    """One VFIO device that is open through iommufd.

    Attributes:
        name: of the device, host address or id.
        devid: its id in the iommufd.
        ioas_id: of its address space.
        hwpt_id: of its hardware page table.
        offset: of the entry in the file, in bytes.
    """

    name: str
    devid: int
    ioas_id: int
    hwpt_id: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class CprState:
    """A CPR state file.

    Attributes:
        kind: ``qcpr``, or ``cpr-2022`` for the form without a magic.
        source: its bytes.
        offset: of the first byte, absolute.
        end: offset behind the last byte.
        version: of the file; None in the older form, which has none.
        mode: the older form's number of the CPR mode; None in a QCPR file.
        entries: named descriptors, in file order.
        memfds: RAM block sizes of the older form.
        vfio_devices: devices that are open through iommufd.
        has_vfio: the list of VFIO devices is there, empty or not (10.1 on).
        passed: how descriptors went: ``exec`` (by number), ``transfer`` (beside the
            data), empty without any entry.
        fields: the file as trees.
        warnings: oddities that don't stop a reader.
        error: what ended the reading early, if something did.
    """

    kind: str
    source: Source
    offset: int
    end: int
    version: int | None
    mode: int | None
    entries: tuple[CprFd, ...]
    memfds: tuple[CprMemfd, ...]
    vfio_devices: tuple[CprVfioDevice, ...]
    has_vfio: bool
    passed: str
    fields: tuple[Field, ...]
    warnings: tuple[str, ...]
    error: FormatError | None

    def find(self, name: str, id: int = 0) -> CprFd | None:
        """Look a descriptor up as QEMU does: by name and id, the first one wins."""
        return next((x for x in self.entries if x.name == name and x.id == id), None)

    def walk(self) -> Iterator[Field]:
        """Give the whole file as trees; no byte is left out."""
        yield from self.fields

    def tally(self) -> Tally:
        """Count the bytes of the file by kind."""
        return tally(self.fields)
