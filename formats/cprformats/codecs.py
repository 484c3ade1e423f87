"""How one value lies in bytes, by a short name that also turns it back.

A codec's name says all that is needed to encode its value again, so that a
decoded tree holds names and values, no bytes: ``u8``, ``i32be``, ``u16le``,
``u64be[24]`` (an array, its value a tuple), ``bool`` (strictly 0 or 1),
``{u16,u8,u32}be[9]`` (that many rows of these columns without gaps, its value
one flat tuple), ``text`` (UTF-8; other bytes survive as surrogates),
``bytes``, ``uuid``, ``zeros[64]`` (that many zero bytes, no value). How a value is shown is not
decided here.
"""

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from cprformats.source import Source

__all__ = ["Codec", "DataRef", "Value", "codec", "is_integer"]

_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}
_INTEGER = re.compile(r"([ui])(8|16|32|64)(be|le)?(?:\[(\d+)\])?")
_ROWS = re.compile(r"\{([ui](?:8|16|32|64)(?:,[ui](?:8|16|32|64))*)\}(be|le)\[(\d+)\]")
_ZEROS = re.compile(r"zeros\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class DataRef:
    """Bytes that stay where they are: guest pages and other large contents.

    Attributes:
        source: where they are.
        offset: absolute offset in bytes.
        size: length in bytes.
    """

    source: Source
    offset: int
    size: int

    def read(self, start: int = 0, count: int | None = None) -> bytes:
        """Read `count` bytes from `start` (all that is left by default)."""
        room = max(self.size - start, 0)
        return self.source.read_at(self.offset + start, min(room, room if count is None else count))


Value = int | bool | str | bytes | tuple[int, ...] | DataRef | None


@dataclass(frozen=True, slots=True)
class Codec:
    """One way to lay a value in bytes.

    Attributes:
        name: see the module's docstring.
        size: in bytes; None where it depends on the value.
        decode: bytes of just that size to a value; ValueError where it has none.
        encode: the value back to the same bytes.
    """

    name: str
    size: int | None
    decode: Callable[[bytes], Value]
    encode: Callable[[Value], bytes]


def _bool_decode(data: bytes) -> Value:
    if data not in (b"\0", b"\1"):
        raise ValueError(f"expected 0 or 1, found {data[0]}")
    return data == b"\1"


def _text_decode(data: bytes) -> Value:
    return data.decode("utf-8", "surrogateescape")


def _text_encode(value: Value) -> bytes:
    return str(value).encode("utf-8", "surrogateescape")


def _bytes_encode(value: Value) -> bytes:
    if isinstance(value, DataRef):
        return value.read()
    assert isinstance(value, bytes)
    return value


_NAMED = {
    "bool": Codec("bool", 1, _bool_decode, lambda v: b"\1" if v else b"\0"),
    "text": Codec("text", None, _text_decode, _text_encode),
    "bytes": Codec("bytes", None, lambda data: data, _bytes_encode),
    "uuid": Codec(
        "uuid", 16, lambda data: str(uuid.UUID(bytes=data)), lambda v: uuid.UUID(str(v)).bytes
    ),
}


def _integers(name: str, sign: str, bits: str, order: str | None, count: str | None) -> Codec:
    letter = _FORMATS[int(bits) // 8]
    letter = letter.lower() if sign == "i" else letter
    layout = struct.Struct(f"{'<' if order == 'le' else '>'}{count or ''}{letter}")
    if count is None:
        return Codec(name, layout.size, lambda data: layout.unpack(data)[0], layout.pack)
    # An array's value is a tuple of ints; pack takes them one by one.
    return Codec(name, layout.size, layout.unpack, lambda v: layout.pack(*v))  # type: ignore[misc]


def _rows(name: str, columns: str, order: str, count: str) -> Codec:
    letters = ""
    for column in columns.split(","):
        letter = _FORMATS[int(column[1:]) // 8]
        letters += letter.lower() if column[0] == "i" else letter
    layout = struct.Struct(("<" if order == "le" else ">") + letters * int(count))
    return Codec(name, layout.size, layout.unpack, lambda v: layout.pack(*v))  # type: ignore[misc]


def _zeros(name: str, count: int) -> Codec:
    def decode(data: bytes) -> Value:
        if data.strip(b"\0"):
            raise ValueError("expected zero bytes")
        return None

    return Codec(name, count, decode, lambda _: bytes(count))


@lru_cache(maxsize=1024)
def codec(name: str) -> Codec:
    """Look a codec up by its name.

    Raises:
        KeyError: there is no codec of this name.
    """
    if found := _NAMED.get(name):
        return found
    if match := _INTEGER.fullmatch(name):
        sign, bits, order, count = match.groups()
        if bits == "8" or order:
            return _integers(name, sign, bits, order, count)
    if match := _ROWS.fullmatch(name):
        return _rows(name, *match.groups())
    if match := _ZEROS.fullmatch(name):
        return _zeros(name, int(match[1]))
    raise KeyError(name)


@lru_cache(maxsize=1024)
def is_integer(name: str) -> bool:
    """Say whether a codec's value is one integer."""
    match = _INTEGER.fullmatch(name)
    return bool(match and match[4] is None)
