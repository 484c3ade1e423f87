"""Kinds of descriptors: what one is for, and what the kernel shows of it.

Two lists of words. A *look* is what can be seen of any descriptor by evidence (`evidence.look`).
A *kind* is what the owner says it is for: an eventfd may be an interrupt or a kick, guest RAM may
be a memfd or a file, the stand-in for a VFIO group is a socket. `LOOKS` joins them.

Source of the names that the kernel shows: Linux fs/eventfd.c, fs/timerfd.c, virt/kvm/kvm_main.c,
drivers/vfio/group.c and vfio_main.c, mm/memfd.c (the link of /proc/PID/fd/N), 6.18.
"""

from __future__ import annotations

__all__ = [
    "ALL_CHECKS",
    "CHECK_WORDS",
    "KINDS",
    "LOOKS",
    "NOT_LESS",
    "SAME_FILE",
    "SAME_FLAGS",
    "SAME_POS",
    "SAME_SEALS",
    "SAME_SIZE",
    "default_checks",
]

# What the new side must find as it was, one bit each.
SAME_FILE = 0x01  # device and inode; for an eventfd its own id
SAME_POS = 0x02  # the offset of the open file
NOT_LESS = 0x04  # an eventfd's count: peers may add, nobody may take
SAME_SEALS = 0x08
SAME_SIZE = 0x10
SAME_FLAGS = 0x20  # access mode and status flags (O_RDWR, O_NONBLOCK, O_APPEND)
ALL_CHECKS = 0x3F

CHECK_WORDS: dict[int, str] = {
    SAME_FILE: "same open file",
    SAME_POS: "same offset",
    NOT_LESS: "count not lower",
    SAME_SEALS: "same seals",
    SAME_SIZE: "same size",
    SAME_FLAGS: "same flags",
}

#: Kind -> the looks that are right for it.
LOOKS: dict[str, tuple[str, ...]] = {
    "ram": ("memfd", "file"),
    "memfd": ("memfd",),
    "file": ("file",),
    "state": ("memfd", "file"),
    "irq": ("eventfd",),
    "resample": ("eventfd",),
    "kick": ("eventfd",),
    "eventfd": ("eventfd",),
    "timerfd": ("timerfd",),
    "listening-socket": ("listening-socket",),
    "connected-socket": ("connected-socket",),
    "pipe": ("pipe",),
    "pidfd": ("pidfd",),
    "tap": ("tap",),
    "kvm": ("kvm",),
    "kvm-vm": ("kvm-vm",),
    "kvm-vcpu": ("kvm-vcpu",),
    "vfio-container": ("vfio-container",),
    "vfio-group": ("vfio-group",),
    "vfio-device": ("vfio-device",),
    "iommufd": ("iommufd",),
    # The stand-in device behind the same seam: socket ends.
    "standin-group": ("connected-socket",),
    "standin-device": ("connected-socket",),
}
#: In the order of their numbers in a document: new kinds go to the end.
KINDS: tuple[str, ...] = tuple(LOOKS)

_CONTENTS = SAME_FILE | SAME_SIZE | SAME_FLAGS
_CHECKS = {
    "ram": _CONTENTS | SAME_SEALS,
    "memfd": _CONTENTS | SAME_SEALS,
    "file": _CONTENTS | SAME_POS,
    "state": _CONTENTS | SAME_SEALS,
    "irq": SAME_FILE | NOT_LESS | SAME_FLAGS,
    "resample": SAME_FILE | NOT_LESS | SAME_FLAGS,
    "kick": SAME_FILE | NOT_LESS | SAME_FLAGS,
    "eventfd": SAME_FILE | NOT_LESS | SAME_FLAGS,
}


def default_checks(kind: str) -> int:
    """Say what the new side must find unchanged for a kind, as bits.

    Raises:
        KeyError: there is no such kind.
    """
    if kind not in LOOKS:
        raise KeyError(kind)
    return _CHECKS.get(kind, SAME_FILE | SAME_FLAGS)
