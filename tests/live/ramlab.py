"""Real guests with memory that is known, and their migration in each RAM encoding.

The guest is 64 KiB of firmware in real mode, over RAM full of a pattern. Where it runs, it
writes below 1 MiB for ever: little changes in some pages, others turned to zero and back. It
runs under KVM, since TCG up to 8.2 misses most of what a guest writes while it is migrated.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from builders.libvirt import save_image
from recorder import Recorder
from vm import STATES_OVER, Vm, VmError

MIB = 1 << 20
PAGE = 4096
RAM_BYTES = 16 * MIB
#: Between them the CPU sees no RAM, and nothing of ours lies there.
LOW_END, HIGH_START = 0xA0000, MIB
STEM = "stream"
STREAM = f"{STEM}.sav"
FAST = 1 << 30
#: Bytes a second: of the first pass, from its end on, and of passes that send mere deltas. QEMU
#: sends for a tenth of a second at once: if a whole pass fits in, it may well be the last, since
#: a guest in an emulated KVM has written nothing meanwhile.
SLOW, SLOWER, CRAWL = 3 * MIB, MIB, MIB // 5
PASSES = 5
FEWEST_PASSES = 3
#: As QEMU counts, which includes pages that turn out not to have changed.
DELTAS = 250
ATTEMPTS = 4
#: Where the target of a postcopy reads before all has come.
FAULTS = (0x20000, 9 * MIB, RAM_BYTES - MIB)
DIMM_ADDRESS, DIMM_BYTES = 1 << 32, 2 * MIB
DIMM = (
    *("-m", f"{RAM_BYTES // MIB},maxmem=1G,slots=1"),
    *("-object", f"memory-backend-ram,id=dimm,size={DIMM_BYTES}"),
    *("-device", f"pc-dimm,memdev=dimm,addr={DIMM_ADDRESS:#x}"),
)
PT_LOAD = 1
#: Number of libvirt's format for mapped-ram.
SPARSE = 6
#: Until the guest has been through its rounds; a KVM without hardware needs 4 ms for each.
WARM_S = 0.3

# For ever: write a number at 0x10 of each page from 0x10000 to 0x5ffff, and 128 times from 0x400
# on; then turn one of the 32 pages at 0x60000 to zero, or, 32 rounds later, to a copy of the page
# 0x20000 behind it.
WRITER = bytes.fromhex(
    "31db"  # xor bx, bx
    "fc"  # cld
    "43"  # round: inc bx
    "ba0010"  # mov dx, 0x1000
    "8eda"  # page: mov ds, dx
    "8ec2"  # mov es, dx
    "891e1000"  # mov [0x10], bx
    "6689d8"  # mov eax, ebx
    "bf0004"  # mov di, 0x400
    "b98000"  # mov cx, 0x80
    "66f3ab"  # rep stosd
    "81c20001"  # add dx, 0x100
    "81fa0060"  # cmp dx, 0x6000
    "75e2"  # jne page
    "89d8"  # mov ax, bx
    "83e01f"  # and ax, 0x1f
    "c1e008"  # shl ax, 8
    "050060"  # add ax, 0x6000
    "8ec0"  # mov es, ax
    "31ff"  # xor di, di
    "b90004"  # mov cx, 0x400
    "f6c320"  # test bl, 0x20
    "7508"  # jnz copy
    "6631c0"  # xor eax, eax
    "66f3ab"  # rep stosd
    "ebbf"  # jmp round
    "050020"  # copy: add ax, 0x2000
    "8ed8"  # mov ds, ax
    "31f6"  # xor si, si
    "66f3a5"  # rep movsd
    "ebb3"  # jmp round
)
FIRMWARE_BYTES = 0x10000
RESET = 0xFFF0
JUMP_TO_START = b"\xe9" + (FIRMWARE_BYTES - RESET - 3).to_bytes(2, "little")

#: Parts of the guest's RAM by offset, by who said it.
Parts = dict[str, dict[int, bytes]]


class TooFewPasses(VmError):
    """The guest wrote so little that QEMU was through at once."""


@cache
def pattern() -> bytes:
    """What RAM holds at first: noise, text, runs of zeros, single zeros, pages nearly equal."""
    chance = random.Random(1)
    alike = chance.randbytes(PAGE)
    pages: list[bytes] = []
    while len(pages) < RAM_BYTES // PAGE:
        kind = chance.choices(("noise", "text", "zeros", "zero", "alike"), (3, 3, 2, 2, 3))[0]
        if kind == "noise":
            pages += (chance.randbytes(PAGE) for _ in range(chance.randrange(1, 9)))
        elif kind == "text":
            line = f"page {len(pages)} has text that packs well\n".encode()
            pages.append((line * PAGE)[:PAGE])
        elif kind == "zeros":
            pages += [bytes(PAGE)] * chance.randrange(2, 40)
        elif kind == "zero":
            pages += [bytes(PAGE), chance.randbytes(PAGE)]
        else:
            place = chance.randrange(PAGE - 3)
            pages.append(alike[:place] + chance.randbytes(3) + alike[place + 3 :])
    return b"".join(pages)[:RAM_BYTES]


@cache
def first_memory() -> bytes:
    """The whole of the block before the guest runs."""
    whole = bytearray(pattern())
    whole[LOW_END:HIGH_START] = bytes(HIGH_START - LOW_END)
    return bytes(whole)


def write_inputs(folder: Path) -> None:
    """Write what the command line names: the firmware and the pattern in two parts."""
    firmware = bytearray(FIRMWARE_BYTES)
    firmware[: len(WRITER)] = WRITER
    firmware[RESET : RESET + 3] = JUMP_TO_START
    (folder / "writer.bin").write_bytes(firmware)
    (folder / "low.bin").write_bytes(pattern()[:LOW_END])
    (folder / "high.bin").write_bytes(pattern()[HIGH_START:])


def machine(name: str, *, shared: bool) -> list[str]:
    """The command line of either side; shared RAM is a file that we can read, `name`.ram."""
    words = f"-machine q35 -accel kvm -m {RAM_BYTES // MIB} -nodefaults -display none -vga none"
    words += " -bios writer.bin"
    if shared:
        words += (
            f" -object memory-backend-file,id=ram,size={RAM_BYTES},mem-path={name}.ram,share=on"
            " -machine memory-backend=ram"
        )
    return words.split()


def load(part: str, address: int) -> list[str]:
    return ["-device", f"loader,file={part}.bin,addr={address:#x},force-raw=on"]


@dataclass(frozen=True)
class Encoding:
    """One way to send RAM.

    Attributes:
        name: as in a test's id.
        versions: that have it, of qemus.VERSIONS.
        capabilities: migration capabilities to turn on.
        parameters: migration parameters to set.
        running: the guest writes meanwhile, and there are several passes.
        way: name of the function in `WAYS` that takes the stream.
        shared: RAM is a file; else anonymous memory.
        options: more words of the command line.
    """

    name: str
    versions: tuple[str, ...]
    capabilities: tuple[str, ...] = ()
    parameters: tuple[tuple[str, Any], ...] = ()
    running: bool = False
    way: str = "pipe"
    shared: bool = True
    options: tuple[str, ...] = ()

    @property
    def block(self) -> str:
        """Name of the guest's RAM in the stream."""
        return "ram" if self.shared else "pc.ram"


