"""Files that appear under their name when they are whole, and not before.

A draft has no name at all while it is written (O_TMPFILE), so that even a
killed process leaves nothing behind; where the file system can't do that it
lies beside its place under a name that starts with a dot, and is removed when
its writer fails.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Draft", "Drafts", "drafts"]

_NO_TMPFILE = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.EACCES}


class Draft:
    """One file that is being written.

    Attributes:
        path: where it will be.
        fd: to write to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._beside: Path | None = None
        folder = path.parent
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        try:
            self.fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if error.errno not in _NO_TMPFILE or not folder.is_dir():
                raise
            self.fd, name = tempfile.mkstemp(prefix=f".{path.name[:64]}.", dir=folder)
            self._beside = Path(name)

    def publish(self) -> None:
        """Give the file its name; a file that had it before is replaced."""
        if self._beside is None:
            beside = Path(tempfile.mktemp(prefix=f".{self.path.name[:64]}.", dir=self.path.parent))  # noqa: S306 (link refuses a name that is taken)
            self._link(beside)
            self._beside = beside
        else:
            os.fchmod(self.fd, 0o666 & ~_umask())
        self._beside.replace(self.path)
        self._beside = None

    def close(self) -> None:
        """Give the descriptor back; what was not published is gone."""
        if self._beside is not None:
            self._beside.unlink(missing_ok=True)
        os.close(self.fd)

    def _link(self, beside: Path) -> None:
        # Through /proc, since link by descriptor needs a capability.
        folder = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.link(str(self.fd), beside, src_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)


class Drafts:
    """Several files that appear together."""

    def __init__(self) -> None:
        self._drafts: list[Draft] = []
        self._wanted = True

    @property
    def place(self) -> str | None:
        """Where the files go: the one file, or the folder of several."""
        paths = [draft.path for draft in self._drafts]
        return str(paths[0] if len(paths) == 1 else paths[0].parent) if paths else None

    def give_up(self) -> None:
        """Publish nothing."""
        self._wanted = False

    def add(self, path: Path) -> Draft:
        """Begin a file.

        Raises:
            OSError: its folder does not let it; `filename` says which.
        """
        try:
            draft = Draft(path)
        except OSError as error:
            error.filename = str(path)
            raise
        self._drafts.append(draft)
        return draft

    def publish(self) -> None:
        """Give all files their names."""
        if self._wanted:
            for draft in self._drafts:
                draft.publish()

    def close(self) -> None:
        """Give back what is open."""
        for draft in self._drafts:
            with contextlib.suppress(OSError):
                draft.close()


@contextmanager
def drafts() -> Iterator[Drafts]:
    """Give a set of drafts; they are published if the block ends well, else removed.

    A write that fails (the disk is full) does not know its file's name: it is added.
    """
    found = Drafts()
    try:
        yield found
        found.publish()
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = found.place
        raise
    finally:
        found.close()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
