"""What a target will have: sections, RAM blocks and devices, by its command line and the facts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from cprtools.check.static_facts import Brought, Facts, Known
from cprtools.check.static_plan import Device, Plan, size_of
from cprtools.check.static_props import adjust, block_sizes, only_ids

__all__ = ["Expected", "expect"]

_PER_CPU = ("cpu_common", "cpu", "apic")
_HANDLED = frozenset(
    [
        "accel",
        "memory-backend",
        "suppress-vmdesc",
        "dump-guest-core",
        "mem-merge",
        "pflash0",
        "pflash1",
        "usb",
        "graphics",
    ]
)
_BIOS_256K = 256 << 10


@dataclass(slots=True)
class Expected:
    """What a target will have.

    Attributes:
        sections: instances by idstr.
        blocks: RAM blocks; size None where it is not known.
        pci: what is known of PCI functions, by idstr of their section; None for nothing.
        devices: by path.
        equals: fields that must be equal, by idstr and instance.
        roms: models of the devices that may have a ROM, by path.
        poison: sections of balloons that offer page poisoning.
        lacking: RAM blocks that are certainly not there.
        slots: for memory devices.
        ports: numbers of the ports of virtio-serial devices, by path.
        holes: why it is not complete.
        doubts: what could be otherwise in a device that is there.
    """

    sections: dict[str, set[int]] = field(default_factory=dict)
    blocks: dict[str, int | None] = field(default_factory=dict)
    pci: dict[str, Known | None] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    equals: dict[str, dict[str, str]] = field(default_factory=dict)
    roms: dict[str, str] = field(default_factory=dict)
    poison: set[str] = field(default_factory=set)
    lacking: set[str] = field(default_factory=set)
    slots: int = 0
    ports: dict[str, set[int]] = field(default_factory=dict)
    holes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def expect(plan: Plan, facts: Facts, machine: str) -> Expected | None:
    """Say what there will be; None where the machine type was never looked at."""
    base = facts.machine(machine)
    if base is None:
        return None
    result = Expected(holes=list(plan.holes), slots=plan.slots)
    for name, number in base.sections:
        result.sections.setdefault(name, set()).add(number)
    result.blocks |= base.blocks
    result.equals |= base.equals
    result.pci |= facts.base_pci(machine)
    _switches(result, plan, facts, machine)
    _cpus(result, plan)
    _memory(result, plan, machine)
    _ports(result, plan)
    for device in plan.devices:
        _device(result, plan, facts, machine, device)
    for model, number in (("isa-serial", plan.serials), ("isa-parallel", plan.parallels)):
        for _ in range(number):
            _device(result, plan, facts, machine, Device(model, {}))
    return result


def _switches(result: Expected, plan: Plan, facts: Facts, machine: str) -> None:
    named = [f"{key}={value}" for key, value in plan.switches.items() if key not in _HANDLED]
    if plan.accel not in ("tcg", "kvm"):
        result.holes.append(f"accelerator {plan.accel}")
    if plan.accel == "kvm":
        chip = plan.switches.get("kernel-irqchip", "")
        named = [one for one in named if not one.startswith("kernel-irqchip")]
        named.append("accel=kvm" + (f",kernel-irqchip={chip}" if chip not in ("", "on") else ""))
    if plan.switches.get("usb") == "on":
        named.append("usb=on")
    for name in named:
        changed = facts.switch(machine, name)
        if changed is None:
            result.holes.append(f"-machine {name}")
            continue
        for section, number in changed.gone:
            result.sections.get(section, set()).discard(number)
        for section, number in changed.sections:
            result.sections.setdefault(section, set()).add(number)
        result.blocks |= changed.blocks
        if name == "acpi=off":
            for block in [one for one in result.blocks if "acpi" in one]:
                del result.blocks[block]
                result.lacking.add(block)


def _cpus(result: Expected, plan: Plan) -> None:
    """Sections that there are once for each CPU; the APIC goes by the APIC id."""
    for name in _PER_CPU:
        if name in result.sections:
            result.sections[name] = set(range(plan.cpus))
    counts = [plan.topology.get(key, 1) for key in ("dies", "cores", "threads")]
    if any(count & (count - 1) for count in counts):
        result.doubts.append("APIC ids of CPUs whose numbers are no powers of two")
        result.sections["apic"] = set(range(1024))


def _memory(result: Expected, plan: Plan, machine: str) -> None:
    size: int | None = plan.memory if plan.memory >= 0 else None
    result.blocks["pc.ram" if "pc.ram" in result.blocks else _main(result)] = size
    main = "pc.ram" if "pc.ram" in result.blocks else _main(result)
    backend = plan.switches.get("memory-backend")
    if plan.numa or backend:
        del result.blocks[main]
        for name in plan.numa or [str(backend)]:
            result.blocks[name] = size_of(plan.objects.get(name, {}).get("size", ""))
            if name not in plan.objects:
                result.holes.append(f"memory backend {name}")
    _firmware(result, plan, machine)


def _main(result: Expected) -> str:
    return next((name for name in result.blocks if name.endswith(".ram")), "pc.ram")


def _firmware(result: Expected, plan: Plan, machine: str) -> None:
    flashes = [plan.switches[key] for key in ("pflash0", "pflash1") if key in plan.switches]
    if flashes:
        result.blocks.pop("pc.bios", None)
        for number, _ in enumerate(flashes):
            size = plan.nodes.get(flashes[number], -1)
            result.blocks[f"system.flash{number}"] = size if size > 0 else None
            result.sections.setdefault("pflash_cfi01", set()).add(number)
        result.blocks["isa-bios"] = None
    elif plan.bios:
        try:
            result.blocks["pc.bios"] = Path(plan.bios).stat().st_size
        except OSError:
            result.blocks["pc.bios"] = None
            result.doubts.append(f"the size of {plan.bios}")
    elif "pc.bios" in result.blocks:
        result.blocks["pc.bios"] = _BIOS_256K
        if machine.startswith(("pc-1.", "pc-i440fx-1.", "isapc", "microvm")):
            result.blocks["pc.bios"] = None
            result.doubts.append("the size of the firmware")


def _device(result: Expected, plan: Plan, facts: Facts, machine: str, device: Device) -> None:
    if device.model == "user-netdev":
        _count(result, "slirp")
        return
    if device.model in ("pc-dimm", "nvdimm"):
        _dimm(result, plan, device)
        return
    if device.path is None:
        return
    if device.path.startswith("mmio "):
        _mmio(result, facts, device)
        return
    if "balloon" in device.model and device.values.get("page-poison", "on") != "off":
        result.poison.add(f"{device.path}/virtio-balloon")
    known = facts.virtio(machine, device.model, port=device.port)
    brought = facts.device(machine, device.model)
    newest = facts.virtio(facts.newest(machine), device.model, port=device.port)
    if known is None and newest is not None:
        known = replace(newest, shape=only_ids(newest.shape), features=None, queues=())
    if brought is None and known is None:
        result.holes.append(f"device {device.model}")
        return
    if brought is None and known is not None:
        brought = Brought((("@/" + known.section, 0),), pci=known)
        if known.section == "virtio-gpu" or "vga" in device.model:
            result.doubts.append(f"what else {device.model} has")
    assert brought is not None
    if known is None and brought.pci is not None:
        known = brought.pci
        if device.port and not device.model.startswith(("x3130", "xio3130")):
            known = replace(known, shape=only_ids(known.shape))
    _brought(result, plan, device, brought, known, machine)


def _brought(
    result: Expected,
    plan: Plan,
    device: Device,
    brought: Brought,
    known: Known | None,
    machine: str,
) -> None:
    path = device.path or ""
    for name, _ in brought.gone:
        result.doubts.append(f"{name}, which {device.model} takes away")
    for name, _ in brought.sections:
        idstr = name.replace("@", path) if name.startswith("@/") else name
        if name.startswith("@/"):
            result.sections.setdefault(idstr, set()).add(0)
            if brought.pci is not None or known is not None:
                result.pci.setdefault(idstr, None)
        else:
            _count(result, idstr)
    sizes = block_sizes(device)
    for name, size in brought.blocks.items():
        block = name.replace("@", path) if name.startswith("@/") else name
        if block.endswith(".rom"):
            continue
        result.blocks[block] = sizes.get(block.rpartition("/")[2], size)
    if device.values.get("romfile") != "" and (known is not None or brought.pci is not None):
        result.roms[path] = device.model
    result.devices[path] = device
    fitted, left = adjust(device, known, plan, machine)
    for idstr in list(result.pci):
        if idstr.rpartition("/")[0] == path and path:
            result.pci[idstr] = fitted
    if left:
        result.doubts.append(f"{device.model} {path}: {', '.join(left)}")
    for key, values in brought.equals.items():
        if key.startswith("@/") and not left:
            result.equals[key.replace("@", path)] = values


def _count(result: Expected, idstr: str) -> None:
    numbers = result.sections.setdefault(idstr, set())
    numbers.add(len(numbers))


def _dimm(result: Expected, plan: Plan, device: Device) -> None:
    name = device.values.get("memdev", "")
    size = size_of(plan.objects.get(name, {}).get("size", ""))
    label = size_of(device.values.get("label-size", "0"))
    result.blocks[name] = None if size < 0 or label < 0 else size


def _mmio(result: Expected, facts: Facts, device: Device) -> None:
    """Devices of microvm go to the last free transport.

    Source: QEMU hw/i386/microvm.c, hw/virtio/virtio-mmio.c.
    """
    known = facts.virtio(facts.aliases.get("q35", ""), f"{device.model[:-6]}pci", port=False)
    if known is None:
        result.holes.append(f"device {device.model}")
        return
    transports = 24 if len(result.sections.get("ioapic", ())) > 1 else 8
    number = transports - 1 - int((device.path or "").rpartition(" ")[2])
    path = f"virtio-mmio@{0xFEB00000 + 512 * number:016x}"
    result.sections[f"{path}/{known.section}"] = {0}
    if left := adjust(device, known, Plan(), "")[1]:
        result.doubts.append(f"{device.model}: {', '.join(left)}")


def _ports(result: Expected, plan: Plan) -> None:
    """Ports are numbered in order; 0 is for a console (hw/char/virtio-serial-bus.c)."""
    buses = {
        one.values.get("id", ""): one.path or "" for one in plan.devices if "serial" in one.model
    }
    for path in buses.values():
        result.ports[path] = set()
    for device in plan.devices:
        if device.model not in ("virtconsole", "virtserialport"):
            continue
        path = buses.get(device.values.get("bus", "").partition(".")[0], "")
        taken = result.ports.get(path)
        if taken is None:
            result.holes.append(f"the bus of {device.model}")
            continue
        given = device.values.get("nr")
        if given is not None and given.isdigit():
            taken.add(int(given))
        elif device.model == "virtconsole" and 0 not in taken:
            taken.add(0)
        else:
            taken.add(next(number for number in range(1, 1024) if number not in taken))
