"""Our layout of guest memory against QEMU's own: its memory map, and its dump of a guest.

What is known to differ:

* QEMU's dump has no flash (`memory_region_is_ram` is false for it) and no memory
  of a device that is not plain RAM; ours has the flash.
* A VMware adapter's ``vmsvga.fifo`` has no device in its name: we leave it out.
* Of a QXL with more memory than its first window shows we have the second only.
* QEMU's map has all of virtio-mem's area; ours, as its dump, what is plugged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from saved import Memory, flat_view, load_segments, our_view, stopped, stream_of

from cprformats.guest import NoLayout, PhysicalRange, physical_layout
from qemus import VERSIONS, qemu_path

pytestmark = pytest.mark.live

PC = ["pc", "q35", "microvm", "isapc"]
SIZES = ["3G", "4G", "6G"]
ARM = {"target": "aarch64"}


def backend(name: str, size: str, kind: str = "ram") -> list[str]:
    more = ",share=on" if kind == "memfd" else ""
    return ["-object", f"memory-backend-{kind},id={name},size={size}{more}"]


def compare(
    version: str, line: list[str], folder: Path, seconds: float = 0, **more: Any
) -> tuple[str, ...]:
    """Check that our ranges are QEMU's; give the notes."""
    ram = more.pop("ram", ())
    shared = more.pop("shared", False)
    with stopped(version, line, folder, seconds=seconds, **more) as vm:
        wanted = flat_view(vm)
        if shared:
            vm.capabilities("x-ignore-shared")
        with stream_of(vm) as stream:
            layout = physical_layout(stream, ram)
    assert our_view(layout.ranges) == wanted
    return layout.notes


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("machine", ["pc", "q35", "microvm"])
@pytest.mark.parametrize("version", ["5.2", "10.0", "11.1"])
def test_split_at_4_gib(version: str, machine: str, size: str, tmp_path: Path) -> None:
    notes = compare(version, ["-machine", f"{machine},accel=tcg", "-m", size], tmp_path)
    assert not [note for note in notes if "RTC" in note and machine != "microvm"]


@pytest.mark.parametrize("machine", PC)
@pytest.mark.parametrize("version", VERSIONS)
def test_after_firmware(version: str, machine: str, tmp_path: Path) -> None:
    line = ["-machine", f"{machine},accel=tcg", "-m", "48"]
    line += ["-device", "VGA"] if machine in ("pc", "q35") else []
    line += ["-device", "isa-vga"] if machine == "isapc" else []
    compare(version, line, tmp_path, seconds=1)


@pytest.mark.parametrize("device", ["qxl-vga", "cirrus-vga", "virtio-vga", "bochs-display"])
def test_video_memory(device: str, tmp_path: Path) -> None:
    line = ["-machine", "pc,accel=tcg", "-m", "48", "-device", device, "-device", "secondary-vga"]
    compare("10.0", line, tmp_path, seconds=1)


@pytest.mark.parametrize(
    ("machine", "size"), [("pc-i440fx-1.7", "5G"), ("pc-1.0", "3584M"), ("pc-i440fx-2.3", "4G")]
)
def test_old_machine_types(machine: str, size: str, tmp_path: Path) -> None:
    """Their name is not in the stream."""
    notes = compare("5.2", ["-machine", f"{machine},accel=tcg", "-m", size], tmp_path)
    assert "the stream does not name the machine type" in notes[0]


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_split_that_the_user_moved(machine: str, tmp_path: Path) -> None:
    line = ["-machine", f"{machine},accel=tcg,max-ram-below-4g=1G", "-m", "4G"]
    notes = compare("10.0", line, tmp_path)
    assert notes[0].startswith("RAM below 4 GiB ends at 0x40000000 as the RTC says")


@pytest.mark.parametrize("machine", ["q35", "pc-i440fx-4.0"])
def test_memory_backend(machine: str, tmp_path: Path) -> None:
    line = ["-machine", f"{machine},accel=tcg,memory-backend=any", "-m", "5G"]
    assert compare("10.0", [*line, *backend("any", "5G")], tmp_path) == ()


@pytest.mark.parametrize(("version", "machine"), [("7.2", "pc"), ("10.0", "q35"), ("11.1", "q35")])
def test_flash(version: str, machine: str, tmp_path: Path) -> None:
    """The BIOS in the first flash, nothing in the second; before 10.0 it is copied below 1 MiB."""
    bios = next(qemu_path(version).parent.parent.glob("**/bios-256k.bin")).read_bytes()
    line = ["-machine", f"{machine},accel=tcg", "-m", "48"]
    for unit, contents in enumerate((bios, bytes(len(bios)))):
        (tmp_path / f"flash{unit}").write_bytes(contents)
        line += ["-drive", f"if=pflash,unit={unit},format=raw,file=flash{unit}"]
    compare(version, line, tmp_path, seconds=1)
    compare(version, line, tmp_path)


