"""Which addresses a binary's code and data refer to.

A description without fields is little more than a name and zeros, and other
tables look like it. What tells it apart is that somebody uses it: a pointer in
the data, or an instruction that forms its address (the `dc->vmsd = &vmstate_x`
of a class_init function).

Source: Intel SDM volume 2 (LEA, RIP-relative), Arm ARM C6 (ADRP, ADD immediate).
"""

from __future__ import annotations

import re
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cprformats.schema.space import Object, Space

__all__ = ["References", "references"]

#: lea r64, [rip + disp32], with REX.W and any register.
_LEA: Final = re.compile(rb"[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]", re.DOTALL)
#: The last byte, in memory, of ADRP and of ADD (immediate) of 64 bits.
_ADRP_OR_ADD: Final = re.compile(rb"[\x90\xb0\xd0\xf0\x91]")
_DISP: Final = struct.Struct("<i")
#: How many instructions behind an ADRP or ADD the next ADD may stand.
_ADD_WITHIN: Final = 64


@dataclass(frozen=True, slots=True)
class References:
    """What refers to some addresses.

    Attributes:
        code: those that an instruction forms.
        data: where pointers to the others, or to the same, lie.
    """

    code: frozenset[int]
    data: Mapping[int, tuple[int, ...]]

    def outside(self, address: int, ranges: Sequence[tuple[int, int]]) -> bool:
        """Whether code refers to an address, or data outside of sorted ranges (start, end)."""
        if address in self.code:
            return True
        for slot in self.data.get(address, ()):
            at = bisect_right(ranges, (slot, 1 << 64)) - 1
            if at < 0 or slot >= ranges[at][1]:
                return True
        return False


def references(space: Space, addresses: Iterable[int]) -> References:
    """Find what code and data of the space refer to some addresses."""
    wanted = set(addresses)
    slots: dict[int, list[int]] = {}
    if not wanted:
        return References(frozenset(), {})
    for slot, value in space.words_at():
        if value in wanted:
            slots.setdefault(value, []).append(slot)
    code: set[int] = set()
    for one in space.objects:
        code.update(wanted.intersection(_formed(space, one, wanted)))
    return References(frozenset(code), {at: tuple(found) for at, found in slots.items()})


def _formed(space: Space, one: Object, wanted: set[int]) -> Iterator[int]:
    """Addresses that instructions form, wanted or not."""
    for start, code in space.code(one):
        if one.elf.arch == "aarch64":
            yield from _adrp_targets(start, code)
        elif one.elf.kind == "exec":
            yield from _immediates(code, wanted)
        if one.elf.arch == "x86_64":
            yield from _lea_targets(start, code)


def _lea_targets(start: int, code: bytearray) -> Iterator[int]:
    for match in _LEA.finditer(code, 0, max(len(code) - 4, 0)):
        end = match.end()
        yield start + end + 4 + _DISP.unpack_from(code, end)[0]


def _immediates(code: bytearray, wanted: set[int]) -> Iterator[int]:
    """Wanted addresses that stand in code as they are (mov r32, imm32), at any byte."""
    for shift in range(4):
        words = array("I")
        words.frombytes(memoryview(code)[shift : shift + max(len(code) - shift, 0) // 4 * 4])
        yield from (word for word in words if word in wanted)


def _adrp_targets(start: int, code: bytearray) -> Iterator[int]:
    """Follow ADRP and ADD through the registers; other instructions are passed over.

    Compilers form an address from that of a neighbour (section anchors), so there may be
    several ADDs, some way behind.
    """
    words = array("I")
    words.frombytes(memoryview(code)[: len(code) // 4 * 4])
    known: list[tuple[int, int]] = [(-_ADD_WITHIN, 0)] * 32
    # The top bytes alone are searched: one instruction in ten is of these.
    for match in _ADRP_OR_ADD.finditer(code[3::4]):
        at = match.start()
        word = words[at]
        if word & 0x9F000000 == 0x90000000:
            known[word & 31] = at, _adrp_page(start + 4 * at, word)
        elif word & 0xFF800000 == 0x91000000:
            since, value = known[word >> 5 & 31]
            if at - since < _ADD_WITHIN:
                value += (word >> 10 & 0xFFF) << (12 if word & 0x400000 else 0)
                known[word & 31] = at, value
                yield value


def _adrp_page(place: int, word: int) -> int:
    pages = (word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3
    pages -= (pages & 1 << 20) << 1
    return (place & ~0xFFF) + (pages << 12)
