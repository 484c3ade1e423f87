"""Ask a paused PC's virtio devices over PCI what they offer, as a guest would.

Configuration space is reached through ports 0xcf8 and 0xcfc, which HMP reads
and writes; a virtio device has a window there through which its registers are
read. So the features are those that the target itself compares with
(hw/virtio/virtio.c: virtio_set_features_nocheck), whatever its release.

Source: virtio 1.3, 4.1.4.9; hw/virtio/virtio-pci.c (virtio_read_config), monitor/misc.c and
monitor/hmp-cmds.c (hmp_ioport_read), 5.2 to 11.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from cprformats.fields import Field
from cprtools.check.probe_pci import Path

__all__ = ["Ports"]

_ADDRESS, _DATA = 0xCF8, 0xCFC
_BUSES: Final = 0x18
_COMMAND: Final = 0x04
_ACCESS, _COMMON = 5, 1
_LEGACY_BASE: Final = 0xC000
#: Words of 32 features: 128 bits since 11.1.
_WORDS: Final = 4


class Ports:
    """Reads registers of PCI devices.

    Args:
        hmp: runs a command of the human monitor.
    """

    def __init__(self, hmp: Callable[[str], str]) -> None:
        self._hmp = hmp

    def features(self, path: Path, config: Field) -> int | None:
        """Give what a virtio device offers, as bits; None where it can't be read.

        Args:
            path: of the device.
            config: its configuration space, decoded.
        """
        bus, device = self._reach(path)
        try:
            where = bus << 16 | device << 8
            modern = self._modern(where, config)
            return self._legacy(where, config) if modern is None else modern
        finally:
            self._leave(path)

    # -- bridges on the way -------------------------------------------------------------

    def _reach(self, path: Path) -> tuple[int, int]:
        """Number the buses on the way; give the device's bus, and its slot and function."""
        bus = path[0]
        for number, bridge in enumerate(path[1:-1], path[0] + 1):
            self._write(bus << 16 | bridge << 8 | _BUSES, 0xFF << 16 | number << 8 | bus)
            bus = number
        return bus, path[-1]

    def _leave(self, path: Path) -> None:
        """Take the numbers away, the innermost first."""
        bridges = list(enumerate(path[1:-1], path[0]))
        for bus, bridge in reversed(bridges):
            self._write(bus << 16 | bridge << 8 | _BUSES, 0)

    # -- virtio ---------------------------------------------------------------------------

    def _modern(self, where: int, config: Field) -> int | None:
        windows = {
            cfg.value: group
            for group in config.children
            if group.name.startswith("virtio") and (cfg := group.get("cfg_type")) is not None
        }
        window, common = windows.get(_ACCESS), windows.get(_COMMON)
        if window is None or common is None:
            return None
        at = where | (window.offset - config.offset)
        bar, base = common.get("bar"), common.get("offset")
        if bar is None or base is None or not isinstance(bar.value, int):
            return None
        if not isinstance(base.value, int):
            return None
        self._write_byte(at + 4, bar.value)
        self._write(at + 12, 4)
        found = 0
        for word in range(_WORDS):
            self._write(at + 8, base.value)
            self._write(at + 16, word)
            self._write(at + 8, base.value + 4)
            value = self._read(at + 16)
            if value is None:
                return None
            found |= value << 32 * word
        return found

    def _legacy(self, where: int, config: Field) -> int | None:
        """A device of virtio 0.9: its features are the first register of its ports."""
        bar = config.get("bar0")
        if bar is None or not isinstance(bar.value, int) or not bar.value & 1:
            return None
        self._write(where | 0x10, _LEGACY_BASE)
        self._write(where | _COMMAND, 1)
        value = self._input(_LEGACY_BASE)
        self._write(where | _COMMAND, 0)
        return value

    # -- ports ----------------------------------------------------------------------------

    def _select(self, where: int) -> None:
        self._hmp(f"o/w {_ADDRESS:#x} {0x80000000 | where & ~3:#x}")

    def _write(self, where: int, value: int) -> None:
        self._select(where)
        self._hmp(f"o/w {_DATA:#x} {value:#x}")

    def _write_byte(self, where: int, value: int) -> None:
        self._select(where)
        self._hmp(f"o/b {_DATA + (where & 3):#x} {value:#x}")

    def _read(self, where: int) -> int | None:
        self._select(where)
        return self._input(_DATA)

    def _input(self, port: int) -> int | None:
        match = re.search(r"= *((?:0x)?[0-9a-f]+)", self._hmp(f"i/w {port:#x}"))
        return int(match[1], 16) if match else None
