"""Real VMs for the tests of the guest's view: run a while, stop, save, and look at memory."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cprformats.guest import PhysicalRange
from cprformats.migration import MigrationStream, read_stream
from cprformats.migration.ramparts import PageKind, RamRun
from cprformats.source import FileSource
from vm import Vm

ROOT = Path(__file__).resolve().parents[2]
_FLAT = re.compile(
    r"^  ([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (?:nv-)?(ram|rom|romd|ramd)\): "
    r"(\S+)(?: @([0-9a-f]+))?(?: .*)?$"
)
#: (first address, last + 1, name without its path, offset in the block)
Seen = tuple[int, int, str, int]


@contextmanager
def stopped(
    version: str, arguments: Sequence[str], folder: Path, *, seconds: float, **more: Any
) -> Iterator[Vm]:
    """Give a VM whose firmware ran for a while and that stands still now."""
    line = ["-display", "none", "-nodefaults", "-S", *arguments]
    with Vm(version, line, folder, **more) as vm:
        if seconds:
            vm.qmp("cont")
            for _ in vm.poll("query-status", seconds):
                pass
            vm.qmp("stop")
        yield vm


@contextmanager
def stream_of(vm: Vm) -> Iterator[MigrationStream]:
    """Save a VM and give its stream; the VM stays as it is."""
    path = vm.folder / f"{vm.name}.sav"
    vm.migrate(f"exec:cat > {path.name}")
    with path.open("rb") as file:
        stream = read_stream(FileSource(file))
        assert stream.error is None
        yield stream


@dataclass
class Memory:
    """The contents of blocks that a stream holds; pages that were not sent are zero."""

    stream: MigrationStream
    runs: dict[str, list[RamRun]]

    @classmethod
    def of(cls, stream: MigrationStream) -> Memory:
        runs: dict[str, list[RamRun]] = {}
        for section in stream.sections():
            if not section.holds_ram:
                continue
            for part in stream.ram_parts(section):
                if isinstance(part, RamRun):
                    assert part.kind in (PageKind.DATA, PageKind.ZERO), part
                    runs.setdefault(part.block, []).append(part)
        return cls(stream, runs)

    def block(self, name: str, start: int, size: int) -> bytes:
        """Bytes of a block."""
        page = self.stream.page_size
        data = bytearray(size)
        for run in self.runs.get(name, []):
            if run.address >= start + size or run.address + run.count * page <= start:
                continue
            contents = bytes(run.count * page)
            if run.kind is PageKind.DATA:
                contents = self._pages(run, page)
            low, high = max(start, run.address), min(start + size, run.address + len(contents))
            data[low - start : high - start] = contents[low - run.address : high - run.address]
        return bytes(data)

    def _pages(self, run: RamRun, page: int) -> bytes:
        raw = self.stream.source.read_at(run.offset, run.size)
        head = run.size - run.count * page - 8 * (run.count - 1)
        return b"".join(
            raw[head + index * (page + 8) : head + index * (page + 8) + page]
            for index in range(run.count)
        )

    def range(self, one: PhysicalRange) -> bytes:
        """Bytes of a range of addresses."""
        return self.block(one.block, one.offset, one.size)


def flat_view(vm: Vm) -> list[Seen]:
    """What QEMU itself says of memory: RAM and ROM of the flat view, joined."""
    views = vm.hmp("info mtree -f").replace("\r", "").split("FlatView #")
    view = next(text for text in views if re.search(r'^ AS "memory",', text, re.MULTILINE))
    found = [match for line in view.splitlines() if (match := _FLAT.match(line))]
    return joined_view(
        (int(one[1], 16), int(one[2], 16) + 1, one[4].rpartition("/")[2], int(one[5] or "0", 16))
        for one in found
    )


def joined_view(parts: Iterator[Seen]) -> list[Seen]:
    """Put together what continues: QEMU lists writable and read-only parts one by one."""
    result: list[Seen] = []
    for start, end, name, offset in parts:
        if result:
            first, last, before, begin = result[-1]
            if (last, before, begin + last - first) == (start, name, offset):
                result[-1] = (first, end, name, begin)
                continue
        result.append((start, end, name, offset))
    return result


def our_view(ranges: Sequence[PhysicalRange]) -> list[Seen]:
    """Our ranges in the same form."""
    return joined_view(
        (one.start, one.end, one.block.rpartition("/")[2], one.offset) for one in ranges
    )


# -- the command ------------------------------------------------------------------------


def save(vm: Vm, *, mapped: bool = False) -> Path:
    """Save a VM to a file; the VM stays as it is."""
    path = vm.folder / f"{vm.name}.sav"
    if mapped:
        vm.capabilities("mapped-ram")
    vm.migrate(f"file:{path.name}" if mapped else f"exec:cat > {path.name}")
    return path


def take_out(file: Path, way: str, out: Path, *words: str | Path) -> Any:
    """Run ``cprtools ram FILE --physical OUT`` or ``--elf``; gives its document."""
    command = [sys.executable, "-m", "cprtools", "ram", file, way, out, "--json", *words]
    paths = os.pathsep.join(str(ROOT / name) for name in (".", "formats", "proto"))
    run = subprocess.run(
        command,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": paths},
        timeout=120,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, b"")
    return json.loads(run.stdout)


# -- reading core files, with nothing of ours -----------------------------------------


def _headers(path: Path) -> Iterator[tuple[int, int, int, int]]:
    """Type, file offset, physical address and size in the file, of ELF32 or ELF64."""
    data = path.read_bytes()
    assert data[:4] == b"\x7fELF"
    wide = data[4] == 2
    at, entry, count = struct.unpack_from(
        "<Q14xHH" if wide else "<I10xHH", data, 32 if wide else 28
    )
    for index in range(count):
        words = struct.unpack_from("<IIQQQQ" if wide else "<IIIIII", data, at + index * entry)
        if wide:
            yield words[0], words[2], words[4], words[5]
        else:
            yield words[0], words[1], words[3], words[4]


def load_segments(path: Path) -> list[tuple[int, int, int]]:
    """File offset, physical address and size of each PT_LOAD."""
    return [head[1:] for head in _headers(path) if head[0] == 1]


def notes_of(path: Path) -> list[tuple[str, int, bytes]]:
    """Name, type and contents of each note."""
    result, data = [], path.read_bytes()
    for kind, offset, _, size in _headers(path):
        at, end = offset, offset + size
        while kind == 4 and at < end:
            name_size, length, what = struct.unpack_from("<III", data, at)
            name = data[at + 12 : at + 12 + name_size - 1].decode()
            at += 12 + name_size + -name_size % 4
            result.append((name, what, data[at : at + length]))
            at += length + -length % 4
    return result
