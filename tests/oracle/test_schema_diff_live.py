"""What we say of two QEMUs' formats against what these QEMUs do, and against QEMU's checker.

A state that one release really saved goes to another release. Each description in it
that differs has a verdict: if all say "loads", QEMU must load it; if QEMU loads it,
none may say "fails". Then the descriptions of two releases are compared by QEMU's own
scripts/vmstate-static-checker.py, which reads dumps, and by us.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import qemus
import qemus_apt
from cprformats.migration import read_stream
from cprformats.migration.vmdesc import VmsdDesc
from cprformats.schema.diff import diff_schemas
from cprformats.schema.difference import DifferenceKind, Rule, SchemaDiff, Verdict
from cprformats.schema.dump import read_dump
from cprformats.schema.meaning import Judge
from cprformats.schema.model import Schema
from cprformats.source import FileSource
from cprtools.schemas.opening import open_schema
from vm import Vm, VmError

pytestmark = pytest.mark.live

IPMI = ("-device", "ipmi-bmc-sim,id=b", "-device", "isa-ipmi-kcs,bmc=b")
SCSI = ("-device", "am53c974")
VIRTIO = ("-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n", "-device", "virtio-rng-pci")
SOUND = ("-audiodev", "none,id=a", "-device", "sb16,audiodev=a")
MANY = ("-device", "e1000e", "-device", "VGA", "-device", "qemu-xhci", "-device", "usb-kbd")
NVME = ("-blockdev", "null-co,node-name=d,read-zeroes=on", "-device", "nvme,serial=1,drive=d")
BUSES = tuple(
    word
    for device in (
        *("lsi53c895a", "megasas", "pvscsi", "intel-hda", "pcnet"),
        *("rtl8139", "e1000", "usb-ehci", "piix3-usb-uhci", "pci-serial", "i6300esb", "pci-bridge"),
        *("sdhci-pci", "edu", "ich9-ahci,addr=1e.0"),
    )
    for word in ("-device", f"{device},chassis_nr=1" if device == "pci-bridge" else device)
)
#: from, to, machine, devices, the section that QEMU refuses ("" where it loads all)
LOADS = [
    ("5.2", "7.2", "pc-i440fx-5.2", SCSI, ""),
    ("7.2", "5.2", "pc-i440fx-5.2", SCSI, "pciespscsi"),
    # One byte too few: the field drq_state is not conditional, and esp's version is not sent.
    ("8.2", "10.0", "pc-i440fx-8.2", SCSI, "pciespscsi"),
    # One byte too many, which another field takes: loaded, though not right.
    ("10.0", "8.2", "pc-i440fx-8.2", SCSI, ""),
    ("10.0", "11.1", "pc-i440fx-10.0", SCSI, ""),
    ("11.1", "10.0", "pc-i440fx-10.0", SCSI, "pciespscsi"),
    ("10.0", "11.1", "pc-q35-10.0", IPMI, ""),
    ("11.1", "10.0", "pc-q35-10.0", IPMI, "ipmi-bmc-sim"),
    ("8.2", "10.0", "pc-i440fx-8.2", SOUND, ""),
    ("10.0", "8.2", "pc-i440fx-8.2", SOUND, ""),
    ("7.2", "11.1", "pc-q35-7.2", VIRTIO, ""),
    ("11.1", "7.2", "pc-q35-7.2", VIRTIO, ""),
    ("7.2", "8.2", "pc-q35-7.2", MANY, ""),
    ("8.2", "10.0", "pc-q35-8.2", MANY, ""),
    ("10.0", "8.2", "pc-q35-8.2", MANY, ""),
    ("5.2", "7.2", "pc-i440fx-5.2", ("-icount", "shift=auto"), "timer"),
    ("11.1", "10.0", "pc-q35-10.0", NVME, "nvme"),
    ("5.2", "7.2", "pc-i440fx-5.2", BUSES, ""),
    ("7.2", "8.2", "pc-i440fx-7.2", BUSES, ""),
    ("8.2", "10.0", "pc-i440fx-8.2", BUSES, ""),
    ("10.0", "11.1", "pc-i440fx-10.0", BUSES, ""),
    ("11.1", "10.0", "pc-i440fx-10.0", BUSES, ""),
]
#: Descriptions that the hand-written format of a virtio device holds, besides its own.
IN_VIRTIO = ("virtio", "virtqueue_state", "virtio_pci", "virtio_pci/modern_state", "PCIDevice")


@cache
def schema(version: str) -> Schema:
    wrapper = qemus.qemu_path(version).read_text()
    program = re.search(r"--library-path \S+ (\S+)", wrapper)
    assert program
    return open_schema(program[1], cache=False)


@cache
def difference(old: str, new: str) -> SchemaDiff:
    return diff_schemas(schema(old), schema(new))


# -- against loading -----------------------------------------------------------------


def names(one: VmsdDesc) -> Iterator[str]:
    """All descriptions that a section holds."""
    yield one.vmsd_name
    for field in one.fields:
        if field.type == "virtio":
            yield from (*IN_VIRTIO, f"{one.vmsd_name}-device")
        for inner in (*([field.struct] if field.struct else ()), *field.inline):
            yield from names(inner)
    for subsection in one.subsections:
        yield from names(subsection)


def present(path: Path) -> set[str]:
    with path.open("rb") as file:
        stream = read_stream(FileSource(file))
        assert stream.error is None
        assert stream.vmdesc is not None
        devices = [one.vmsd for one in stream.vmdesc.devices if not one.old_style]
    return {name for one in devices for name in names(one)}


def load(version: str, line: list[str], folder: Path) -> None:
    """Load the saved state; VmError says why it can't be."""
    with Vm(version, [*line, "-incoming", "defer"], folder, name="to") as vm:
        vm.qmp("migrate-incoming", {"uri": "exec:cat state"})
        vm.wait_migrated()


