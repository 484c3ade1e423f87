"""QEMU's command line as data: options in order, and the `key=value,...` form of their values.

Source: QEMU qemu-options.hx (which options take a value, 5.2 to 11.1), util/qemu-option.c and
util/keyval.c (pairs; a comma in a value is doubled).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Option", "Pairs", "join_pairs", "parse", "read_config", "split_pairs", "value_of"]

#: Options that take no value.
FLAGS = frozenset(
    [
        "h",
        "help",
        "version",
        "s",
        "S",
        "nographic",
        "snapshot",
        "daemonize",
        "nodefaults",
        "no-user-config",
        "nodefconfig",
        "no-reboot",
        "no-shutdown",
        "no-acpi",
        "no-hpet",
        "no-fd-bootchk",
        "win2k-hack",
        "rtc-td-hack",
        "localtime",
        "full-screen",
        "no-quit",
        "no-frame",
        "alt-grab",
        "ctrl-grab",
        "sdl",
        "curses",
        "enable-kvm",
        "enable-fips",
        "mem-prealloc",
        "usb",
        "singlestep",
        "one-insn-per-tb",
        "only-migratable",
        "old-param",
        "semihosting",
        "xen-attach",
        "xen-create",
        "xen-domid-restrict",
        "preconfig",
        "enable-sync-profile",
        "no-kvm",
        "portrait",
        "tdf",
        "no-kvm-irqchip",
        "no-kvm-pit",
        "no-kvm-pit-reinjection",
        "no-kvm-shutdown",
        "hax",
    ]
)

Pairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        name: without dashes; "" for a disk image that stands alone.
        value: None where it takes none.
    """

    name: str
    value: str | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the command line."""
        if not self.name:
            return (self.value or "",)
        return (f"-{self.name}",) if self.value is None else (f"-{self.name}", self.value)


def parse(words: Sequence[str]) -> Iterator[Option]:
    """Give the options; of one that is not known, a next word without a dash is the value."""
    left = iter(words)
    for word in left:
        if not word.startswith("-") or word == "-":
            yield Option("", word)
            continue
        name = word.removeprefix("-").removeprefix("-")
        yield Option(name, None if name in FLAGS else next(left, None))


def split_pairs(text: str, first: str = "") -> Pairs:
    """Split a value into pairs; a JSON object gives dotted keys.

    Args:
        text: the value.
        first: name of the key that the first part may leave out.
    """
    if text.startswith("{"):
        flat = _from_json(text)
        if flat is not None:
            return flat
    pairs: Pairs = []
    for number, part in enumerate(_parts(text)):
        key, equals, value = part.partition("=")
        if equals:
            pairs.append((key, value))
        elif number == 0 and first:
            pairs.append((first, part))
        elif part:
            off = part.startswith("no") and part != "nodelay"
            pairs.append((part.removeprefix("no"), "off") if off else (part, "on"))
    return pairs


def join_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    """Make a value of pairs."""
    return ",".join(f"{key}={value.replace(',', ',,')}" for key, value in pairs)


def value_of(pairs: Pairs, *keys: str, default: str = "") -> str:
    """Give the value of the first of some keys; of one that stands twice, the last."""
    for key in keys:
        for name, value in reversed(pairs):
            if name == key:
                return value
    return default


def read_config(text: str) -> Iterator[Option]:
    """Give the options of a file of -readconfig: ``[group "id"]`` and ``key = "value"``."""
    group, pairs = "", Pairs()
    for raw in [*text.splitlines(), "[]"]:
        line = raw.strip()
        if line.startswith("["):
            if group:
                yield Option(group, join_pairs(pairs))
            group, _, name = line.strip("[]").partition(" ")
            name = name.strip().strip('"')
            pairs = [("id", name)] if name else []
        elif "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            pairs.append((key.strip(), value.strip().strip('"')))


def _parts(text: str) -> Iterator[str]:
    """Split at single commas; two of them are one that belongs to the value."""
    part, at = "", 0
    while at < len(text):
        if text[at] != ",":
            part += text[at]
        elif text[at + 1 : at + 2] == ",":
            part, at = part + ",", at + 1
        else:
            yield part
            part = ""
        at += 1
    yield part


def _from_json(text: str) -> Pairs | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return list(_flat("", value))


def _flat(key: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{key}.{name}" if key else str(name), inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _flat(f"{key}.{number}", inner)
    elif isinstance(value, bool):
        yield key, "on" if value else "off"
    else:
        yield key, str(value)