@dataclass(frozen=True)
class Capture:
    """A saved guest.

    Attributes:
        stream: the main channel.
        channels: the other ones' files.
        blocks: what must be extracted, by idstr.
        more: what else tells of the guest's RAM.
        absent: blocks that are listed but not in the file.
    """

    stream: Path
    channels: list[Path]
    blocks: dict[str, bytes]
    more: Parts
    absent: tuple[str, ...] = ()


# --- VMs -------------------------------------------------------------------


@contextmanager
def source(version: str, encoding: Encoding, folder: Path, *more: str) -> Iterator[Vm]:
    """The guest that is saved, with its capabilities set; it runs if it should."""
    write_inputs(folder)
    words = [*machine("source", shared=encoding.shared), *encoding.options, *more, "-S"]
    words += [*load("low", 0), *load("high", HIGH_START)]
    with Vm(version, words, folder, name="source") as vm:
        set_up(vm, encoding)
        if encoding.running:
            vm.qmp("cont")
            time.sleep(WARM_S)
        yield vm


@contextmanager
def target(version: str, encoding: Encoding, folder: Path) -> Iterator[Vm]:
    """A QEMU that waits for a migration and won't run what comes; its RAM is empty."""
    words = [*machine("target", shared=encoding.shared), *encoding.options]
    with Vm(version, [*words, "-S", "-incoming", "defer"], folder, name="target") as vm:
        set_up(vm, encoding)
        yield vm


