"""Turn values into words.

Nothing here escapes: all text is escaped where it is written (`output`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from cprformats.codecs import DataRef, Value
from cprformats.errors import FormatError
from cprformats.fields import Field

__all__ = [
    "TIMES",
    "array_words",
    "bytes_words",
    "count",
    "escape",
    "exact_size",
    "field_words",
    "integer_words",
    "meaning_words",
    "percent",
    "size_words",
    "value_words",
]

#: Between a thing and how often it is there: "0 x20" would read as a hex number.
TIMES = "\u00d7"

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
#: Bytes shown of a buffer that is not shown in full.
_PREVIEW_BYTES = 16
#: Elements shown of an array that is not shown in full, after equal ones are joined.
_PREVIEW_ITEMS = 64
#: Equal neighbours from this number on are written once, with their count.
_SAME = 4
_PREVIEW_TEXT = 200


def escape(text: str) -> str:
    r"""Make text from a file safe for a terminal and a log.

    Whatever is not printable becomes an escape: control characters (with ESC
    and newline), the ones that turn the direction of writing or have no width,
    and bytes that were not UTF-8 (``\xNN``). A backslash is doubled, so that an
    escape can be told from text that looks like one.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_escape_one, text))


def _escape_one(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # surrogateescape's form of one byte
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def size_words(size: int) -> str:
    """Give a size in the largest unit that leaves at least 1: ``412122`` is ``402.5 KiB``."""
    if size < 1024:
        return f"{size} bytes" if size != 1 else "1 byte"
    value, unit = size / 1024, 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    text = f"{value:.1f}".removesuffix(".0")
    return f"{text} {_UNITS[unit]}"


def exact_size(size: int) -> str:
    """Give a size in bytes, and in words where that is shorter."""
    return size_words(size) if size < 1024 else f"{size} bytes ({size_words(size)})"


def count(number: int, noun: str, plural: str = "") -> str:
    """Give a number with its noun: ``1 section``, ``2 sections``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def percent(part: int, whole: int) -> str:
    """Give a share that says 100 or 0 only when it is just that."""
    if part in (0, whole):
        return "100 %" if part else "0 %"
    share = 100 * part / whole
    return "<0.01 %" if share < 0.01 else f"{min(share, 99.99):.2f} %"


def integer_words(value: int, size: int) -> str:
    """Give an integer in decimal and in hex; `size` in bytes makes negative ones definite."""
    if 0 <= value <= 9:
        return str(value)
    return f"{value} ({value & (1 << 8 * max(size, 1)) - 1 if value < 0 else value:#x})"


def array_words(values: Sequence[int], *, full: bool = False) -> tuple[str, ...]:
    """Give an array as items: hex for large numbers, equal neighbours joined."""
    as_hex = any(value > 9 for value in values) and min(values) >= 0
    items: list[str] = []
    for value, group in groupby(values):
        text = f"{value:#x}" if as_hex and value else str(value)
        same = sum(1 for _ in group)
        items += [f"{text} {TIMES}{same}"] if same >= _SAME and not full else [text] * same
    if full or len(items) <= _PREVIEW_ITEMS:
        return tuple(items)
    return (*items[:_PREVIEW_ITEMS], f"… {len(values)} in all")


def bytes_words(data: bytes | DataRef) -> str:
    """Give a buffer: whole where it is short, else its size and how it begins."""
    size = len(data) if isinstance(data, bytes) else data.size
    try:
        start = data[:32] if isinstance(data, bytes) else data.read(0, _PREVIEW_BYTES)
    except FormatError:  # a pipe's pages are not kept
        return count(size, "byte")
    if size <= len(start):
        return start.hex(" ") or "empty"
    return f"{count(size, 'byte')}: {start[:_PREVIEW_BYTES].hex(' ')} …"


def _text_words(text: str, *, full: bool) -> str:
    if full or len(text) <= _PREVIEW_TEXT:
        return f'"{text}"'
    return f'"{text[:_PREVIEW_TEXT]}" … {len(text)} characters'


def value_words(value: Value, codec: str, size: int, *, full: bool = False) -> str:
    """Give the value of a leaf on one line."""
    if value is None:
        return f"{count(size, 'byte')}, all zero" if codec.startswith("zeros") else "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return integer_words(value, size)
    if isinstance(value, str):
        return value if codec == "uuid" else _text_words(value, full=full)
    if isinstance(value, tuple):
        return f"[{', '.join(array_words(value, full=full))}]"
    return bytes_words(value)


def meaning_words(field: Field) -> tuple[str, ...]:
    """Give the words for a leaf's value: names of its flags, or of the value itself."""
    if not field.meaning or not isinstance(field.value, int):
        return ()
    from cprformats.names import words  # noqa: PLC0415 (tables are loaded when one is asked for)

    return words(field.meaning, int(field.value))


def field_words(field: Field, *, full: bool = False) -> str:
    """Give a leaf's value with its words, on one line."""
    text = value_words(field.value, field.codec, field.size, full=full)
    words = meaning_words(field)
    return f"{text}  {' | '.join(words)}" if words else text
