"""What the system knows of a file; small, since every command needs it before all else."""

from __future__ import annotations

from pathlib import Path

__all__ = ["file_size"]


def file_size(name: str) -> int | None:
    """Give the size of a regular file, None for anything else."""
    path = Path(name)
    return path.stat().st_size if name != "-" and path.is_file() else None
