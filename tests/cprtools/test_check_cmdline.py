"""QEMU's command line: taken apart, and made into one with nothing behind it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from cprtools.check.cmdline import join_pairs, parse, read_config, split_pairs
from cprtools.check.standins import Host, Rewritten, rewrite
from cprtools.check.standins_disk import disk_size
from cprtools.check.standins_memory import size_of


def made(line: str, folder: Path, **host: object) -> Rewritten:
    return rewrite(line.split(), Host(folder, **host))  # type: ignore[arg-type]


def words(line: str, folder: Path, **host: object) -> str:
    return " ".join(made(line, folder, **host).words)


def test_options() -> None:
    line = ["-S", "--machine", "q35", "-m", "1G", "disk.img", "-odd", "value", "-nographic"]
    assert [(one.name, one.value) for one in parse(line)] == [
        ("S", None),
        ("machine", "q35"),
        ("m", "1G"),
        ("", "disk.img"),
        ("odd", "value"),
        ("nographic", None),
    ]
    assert [word for one in parse(line) for word in one.words] == [
        word.replace("--", "-") for word in line
    ]


def test_an_option_whose_value_is_missing() -> None:
    assert [one.value for one in parse(["-m"])] == [None]


def test_pairs() -> None:
    assert split_pairs("null,id=a,,b,mux,nowait", "backend") == [
        ("backend", "null"),
        ("id", "a,b"),
        ("mux", "on"),
        ("wait", "off"),
    ]
    assert join_pairs([("id", "a,b"), ("size", "1")]) == "id=a,,b,size=1"


def test_pairs_of_json() -> None:
    text = '{"driver": "qcow2", "file": {"filename": "x"}, "ro": true, "list": [1]}'
    assert split_pairs(text) == [
        ("driver", "qcow2"),
        ("file.filename", "x"),
        ("ro", "on"),
        ("list.0", "1"),
    ]
    assert split_pairs("{no json", "x") == [("x", "{no json")]


def test_a_file_of_options(tmp_path: Path) -> None:
    text = '# a comment\n[device "n"]\n  driver = "e1000"\n[machine]\ntype = "q35"\n'
    found = [(one.name, one.value) for one in read_config(text)]
    assert found == [("device", "id=n,driver=e1000"), ("machine", "type=q35")]
    path = tmp_path / "vm.cfg"
    path.write_text(text)
    assert words(f"-readconfig {path}", tmp_path) == "-device id=n,driver=e1000 -machine type=q35"
    assert made("-readconfig /nowhere/x", tmp_path).unsure


@pytest.mark.parametrize(
    "line",
    [
        "-incoming defer",
        "-daemonize -pidfile p",
        "-qmp unix:s,server -monitor stdio",
        "-vnc :1 -display gtk",
        "-mem-prealloc -mem-path /dev/hugepages",
        "-object secret,id=s,file=key",
        "-object iommufd,id=i",
    ],
)
def test_what_goes(line: str, tmp_path: Path) -> None:
    assert words(line, tmp_path) == ""


@pytest.mark.parametrize(
    "line",
    [
        "-machine q35,accel=kvm -m 4G -smp 2 -nodefaults",
        "-device e1000,netdev=n",
        "-unknown-option value",
        "-netdev hubport,id=n,hubid=1",
        "-blockdev driver=null-co,node-name=d,size=1",
        "-drive if=ide,media=cdrom",
        "-chardev ringbuf,id=r",
        "-object rng-random,id=r,filename=/dev/urandom",
        "-net nic,model=e1000",
    ],
)
def test_what_stays(line: str, tmp_path: Path) -> None:
    assert words(line, tmp_path) == line


def test_disks_are_empty_ones_of_the_same_size(tmp_path: Path) -> None:
    raw, qcow2 = tmp_path / "raw", tmp_path / "qcow2"
    raw.write_bytes(bytes(12345))
    qcow2.write_bytes(b"QFI\xfb" + struct.pack(">I", 3) + bytes(16) + struct.pack(">Q", 1 << 33))
    assert disk_size(str(raw)) == 12345
    assert disk_size(str(qcow2)) == 1 << 33
    assert words(f"-drive file={raw},if=virtio,id=d,cache=none,format=raw", tmp_path) == (
        "-drive driver=null-co,size=12345,read-zeroes=on,if=virtio,id=d"
    )
    nodes = (
        f"-blockdev driver=file,filename={qcow2},node-name=f "
        "-blockdev driver=qcow2,file=f,node-name=q,read-only=on"
    )
    empty = f"-blockdev driver=null-co,size={1 << 33},read-zeroes=on"
    expected = f"{empty},node-name=f {empty},node-name=q,read-only=on"
    assert words(nodes, tmp_path) == expected
    assert words(f"-pflash {raw}", tmp_path).endswith("size=12345,read-zeroes=on,if=pflash")
    assert str(raw) not in words(f"{raw} -hdb {raw} -cdrom {raw} -fda {raw}", tmp_path)


def test_disks_of_unknown_size_are_said(tmp_path: Path) -> None:
    out = made("-drive file=nbd://host/x,if=none,id=d", tmp_path)
    assert out.notes == ["disk nbd://host/x: its size is not known here"]
    assert out.unsure == []


def test_networks(tmp_path: Path) -> None:
    line = "-netdev tap,id=n,ifname=tap0,vhost=on,queues=4,script=/etc/x"
    tap = made(line, tmp_path, taps=True, vhost=True)
    assert "type=tap,id=n,ifname=cpr1,script=no,downscript=no,queues=4,vhost=on" in tap.words
    assert (tap.unsure, tap.blind) == ([], False)
    without = made(line, tmp_path)
    assert "hubport" in without.words[1]
    assert without.blind
    assert without.unsure
    user = words("-netdev user,id=n,hostfwd=tcp::22-:22,net=10.9.0.0/16", tmp_path)
    assert user == "-netdev type=user,id=n,net=10.9.0.0/16"
    outside = made("-netdev vhost-user,id=n,chardev=c", tmp_path, taps=True)
    assert outside.unsure
    assert "tap,id=n" in outside.words[1]
    assert words("-netdev socket,id=n,listen=:1", tmp_path).startswith("-netdev type=hubport")
    assert words("-net socket,listen=:1", tmp_path) == ""


def test_characters(tmp_path: Path) -> None:
    assert words("-chardev socket,id=c,path=/x,server=on,mux=on", tmp_path) == (
        "-chardev null,id=c,mux=on"
    )
    assert words(
        "-serial mon:stdio -serial none -serial chardev:c -parallel /dev/lp0", tmp_path
    ) == ("-serial null -serial none -serial chardev:c -parallel null")


def test_memory(tmp_path: Path) -> None:
    line = "-object memory-backend-file,id=m,size=1G,mem-path=/dev/hugepages,prealloc=on,share=on"
    assert words(line, tmp_path) == (
        "-object qom-type=memory-backend-memfd,id=m,size=1073741824,share=on"
    )
    kept = words(line, tmp_path, shared_files=True)
    assert f"memory-backend-file,id=m,size=1073741824,mem-path={tmp_path}/memory-1" in kept
    ram = "-object memory-backend-ram,id=m,size=1G,host-nodes=0,policy=bind"
    assert words(ram, tmp_path) == "-object qom-type=memory-backend-ram,id=m,size=1G"
    big = made("-m 2T", tmp_path, big=True, main_memory="pc.ram")
    assert big.words[-1] == "memory-backend=pc.ram"
    assert f"size={2 << 40}" in big.words[-3]
    assert big.memory_bytes == 2 << 40
    own = words("-machine q35,memory-backend=m -m 2T", tmp_path, big=True, main_memory="pc.ram")
    assert "pc.ram" not in own


def test_sizes() -> None:
    assert [size_of(text) for text in ("1", "1k", "2M", "0x10", "1.5G", "no")] == [
        *(1, 1024, 2 << 20, 16, 3 << 29, 0),
    ]
    assert size_of("128", "m") == 128 << 20


def test_what_stands_outside_is_left_out(tmp_path: Path) -> None:
    out = made("-device vfio-pci,host=1:0.0,id=g,bus=pcie.0,addr=5", tmp_path)
    assert out.words == ["-device", "driver=pci-testdev,id=g,bus=pcie.0,addr=5"]
    assert out.unsure
    assert out.left_out is not None
    assert out.left_out.search("0000:00:05.0/vfio")
    assert not out.left_out.search("0000:00:05.0/virtio-net")
    tpm = made("-tpmdev emulator,id=t,chardev=c -device tpm-crb,tpmdev=t", tmp_path)
    assert tpm.words == []
    assert tpm.left_out is not None
    assert tpm.left_out.search("tpm-crb")
    assert made("-device e1000", tmp_path).left_out is None


def test_devices_of_the_host_are_not_touched(tmp_path: Path) -> None:
    usb = made("-device usb-host,hostbus=1,hostaddr=2,id=u,bus=x.0", tmp_path)
    assert "hostbus" not in usb.words[1]
    assert usb.unsure
    assert words("-object rng-egd,id=r,chardev=c", tmp_path) == "-object rng-builtin,id=r"
    assert words("-audiodev pa,id=a,server=x", tmp_path) == "-audiodev none,id=a"
    shared = words("-fsdev local,id=f,path=/home,security_model=mapped", tmp_path)
    assert "/home" not in shared
