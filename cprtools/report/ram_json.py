"""The JSON of ``cprtools ram``; docs/json.md says what is in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cprtools.files import file_size
from cprtools.report.json_out import JsonEmitter
from cprtools.report.values import Json, error_value, plain_row, plain_text

if TYPE_CHECKING:
    from cprformats.errors import FormatError
    from cprformats.memory.census import BlockCensus, Census
    from cprformats.migration import MigrationStream
    from cprtools.memory.outcome import Outcome

__all__ = [
    "RAM_SCHEMA_VERSION",
    "block_value",
    "write_census",
    "write_outcome_document",
    "write_ram",
]

RAM_SCHEMA_VERSION = 1
_CELLS = 256


def write_census(
    write: Callable[[str], object],
    name: str,
    stream: MigrationStream,
    census: Census,
    error: FormatError | None,
    only: Sequence[str] = (),
) -> None:
    """Write the counts of each block, and its picture in up to 256 cells."""
    blocks: list[Json] = [
        {**block_value(block), "cells": _cells(census, block.idstr)}
        for block in census.report()
        if not only or block.idstr in only
    ]
    write_ram(write, name, stream, {"blocks": blocks}, error)


def write_outcome_document(
    write: Callable[[str], object],
    name: str,
    stream: MigrationStream,
    outcome: Outcome,
    error: FormatError | None,
) -> None:
    """Write what was taken out, and the holes."""
    parts: dict[str, Json] = {
        "blocks": [
            {**block_value(block), "path": plain_text(outcome.files[block.idstr])}
            for block in outcome.blocks
        ],
        "ranges": [plain_row(one) for one in outcome.ranges],
        "holes": [plain_row(hole) for hole in outcome.holes],
        "more_holes": outcome.more_holes,
        "gaps": [{"offset": gap.offset, "size": gap.size} for gap in outcome.gaps],
        "notes": list(outcome.notes),
    }
    write_ram(write, name, stream, parts, error)


def write_ram(
    write: Callable[[str], object],
    name: str,
    stream: MigrationStream,
    parts: dict[str, Json],
    error: FormatError | None,
) -> None:
    """Write a document: what file it is, the parts, the error."""
    emitter = JsonEmitter(write)
    emitter.object()
    emitter.put(RAM_SCHEMA_VERSION, "schema_version")
    emitter.put({"name": plain_text(name), "size": file_size(name)}, "file")
    emitter.put(plain_text(stream.machine) or None, "machine")
    emitter.put(stream.page_size, "page_size")
    for key, value in parts.items():
        if isinstance(value, list):
            emitter.array(key)
            for row in value:
                emitter.put(row)
            emitter.end()
        else:
            emitter.put(value, key)
    emitter.put([plain_text(text) for text in stream.warnings], "warnings")
    emitter.put(error_value(error), "error")
    emitter.end()


def block_value(block: BlockCensus) -> dict[str, Json]:
    """Give one block's counts."""
    return {
        "idstr": plain_text(block.idstr),
        "size": block.size,
        "page_size": block.page_size,
        "address": block.address,
        "pages": block.pages,
        "data": block.data,
        "zero": block.zero,
        "never": block.never,
        "again": block.again,
        "stream_bytes": block.stream_bytes,
        "mapped_ram": block.mapped,
    }


def _cells(census: Census, idstr: str) -> dict[str, Json]:
    cells = census.cells(idstr, _CELLS)
    return {
        "data": [cell.data for cell in cells],
        "zero": [cell.zero for cell in cells],
        "never": [cell.never for cell in cells],
    }
