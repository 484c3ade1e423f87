"""Bytes in rows: offset, hex, and the characters among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

__all__ = ["hex_rows", "hexdump"]


def hex_rows(pieces: Iterable[bytes], width: int = 16) -> Iterator[bytes]:
    """Cut pieces of any length into rows of `width` bytes; the last may be shorter."""
    held = b""
    for piece in pieces:
        held += piece
        whole = len(held) - len(held) % width
        yield from (held[at : at + width] for at in range(0, whole, width))
        held = held[whole:]
    if held:
        yield held


def hexdump(pieces: Iterable[bytes], offset: int, width: int = 16) -> Iterator[str]:
    """Give the lines of a hexdump; rows equal to the one before are one ``*``."""
    last, starred = b"", False
    for row in hex_rows(pieces, width):
        if row == last and len(row) == width:
            if not starred:
                yield "*"
            starred = True
        else:
            text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
            yield f"{offset:08x}  {row.hex(' '):<{3 * width - 1}}  |{text}|"
            last, starred = row, False
        offset += len(row)
    if starred:
        yield f"{offset:08x}"
