"""Migration streams to measure with, made by a real QEMU; and one too big for a disk, by Python.

The guest is paused and its memory a file that was filled before. Kinds: `a`,
every page has contents; `b`, half the pages are zero, in runs; `m`, half are
zero by the toss of a coin, the worst for who joins records to runs.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "fixtures" / "recipes")]

from builders import migration as build  # noqa: E402
from vm import Vm  # noqa: E402

__all__ = ["KINDS", "QEMU", "endless", "guest_memory", "make", "make_untouched"]

KINDS = {"a": "all pages with contents", "b": "half zero, in runs", "m": "half zero, mixed"}
QEMU = "11.1"
PAGE = build.PAGE
_RUN_PAGES = 32
_MIB_PAGES = (1 << 20) // PAGE
_NO_LIMIT = 1 << 40
_DEVICES = ["-nodefaults", "-display", "none", "-vga", "std", "-device", "virtio-rng-pci", "-S"]
_MACHINE = ["-machine", "pc,accel=tcg,memory-backend=pc.ram"]


def make(folder: Path, mib: int, kind: str, *, mapped: bool = False) -> Path:
    """Give a stream of a guest of so many MiB; `guest_memory` is its truth."""
    name = f"{kind}.{mib}{'.mapped-ram' if mapped else ''}.{QEMU}.sav"
    if not (folder / name).exists():
        memory = guest_memory(folder, mib, kind)
        if not memory.exists():
            _fill(memory, mib, kind)
        backend = f"memory-backend-file,id=pc.ram,size={mib}M,mem-path={memory},share=on"
        _migrate(folder, [*_MACHINE, "-object", backend, "-m", str(mib)], name, mapped=mapped)
    return folder / name


def make_untouched(folder: Path, gib: int) -> Path:
    """Give a mapped-ram file of a guest that never touched its memory: nearly all of it a hole."""
    name = f"untouched.{gib}g.mapped-ram.{QEMU}.sav"
    if not (folder / name).exists():
        backend = f"memory-backend-ram,id=pc.ram,size={gib}G,reserve=off"
        _migrate(folder, [*_MACHINE, "-object", backend, "-m", f"{gib}G"], name, mapped=True)
    return folder / name


def guest_memory(folder: Path, mib: int, kind: str) -> Path:
    """Say where the guest's memory lies."""
    return folder / f"ram.{mib}.{kind}"


def endless(mib: int) -> Iterator[bytes]:
    """Give a stream of one block piece by piece, as QEMU writes it; half the pages are zero."""
    rng, page = random.Random(5), os.urandom(PAGE)
    blocks = build.block_list(build.block("pc.ram", mib << 20))
    yield build.header() + build.configuration("pc-i440fx-11.1")
    yield build.start(2, body=blocks + build.eos())
    yield build.part(2, body=build.data_page(0, "pc.ram", data=page) + build.eos())
    yield build.end(2, footers=False)
    data, zero = build.DATA | build.CONTINUE, build.ZERO | build.CONTINUE
    for first in range(PAGE, mib << 20, 1 << 20):
        yield b"".join(
            (at | data).to_bytes(8) + page
            if rng.random() < 0.5
            else (at | zero).to_bytes(8) + b"\0"
            for at in range(first, min(first + (1 << 20), mib << 20), PAGE)
        )
    yield build.eos() + build.footer(2) + build.eof()


def _fill(path: Path, mib: int, kind: str) -> None:
    rng = random.Random(5)
    pages = mib * _MIB_PAGES
    with path.open("wb") as file:
        file.truncate(pages * PAGE)
        for first, count in _filled(rng, pages, kind):
            os.pwrite(file.fileno(), os.urandom(count * PAGE), first * PAGE)


def _filled(rng: random.Random, pages: int, kind: str) -> Iterator[tuple[int, int]]:
    """Give the runs of pages that have contents."""
    if kind == "a":
        yield from ((at, _MIB_PAGES) for at in range(0, pages, _MIB_PAGES))
    elif kind == "b":
        at = 0
        while at < pages:
            count = min(1 + int(rng.expovariate(1 / _RUN_PAGES)), pages - at)
            yield at, count
            at += count + 1 + int(rng.expovariate(1 / _RUN_PAGES))
    else:
        yield from ((page, 1) for page in range(pages) if rng.random() < 0.5)


def _migrate(folder: Path, arguments: list[str], name: str, *, mapped: bool) -> None:
    with Vm(QEMU, [*arguments, *_DEVICES], folder) as vm:
        vm.capabilities(*(["mapped-ram"] if mapped else []))
        vm.qmp("migrate-set-parameters", {"max-bandwidth": _NO_LIMIT})
        vm.migrate(f"file:{name}" if mapped else f"exec:cat > {name}")


if __name__ == "__main__":
    for piece in endless(int(sys.argv[1])):
        sys.stdout.buffer.write(piece)
