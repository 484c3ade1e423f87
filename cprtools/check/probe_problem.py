"""What a comparison finds at one place of a stream."""

from __future__ import annotations

from dataclasses import dataclass

from cprtools.check.model import Finding

__all__ = ["Problem"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong, or not known, at a place of the stream.

    Attributes:
        offset: in the stream.
        finding: what is wrong.
        open: what would decide it; "" for what makes the load fail.
    """

    offset: int
    finding: Finding
    open: str = ""