def set_up(vm: Vm, encoding: Encoding) -> None:
    vm.capabilities(*encoding.capabilities)
    if encoding.parameters:
        vm.qmp("migrate-set-parameters", dict(encoding.parameters))


def seen_by_qemu(vm: Vm) -> dict[int, bytes]:
    """What QEMU itself reads of a stopped guest's memory, without the hole below 1 MiB."""
    parts = {}
    for start, end in ((0, LOW_END), (HIGH_START, RAM_BYTES)):
        name = f"{vm.name}-{start:#x}.mem"
        vm.qmp("pmemsave", {"val": start, "size": end - start, "filename": name})
        parts[start] = (vm.folder / name).read_bytes()
    return parts


def dumped_by_qemu(vm: Vm) -> dict[int, bytes]:
    """What dump-guest-memory writes of a stopped guest, without the hole below 1 MiB."""
    path = vm.folder / f"{vm.name}.elf"
    vm.qmp("dump-guest-memory", {"paging": False, "protocol": f"file:{path}"})
    data = path.read_bytes()
    (table,) = struct.unpack_from("<Q", data, 0x20)
    size, count = struct.unpack_from("<HH", data, 0x36)
    parts = {}
    for at in range(table, table + size * count, size):
        kind, _, offset, _, address, length = struct.unpack_from("<IIQQQQ", data, at)
        if kind == PT_LOAD and (address < LOW_END or HIGH_START <= address < RAM_BYTES):
            end = min(address + length, LOW_END if address < LOW_END else RAM_BYTES)
            parts[address] = data[offset : offset + end - address]
    return parts


def memory_of(vm: Vm, *, shared: bool) -> bytes:
    """A stopped guest's whole block: its file, or what QEMU reads and zeros in the hole."""
    if shared:
        return (vm.folder / f"{vm.name}.ram").read_bytes()
    parts = seen_by_qemu(vm)
    return parts[0] + bytes(HIGH_START - LOW_END) + parts[HIGH_START]


# --- ways ------------------------------------------------------------------


def migrate(vm: Vm, encoding: Encoding, uri: str) -> None:
    """Migrate, in several passes if the guest runs."""
    if not encoding.running:
        vm.migrate(uri)
        return
    vm.qmp("migrate-set-parameters", {"max-bandwidth": SLOW, "downtime-limit": 1})
    vm.qmp("migrate", {"uri": uri})
    wait_passes(vm, xbzrle="xbzrle" in encoding.capabilities)
    vm.qmp("migrate-set-parameters", {"max-bandwidth": FAST, "downtime-limit": 2000})
    vm.wait_migrated()