@pytest.mark.parametrize(("source", "target", "machine", "devices", "refused"), LOADS)
def test_what_loads(
    source: str, target: str, machine: str, devices: tuple[str, ...], refused: str, tmp_path: Path
) -> None:
    line = ["-machine", machine, "-display", "none", "-nodefaults", "-S", "-m", "16", *devices]
    with Vm(source, line, tmp_path, name="from") as vm:
        vm.migrate("exec:cat > state")
    error = ""
    try:
        load(target, line, tmp_path)
    except VmError as problem:
        error = str(problem)

    held = present(tmp_path / "state")
    found = [one for one in difference(source, target).differences if one.name in held]
    verdicts = {one.name: one.old_in_new.verdict for one in found}
    print(f"{source} -> {target}: {len(held)} descriptions, {verdicts}; {error or 'loaded'}")
    assert len(held) > 20
    if refused:
        assert refused in error
        assert set(verdicts.values()) != {Verdict.LOADS}
    else:
        assert error == ""
        assert Verdict.FAILS not in verdicts.values()


def test_what_a_function_refuses_is_not_seen(tmp_path: Path) -> None:
    """virtio_load of 11.1 doesn't take the queue sizes that 10.0 gives an idle device."""
    line = ["-machine", "pc-i440fx-10.0", "-display", "none", "-nodefaults", "-S"]
    line += ["-device", "virtio-scsi-pci"]
    with Vm("10.0", line, tmp_path, name="from") as vm:
        vm.migrate("exec:cat > state")
    with pytest.raises(VmError, match=r"vring\.num 1024 exceeds allocated max 256"):
        load("11.1", line, tmp_path)
    (virtio,) = (one for one in difference("10.0", "11.1").differences if one.name == "virtio")
    assert virtio.old_in_new.verdict is Verdict.LOADS


