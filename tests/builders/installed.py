"""A QEMU as it is installed: a program, and modules in the folder that it names."""

from __future__ import annotations

from pathlib import Path

from builders.elf import Image, field_entry

STAMP = "qemu_stamp_" + "0123456789abcdef" * 2
OTHER_STAMP = "qemu_stamp_" + "fedcba9876543210" * 2


def program(*names: str, stamp: str = STAMP, folder: str = "/usr/lib/qemu") -> bytes:
    """A program with descriptions of these names, and one "timer"."""
    image = Image()
    for text in (stamp, folder):
        image.text("-")
        image.text(text)
    for name in ("timer", *names):
        image.description(name, fields=image.fields([field_entry(image, "x")]))
    return image.build()


def module(name: str, stamp: str = STAMP) -> bytes:
    """A module with one description."""
    image = Image()
    image.description(name, fields=image.fields([field_entry(image, "x")]))
    if stamp:
        image.exports[stamp] = image.function()
    return image.build()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def install(root: Path) -> Path:
    """Unpack a package: a program with one module of its build, one of another, and a library."""
    put(root / "usr/lib/qemu/hw-one.so", module("one"))
    put(root / "usr/lib/qemu/hw-two.so", module("two", OTHER_STAMP))
    put(root / "usr/lib/qemu/library.so", module("three", ""))
    return put(root / "usr/bin/qemu-system-x86_64", program())
