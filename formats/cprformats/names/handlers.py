"""Names of numbers in sections that QEMU writes with functions of their own.

Source: QEMU hw/vfio/migration.c, migration/block.c, migration/block-dirty-bitmap.c,
hw/s390x/s390-skeys.c, hw/s390x/s390-stattrib.c, hw/scsi/scsi-bus.c; libslirp src/state.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from cprformats.migration.rules.handlers_block import BitmapFlag, BlockFlag
from cprformats.migration.rules.handlers_vfio import TAGS
from cprformats.names import Bits, Enum, Table

__all__ = ["TABLES"]


@dataclass(frozen=True, slots=True)
class Place(Bits):
    """Flags below a place that is counted in units of a power of two.

    Attributes:
        unit: what is counted.
        shift: bits below the place.
    """

    unit: str = ""
    shift: int = 0

    def words(self, value: int, first: int = 0) -> tuple[str, ...]:
        """Name the flags that are set, then the place."""
        flags = value & ((1 << self.shift) - 1)
        # Named by the class: a slotted dataclass is made anew, and a bare super() would miss it.
        return (*Bits.words(self, flags, first), f"{self.unit} {value >> self.shift:#x}")


@dataclass(frozen=True, slots=True)
class Internet(Enum):
    """An IPv4 address."""

    def words(self, value: int, first: int = 0) -> tuple[str, ...]:
        """Write it with dots."""
        return (str(IPv4Address(value << first)),)


def _flags(kind: type[BitmapFlag | BlockFlag]) -> dict[int, str]:
    return {int(flag).bit_length() - 1: flag.name or "" for flag in kind}


TABLES: tuple[Table, ...] = (
    Enum("vfio-tag", TAGS),
    Place("block-flags", _flags(BlockFlag), unit="sector", shift=9),
    Bits("bitmap-flags", _flags(BitmapFlag) | {7: "MORE_FLAGS"}),
    Bits("bitmap-start-flags", {0: "enabled", 1: "persistent", 2: "autoload"}),
    Place("s390-pages-flags", {0: "EOS", 1: "DATA", 2: "ERROR", 3: "DONE"}, unit="page", shift=12),
    Enum("scsi-request", {0: "end", 1: "retry", 2: "in flight"}),
    Internet("ipv4", {}),
)
