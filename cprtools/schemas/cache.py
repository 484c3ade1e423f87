"""Schemas that were read, kept for the next time, in the user's cache folder.

::

    $XDG_CACHE_HOME/cprtools/schemas/NAME.json     a line with the SHA-256 of the rest, the rest

An entry is written beside its place and moved there in one step, so any number of
processes can read and write at once, and the worst that can happen is that one is
written twice. Whatever is wrong with an entry, or with the folder, the entry is as
good as missing: nothing here raises.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["Cache", "cache_folder"]

_MAX_ENTRIES: Final = 200
_MAX_BYTES: Final = 48 << 20
_MAX_ENTRY_BYTES: Final = 16 << 20
#: What a process that was killed left half written.
_STALE_SECONDS: Final = 3600
_TEMPORARY: Final = ".part"
_SUFFIX: Final = ".json"


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder for schemas; None where the user has none."""
    named = Path(environment.get("XDG_CACHE_HOME", ""))
    home = Path(environment.get("HOME", ""))
    # The XDG specification: a relative one is to be ignored.
    base = named if named.is_absolute() else home / ".cache"
    return base / "cprtools" / "schemas" if base.is_absolute() else None


class Cache:
    """Bytes by name.

    Args:
        folder: where they are kept; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, name: str) -> bytes | None:
        """What was kept under a name, None where it is missing or damaged."""
        if self.folder is None:
            return None
        path = self.folder / (name + _SUFFIX)
        try:
            with path.open("rb") as file:
                head = file.readline(80)
                body = file.read(_MAX_ENTRY_BYTES + 1)
            if head.rstrip(b"\n") != _sum(body):
                return None
            os.utime(path)
        except OSError:
            return None
        return body

    def put(self, name: str, body: bytes) -> None:
        """Keep bytes under a name, and drop the oldest entries where there are too many."""
        if self.folder is None or len(body) > _MAX_ENTRY_BYTES:
            return
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(self.folder, name, body)
            self._trim(self.folder)

    def _write(self, folder: Path, name: str, body: bytes) -> None:
        import tempfile  # noqa: PLC0415 (20 ms, and a hit needs none of it)

        handle, temporary = tempfile.mkstemp(suffix=_TEMPORARY, dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_sum(body) + b"\n" + body)
            Path(temporary).replace(folder / (name + _SUFFIX))
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _trim(self, folder: Path) -> None:
        entries = []
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                known = path.stat()
                if path.suffix == _SUFFIX:
                    entries.append((known.st_mtime, known.st_size, path))
                elif path.suffix == _TEMPORARY and time.time() - known.st_mtime > _STALE_SECONDS:
                    path.unlink()
        total = 0
        for number, (_, size, path) in enumerate(sorted(entries, reverse=True)):
            total += size
            if number >= _MAX_ENTRIES or total > _MAX_BYTES:
                with contextlib.suppress(OSError):
                    path.unlink()


def _sum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
