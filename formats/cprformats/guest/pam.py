"""What a PC's host bridge shows between 640 KiB and 1 MiB, and hides for SMM.

A PAM register has two bits for each of 13 areas between 0xc0000 and 0x100000:
0 shows the PCI bus (the ROMs), any other value the RAM at the same address.
(On hardware a value of 2 writes to RAM and reads from the bus; not in QEMU.)
The VGA window at 0xa0000 shows the PCI bus unless SMRAM is open. Where the bus
has nothing, the RAM below shows through.

Source: QEMU hw/pci-host/pam.c (init_pam, pam_update), hw/pci-host/i440fx.c
(i440fx_update_memory_mappings), hw/pci-host/q35.c (mch_update_smram,
mch_update_smbase_smram), 5.2 to 11.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cprformats.guest.sections import config_space, device_body
from cprformats.migration.stream import MigrationStream

__all__ = ["Bridge", "read_bridge"]

_MIB = 1 << 20
_WINDOW, _WINDOW_SIZE = 0xA0000, 0x20000
_HIGH_SMRAM = 0xFEDA0000
_SMBASE, _SMBASE_SIZE = 0x30000, 0x20000
#: Offset of the first PAM register and of SMRAM, by the section's name.
_REGISTERS = {"I440FX": (0x59, 0x72), "mch": (0x90, 0x9D)}
_D_OPEN, _G_SMRAME = 0x40, 0x08
#: ESMRAMC, behind SMRAM: high SMRAM on, TSEG on; its size in bits 1 and 2.
_H_SMRAME, _T_EN = 0x80, 0x01
_TSEG_MIB = {0: 1, 1: 2, 2: 8}
_EXT_TSEG, _F_SMBASE = 0x50, 0x9C


@dataclass(frozen=True, slots=True)
class Bridge:
    """What the host bridge's registers say of the memory map.

    Attributes:
        pci: addresses and sizes, below 1 MiB, that show the PCI bus over RAM.
        high_smram: addresses and sizes that show RAM from 0xa0000 on.
        hidden: addresses and sizes that only SMM sees.
        tseg: bytes at the end of RAM below 4 GiB that only SMM sees.
        known: the registers were in the stream; else these are what firmware leaves.
    """

    pci: tuple[tuple[int, int], ...]
    high_smram: tuple[tuple[int, int], ...] = ()
    hidden: tuple[tuple[int, int], ...] = ()
    tseg: int = 0
    known: bool = True


def read_bridge(stream: MigrationStream) -> Bridge:
    """Read the i440FX's or Q35's registers out of its configuration space."""
    for name, (pam, smram) in _REGISTERS.items():
        config = config_space(stream, device_body(stream, name))
        if config is not None:
            pci = tuple(_pam_areas(config, pam))
            return _q35(config, smram, pci) if name == "mch" else _i440fx(config, smram, pci)
    return Bridge(((_WINDOW, _WINDOW_SIZE),), known=False)


def _pam_areas(config: bytes, first: int) -> Iterator[tuple[int, int]]:
    """Give the areas that show the PCI bus: 16 KiB each, the BIOS area 64 KiB."""
    for index in range(1, 13):
        value = config[first + (index + 1) // 2] >> (0 if index % 2 else 4)
        if value & 3 == 0:
            yield 0xC0000 + (index - 1) * 0x4000, 0x4000
    if config[first] >> 4 & 3 == 0:
        yield 0xF0000, 0x10000


def _i440fx(config: bytes, smram: int, pci: tuple[tuple[int, int], ...]) -> Bridge:
    window = () if config[smram] & _D_OPEN else ((_WINDOW, _WINDOW_SIZE),)
    return Bridge((*window, *pci))


def _q35(config: bytes, smram: int, pci: tuple[tuple[int, int], ...]) -> Bridge:
    opened = bool(config[smram] & _D_OPEN)
    high = bool(config[smram + 1] & _H_SMRAME)
    window = () if opened and not high else ((_WINDOW, _WINDOW_SIZE),)
    return Bridge(
        (*window, *pci),
        high_smram=((_HIGH_SMRAM, _WINDOW_SIZE),) if opened and high else (),
        hidden=((_SMBASE, _SMBASE_SIZE),) if config[_F_SMBASE] == 2 else (),
        tseg=_tseg(config, smram),
    )


def _tseg(config: bytes, smram: int) -> int:
    extended = config[smram + 1]
    if not (config[smram] & _G_SMRAME and extended & _T_EN):
        return 0
    other = int.from_bytes(config[_EXT_TSEG : _EXT_TSEG + 2], "little")
    return _TSEG_MIB.get(extended >> 1 & 3, other) * _MIB
