"""What indexing a stream and reading its memory cost a page; prints JSON for ram.py.

In one process and in turn: the file read in pieces of 512 KiB, indexed by
`open_memory`, and the memory read block by block in pieces of 1 MiB. The figures
are the medians of the rounds.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cprtools

_PIECE_BYTES = 512 << 10
_READ_BYTES = 1 << 20


def timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def read_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        at = 0
        while piece := os.pread(fd, _PIECE_BYTES, at):
            at += len(piece)
    finally:
        os.close(fd)


def read_memory(memory: cprtools.Memory) -> None:
    for block in memory.values():
        for at in range(0, block.size, _READ_BYTES):
            block.read(at, _READ_BYTES)


def main() -> None:
    path, rounds = Path(sys.argv[1]), int(sys.argv[2])
    plain, index, read = [], [], []
    pages = 0
    for _ in range(rounds):
        plain.append(timed(lambda: read_file(path)))
        began = time.perf_counter()
        with cprtools.open_memory(path) as memory:
            index.append(time.perf_counter() - began)
            pages = sum(block.pages for block in memory.values())
            read.append(timed(lambda: read_memory(memory)))
    micro = 1e6 / pages
    beyond = [a - b for a, b in zip(index, plain, strict=True)]
    figures = {"plain": plain, "index": index, "beyond": beyond, "read": read}
    print(json.dumps({name: statistics.median(x) * micro for name, x in figures.items()}))


if __name__ == "__main__":
    main()