def test_two_subsections_of_one_name(tmp_path: Path) -> None:
    """11.1 can't load what it saved: it takes the format of the first for both."""
    one = schema("11.1")
    (card,) = one.named("sd-card")
    meaning = Judge(one, one).section(card, card)
    assert [(reason.rule, reason.what) for reason in meaning.reasons] == [
        (Rule.SUBSECTION, "sd-card/ext_csd_modes-state")
    ]
    size = 128 << 10  # of the partition that the second one is for
    (tmp_path / "disk").write_bytes(bytes((16 << 20) + size))
    line = ["-machine", "q35", "-display", "none", "-nodefaults", "-S", "-device", "sdhci-pci"]
    line += ["-drive", "if=none,id=d,file=disk,format=raw"]
    line += ["-device", f"emmc,drive=d,rpmb-partition-size={size}"]
    with Vm("11.1", line, tmp_path, name="from") as vm:
        vm.migrate("exec:cat > state")
    with pytest.raises(VmError, match="Missing section footer for sd-card"):
        load("11.1", line, tmp_path)


# -- against QEMU's checker ------------------------------------------------------------

#: What the test data of the checker hold, by the description or device that each
#: complaint names. Its own complaint about fusbh200-ehci-usb's version is about a number
#: that a dump holds twice; QEMU always writes the same one.
COMPLAINTS = {
    'Section "fw_cfg" does not exist in dest': "device fw_cfg",
    'Description "ehci-core": expected field "usbsts"': "ehci-core",
    'Description "pci-serial-multi": Entry "Fields" missing': "pci-serial-multi",
    'Description "intel-hda", Field "pci": missing description': "intel-hda",
    'Section "cfi.pflash01": Entry "Description" missing': "pflash_cfi01",
    'Description "PCIDevice": expected field "irq_state"': "PCIDevice",
    'Description "PIIX3": minimum version error': "PIIX3",
    'Description "PIIX3": Entry "Subsections" missing': "PIIX3/rcr",
    'Description "tpci200" missing, got "tpci2002"': "tpci2002",
    'Description "fdc": version error: 2 > 1': "fdc",
    'Subsection "fdrive/media_rate" not found': "fdrive/media_rate",
    'Field "kbd.keycodes" size mismatch': "usb-kbd",
}
LEFT_OUT = 'Section "fusbh200-ehci-usb" version error'


def checker(old: Path, new: Path) -> list[str]:
    """The complaints of QEMU's script."""
    script = qemus.source_package("10.0") / "scripts" / "vmstate-static-checker.py"
    line = [sys.executable, script, "-s", old, "-d", new]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    return [one for one in lines if one and not one.startswith("Warning: ")]


@cache
def checker_data() -> Path:
    """The folder of the checker's test data, taken out of the source package if missing."""
    folder = qemus.cache_dir() / "10.0" / "vmstate-static-checker-data"
    if not folder.exists():
        with (
            qemus_apt.private_apt(qemus.SUITES["10.0"].names) as (apt, env),
            qemus.replacing(folder) as made,
        ):
            qemus_apt.run(["apt-get", "source", "-q", "--download-only", "qemu"], env, cwd=apt)
            archive = next(apt.glob("qemu_*.orig.tar.?z*"))
            inside = "*/tests/vmstate-static-checker-data/"
            taken = ["--wildcards", "--strip-components=3", "-xf", archive, f"{inside}*"]
            qemus_apt.run(["tar", "-C", made, "--no-same-owner", *taken])
    return folder


def dump_of(path: Path) -> Schema:
    """A dump without entries that QEMU never writes: those that have no description."""
    members = json.loads(path.read_text())
    kept = {k: v for k, v in members.items() if k == "vmschkmachine" or "Description" in v}
    return read_dump(json.dumps(kept).encode())


