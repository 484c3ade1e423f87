"""The names of state descriptions in QEMU's source, to confirm what was found in binaries.

All initializers of a VMStateDescription are looked at, in C with the macros that
make one, and in Rust. A name can be put together from strings and macros.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product

import qemus
from cprformats.schema.model import Schema

#: Versions whose source package can be had, for each version.
SOURCES = {
    "5.2": ("5.2",),
    "7.2": ("7.2",),
    # 8.2 is from a wheel: what it has is older than 7.2, or still there in 10.0.
    "8.2": ("7.2", "10.0"),
    "10.0": ("10.0",),
    # The archive has no source of 11.1: LATER has what came after 10.0.
    "11.1": ("10.0",),
}

#: Names that came after 10.0 and the file of QEMU (git of 2025 and 2026) that has them.
LATER = {
    "CprState/vfio devices": "hw/vfio/cpr.c",
    "amd-iommu-xt": "hw/i386/amd_iommu.c",
    "cbinfoarray": "ui/vdagent.c",
    "clipboard": "ui/clipboard.c",
    "clipboard/content": "ui/clipboard.c",
    "cpr vfio device": "hw/vfio/cpr.c",
    "cpu/apx": "target/i386/machine.c",
    "cpu/cet": "target/i386/machine.c",
    "cpu/cet_shstk": "target/i386/machine.c",
    "cpu/error_code": "target/i386/machine.c",
    "cpu/msr_pl0_ssp": "target/i386/machine.c",
    "iommufd": "backends/iommufd.c, hw/vfio/cpr-iommufd.c",
    "vdagent": "ui/vdagent.c",
    "vdagent/chunk": "ui/vdagent.c",
    "vfio-container": "hw/vfio/cpr-legacy.c",
    "virtio/128bit_features": "hw/virtio/virtio.c",
    "virtio_pci/modern_state/features128": "hw/virtio/virtio-pci.c",
}

#: Descriptions without a name: stubs of zeros, and the one that eepro100.c names later.
UNNAMED = {(0, 0), (3, 2)}

_SUFFIXES = {".c", ".h", ".inc", ".rs"}
_DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+(\S[^\n]*)$", re.MULTILINE)
_MACRO = re.compile(r"#[ \t]*define[ \t]+(\w+)(?:\(([\w, ]*)\))?((?:[^\n]*\\\n)*[^\n]*)")
_INITIALIZER = re.compile(r"VMStateDescription\s+[^;={]*=\s*\{")
_NAME = re.compile(r"\.name\s*=\s*([^,}]*)")
_RUST = re.compile(r'\bname(?:: |\()c"([^"]*)"')
_WORDS = re.compile(r'"((?:[^"\\]|\\.)*)"|#?\w+')


def unconfirmed(schema: Schema, keys: Sequence[str], version: str) -> list[str]:
    """Those of the descriptions whose name the source of a version does not have."""
    names = {name for one in SOURCES[version] for name in source_names(one)}
    names |= set(LATER) if version == "11.1" else set()
    wrong = []
    for one in map(schema.descriptions.__getitem__, keys):
        versions = (one.version_id, one.minimum_version_id)
        if one.name not in names and (one.name or versions not in UNNAMED):
            wrong.append(one.name)
    return sorted(wrong)


@cache
def source_names(version: str) -> frozenset[str]:
    """All names of descriptions in the source package of a version."""
    root = qemus.source_package(version)
    texts = {
        path: path.read_text(errors="replace")
        for path in root.rglob("*")
        if path.suffix in _SUFFIXES and path.is_file()
    }
    defines: dict[str, list[str]] = {}
    for text in texts.values():
        for match in _DEFINE.finditer(text):
            defines.setdefault(match[1], []).append(match[2])
    # The distribution's patches are not applied to what was unpacked.
    for path in (root / "debian/patches").rglob("*"):
        if path.is_file():
            lines = path.read_text(errors="replace").splitlines()
            texts[path] = "\n".join(line[1:] for line in lines if line[:1] in ("+", " "))
    found: set[str] = set()
    for path, text in texts.items():
        found.update(_rust(text) if path.suffix == ".rs" else _c(text, defines))
    return frozenset(found)


def _rust(text: str) -> Iterator[str]:
    if "VMStateDescription" in text:
        yield from (match[1] for match in _RUST.finditer(text))


def _c(text: str, defines: Mapping[str, list[str]]) -> Iterator[str]:
    if "VMStateDescription" not in text:
        return
    for match in _INITIALIZER.finditer(text):
        for name in _NAME.finditer(_braces(text, match.end() - 1)):
            yield from _values(name[1], defines)
    for macro in _MACRO.finditer(text):
        if ".version_id" in macro[3]:
            yield from _macro(text, macro, defines)


def _macro(text: str, macro: re.Match[str], defines: Mapping[str, list[str]]) -> Iterator[str]:
    """Names that the uses of a macro make, which stands for a description."""
    parameters = [one.strip() for one in (macro[2] or "").split(",")]
    use = rf"^{macro[1]}\(([^)]*)\)" if macro[2] else rf"\b{macro[1]}\b"
    for used in re.finditer(use, text, re.MULTILINE):
        given = dict(zip(parameters, used[1].split(","), strict=False)) if macro[2] else {}
        quoted = {f"#{name}": [f'"{value.strip()}"'] for name, value in given.items()}
        for name in _NAME.finditer(macro[3].replace("\\\n", "\n")):
            yield from _values(name[1], {**defines, **quoted})


def _braces(text: str, start: int) -> str:
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return text[start : at + 1]
    return text[start:]


def _values(words: str, defines: Mapping[str, list[str]], depth: int = 0) -> list[str]:
    """What an expression of strings and macros can be."""
    parts: list[list[str]] = []
    for match in _WORDS.finditer(words):
        if match[1] is not None:
            parts.append([match[1]])
        elif depth < 4:
            inner = defines.get(match[0], [])
            parts.append([value for one in inner for value in _values(one, defines, depth + 1)])
    return ["".join(one) for one in product(*parts)] if parts else []
