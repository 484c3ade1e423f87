"""What a command line makes: the machine, its memory, and each device with its path.

Paths are those that QEMU puts in front of a section's name. PCI slots that are not given are
handed out in order; whatever can't be told makes the plan incomplete, with the reason.

Source: QEMU hw/pci/pci.c (do_pci_register_device, pcibus_get_dev_path), hw/scsi/scsi-bus.c
(scsi_qdev_realize, scsibus_get_dev_path), hw/usb/bus.c (usb_get_dev_path), system/vl.c.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from cprtools.check.cmdline import Option, parse, split_pairs

__all__ = ["Device", "Plan", "make_plan", "size_of"]

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
#: Options that neither add state nor change it.
_HARMLESS = frozenset(
    [
        "nodefaults",
        "display",
        "S",
        "no-reboot",
        "no-shutdown",
        "name",
        "qmp",
        "mon",
        "monitor",
        "chardev",
        "rtc",
        "boot",
        "k",
        "vnc",
        "spice",
        "blockdev",
        "incoming",
        "daemonize",
        "pidfile",
        "D",
        "d",
        "trace",
        "msg",
        "sandbox",
        "runas",
        "nographic",
        "uuid",
        "smbios",
        "netdev",
        "audiodev",
        "object",
        "only-migratable",
        "no-user-config",
        "overcommit",
        "full-screen",
        "L",
        "bios",
        "machine",
        "M",
        "m",
        "smp",
        "cpu",
        "vga",
        "device",
        "global",
        "accel",
        "enable-kvm",
        "serial",
        "parallel",
        "numa",
        "drive",
        "hda",
        "hdb",
        "hdc",
        "hdd",
        "cdrom",
        "fda",
        "fdb",
        "nic",
        "net",
        "usb",
    ]
)
_BRIDGES = ("pci-bridge", "pcie-root-port", "ioh3420", "pcie-pci-bridge", "x3130-upstream",
            "xio3130-downstream", "i82801b11-bridge")  # fmt: skip
_ONE_SLOT = ("pcie-root-port", "ioh3420", "xio3130-downstream")
_ISA = re.compile(
    r"isa-|ib700|pvpanic$|sb16|adlib|cs4231a|gus$|vmcoreinfo|vmgenid|ipmi-bmc|ne2k_isa|.*-iommu$"
    r"|pc-testdev|.*-device$|pc-dimm|nvdimm|virtio-mem$|fw_cfg|pc-|floppy|tpm-|kvm|qemu.*-cpu$|hda-(d|m|o)"
    r"|virtconsole|virtserialport|ide-(hd|cd|drive)|scsi-|usb-(?!ehci)|virtio-.*-ccw"
)


@dataclass(slots=True)
class Device:
    """One device.

    Attributes:
        model: its name.
        values: its properties.
        path: what stands before the slash of its sections' names; None where that is not known.
        port: it is behind a PCI Express port.
    """

    model: str
    values: dict[str, str]
    path: str | None = ""
    port: bool = False


@dataclass(slots=True)
class Plan:
    """What a command line says.

    Attributes:
        machine: machine type as given, "" for the default one.
        switches: properties of the machine.
        accel: first accelerator named.
        memory: bytes of RAM.
        slots: slots for memory devices.
        cpu: CPU model.
        cpus: CPUs at the start.
        apic_ids: of these.
        devices: in order.
        objects: properties of objects by their ids.
        numa: ids of the memory backends of NUMA nodes.
        globals: `driver.property` and value.
        nodes: sizes of block nodes by name, in bytes.
        uuid: the VM's UUID, "" where none is given.
        bios: firmware file, "" for the usual one.
        serials: serial ports given.
        parallels: parallel ports given.
        drives: block nodes and drives.
        networks: kinds of network backends that offer more, or less, than was measured.
        holes: why it is not complete.
    """

    machine: str = ""
    switches: dict[str, str] = field(default_factory=dict)
    accel: str = "tcg"
    memory: int = 128 << 20
    slots: int = 0
    cpu: str = ""
    cpus: int = 1
    topology: dict[str, int] = field(default_factory=dict)
    devices: list[Device] = field(default_factory=list)
    objects: dict[str, dict[str, str]] = field(default_factory=dict)
    numa: list[str] = field(default_factory=list)
    globals: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)
    uuid: str = ""
    bios: str = ""
    serials: int = 0
    parallels: int = 0
    nodefaults: bool = False
    networks: set[str] = field(default_factory=set)
    holes: list[str] = field(default_factory=list)


def size_of(text: str, unit: str = "") -> int:
    """Read a size like `16`, `4G` or `0x1000`; -1 if it is none."""
    found = re.fullmatch(r"(0x[0-9a-fA-F]+|\d+(?:\.\d+)?)([bkmgtBKMGT]?)", text)
    if found is None:
        return -1
    number = int(found[1], 16) if found[1].startswith("0x") else float(found[1])
    return int(number * _UNITS[found[2].lower() or unit])


def make_plan(words: Sequence[str], machine: str = "") -> Plan:
    """Read a command line."""
    plan = Plan()
    places = _Places(plan)
    waiting: list[dict[str, str]] = []
    for option in parse(words):
        _option(plan, option, waiting)
    if machine:
        pairs = dict(split_pairs(machine, "type"))
        plan.machine = pairs.pop("type", plan.machine)
        plan.switches |= pairs
    if not plan.nodefaults:
        plan.holes.append("default devices: -nodefaults is not given")
    places.root(plan.machine)
    for values in waiting:
        places.add(values)
    return plan


def _option(  # noqa: PLR0915 (a table of options)
    plan: Plan, option: Option, devices: list[dict[str, str]]
) -> None:
    name, value = option.name, option.value or ""
    if name in ("machine", "M"):
        pairs = dict(split_pairs(value, "type"))
        plan.machine = pairs.pop("type", plan.machine)
        plan.accel = pairs.pop("accel", plan.accel).split(":")[0]
        plan.switches |= pairs
    elif name == "accel":
        plan.accel = dict(split_pairs(value, "accel")).get("accel", "tcg")
    elif name == "enable-kvm":
        plan.accel = "kvm"
    elif name == "m":
        pairs = dict(split_pairs(value, "size"))
        plan.memory = size_of(pairs.get("size", "128"), "m")
        plan.slots = int(pairs.get("slots", "0") or 0)
    elif name == "cpu":
        plan.cpu, _, more = value.partition(",")
        if re.search(r"(^|,)[+-]?apic(,|=|$)", more):
            plan.holes.append(f"-cpu {value}")
    elif name == "smp":
        pairs = dict(split_pairs(value, "cpus"))
        numbers = {key: int(one) for key, one in pairs.items() if one.isdigit()}
        plan.topology = numbers
        product = 1
        for key in ("sockets", "dies", "cores", "threads"):
            product *= numbers.get(key, 1)
        plan.cpus = numbers.get("cpus") or numbers.get("maxcpus") or product
    elif name == "object":
        pairs = dict(split_pairs(value, "qom-type"))
        plan.objects[pairs.get("id", "")] = pairs
        if not pairs.get("qom-type", "").startswith(
            (
                "memory-backend",
                "iothread",
                "secret",
                "tls-",
                "rng-",
                "cryptodev",
                "throttle",
                "authz",
            )
        ):
            plan.holes.append(f"object {pairs.get('qom-type')}")
    elif name == "numa":
        if memdev := dict(split_pairs(value, "type")).get("memdev"):
            plan.numa.append(memdev)
    elif name == "global":
        _global(plan, value)
    elif name == "uuid":
        plan.uuid = value.lower()
    elif name == "bios":
        plan.bios = value
    elif name == "serial":
        plan.serials += value != "none"
    elif name == "parallel":
        plan.parallels += value != "none"
    elif name == "nodefaults":
        plan.nodefaults = True
    elif name == "vga":
        if value != "none":
            plan.holes.append(f"-vga {value}")
    elif name == "device":
        devices.append(dict(split_pairs(value, "driver")))
    elif name in ("nic", "net"):
        if value != "none":
            plan.holes.append(f"-{name} {value}")
    elif name == "drive":
        if dict(split_pairs(value, "file")).get("if") != "none":
            plan.holes.append("a drive that makes a device (if=)")
    elif name in ("hda", "hdb", "hdc", "hdd", "cdrom", "fda", "fdb", "usb", ""):
        plan.holes.append(f"-{name}" if name else "a disk image without an option")
    elif name not in _HARMLESS:
        plan.holes.append(f"-{name}")
    if name == "blockdev":
        pairs = dict(split_pairs(value))
        plan.nodes[pairs.get("node-name", "")] = size_of(pairs.get("size", ""))
    if name == "netdev":
        kind = dict(split_pairs(value, "type")).get("type", "")
        if kind == "user":
            devices.append({"driver": "user-netdev"})
        elif kind != "hubport":
            plan.networks.add(kind)


def _global(plan: Plan, value: str) -> None:
    if "=" in value.partition(",")[0]:
        key, _, what = value.partition("=")
    else:
        pairs = dict(split_pairs(value))
        key, what = f"{pairs.get('driver')}.{pairs.get('property')}", pairs.get("value", "")
    plan.globals[key] = what
    if not key.startswith("migration."):
        plan.holes.append(f"-global {value}")


class _Places:
    """Hands out addresses."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.paths = {"": "0000:00"}  # of PCI buses
        self.taken: dict[str, set[tuple[int, int]]] = {}
        self.one_slot: set[str] = set()
        self.ports: set[str] = set()
        self.parents: dict[str, str | None] = {}
        self.scsi: dict[str, set[tuple[int, int, int]]] = {}
        self.usb: dict[str, set[str]] = {}
        self.many: set[str] = set()
        self.mmio = 0

    def root(self, machine: str) -> None:
        q35 = "q35" in machine
        self.paths = {"": "0000:00", "pcie.0" if q35 else "pci.0": "0000:00"}
        slots = [(0, 0), (31, 0), (31, 2), (31, 3)] if q35 else [(0, 0), (1, 0), (1, 1), (1, 3)]
        self.taken["0000:00"] = set(slots)

    def add(self, values: dict[str, str]) -> None:
        model = values.get("driver", "")
        device = Device(model, values)
        self.plan.devices.append(device)
        bus = values.get("bus", "")
        holder = bus.rpartition(".")[0] or bus
        if model.startswith("scsi-"):
            device.path = self._scsi(holder, values)
        elif model.startswith("usb-") and model != "usb-ehci":
            device.path = self._usb(holder, values)
        elif re.fullmatch(r"virtio-\w+-device", model):
            device.path = f"mmio {self.mmio}"
            self.mmio += 1
        elif _ISA.match(model) or model == "user-netdev":
            device.path = ""
        else:
            device.path = self._pci(device, bus, values)
            name = values.get("id", "")
            self.parents[name] = device.path
            if "ehci" in model or "xhci" in model:
                self.many.add(name)
            if model in _BRIDGES and device.path and name:
                self.paths[name] = device.path
                self.taken[device.path] = set()
                if model in _ONE_SLOT:
                    self.one_slot.add(device.path)
                    self.ports.add(device.path)
                elif model == "x3130-upstream":
                    self.ports.add(device.path)
            elif model.startswith("pxb") and name:
                path = f"0000:{size_of(values.get('bus_nr', '0')):02x}"
                self.paths[name] = path
                self.taken[path] = set()
        if device.path is None:
            self.plan.holes.append(f"where {model} {values.get('id', '')} lies")

    def _pci(self, device: Device, bus: str, values: dict[str, str]) -> str | None:
        path = self.paths.get(bus)
        if path is None:
            return None
        device.port = path in self.ports
        slot, _, function = values.get("addr", "").partition(".")
        taken = self.taken[path]
        if slot:
            try:
                place = (int(slot, 16), int(function or "0", 16))
            except ValueError:
                return None
        else:
            if path != "0000:00" and path not in self.ports:
                return None
            free = (number for number in range(32) if (number, 0) not in taken)
            place = (next(free, 31), 0)
        taken.add(place)
        return f"{path}:{place[0]:02x}.{place[1]}"

    def _scsi(self, holder: str, values: dict[str, str]) -> str | None:
        if not holder:
            holder = next((one for one in self.parents if one), "")
        path = self.parents.get(holder)
        if path is None:
            return None
        taken = self.scsi.setdefault(holder, set())
        channel, lun = int(values.get("channel", 0)), int(values.get("lun", 0))
        number = int(values["scsi-id"]) if "scsi-id" in values else -1
        if number < 0:
            if "lun" in values:
                number = 0
                while (channel, number, lun) in taken:
                    number += 1
            else:
                number = next(n for n in range(256) if (channel, n, 0) not in taken)
        taken.add((channel, number, lun))
        return f"{path}/{channel}:{number}:{lun}"

    def _usb(self, holder: str, values: dict[str, str]) -> str | None:
        path = self.parents.get(holder)
        if path is None:
            return None
        taken = self.usb.setdefault(holder, set())
        port = values.get("port")
        if port is None:
            # Of the two ports of a UHCI, or of one that is not known, the last is for a hub.
            if holder not in self.many or any("." in one for one in taken):
                port = "1" if not taken else None
            else:
                port = next(str(one) for one in range(1, 64) if str(one) not in taken)
        if port is None:
            return None
        taken.add(port)
        return f"{path}/{port}"