NUMA = ["-machine", "q35,accel=tcg", "-smp", "2"]


def numa(first: str, second: str, kind: str = "ram") -> list[str]:
    nodes = [("-numa", f"node,memdev={name},cpus={n}") for n, name in enumerate((first, second))]
    backends = [*backend(first, "1G", kind), *backend(second, "3G", kind)]
    return [*NUMA, "-m", "4G,slots=4,maxmem=9G", *backends, *nodes[0], *nodes[1]]


def test_numa(tmp_path: Path) -> None:
    compare("10.0", numa("ram-node0", "ram-node1"), tmp_path)
    with pytest.raises(NoLayout, match="several RAM blocks may be"):
        compare("10.0", numa("a", "b"), tmp_path)
    compare("10.0", numa("a", "b"), tmp_path, ram=("a", "b"))
    compare("10.0", numa("a", "b", "memfd"), tmp_path, shared=True)


def test_dimms_under_ignore_shared(tmp_path: Path) -> None:
    dimm = [*backend("c", "256M", "memfd"), "-device", "pc-dimm,memdev=c,addr=0x190000000"]
    line = [*numa("a", "b", "memfd"), *dimm]
    compare("10.0", line, tmp_path, shared=True, ram=("a", "b"))


@pytest.mark.parametrize("size", ["64M", "6G"])
def test_arm_virt(size: str, tmp_path: Path) -> None:
    line = ["-machine", "virt,accel=tcg", "-cpu", "cortex-a57", "-m", size]
    assert compare("10.0", line, tmp_path, **ARM) == ()


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("aarch64", ["-machine", "virt,accel=tcg,secure=on", "-cpu", "cortex-a57"]),
        ("aarch64", ["-machine", "virt,accel=tcg,memory-backend=any", *backend("any", "64M")]),
        ("riscv64", ["-machine", "virt,accel=tcg"]),
        ("riscv64", ["-machine", "virt,accel=tcg,memory-backend=any", *backend("any", "64M")]),
        ("s390x", ["-machine", "s390-ccw-virtio,accel=tcg"]),
    ],
)
def test_other_targets(target: str, line: list[str], tmp_path: Path) -> None:
    compare("10.0", [*line, "-m", "64M"], tmp_path, target=target)


# -- contents -------------------------------------------------------------------------


def pieces(ranges: tuple[PhysicalRange, ...]) -> list[tuple[int, int]]:
    """Addresses without flash, joined across blocks."""
    result: list[tuple[int, int]] = []
    for one in ranges:
        if one.kind == "flash":
            continue
        if result and result[-1][1] == one.start:
            result[-1] = (result[-1][0], one.end)
        else:
            result.append((one.start, one.end))
    return result


@pytest.mark.parametrize(
    ("version", "line", "more"),
    [
        ("10.0", ["-machine", "pc,accel=tcg", "-device", "VGA"], {}),
        ("11.1", ["-machine", "pc,accel=tcg"], {}),
        ("10.0", ["-machine", "q35,accel=tcg"], {}),
        ("11.1", ["-machine", "q35,accel=tcg", "-device", "VGA"], {}),
        ("7.2", ["-machine", "q35,accel=tcg", "-device", "e1000"], {}),
        ("10.0", ["-machine", "microvm,accel=tcg"], {}),
        ("10.0", ["-machine", "virt,accel=tcg", "-cpu", "cortex-a57"], ARM),
    ],
)
def test_same_bytes_as_qemus_dump(
    version: str, line: list[str], more: dict[str, str], tmp_path: Path
) -> None:
    with stopped(version, [*line, "-m", "48"], tmp_path, seconds=1.2, **more) as vm:
        vm.qmp("dump-guest-memory", {"paging": False, "protocol": "file:qemus.core"})
        with stream_of(vm) as stream:
            memory, layout = Memory.of(stream), physical_layout(stream)
            ours = {one.start: memory.range(one) for one in layout.ranges}
    dump = (tmp_path / "qemus.core").read_bytes()
    segments = sorted(load_segments(tmp_path / "qemus.core"), key=lambda one: one[1])
    theirs = tuple(PhysicalRange(start, size, "", 0) for _, start, size in segments)
    assert pieces(layout.ranges) == pieces(theirs)
    compared = 0
    for offset, start, size in segments:
        for one in layout.ranges:
            low, high = max(start, one.start), min(start + size, one.end)
            if low < high:
                got = ours[one.start][low - one.start : high - one.start]
                assert got == dump[offset + low - start : offset + high - start], hex(low)
                compared += high - low
    assert compared == sum(size for _, _, size in segments)
