"""What the guest writes over its memory, and whether it is all there: pure functions over bytes.

Each page of RAM from 1 MiB on (`layout.PATTERN`) has 4096 bytes::

    0     number of the page, counted from the start of the RAM block
    8     round: how often this page was stamped
    16    check of number, round and the VM's salt
    24    body: nothing writes it after `fill`; zeros where the RAM was not filled
    4088  the check again

A page that is lost, doubled, put in another's place, taken from an older time or from another VM
shows, and so does half a page. How far the guest is stands in one word of each vCPU's page
(`stamps`), so that any process that has the memory can tell what each page must hold, at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from cprproto.errors import GuestError
from cprproto.machine import layout as at

__all__ = ["FACTORS", "PatternVerdict", "body_of", "check_of", "fill", "share", "verify"]

#: Odd constants with well-mixed bits: 2^64 over the golden ratio, and a prime of xxHash.
FACTORS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)
_MASK = (1 << 64) - 1
_HEAD = Struct("<QQQ")
_BODY = Struct("<QQ")
_BODY_COUNT = (at.PAGE - _HEAD.size - 8) // _BODY.size
_TAIL_AT = at.PAGE - 8
_NO_BODY = bytes(_TAIL_AT - 24)
_MOST_REPORTED = 20
_LOOKS = 5


@dataclass(frozen=True, slots=True)
class PatternVerdict:
    """What a look over the pattern found.

    Attributes:
        pages: how many pages were looked at.
        bad: how many of them are not as they should be.
        findings: the first twenty of those, a line each.
    """

    pages: int
    bad: int
    findings: tuple[str, ...]


def check_of(page: int, turn: int, salt: int) -> int:
    """Compute the check of a page's stamp, as the listing does: 64 bits."""
    return (page * FACTORS[0] ^ turn * FACTORS[1] ^ salt) & _MASK


def body_of(page: int, salt: int) -> bytes:
    """Give the 4064 bytes that `fill` puts between a page's stamp and its tail."""
    return _BODY.pack(page, (page * FACTORS[1] ^ salt) & _MASK) * _BODY_COUNT


def fill(ram: memoryview, salt: int) -> int:
    """Write the body of every page of the pattern, which touches all of RAM.

    Returns:
        Count of pages; 1 GiB takes about a second.
    """
    pages = range(at.PATTERN // at.PAGE, len(ram) // at.PAGE)
    for page in pages:
        start = page * at.PAGE
        ram[start + _HEAD.size : start + _TAIL_AT] = body_of(page, salt)
    return len(pages)


def share(ram_bytes: int, cpus: int, number: int) -> tuple[int, int]:
    """Give a vCPU's part of the pattern: its first page and the one after its last."""
    first, last = at.PATTERN // at.PAGE, ram_bytes // at.PAGE
    each = (last - first) // cpus
    start = first + number * each
    return start, last if number == cpus - 1 else start + each


class _Share:
    """One vCPU's pages, and what each should hold."""

    __slots__ = ("_stamps_at", "end", "first", "ram", "salt")

    def __init__(self, ram: memoryview, number: int, salt: int) -> None:
        page = at.cpu_page(number)
        self.ram = ram
        self.salt = salt
        (self.first,) = at.WORD.unpack_from(ram, page + at.CPU["first"])
        (self.end,) = at.WORD.unpack_from(ram, page + at.CPU["end"])
        self._stamps_at = page + at.CPU["stamps"]
        if not at.PATTERN // at.PAGE <= self.first < self.end <= len(ram) // at.PAGE:
            raise GuestError(f"vCPU {number} has no pages {self.first} to {self.end} to write")

    def progress(self) -> tuple[int, int]:
        """Give whole rounds done, and the page that is stamped next."""
        (stamps,) = at.WORD.unpack_from(self.ram, self._stamps_at)
        turns, position = divmod(stamps, self.end - self.first)
        return turns, self.first + position

    def wrong(self, page: int, turns: int, next_page: int, body: bytes) -> str:
        """Say what is wrong with a page; an empty string if nothing is."""
        start = page * at.PAGE
        # Bytes: comparing a memoryview goes element by element, ten times slower.
        data = bytes(self.ram[start : start + at.PAGE])
        turn = turns + 1 if page < next_page else turns
        head, tail = self._stamp(page, turn)
        if data == head + body + tail:
            return ""
        fits = data[:24] == head and data[_TAIL_AT:] == tail
        if not fits and not (page == next_page and self._half(data, page, turns)):
            return f"page {page}: expected round {turn}, found {self._shown(data)}"
        if data[24:_TAIL_AT] != body:
            return f"page {page}: bytes between stamp and end were changed"
        return ""

    def _stamp(self, page: int, turn: int) -> tuple[bytes, bytes]:
        if not turn:
            return bytes(24), bytes(8)
        check = check_of(page, turn, self.salt)
        return _HEAD.pack(page, turn, check), at.WORD.pack(check)

    def _half(self, data: bytes, page: int, turns: int) -> bool:
        """Tell whether this page was being stamped: new words, then old ones."""
        old, new = (b"".join(self._stamp(page, turn)) for turn in (turns, turns + 1))
        now = data[:24] + data[_TAIL_AT:]
        return any(now == new[:cut] + old[cut:] for cut in (8, 16, 24, 32))

    def _shown(self, data: bytes) -> str:
        page, turn, check = _HEAD.unpack_from(data)
        if not any(data[:24]):
            return "no stamp"
        good = "" if check == check_of(page, turn, self.salt) else " with a wrong check"
        return f"the stamp of page {page} in round {turn}{good}"


def verify(ram: memoryview, *, running: bool = False, every: int = 1) -> PatternVerdict:
    """Look over the pattern in a RAM block; about 2 us a page.

    Args:
        ram: the whole block.
        running: the guest goes on meanwhile: what looks wrong is looked at again, with the
            guest's progress of that moment.
        every: look at each n-th page only.

    Raises:
        GuestError: there is no guest of ours in these bytes.
    """
    if len(ram) < at.PATTERN or bytes(ram[at.CONTROL : at.CONTROL + 8]) != at.MAGIC:
        raise GuestError("the memory has no control page of this guest")
    words = {
        name: at.WORD.unpack_from(ram, at.CONTROL + at.GLOBAL[name])[0]
        for name in ("cpus", "salt", "filled")
    }
    if not 0 < words["cpus"] <= at.MOST_CPUS:
        raise GuestError(f"the control page tells of {words['cpus']} vCPUs")
    pages, findings, bad = 0, list[str](), 0
    for number in range(words["cpus"]):
        part = _Share(ram, number, words["salt"])
        progress = part.progress()
        for page in range(part.first, part.end, every):
            pages += 1
            body = body_of(page, words["salt"]) if words["filled"] else _NO_BODY
            text = part.wrong(page, *progress, body)
            for _ in range(_LOOKS if running and text else 0):
                progress = part.progress()
                text = part.wrong(page, *progress, body)
                if not text:
                    break
            if text:
                bad += 1
                findings += [text] if bad <= _MOST_REPORTED else []
    return PatternVerdict(pages, bad, tuple(findings))