def test_the_deviations_of_the_checkers_test_data() -> None:
    old, new = (checker_data() / name for name in ("dump1.json", "dump2.json"))
    complaints = [one for one in checker(old, new) if LEFT_OUT not in one]
    diff = diff_schemas(dump_of(old), dump_of(new))
    found = {one.name: one for one in diff.differences}
    devices = {f"device {name}" for name in diff.devices_removed}
    unknown = [one for one in complaints if not any(words in one for words in COMPLAINTS)]
    missed = [what for what in COMPLAINTS.values() if what not in found.keys() | devices]
    assert (unknown, missed) == ([], [])
    assert len(complaints) == len(COMPLAINTS)
    harmless = [
        what
        for what in COMPLAINTS.values()
        if what in found and found[what].old_in_new.verdict is Verdict.LOADS
    ]
    assert harmless == []


def test_the_checkers_test_data_by_themselves() -> None:
    one = dump_of(checker_data() / "dump1.json")
    assert diff_schemas(one, one).differences == ()


def dump(version: str, machine: str, folder: Path) -> Path:
    file = folder / f"{version}.json"
    line = [qemus.qemu_path(version), "-machine", machine, "-display", "none"]
    subprocess.run([*line, "-dump-vmstate", file], check=True, capture_output=True, timeout=60)
    return file


#: Complaints about real releases that are none to us, with the reason.
ACQUITTED = {
    ("num_timers", "num_timers_save", '"hpet"'): "one byte, under another name",
    ("hw_error_le", "ghes_addr_le"): "eight bytes, under another name",
    ("expected field", '"ext_csd_rw", got'): "11.1 has two of that name; the first is taken",
    ("version error: 2 > 0", '"hpet"'): "of a field, whose version is not on the wire",
    ("version error: ", " > 0", '"mc146818rtc"'): "of fields, likewise",
}
STEPS = [("7.2", "8.2"), ("8.2", "10.0"), ("10.0", "11.1")]
NAMED = re.compile(r'(?:Description|Subsection) "([^"]+)"')
SECTION = re.compile(r'Section "([^"]+)"')


def acquitted(line: str) -> bool:
    return any(all(word in line for word in words) for words in ACQUITTED)


def unheard(lines: list[str], diff: SchemaDiff, way: str, devices: dict[str, str]) -> Iterator[str]:
    """Complaints of the checker that our verdicts for that direction don't bear out."""
    gone = diff.devices_removed if way == "old_in_new" else diff.devices_added
    moved = {device for device, _, _ in diff.devices_changed}
    harmful = {
        one.name for one in diff.differences if getattr(one, way).verdict is not Verdict.LOADS
    }
    for line in lines:
        device = SECTION.search(line)
        assert device, line
        heard = device[1] in gone if "does not exist" in line else device[1] in moved
        blamed = NAMED.findall(line) or [devices.get(device[1], "")]
        heard = heard or bool(harmful & set(blamed))
        if not heard and not acquitted(line):
            yield line


@pytest.mark.parametrize(("old", "new"), STEPS)
def test_real_releases_as_the_checker_sees_them(old: str, new: str, tmp_path: Path) -> None:
    files = [dump(version, "none", tmp_path) for version in (old, new)]
    forward, backward = checker(*files), checker(*files[::-1])
    schemas = [dump_of(file) for file in files]
    diff = diff_schemas(*schemas)
    devices = {type_: key for one in schemas for type_, key in one.devices.items()}
    assert list(unheard(forward, diff, "old_in_new", devices)) == []
    assert list(unheard(backward, diff, "new_in_old", devices)) == []
    # And the other way round: what can't be loaded at all, the checker sees too.
    for lines, way in ((forward, "old_in_new"), (backward, "new_in_old")):
        text = "\n".join(lines)
        failing = [
            one.name
            for one in diff.of_kind(DifferenceKind.CHANGED)
            if getattr(one, way).verdict is Verdict.FAILS
        ]
        print(f"{old} {new} {way}: {len(lines)} complaints, failing {failing}")
        assert [name for name in failing if f'"{name}"' not in text] == []
