"""What tests share: fixtures by the manifest, and ways to check a tree or an error whole."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import manifest
from cprformats.encode import encode
from cprformats.errors import FormatError
from cprformats.fields import Field, leaves
from cprformats.migration import MigrationStream, read_stream
from cprformats.source import BytesSource

FIXTURES = Path(manifest.FIXTURES)


@cache
def entries() -> dict[str, dict[str, Any]]:
    """The manifest."""
    return manifest.load()


def fixture_names(kind: str | None = None, *tags: str) -> list[str]:
    """Paths of the fixtures of a kind that have all the tags."""
    return [
        name
        for name, entry in entries().items()
        if kind in (None, entry["kind"]) and set(tags) <= set(entry["tags"])
    ]


def fixture_path(name: str) -> Path:
    return FIXTURES / name


def read(data: bytes, **more: Any) -> MigrationStream:
    """Frame a stream that lies in memory."""
    return read_stream(BytesSource(data), **more)


def clean(data: bytes) -> MigrationStream:
    """Frame a stream, check that it is whole, tiled and encodes to itself."""
    found = read(data)
    assert found.error is None, found.error
    assert_whole(found, data)
    return found


def assert_whole(found: Any, data: bytes) -> None:
    """Walk gives each byte once, tally counts the same bytes, encode gives them back."""
    trees = list(found.walk())
    assert_tiles(trees, getattr(found, "offset", 0))
    assert b"".join(encode(trees)) == data
    assert found.tally().total == len(data)


def assert_tiles(trees: Iterable[Field], offset: int = 0) -> int:
    """Check that the leaves follow each other without gap or overlap; gives the end."""
    for tree in trees:
        assert tree.offset == offset, (tree.name, tree.offset, offset)
        for leaf in leaves(tree):
            assert leaf.offset == offset, (leaf.name, leaf.offset, offset)
            offset = leaf.end
        assert tree.end == offset, (tree.name, tree.end, offset)
    return offset


def assert_error(
    error: FormatError | None,
    kind: type[FormatError],
    offset: int,
    path: tuple[str, ...],
    *words: str,
) -> None:
    """Check an error whole: class, place, path, and what it says."""
    assert type(error) is kind, repr(error)
    assert error is not None
    assert error.offset == offset, (str(error), hex(error.offset), hex(offset))
    assert error.path == path, (str(error), error.path)
    for word in words:
        assert word in error.message, (word, error.message)
    assert str(error).endswith(f"at {offset:#x}")


class Hang(BaseException):
    """The watchdog's bark: no `except Exception` holds it back."""


@contextmanager
def watchdog(seconds: float) -> Iterator[None]:
    """Raise `Hang` in the main thread when the block takes longer, in CPU time."""

    def bark(_number: int, _frame: object) -> None:
        raise Hang(f"longer than {seconds} s")

    before = signal.signal(signal.SIGPROF, bark)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
