"""The answer to ``--version``; imports nothing."""

from __future__ import annotations

import sys

from cprtools import __version__

__all__ = ["say_version"]


def say_version() -> None:
    """Write the version."""
    sys.stdout.write(f"cprtools {__version__}\n")
