"""What can be wrong with a file, as one tree of exceptions.

::

    FormatError            the root: every error of this library is one
    |-- WrongFormat        the bytes are not of this kind at all (bad magic)
    |-- Unsupported        the kind is known, this version or feature is not read
    |-- Truncated          the data ends inside a structure
    |-- Damaged            the data contradicts itself or its format
    `-- NotKept            the bytes were there, but a pipe does not give them twice

Each carries the absolute offset and the structural path of the place, so
that a message reads ``ram / pc.ram: unknown flag, expected ..., found ...,
at 0x1a2b``. The errors of the operating system (OSError) pass through as
they are: they say something of the machine, not of the file.
"""

from __future__ import annotations

__all__ = ["Damaged", "FormatError", "NotKept", "Truncated", "Unsupported", "WrongFormat"]


class FormatError(Exception):
    """A file, or a part of one, cannot be read.

    Attributes:
        message: what is wrong, without the place.
        offset: absolute offset in bytes, in the data of the layer being read.
        path: names of the enclosing structures, outermost first.
        expected: what should be there, in words, where that was said.
        found: what is there, in words, where that was said.
    """

    expected: str | None = None
    found: str | None = None

    def __init__(self, message: str, *, offset: int = 0, path: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.path = path

    def __str__(self) -> str:
        where = " / ".join(self.path)
        lead = f"{where}: " if where else ""
        return f"{lead}{self.message}, at {self.offset:#x}"


class WrongFormat(FormatError):
    """The bytes are not of the format they were taken for."""


class Unsupported(FormatError):
    """The format is known, but this version or feature of it is not read."""


class Truncated(FormatError):
    """The data ends inside a structure.

    Attributes:
        needed: bytes that the structure needs from the offset on.
        available: bytes that are there.
    """

    def __init__(
        self, what: str, needed: int, available: int, *, offset: int, path: tuple[str, ...] = ()
    ) -> None:
        super().__init__(
            f"{what} is cut: expected {needed} bytes, found {available}", offset=offset, path=path
        )
        self.needed = needed
        self.available = available
        self.expected, self.found = f"{needed} bytes", f"{available} bytes"


class Damaged(FormatError):
    """The data contradicts itself or its format."""

    @classmethod
    def mismatch(
        cls, what: str, expected: object, found: object, *, offset: int, path: tuple[str, ...] = ()
    ) -> Damaged:
        """Say that one thing was expected and another found (same base on both sides)."""
        error = cls(f"{what}: expected {expected}, found {found}", offset=offset, path=path)
        error.expected, error.found = str(expected), str(found)
        return error


class NotKept(FormatError):
    """Bytes of a pipe that were passed over and can't be read a second time."""
