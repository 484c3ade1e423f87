"""Values as JSON takes them: text that is valid Unicode, errors, rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from cprformats.errors import FormatError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Json", "error_value", "is_text", "plain_row", "plain_text"]

Json = None | bool | int | float | str | Sequence["Json"] | dict[str, "Json"]


def plain_row(row: DataclassInstance) -> dict[str, Json]:
    """Give a dataclass as an object."""
    found = asdict(row)
    return {
        key: plain_text(value) if isinstance(value, str) else value for key, value in found.items()
    }


def error_value(error: FormatError | None) -> Json:
    """Give an error as an object, with its place; None for none."""
    if error is None:
        return None
    found: dict[str, Json] = {
        "type": type(error).__name__,
        "message": plain_text(error.message),
        "offset": error.offset,
        "path": [plain_text(name) for name in error.path],
    }
    for name in ("expected", "found"):
        value = getattr(error, name, None)
        if value is not None:
            found[name] = plain_text(str(value))
    return found


def is_text(text: str) -> bool:
    """Say whether text is valid Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def plain_text(text: str) -> str:
    r"""Make a name valid Unicode: bytes that were not UTF-8 become ``\xNN``."""
    if text.isascii() or is_text(text):
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
