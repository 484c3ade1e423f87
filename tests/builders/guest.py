"""Streams of machines: RAM blocks and the few sections that tell of memory and CPUs.

::

    machine("pc-q35-8.2", {"pc.ram": 6 << 30}, rtc(2 << 30, 4 << 30), bridge("mch", pam=0x33))

A section is a pair of its entry in the description and its body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from builders import migration as m

__all__ = [
    "aarch64_cpu",
    "bridge",
    "machine",
    "pci",
    "rtc",
    "section",
    "vga",
    "virtio_mem",
    "x86_cpu",
]

Part = tuple[dict[str, Any], bytes]

PAM = {"I440FX": 0x59, "mch": 0x90}


def machine(
    name: str,
    blocks: Mapping[str, int],
    *parts: Part,
    addresses: Mapping[str, int] | None = None,
    described: bool = True,
) -> bytes:
    """A whole stream; `addresses` turns x-ignore-shared on. Without a name no CONFIGURATION."""
    shared = ["x-ignore-shared"] if addresses is not None else None
    listed = [
        m.block(block, size, address=None if addresses is None else addresses.get(block, 0))
        for block, size in blocks.items()
    ]
    sections = [
        m.full(10 + number, entry["name"], instance=entry["instance_id"], version=1, body=body)
        for number, (entry, body) in enumerate(parts)
    ]
    ram = m.device("ram")
    return m.stream(
        m.configuration(name, capabilities=shared) if name else b"",
        m.start(1, body=m.block_list(*listed) + m.eos()),
        m.end(1, body=m.eos()),
        *sections,
        description=m.vmdesc(ram, *(entry for entry, _ in parts)) if described else b"",
    )


def section(
    name: str, *fields: tuple[str, str, int, bytes], instance: int = 0, vmsd: str | None = None
) -> Part:
    """A section of fields: name, type, size of one element, bytes of all."""
    entries = []
    for field, kind, size, data in fields:
        more = {} if len(data) == size else {"array_len": len(data) // size}
        entries.append(m.field(field, kind, size, **more))
    entry = m.device(name, entries, instance=instance, vmsd=vmsd)
    return entry, b"".join(data for *_, data in fields)


def pci(name: str, values: Mapping[int, bytes], *more: tuple[str, str, int, bytes]) -> Part:
    """A PCI device with some bytes of its configuration space set."""
    config = bytearray(256)
    for offset, data in values.items():
        config[offset : offset + len(data)] = data
    return section(name, ("config", "pci config", 256, bytes(config)), *more)


def bridge(name: str, *, pam: int = 0x33, bios: int = 0x30, **registers: int) -> Part:
    """The host bridge: the PAM register of the BIOS area, the six others, and more."""
    values = {PAM[name]: bytes([bios, *[pam] * 6])}
    values |= {int(key[1:], 16): bytes([value]) for key, value in registers.items()}
    return pci(f"0000:00:00.0/{name}", values)


def rtc(low: int, high: int) -> Part:
    """The CMOS with RAM below and above 4 GiB."""
    cmos = bytearray(128)
    cmos[0x30:0x32] = min((low - (1 << 20)) >> 10, 0xFFFF).to_bytes(2, "little")
    cmos[0x34:0x36] = max((low - (16 << 20)) >> 16, 0).to_bytes(2, "little")
    cmos[0x5B:0x5E] = (high >> 16 & 0xFFFFFF).to_bytes(3, "little")
    return section("mc146818rtc", ("cmos_data", "buffer", 128, bytes(cmos)))


def vga(path: str, *, command: int = 2, bar: int = 0xFD000008, **registers: bytes) -> Part:
    """A VGA with its BAR 0 and the registers that decide what lies over its window."""
    values = {4: bytes([command, 0]), 0x0A: bytes([0, 3]), 0x10: bar.to_bytes(4, "little")}
    return pci(
        f"{path}/vga",
        values,
        ("sr", "buffer", 8, registers.get("sr", bytes(8))),
        ("gr", "buffer", 16, registers.get("gr", bytes(16))),
        ("bank_offset", "int32", 4, registers.get("bank", bytes(4))),
        ("vbe_regs", "uint16", 2, registers.get("vbe", bytes(20))),
    )


def virtio_mem(path: str, address: int, block_size: int, plugged: Sequence[int]) -> Part:
    """The early section of virtio-mem with a bitmap of one word for each item."""
    words = b"".join(m.be64(word) for word in plugged)
    checks = m.be64(address) + m.be64(len(plugged) * 64 * block_size) + m.be64(block_size)
    names = ("addr", "uint64", 8), ("region_size", "uint64", 8), ("block_size", "uint64", 8)
    fields = [m.field(*one) for one in (*names, ("node", "uint32", 4))]
    struct = {"vmsd_name": "tmp", "version": 1, "fields": fields}
    entry = m.device(
        f"{path}/virtio-mem-device-early",
        [
            m.field("tmp", "struct", 28, struct=struct),
            m.field("size", "uint64", 8),
            m.field("bitmap", "bitmap", len(words)),
        ],
    )
    return entry, checks + m.be32(0) + m.be64(0) + words


def x86_cpu(index: int = 0, *, registers: int = 16, **values: int) -> Part:
    """An x86 CPU; register n of env.regs is 0x1000 * (n + 1) + index, segments alike."""
    word = m.be64 if registers == 16 else m.be32
    kind, size = ("uint64", 8) if registers == 16 else ("uint32", 4)
    regs = b"".join(word(0x1000 * (n + 1) + index) for n in range(registers))
    parts = [
        m.field("selector", "uint32", 4),
        m.field("base", kind, size),
        m.field("limit", "uint32", 4),
        m.field("flags", "uint32", 4),
    ]
    struct = {"vmsd_name": "segment", "version": 1, "fields": parts}
    length = 12 + size
    fields: list[dict[str, Any]] = [
        m.field("env.regs", kind, size, array_len=registers),
        m.field("env.eip", kind, size),
        m.field("env.eflags", kind, size),
        m.field("env.segs", "struct", length, array_len=6, struct=struct),
    ]
    fields += [
        m.field(f"env.{name}", "struct", length, struct=struct)
        for name in ("ldt", "tr", "gdt", "idt")
    ]
    data = regs + word(values.get("rip", 0xFFF0)) + word(values.get("eflags", 2))
    for number in range(10):
        data += m.be32(number) + word(0x10000 * number) + m.be32(0xFFFF) + m.be32(0x9300)
    for name in ("env.cr[0]", "env.cr[2]", "env.cr[3]", "env.cr[4]"):
        fields.append(m.field(name, kind, size))
        data += word(values.get("cr" + name[7], 0))
    if registers == 16:
        fields += [m.field("env.efer", "uint64", 8), m.field("env.kernelgsbase", "uint64", 8)]
        data += m.be64(values.get("efer", 0)) + m.be64(values.get("kernel_gs_base", 0))
    return m.device("cpu", fields, instance=index), data


def aarch64_cpu(index: int = 0, *, cpsr: int = 0x3C5) -> Part:
    """An Arm CPU; register n of env.xregs is 0x100 + n, of env.regs 0x10 + n."""
    regs = b"".join(m.be32(0x10 + n) for n in range(16))
    xregs = b"".join(m.be64(0x100 + n) for n in range(32))
    return section(
        "cpu",
        ("env.regs", "uint32", 4, regs),
        ("env.xregs", "uint64", 8, xregs),
        ("env.pc", "uint64", 8, m.be64(0x40000200)),
        ("cpsr", "cpsr", 4, m.be32(cpsr)),
        instance=index,
    )