def wait_passes(vm: Vm, *, xbzrle: bool) -> None:
    """Wait for enough passes; a guest that is slow may let QEMU finish a little earlier."""
    speed = SLOW
    for info in vm.poll("query-migrate", 30):
        ram = info.get("ram", {})
        passes = ram.get("dirty-sync-count", 0)
        deltas = info.get("xbzrle-cache", {}).get("pages", DELTAS)
        if passes >= PASSES and deltas >= DELTAS:
            return
        if info["status"] == "completed":
            if passes >= FEWEST_PASSES and deltas >= DELTAS:
                return
            raise TooFewPasses(f"too few passes: {info}")
        if info["status"] in STATES_OVER:
            raise VmError(f"migration {info}: {vm.stderr()}")
        wanted = SLOWER if passes >= 2 or ram.get("remaining", RAM_BYTES) < 2 * MIB else SLOW
        wanted = CRAWL if passes >= 2 and xbzrle else wanted
        if speed != wanted:
            vm.qmp("migrate-set-parameters", {"max-bandwidth": wanted})
        speed = wanted
    raise VmError(f"migration not over: {info}")


def pipe(version: str, encoding: Encoding, folder: Path) -> Capture:
    return alone(version, encoding, folder, f"exec:cat > {STREAM}")


def to_file(version: str, encoding: Encoding, folder: Path) -> Capture:
    return alone(version, encoding, folder, f"file:{STREAM}")


def in_libvirt_image(version: str, encoding: Encoding, folder: Path) -> Capture:
    """As libvirt's sparse save images are made: a header, and QEMU writes behind it."""
    header = save_image(b"", format=SPARSE)
    (folder / STREAM).write_bytes(header)
    return alone(version, encoding, folder, f"file:{STREAM},offset={len(header):#x}")


def alone(version: str, encoding: Encoding, folder: Path, uri: str) -> Capture:
    """Save to a file; the source's memory afterwards is what the file must hold."""
    with source(version, encoding, folder) as vm:
        migrate(vm, encoding, uri)
        memory = memory_of(vm, shared=encoding.shared)
        more = {"pmemsave": seen_by_qemu(vm), "dump-guest-memory": dumped_by_qemu(vm)}
    return Capture(folder / STREAM, [], {encoding.block: memory}, more)


def ignoring_shared(version: str, encoding: Encoding, folder: Path) -> Capture:
    """The guest's RAM stays in its file; a DIMM of private memory goes into the stream."""
    dimm = pattern()[-DIMM_BYTES:]
    (folder / "dimm.bin").write_bytes(dimm)
    with source(version, encoding, folder, *DIMM, *load("dimm", DIMM_ADDRESS)) as vm:
        seekable = "mapped-ram" in encoding.capabilities
        migrate(vm, encoding, f"file:{STREAM}" if seekable else f"exec:cat > {STREAM}")
        words = {"val": DIMM_ADDRESS, "size": DIMM_BYTES, "filename": "dimm.mem"}
        vm.qmp("pmemsave", words)
    assert (folder / "dimm.mem").read_bytes() == dimm
    return Capture(folder / STREAM, [], {"dimm": dimm}, {}, absent=(encoding.block,))


def background(version: str, encoding: Encoding, folder: Path) -> Capture:
    """A snapshot of a guest that writes on; what QEMU loads from it is what it must hold."""
    with source(version, encoding, folder) as vm:
        vm.qmp("migrate-set-parameters", {"max-bandwidth": SLOW})
        vm.migrate(f"exec:cat > {STREAM}")
        vm.qmp("stop")
        now = memory_of(vm, shared=encoding.shared)
    plain = replace(encoding, capabilities=())
    with target(version, plain, folder) as to:
        to.qmp("migrate-incoming", {"uri": f"exec:cat {STREAM}"})
        wait_loaded(to)
        memory = memory_of(to, shared=encoding.shared)
    assert_one_moment(memory)
    assert now != memory
    return Capture(folder / STREAM, [], {encoding.block: memory}, {})


def assert_one_moment(memory: bytes) -> None:
    """The guest counts in page after page: each has the number of the one before, or the last."""
    places = range(0x10010, 0x60010, PAGE)
    counts = [int.from_bytes(memory[place : place + 2], "little") for place in places]
    steps = [before - after for before, after in pairwise(counts) if before != after]
    assert steps in ([], [1]), counts


