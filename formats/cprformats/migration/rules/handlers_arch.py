"""Handlers of single architectures: s390's keys, attributes and clock, PowerPC's hash table.

::

    s390-skeys              = (address|SKEYS:be64 pages:be64 key:u8 x pages)* EOS:be64
    s390-storage_attributes = (address|MORE:be64 pages:be64 value:u8 x pages)* [DONE:be64] EOS:be64
    todclock                = 00 | 01 high:u8 low:be64
    spapr/htab START        = htab_shift:be32, or -1 without a hash table
    spapr/htab PART, END    = ff ff ff ff | 00 00 00 00 chunk* 00 x 8
    chunk                   = index:be32 n_valid:be16 n_invalid:be16 entry:16 x n_valid

Source: QEMU hw/s390x/s390-skeys.c (s390_storage_keys_save; one block before
6.1, one for each block of guest memory since), hw/s390x/s390-stattrib.c
(cmma_save), hw/s390x/tod.c (s390_tod_save), hw/ppc/spapr.c (htab_save_setup,
htab_save_iterate, htab_save_chunk, htab_save_end_marker); 5.2 to 11.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cprformats.fields import Kind
from cprformats.migration.wire import SectionType
from cprformats.reader import Reader

if TYPE_CHECKING:
    from cprformats.migration.device import Decoder

__all__ = ["htab", "skeys", "storage_attributes", "todclock"]

_PAGE_MASK = 0xFFF
_KEYS_EOS, _KEYS_DATA, _KEYS_ERROR, _KEYS_DONE = 1, 2, 4, 8
_ENTRY_BYTES = 16
_NO_TABLE = 0xFFFF_FFFF


def skeys(decoder: Decoder, reader: Reader) -> None:
    """Storage keys; an error mark ends them like the usual one."""
    _page_bytes(decoder, reader, "keys", {_KEYS_DATA, _KEYS_EOS, _KEYS_ERROR}, _KEYS_ERROR)


def storage_attributes(decoder: Decoder, reader: Reader) -> None:
    """Collaborative memory's page states; DONE stands in front of the last EOS."""
    _page_bytes(decoder, reader, "values", {_KEYS_DATA, _KEYS_EOS, _KEYS_ERROR, _KEYS_DONE}, 0)


def _page_bytes(
    decoder: Decoder, reader: Reader, name: str, known: set[int], also_ends: int
) -> None:
    """Read blocks of one byte per page up to the word that ends them."""
    flags, index = 0, 0
    while flags not in (_KEYS_EOS, also_ends or _KEYS_EOS):
        decoder.count(reader)
        flags = int.from_bytes(reader.peek(8)) & _PAGE_MASK
        if flags not in known:
            raise reader.mismatch("flags", " ".join(map(str, sorted(known))), flags)
        with reader.group(f"[{index}]", "pages"):
            reader.number("address_flags", "u64be", meaning="s390-pages-flags")
            if flags == _KEYS_DATA:
                pages = reader.number("pages", "u64be")
                reader.blob(name, pages, kind=Kind.BUFFER)
        index += 1


def todclock(decoder: Decoder, reader: Reader) -> None:
    """The time-of-day clock, if there was one to read."""
    present = reader.number("present", "u8")
    if present > 1:
        raise reader.mismatch("todclock", "0 or 1", present)
    if present:
        reader.number("high", "u8")
        reader.number("low", "u64be")


def htab(decoder: Decoder, reader: Reader) -> None:
    """The hash page table of a pseries guest."""
    if decoder.section.type is SectionType.START:
        reader.number("htab_shift", "u32be")
        return
    header = reader.number("header", "u32be")
    if header == _NO_TABLE:
        return
    if header:
        raise reader.mismatch("hash table header", "0 or ffffffff", hex(header))
    index = 0
    while _chunk(decoder, reader, index):
        index += 1


def _chunk(decoder: Decoder, reader: Reader, index: int) -> bool:
    """Read one chunk; say whether it was not the end mark."""
    decoder.count(reader)
    if reader.peek(8) == bytes(8):
        reader.blob("end", 8)
        return False
    with reader.group(f"[{index}]", "chunk"):
        reader.number("index", "u32be")
        valid = reader.number("n_valid", "u16be")
        reader.number("n_invalid", "u16be")
        reader.blob("entries", valid * _ENTRY_BYTES, kind=Kind.BUFFER)
    return True
