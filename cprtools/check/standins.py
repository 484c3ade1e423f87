"""A target's command line for a try: the same devices, and nothing behind them.

Disks become empty ones of the same size, networks reach nobody, character
devices are null, displays and monitors go. What can't be replaced without a
trace is left out and said, and makes a `loads` an `undecided`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cprtools.check.cmdline import (
    Option,
    Pairs,
    join_pairs,
    parse,
    read_config,
    split_pairs,
    value_of,
)
from cprtools.check.standins_disk import Disks
from cprtools.check.standins_memory import Backends
from cprtools.check.standins_net import Networks

__all__ = ["Host", "Rewritten", "rewrite"]

#: Options that only concern how it is run, seen, or spoken to.
_GONE: Final = frozenset(
    [
        "incoming",
        "S",
        "daemonize",
        "pidfile",
        "D",
        "d",
        "dfilter",
        "trace",
        "qmp",
        "qmp-pretty",
        "monitor",
        "mon",
        "vnc",
        "spice",
        "display",
        "sdl",
        "gtk",
        "curses",
        "full-screen",
        "alt-grab",
        "ctrl-grab",
        "no-quit",
        "no-frame",
        "gdb",
        "s",
        "chroot",
        "runas",
        "run-with",
        "msg",
        "mem-prealloc",
        "mem-path",
        "overcommit",
        "realtime",
        "enable-fips",
        "writeconfig",
        "plugin",
        "qtest",
        "qtest-log",
        "add-fd",
        "loadvm",
        "jitdump",
        "perfmap",
        "enable-sync-profile",
        "iscsi",
        "tpmdev",
        "snapshot",
        "preconfig",
        "no-shutdown",
        "no-reboot",
    ]
)
#: Objects of the host that nothing of a device's state depends on.
_GONE_OBJECTS: Final = re.compile(
    r"input-(linux|barrier)|filter-|colo-|secret|tls-|authz-|iommufd|can-host-|pr-manager-helper|"
    r"dbus-|x-|vfio-"
)
#: Devices whose other half is outside of QEMU; with the vmsd names of their sections.
_OUTSIDE: Final = re.compile(r"(vfio|vhost)-|ivshmem-doorbell|scsi-generic|u2f-passthru|tpm-")
_OUTSIDE_SECTIONS: Final = {
    "vfio": r"(^|/)(vfio|vfio-pci|VFIOPCIDevice)$",
    "vhost": r"(^|/)(virtio-)?vhost[-_][^/]*$",
    "ivshmem": r"(^|/)ivshmem[^/]*$",
    "scsi": r"(^|/)scsi-generic$",
    "u2f": r"(^|/)u2f[^/]*$",
    "tpm": r"(^|/)tpm-[^/]*$",
    "dbus": r"^dbus-vmstate",
}
_SLOT_KEYS: Final = ("id", "bus", "addr", "multifunction", "acpi-index")
_KEPT_CHARDEVS: Final = frozenset(("null", "ringbuf", "memory", "testdev", "mux", "hub"))


@dataclass(frozen=True, slots=True)
class Host:
    """What a try can use.

    Attributes:
        folder: its own.
        taps: a TUN device can be made in the network namespace of the try.
        vhost: /dev/vhost-net can be opened.
        shared_files: x-ignore-shared is on: memory files stay files.
        big: the guest's memory is more than may be promised here.
        main_memory: id of the machine's own memory, if it has to be replaced; and its size.
    """

    folder: Path
    taps: bool = False
    vhost: bool = False
    shared_files: bool = False
    big: bool = False
    main_memory: str = ""


@dataclass(slots=True)
class Rewritten:
    """The command line of a try.

    Attributes:
        words: without program, monitor and -incoming.
        notes: what was replaced in a way that is worth knowing.
        unsure: what could make the real target refuse and was not looked at.
        sections: patterns of the sections whose devices are left out.
        blind: features of networks may be refused only because of the stand-in.
        memory_bytes: the largest file that it may make for memory.
    """

    words: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    sections: set[str] = field(default_factory=set)
    blind: bool = False
    memory_bytes: int = 0

    @property
    def left_out(self) -> re.Pattern[str] | None:
        """The sections that are not given to it."""
        return re.compile("|".join(sorted(self.sections))) if self.sections else None


def rewrite(arguments: Sequence[str], host: Host) -> Rewritten:
    """Make the command line of a try.

    Args:
        arguments: the target's, without the program.
        host: see there.
    """
    return _Rewriter(host).run(arguments)


class _Rewriter:
    def __init__(self, host: Host) -> None:
        self.host = host
        self.out = Rewritten()
        self.disks = Disks(self.out.notes)
        self.networks = Networks(host.taps, host.vhost, self.out.notes, self.out.unsure)
        self.backends = Backends(host.folder, shared_files=host.shared_files, big=host.big)
        self._actions: dict[str, Callable[[str], Sequence[str]]] = {
            "device": self._device,
            "object": self._object,
            "chardev": self._chardev,
            "serial": lambda value: ["-serial", _character(value)],
            "parallel": lambda value: ["-parallel", _character(value)],
            "debugcon": lambda value: ["-debugcon", _character(value)],
            "virtioconsole": lambda value: ["-virtioconsole", _character(value)],
            "audiodev": self._audiodev,
            "audio": self._audio,
            "fsdev": self._fsdev,
            "virtfs": self._virtfs,
            "netdev": lambda value: ["-netdev", self.networks.backend(value)],
            "nic": lambda value: ["-nic", self.networks.nic(value)],
            "net": self.networks.old,
            "drive": lambda value: ["-drive", self.disks.drive(value)],
            "blockdev": lambda value: ["-blockdev", self.disks.node(value)],
        }

    def run(self, arguments: Sequence[str]) -> Rewritten:
        options = list(self._expanded(arguments))
        self.disks.look(options)
        for option in options:
            self.out.words += self._option(option)
        if self.host.big and self.host.main_memory:
            self.out.words += self.backends.main(options, self.host.main_memory)
        self.out.blind = self.networks.blind
        self.out.memory_bytes = self.backends.largest
        return self.out

    def _expanded(self, arguments: Sequence[str]) -> list[Option]:
        options: list[Option] = []
        for option in parse(arguments):
            if option.name == "readconfig" and option.value:
                options += self._config(option.value)
            else:
                options.append(option)
        return options

    def _config(self, path: str) -> list[Option]:
        try:
            return list(read_config(Path(path).read_text(errors="replace")))
        except OSError as error:
            self.out.unsure.append(f"-readconfig {path}: {error.strerror}")
            return []

    def _option(self, option: Option) -> Sequence[str]:
        if option.name in _GONE:
            return ()
        image = self.disks.image(option)
        if image is not None:
            return image
        action = self._actions.get(option.name)
        if action is None or option.value is None:
            return option.words
        return action(option.value)

    # -- devices and objects --------------------------------------------------------

    def _device(self, value: str) -> Sequence[str]:
        pairs = split_pairs(value, "driver")
        driver = value_of(pairs, "driver")
        if driver == "usb-host":
            # Nothing has these ids: the real device stays with whom it belongs to.
            kept = [pair for pair in pairs if pair[0] in ("driver", "id", "bus", "port")]
            self.out.unsure.append("the device that usb-host passes through")
            return ["-device", join_pairs([*kept, ("vendorid", "65535"), ("productid", "65535")])]
        if driver == "scsi-block":
            self.out.unsure.append("the host's SCSI device behind scsi-block")
            return ["-device", join_pairs([("driver", "scsi-hd"), *pairs[1:]])]
        if not _OUTSIDE.match(driver):
            return ["-device", value]
        self.out.sections.add(_OUTSIDE_SECTIONS[driver.partition("-")[0]])
        self.out.unsure.append(f"{driver}: its state is kept outside of QEMU, and was left out")
        if not re.search(r"-pci|vfio-pci|vhost-user-vga|ivshmem", driver):
            return ()
        # Something has to stand in its slot, or the devices behind it move.
        slot = [(key, found) for key in _SLOT_KEYS if (found := value_of(pairs, key))]
        return ["-device", join_pairs([("driver", "pci-testdev"), *slot])]

    def _object(self, value: str) -> Sequence[str]:
        pairs = split_pairs(value, "qom-type")
        kind = value_of(pairs, "qom-type")
        if kind.startswith("memory-backend-"):
            made = self.backends.rewritten(kind, pairs)
            return ["-object", value if made is None else made]
        if kind.startswith("dbus-vmstate"):
            self.out.sections.add(_OUTSIDE_SECTIONS["dbus"])
            self.out.unsure.append("the helpers behind dbus-vmstate")
        if _GONE_OBJECTS.match(kind):
            return ()
        name = value_of(pairs, "id")
        if kind == "rng-egd":
            return ["-object", f"rng-builtin,id={name}"]
        if kind.startswith("cryptodev-") and kind != "cryptodev-backend-builtin":
            return ["-object", f"cryptodev-backend-builtin,id={name}"]
        return ["-object", value]

    # -- what the guest talks to ------------------------------------------------------

    def _chardev(self, value: str) -> Sequence[str]:
        pairs = split_pairs(value, "backend")
        kind = value_of(pairs, "backend")
        if kind in _KEPT_CHARDEVS:
            return ["-chardev", value]
        kept = [pair for pair in pairs if pair[0] in ("id", "mux")]
        return ["-chardev", ",".join(("null", join_pairs(kept)))]

    def _audiodev(self, value: str) -> Sequence[str]:
        name = value_of(split_pairs(value, "driver"), "id")
        return ["-audiodev", f"none,id={name}"]

    def _audio(self, value: str) -> Sequence[str]:
        kept = [pair for pair in split_pairs(value, "driver") if pair[0] in ("model", "id")]
        return ["-audio", join_pairs([("driver", "none"), *kept])]

    def _fsdev(self, value: str) -> Sequence[str]:
        pairs = split_pairs(value, "fsdriver")
        return ["-fsdev", self._shared(pairs, ("id",))]

    def _virtfs(self, value: str) -> Sequence[str]:
        pairs = split_pairs(value, "fsdriver")
        return ["-virtfs", self._shared(pairs, ("id", "mount_tag"))]

    def _shared(self, pairs: Pairs, keys: tuple[str, ...]) -> str:
        kept = [pair for pair in pairs if pair[0] in keys]
        path = [("path", str(self.host.folder)), ("security_model", "none"), ("readonly", "on")]
        return f"local,{join_pairs([*kept, *path])}"


def _character(value: str) -> str:
    if value in ("none", "null") or value.startswith("chardev:"):
        return value
    return "null"
