"""What machine types and devices put into a state, as measured on real QEMUs.

The data are of distributions' builds of 5.2, 7.2, 8.2, 10.0 and 11.1; the recipe is
fixtures/recipes/static_facts.py. For other releases there are none.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources

from cprtools.check.static_pci import Shape

__all__ = ["Brought", "Facts", "Known", "facts_of"]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a PCI device.

    Attributes:
        shape: what is fixed of its configuration space.
        queues: sizes of its virtqueues.
        features: that it offers; None where that was not seen.
        section: name of its section behind the path.
        certain: offsets of `shape` that the target certainly has so; others may be different
            in this machine type.
    """

    shape: Shape
    queues: tuple[int, ...] = ()
    features: int | None = None
    section: str = ""
    certain: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Brought:
    """What something adds to a state.

    Attributes:
        sections: idstr and instance; `@` stands for the device's path.
        blocks: RAM blocks and their sizes, likewise.
        gone: sections that are not there with it.
        pci: of its PCI function.
        equals: fields that must be equal, by section and instance.
    """

    sections: tuple[tuple[str, int], ...] = ()
    blocks: dict[str, int] = field(default_factory=dict)
    gone: tuple[tuple[str, int], ...] = ()
    pci: Known | None = None
    equals: dict[str, dict[str, str]] = field(default_factory=dict)


#: Where the recipe puts what carries devices of other buses.
_CARRIER = "0000:00:1c.0/"


class Facts:
    """The facts of one release."""

    def __init__(self, data: dict[str, object]) -> None:
        self._data: dict[str, dict[str, dict[str, dict[str, object]]]] = data  # type: ignore[assignment]
        self.aliases: dict[str, str] = data["aliases"]  # type: ignore[assignment]
        self.default: str = str(data["default"])
        self.models = frozenset(data["models"])  # type: ignore[call-overload]

    def machine(self, name: str) -> Brought | None:
        """What a machine type has with -nodefaults, one CPU and 16 MiB."""
        entry = self._data["machines"].get(name)
        brought = None if entry is None else _brought(entry, "")
        if brought is None or all(name != "cpu_common" for name, _ in brought.sections):
            return None  # its state could not be read: machines of before 2.4
        return brought

    def base_pci(self, name: str) -> dict[str, Known]:
        """The PCI functions that a machine type has."""
        pci = self._data["machines"].get(name, {}).get("pci", {})
        return {key: _known(one) for key, one in pci.items()}  # type: ignore[arg-type]

    def switch(self, machine: str, name: str) -> Brought | None:
        """What a machine property changes; of older types, what it changes in the newest."""
        for one in (machine, self.newest(machine)):
            switches = self._data["machines"].get(one, {}).get("switches", {})
            if name in switches:
                return _brought(switches[name], "")  # type: ignore[arg-type]
        return None

    def virtio(self, machine: str, model: str, *, port: bool) -> Known | None:
        """A virtio device of a machine type, with its usual properties."""
        one = self._data["virtio"].get(machine, {}).get(model + ("@port" if port else ""))
        return None if one is None else _known(one)

    def device(self, machine: str, model: str) -> Brought | None:
        """What a device adds, in the newest machine type of the kind."""
        kinds = self._data["devices"].get(model, {})
        kind = "q35" if "q35" in machine else "pc"
        entry = kinds.get(kind) or next(iter(kinds.values()), None)
        return None if entry is None else _brought(entry, "@")

    def same_everywhere(self, model: str) -> bool:
        """Say whether a device was seen in both kinds of machine, or has no kind."""
        return model in self._data["devices"]

    def newest(self, machine: str) -> str:
        """Give the newest machine type of the kind."""
        kind = "q35" if "q35" in machine else "pc"
        return self.aliases.get(kind, "")


@lru_cache(maxsize=4)
def facts_of(release: str) -> Facts | None:
    """Give the facts of a release, None where there are none."""
    place = resources.files("cprtools.check") / "data" / f"{release}.json.xz"
    if not place.is_file():
        return None
    return Facts(json.loads(lzma.decompress(place.read_bytes())))


def _known(one: dict[str, object]) -> Known:
    shape = {int(at): str(value) for at, value in one["shape"].items()}  # type: ignore[attr-defined]
    features = str(one.get("features") or "")
    certain = shape if one.get("section") else [at for at in (0, 14) if at in shape]
    return Known(
        shape,
        tuple(one.get("queues") or ()),  # type: ignore[arg-type]
        int(features, 16) if features else None,
        str(one.get("section", "")),
        frozenset(certain),
    )


def _brought(entry: Mapping[str, object], mark: str) -> Brought:
    pci: dict[str, dict[str, object]] = entry.get("pci", {}) if mark else {}  # type: ignore[assignment]
    own = max((key.rpartition("/")[0] for key in pci), default="")
    rows: list[tuple[str, int]] = entry["sections"]  # type: ignore[assignment]
    blocks: list[tuple[str, int]] = entry["blocks"]  # type: ignore[assignment]
    gone = entry.get("gone") or entry.get("no_sections") or []
    return Brought(
        tuple((_marked(str(name), own), int(number)) for name, number in rows),
        {_marked(str(name), own): int(size) for name, size in blocks},
        tuple((str(name), int(number)) for name, number in gone),  # type: ignore[attr-defined]
        _known(next(iter(pci.values()))) if pci else None,
        {
            _marked(key, own): values
            for key, values in entry.get("equals", {}).items()  # type: ignore[attr-defined]
        },
    )


def _marked(name: str, own: str) -> str:
    """Put the mark in place of a device's path."""
    if own and name.startswith(own + "/"):
        return "@" + name[len(own) :]
    if not name.startswith(_CARRIER):
        return name
    behind = name.removeprefix(_CARRIER)
    return "@/" + (behind.partition("/")[2] or behind)
