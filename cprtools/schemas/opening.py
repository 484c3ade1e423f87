"""Opens what was named as a schema."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from cprformats.schema.model import Schema
from cprformats.schema.walk import read_schema
from cprformats.source import FileSource

__all__ = ["open_schema"]


def open_schema(path: str, modules: Sequence[str] = ()) -> Schema:
    """Read the schema that a path stands for.

    Args:
        path: the program.
        modules: its loadable modules.

    Raises:
        FormatError: it is no schema, or a damaged one.
        OSError: a file can't be read.
    """
    with ExitStack() as stack:
        opened = [(one, stack.enter_context(Path(one).open("rb"))) for one in (path, *modules)]
        return read_schema([(Path(one).name, FileSource(file)) for one, file in opened])
