"""Decompress one block of LZO1X.

::

    block   = [first] instruction* 11 00 00
    first   = 12..ff                      that byte minus 17 literals
    0000LLLL            no literals before: a run of literals
                        1 to 3 before: copy 2 bytes, distance 1..1024
                        more before: copy 3 bytes, distance 2049..3072
    0001HLLL D:le16     copy, distance 16384..49151; with 16384 itself the end
    001LLLLL D:le16     copy, distance 1..16384
    01LDDDSS H          copy 3 or 4 bytes, distance 1..2048
    1LLDDDSS H          copy 5 to 8 bytes, distance 1..2048

The lowest two bits of an instruction's last operand (S) say how many literals
follow it. A length whose bits are all zero goes on in the bytes behind: each
00 adds 255, the first other byte itself.

Source: "LZO stream format as understood by Linux's LZO decompressor",
docs.kernel.org/staging/lzo.html.
"""

from __future__ import annotations

__all__ = ["LzoError", "lzo1x_decompress"]

_MANY = 4  # "more than three literals before": the state behind a run


class LzoError(ValueError):
    """The block contradicts itself."""


def lzo1x_decompress(data: bytes, size: int) -> bytes:
    """Decompress a block to just `size` bytes.

    Raises:
        LzoError: it gives more or fewer, or refers to what is not there.
    """
    try:
        out = _Block(data, size).run()
    except IndexError as error:
        raise LzoError("the block ends inside an instruction") from error
    if len(out) != size:
        raise LzoError(f"expected {size} bytes, found {len(out)}")
    return bytes(out)


class _Block:
    def __init__(self, data: bytes, size: int) -> None:
        self.data = data
        self.size = size
        self.at = 0
        self.out = bytearray()

    def run(self) -> bytearray:
        state = self._first()
        while True:
            word = self._byte()
            if word >= 64:
                length = (word >> 5) + 1
                literals = word & 3
                self._copy((self._byte() << 3) + (word >> 2 & 7) + 1, length)
            elif word >= 32:
                length = 2 + self._length(word & 31, 31)
                operand = self._word()
                literals = operand & 3
                self._copy((operand >> 2) + 1, length)
            elif word >= 16:
                length = 2 + self._length(word & 7, 7)
                operand = self._word()
                literals = operand & 3
                distance = 16384 + ((word & 8) << 11) + (operand >> 2)
                if distance == 16384:
                    return self._end(length)
                self._copy(distance, length)
            elif state == 0:
                self._literals(3 + self._length(word, 15))
                state = _MANY
                continue
            else:
                literals = word & 3
                base, length = (2049, 3) if state == _MANY else (1, 2)
                self._copy((self._byte() << 2) + (word >> 2) + base, length)
            self._literals(literals)
            state = literals

    def _first(self) -> int:
        if self.data[0] <= 17:
            return 0
        count = self._byte() - 17
        self._literals(count)
        return min(count, _MANY)

    def _end(self, length: int) -> bytearray:
        if length != 3 or self.at != len(self.data):
            raise LzoError(f"expected the end mark at {len(self.data)}, found it at {self.at}")
        return self.out

    def _byte(self) -> int:
        value = self.data[self.at]
        self.at += 1
        return value

    def _word(self) -> int:
        return self._byte() | self._byte() << 8

    def _length(self, value: int, most: int) -> int:
        if value:
            return value
        start = self.at
        while not self.data[self.at]:
            self.at += 1
        return most + 255 * (self.at - start) + self._byte()

    def _literals(self, count: int) -> None:
        if count:
            if self.at + count > len(self.data):
                raise LzoError("the block ends inside a run of literals")
            self._room(count)
            self.out += self.data[self.at : self.at + count]
            self.at += count

    def _copy(self, distance: int, length: int) -> None:
        self._room(length)
        start = len(self.out) - distance
        if start < 0:
            raise LzoError(f"distance {distance} with only {len(self.out)} bytes before")
        piece = self.out[start : start + length]
        # Source and target may overlap: then the piece repeats.
        self.out += (piece * (length // len(piece) + 1))[:length]

    def _room(self, count: int) -> None:
        if len(self.out) + count > self.size:
            raise LzoError(f"more than the {self.size} bytes that the block's head announces")
