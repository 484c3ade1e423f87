"""What ``cprtools ram --physical`` writes, as Volatility reads it: the bytes that QEMU showed."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from saved import save, stopped, take_out
from test_gdb import until_ready

import guest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own, of what it imports
    from volatility3.framework import contexts, exceptions
    from volatility3.framework.layers.physical import FileLayer

pytestmark = pytest.mark.live

MIB = 1 << 20
#: Volatility looks at each byte up to the end, and that of a PC is its firmware below 4 GiB.
RAM_ONLY = ("--layout", "0=pc.ram")
BANNER = b"Linux version 6.1.0-test (someone@somewhere) (gcc 12, GNU ld 2.40) #1 SMP Mon Jan 1\n\0"
BANNER_AT = 0x1234560


@contextmanager
def layer_of(path: Path) -> Iterator[FileLayer]:
    """A raw layer over a file."""
    context = contexts.Context()
    context.config["memory.location"] = path.as_uri()
    layer = FileLayer(context, "memory", "memory")
    context.add_layer(layer)
    try:
        yield layer
    finally:
        layer.destroy()  # else its file stays open


def banners(path: Path, folder: Path) -> str:
    """Run Volatility's own command line with the plugin that looks for Linux."""
    code = "import sys; from volatility3.cli import main; sys.argv[0] = 'vol'; sys.exit(main())"
    words = ["-q", "--offline", "--cache-path", str(folder), "-f", str(path)]
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *words, "banners.Banners"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("mapped", [False, True], ids=["records", "mapped-ram"])
@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_the_same_bytes_as_qemu(machine: str, mapped: bool, tmp_path: Path) -> None:
    out, places = tmp_path / "memory", {}
    (tmp_path / "banner.bin").write_bytes(BANNER)
    line = ["-machine", f"{machine},accel=tcg", "-m", "64"]
    line += ["-device", f"loader,file=banner.bin,addr={BANNER_AT:#x},force-raw=on"]
    with stopped("10.0", line, tmp_path, seconds=1.2) as vm:
        # Behind the VGA window, which is no memory.
        for start, end in ((0, 0xA0000), (0xC0000, 64 * MIB), (0xFFFC0000, 1 << 32)):
            name = f"{start:#x}.mem"
            vm.qmp("pmemsave", {"val": start, "size": end - start, "filename": name})
            places[start] = (tmp_path / name).read_bytes()
        take_out(save(vm, mapped=mapped), "--physical", out)
    with layer_of(out) as layer:
        assert layer.maximum_address == 0xFFFFFFFF
        for start, wanted in places.items():
            assert any(wanted)
            for at in range(0, len(wanted), MIB):
                assert layer.read(start + at, len(wanted[at : at + MIB])) == wanted[at : at + MIB]
        assert layer.read(BANNER_AT, len(BANNER)) == BANNER
        assert not any(layer.read(1 << 30, MIB))
        with pytest.raises(exceptions.InvalidAddressException):
            layer.read(1 << 32, 1)


def test_it_finds_a_banner(tmp_path: Path) -> None:
    out = tmp_path / "memory"
    (tmp_path / "banner.bin").write_bytes(BANNER)
    places = (BANNER_AT, 30 * MIB + 4096 - 20)
    line = ["-machine", "q35,accel=tcg", "-m", "32"]
    for place in places:
        line += ["-device", f"loader,file=banner.bin,addr={place:#x},force-raw=on"]
    with stopped("10.0", line, tmp_path, seconds=0) as vm:
        take_out(save(vm), "--physical", out, *RAM_ONLY)
    text = banners(out, tmp_path)
    for place in places:
        assert f"{place:#x}\tLinux version 6.1.0-test" in text


@pytest.mark.slow
def test_it_finds_a_kernel(tmp_path: Path) -> None:
    out = tmp_path / "memory"
    line = ["-machine", "q35,accel=tcg", "-cpu", "max", "-m", "192"]
    line += ["-kernel", str(guest.kernel()), "-initrd", str(guest.initramfs())]
    line += ["-append", f"{guest.CONSOLE} guest=idle", "-serial", "file:console"]
    with stopped("10.0", line, tmp_path, seconds=0) as vm:
        vm.qmp("cont")
        until_ready(tmp_path / "console")
        vm.qmp("stop")
        take_out(save(vm), "--physical", out, *RAM_ONLY)
    assert "\tLinux version " in banners(out, tmp_path)
