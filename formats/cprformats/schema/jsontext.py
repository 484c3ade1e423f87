"""JSON from anywhere: read in bounded memory, its members taken with their types checked.

What is wrong is said with the path of the member, as ``descriptions / [3] /
fields / [0] / size: expected a number from 0 to ..., found "x"``.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from cprformats.errors import Damaged, Unsupported, WrongFormat

__all__ = [
    "MAX_JSON_BYTES",
    "MAX_TEXT",
    "BadMember",
    "Path",
    "flag",
    "listed",
    "load_object",
    "number",
    "object_",
    "text",
    "texts",
    "wrong",
]

#: A dump of an Arm QEMU, the longest there is, has 2 MB; its schema 0.5 MB.
MAX_JSON_BYTES: Final = 32 << 20
#: A real one has 50,000. Each takes some 60 to 250 bytes of memory.
_MAX_VALUES: Final = 1_000_000
MAX_TEXT: Final = 4096
_SHOWN: Final = 60

Path = tuple[str, ...]


class BadMember(Damaged):
    """A member is not what it should be; its path says where, and no offset does."""

    def __str__(self) -> str:
        return " / ".join((*self.path, self.message))


def load_object(data: bytes) -> dict[str, Any]:
    """Read JSON text that is one object.

    Raises:
        WrongFormat: it is no JSON, or no object.
        Unsupported: it is larger, deeper or has more values than any schema.
    """
    if len(data) > MAX_JSON_BYTES:
        raise Unsupported(f"JSON: expected at most {MAX_JSON_BYTES} bytes, found {len(data)}")
    values = data.count(b",") + data.count(b"[") + data.count(b"{")
    if values > _MAX_VALUES:
        raise Unsupported(f"JSON: expected at most {_MAX_VALUES} values, found {values}")
    try:
        found = json.loads(data.decode("utf-8-sig"), parse_constant=_no_constant)
    except RecursionError:
        raise Unsupported("JSON: expected values not this deep in one another") from None
    except UnicodeDecodeError as problem:
        raise WrongFormat(
            "expected JSON in UTF-8, found other bytes", offset=problem.start
        ) from None
    except json.JSONDecodeError as problem:
        raise WrongFormat(f"expected JSON: {problem.msg}", offset=problem.pos) from None
    except ValueError as problem:  # numbers of thousands of digits
        raise WrongFormat(f"expected JSON: {problem}") from None
    if not isinstance(found, dict):
        raise WrongFormat(f"expected a JSON object, found {_words(found)}")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _words(value: object) -> str:
    shown = ascii(value) if isinstance(value, int | float | str) else type(value).__name__
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."


def wrong(expected: str, value: object, path: Path) -> BadMember:
    """The error that says what a member should be, and what it is; its path has a name at least."""
    found = "nothing" if value is None else _words(value)
    error = BadMember(f"{path[-1]}: expected {expected}, found {found}", path=path[:-1])
    error.expected, error.found = expected, found
    return error


def number(value: Any, low: int, high: int, path: Path) -> int:
    """A number within bounds.

    Raises:
        Damaged: it is none.
    """
    if type(value) is not int or not low <= value <= high:
        raise wrong(f"a number from {low} to {high}", value, path)
    return value


def text(value: Any, path: Path, default: str | None = None) -> str:
    """A text of at most 4096 characters; `default` where it is missing.

    Raises:
        Damaged: it is none.
    """
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise wrong(f"a text of at most {MAX_TEXT} characters", value, path)
    return value


def flag(value: Any, path: Path) -> bool:
    """True or false; false where it is missing.

    Raises:
        Damaged: it is neither.
    """
    if value is None:
        return False
    if not isinstance(value, bool):
        raise wrong("true or false", value, path)
    return value


def listed(value: Any, path: Path) -> list[Any]:
    """An array; empty where it is missing.

    Raises:
        Damaged: it is none.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong("an array", value, path)
    return value


def texts(value: Any, path: Path) -> tuple[str, ...]:
    """An array of texts; empty where it is missing.

    Raises:
        Damaged: it is none.
    """
    found = listed(value, path)
    return tuple(text(one, (*path, f"[{at}]")) for at, one in enumerate(found))


def object_(value: Any, path: Path) -> dict[str, Any]:
    """An object; empty where it is missing.

    Raises:
        Damaged: it is none.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong("an object", value, path)
    return value
