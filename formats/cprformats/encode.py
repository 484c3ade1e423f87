"""Write a decoded tree again, byte for byte, from its values and codecs alone.

Large contents (`DataRef`) are copied from their source in pieces; nothing
else of the original file is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cprformats.codecs import DataRef, codec
from cprformats.fields import Field, leaves

__all__ = ["encode", "encode_leaf"]

_PIECE_BYTES = 1 << 20


def encode_leaf(leaf: Field) -> Iterator[bytes]:
    """Give the bytes of one leaf, in pieces."""
    if not isinstance(leaf.value, DataRef):
        yield codec(leaf.codec).encode(leaf.value)
        return
    for start in range(0, leaf.value.size, _PIECE_BYTES):
        yield leaf.value.read(start, _PIECE_BYTES)


def encode(fields: Iterable[Field]) -> Iterator[bytes]:
    """Give the bytes of trees in order, in pieces."""
    for field in fields:
        for leaf in leaves(field):
            yield from encode_leaf(leaf)
