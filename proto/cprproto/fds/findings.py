"""What can be wrong with a descriptor after a hand-off, each thing as one frozen value.

Only what found something imports this: see `cprproto.fds.frozen`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WHATS", "Finding"]

#: The words for `Finding.what`, with what they mean.
WHATS: dict[str, str] = {
    "missing": "the number is not open",
    "wrong-kind": "it is open, but is not what the table says it is",
    "other-file": "it is of the right kind, but another open file than before",
    "changed": "it is the same file, and something of it is not as it was",
    "close-on-exec-on": "it would be closed by the exec that is to hand it over",
    "close-on-exec-off": "a program that is started later would inherit it",
    "number-taken": "the number where it should be belongs to something else",
    "number-too-high": "RLIMIT_NOFILE does not allow the number where it should be",
    "duplicate-name": "two entries have the same name and id",
    "duplicate-file": "two entries are the same open file",
    "leaked": "it is open, and in nobody's table",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        what: one of `WHATS`.
        name: of the entry; empty for a descriptor that has none.
        id: of the entry.
        number: of the descriptor.
        text: a sentence for the user, with what was expected and what is there.
    """

    what: str
    name: str
    id: int
    number: int
    text: str