def wait_loaded(vm: Vm) -> None:
    for info in vm.poll("query-status", 30):
        if info["status"] != "inmigrate":
            return
    raise VmError(f"not loaded: {vm.stderr()}")


def pair(version: str, encoding: Encoding, folder: Path) -> Capture:
    """From one QEMU to another through a recorder."""
    with recorded(version, encoding, folder) as (vm, to, uri):
        migrate(vm, encoding, uri)
        to.wait_migrated()
        memory, more = on_both_sides(vm, to, encoding)
    return Capture(folder / STREAM, channels(folder), {encoding.block: memory}, more)


def postcopy(version: str, encoding: Encoding, folder: Path) -> Capture:
    """Switch over in the middle of the first pass, and fault some pages in on the target."""
    slowly = {"max-bandwidth": SLOW, "max-postcopy-bandwidth": SLOW // 12}
    with recorded(version, encoding, folder) as (vm, to, uri):
        vm.qmp("migrate-set-parameters", slowly)
        vm.qmp("migrate", {"uri": uri})
        wait_sent(vm, MIB)
        vm.qmp("migrate-start-postcopy")
        wait_loaded(to)
        for start in FAULTS:
            for page in range(start, start + 16 * PAGE, PAGE):
                to.hmp(f"xp /1xb {page:#x}")
        vm.qmp("migrate-set-parameters", {"max-postcopy-bandwidth": 0})
        vm.wait_migrated()
        to.wait_migrated()
        memory, more = on_both_sides(vm, to, encoding)
    return Capture(folder / STREAM, channels(folder), {encoding.block: memory}, more)


def wait_sent(vm: Vm, count: int) -> None:
    for info in vm.poll("query-migrate", 30):
        if info.get("ram", {}).get("transferred", 0) >= count:
            return
    raise VmError(f"nothing sent: {info}")


def on_both_sides(vm: Vm, to: Vm, encoding: Encoding) -> tuple[bytes, Parts]:
    """The target's memory, and what QEMU reads of it on the sides that have it."""
    memory = memory_of(to, shared=encoding.shared)
    more = {"the target": seen_by_qemu(to)}
    if "release-ram" not in encoding.capabilities:
        more["the source"] = seen_by_qemu(vm)
    return memory, more


def channels(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{STEM}.*") if path.name != STREAM)


@contextmanager
def recorded(version: str, encoding: Encoding, folder: Path) -> Iterator[tuple[Vm, Vm, str]]:
    """Source and target, and where the source migrates to; what it sends lies in the folder."""
    with ExitStack() as stack:
        # A socket's path has 107 bytes at most.
        sockets = Path(stack.enter_context(TemporaryDirectory(prefix="ramlab-")))
        recorder = Recorder(sockets, "source", "target")
        stack.callback(recorder.finish, folder, STEM)
        vm = stack.enter_context(source(version, encoding, folder))
        to = stack.enter_context(target(version, encoding, folder))
        to.qmp("migrate-incoming", {"uri": f"unix:{sockets / 'target'}"})
        yield vm, to, f"unix:{sockets / 'source'}"


WAYS: dict[str, Callable[[str, Encoding, Path], Capture]] = {
    "pipe": pipe,
    "file": to_file,
    "libvirt": in_libvirt_image,
    "ignoring shared": ignoring_shared,
    "background": background,
    "pair": pair,
    "postcopy": postcopy,
}


def take(version: str, encoding: Encoding, folder: Path) -> Capture:
    """Save a guest; again if its passes were too few."""
    for attempt in range(ATTEMPTS):
        place = folder / f"attempt-{attempt}"
        place.mkdir()
        try:
            return WAYS[encoding.way](version, encoding, place)
        except TooFewPasses:
            if attempt + 1 == ATTEMPTS:
                raise
    raise AssertionError
