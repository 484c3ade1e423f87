"""Words for numbers: names of bits and of enumerated values, by the name of a table.

A leaf's `meaning` names a table; the tables lie in the modules of this
package as ``TABLES`` and are loaded when one of them is asked for. A value
that holds a later part of a longer set of bits says so in its meaning:
``virtio-net-features+32`` is the word with bits 32 and up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module

__all__ = ["Bits", "Enum", "Table", "find_table", "words"]


@dataclass(frozen=True, slots=True)
class Bits:
    """Names of single bits.

    Attributes:
        name: what a leaf's `meaning` calls the table.
        bits: bit number, 0 the least significant, to its name.
    """

    name: str
    bits: Mapping[int, str]

    def words(self, value: int, first: int = 0) -> tuple[str, ...]:
        """Name the set bits of a value whose lowest bit is number `first`."""
        return tuple(self.bits.get(bit, f"bit {bit}") for bit in _set_bits(value, first))


@dataclass(frozen=True, slots=True)
class Enum:
    """Names of whole values.

    Attributes:
        name: what a leaf's `meaning` calls the table.
        values: value to its name.
        plain: whether a value without a name is an ordinary number, not an
            unknown one.
    """

    name: str
    values: Mapping[int, str]
    plain: bool = False

    def words(self, value: int, first: int = 0) -> tuple[str, ...]:
        """Name the value; else say ``unknown``, or nothing of an ordinary number."""
        named = self.values.get(value << first)
        if named is None:
            return () if self.plain else ("unknown",)
        return (named,)


Table = Bits | Enum

#: How a meaning begins -> the module with its table; the first that fits counts.
_MODULES = (
    ("virtio", "virtio"),
    ("vhost", "virtio"),
    ("pci", "pci"),
    ("msi", "pci"),
    ("vfio", "handlers"),
    ("block-", "handlers"),
    ("bitmap-", "handlers"),
    ("s390-pages", "handlers"),
    ("scsi-request", "handlers"),
    ("ipv4", "handlers"),
    ("libvirt", "containers"),
    ("qcow2", "containers"),
    ("", "migration"),
)


def _set_bits(value: int, first: int) -> Iterator[int]:
    value &= (1 << max(value.bit_length(), 64)) - 1  # a negative value counts as 64 bits
    while value:
        lowest = value & -value
        yield lowest.bit_length() - 1 + first
        value ^= lowest


@cache
def _tables(module: str) -> Mapping[str, Table]:
    tables: tuple[Table, ...] = import_module(f"{__name__}.{module}").TABLES
    return {table.name: table for table in tables}


def find_table(name: str) -> Table | None:
    """Find a table by its name, without an offset, or None."""
    module = next(module for start, module in _MODULES if name.startswith(start))
    return _tables(module).get(name)


def words(meaning: str, value: int) -> tuple[str, ...]:
    """Give the words for a value.

    For bits: the names of those that are set, ``bit N`` for one without a
    name. For an enumeration: one name, or ``unknown``, or nothing where other
    values are ordinary numbers. For a meaning without a table: nothing.
    """
    name, _, offset = meaning.partition("+")
    table = find_table(name)
    return () if table is None else table.words(value, int(offset or 0))
