"""Files that lie about themselves, each by one function that writes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

from builders import migration as build

__all__ = ["ALL", "LONG"]

Writer = Callable[[IO[bytes]], object]
MIB = 1 << 20
FF = b"\xff\xff\xff\xff"


def _vmdesc(text: str) -> bytes:
    return build.stream(build.full(1, "dev", body=b"\1"), description=build.vmdesc(raw=text))


def _fields(*fields: object, body: bytes = b"\1" * 64) -> bytes:
    description = build.vmdesc(build.device("dev", fields))
    return build.stream(build.full(1, "dev", body=body), description=description)


def _device(inside: str) -> str:
    return '{"devices": [{"name": "dev", "instance_id": 0, ' + inside + "}]}"


def _bytes(data: bytes) -> Writer:
    return lambda file: file.write(data)


def _ram(body: bytes, *before: bytes) -> Writer:
    return _bytes(build.stream(*before, build.start(2, body=body)))


def _many_sections(file: IO[bytes]) -> None:
    file.write(build.header())
    for number in range(300_000):
        file.write(build.full(number & 0xFFFFF, f"device {number}", body=b"\1"))
    file.write(build.eof())


def _many_repeats(file: IO[bytes]) -> None:
    """More sections without anything in them than any migration has rounds."""
    ram = build.block_list(build.block("r", 4096)) + build.eos()
    file.write(build.header() + build.start(2, body=ram))
    file.write(build.part(2, body=build.eos()) * 1_300_000)


def _many_described(file: IO[bytes]) -> None:
    """As many sections as are read, and a description with as many devices as are."""
    count = 40_000
    file.write(build.header())
    for number in range(count):
        file.write(build.full(number, f"d{number}", body=b"\1"))
    field = [build.field("a", "uint8", 1)]
    devices = [build.device(f"d{number}", field) for number in range(count)]
    file.write(build.eof() + build.vmdesc(*devices))


def _many_blocks(file: IO[bytes]) -> None:
    blocks = b"".join(build.block(f"block {n}", 0)[1] for n in range(1_000_000))
    file.write(build.header() + build.start(2, body=build.ram_word(1 << 40, 4) + blocks))


def _many_lists(file: IO[bytes]) -> None:
    file.write(build.header() + build.start(2, body=b""))
    file.seek(-5, 1)
    for number in range(50_000):
        file.write(build.block_list(build.block(f"block {number}", 4096)))


def _sparse(lead: bytes, size: int, tail: bytes = b"") -> Writer:
    def write(file: IO[bytes]) -> None:
        file.write(lead)
        file.truncate(size)
        file.seek(0, 2)
        file.write(tail)

    return write


def _candidates(file: IO[bytes]) -> None:
    """Millions of places that look like the head of a description."""
    count = 3_000_000
    end = 8 + count * 7 + 2
    pieces = [b"\0\6" + (end - 14 - 7 * n).to_bytes(4) + b"{" for n in range(count)]
    file.write(build.header() + b"".join(pieces) + b"x}")


def _false_footers(file: IO[bytes]) -> None:
    file.write(build.header() + build.full(3, "dev", footers=False))
    file.write((build.footer(3) + b"\0\1") * (8 * MIB))


def _records_of_2(file: IO[bytes]) -> None:
    record = b"\1r" + bytes(12)
    file.write(build.header(2) + build.be64(len(record) * 400_000) + record * 400_000)


_CONFIGURATION = build.configuration(capabilities=["mapped-ram"])
_MAPPED = build.be32(1) + build.be64(4096)
_BIG = {"array_len": 1 << 60}
_EMPTY = {"vmsd_name": "e", "version": 1, "fields": []}

ALL: dict[str, Writer] = {
    "machine name of 4 GB": _bytes(build.header() + b"\7" + FF + b"pc"),
    "machine name of 4 GB that is there": _sparse(build.header() + b"\7" + FF, 5 << 30),
    "4 billion capabilities": _bytes(
        build.header()
        + build.configuration(more=build.subsection("configuration/capabilities", FF))
        + b"\1a" * MIB
    ),
    "command of 65535": _bytes(build.stream(b"\x08\0\6\xff\xff" + FF)),
    "package of 4 GB": _bytes(build.stream(build.command(7, FF))),
    "200000 packages in each other": _bytes(build.header() + build.command(7, FF) * 200_000),
    "240000 commands": _bytes(build.stream(*[build.ping(1)] * 240_000)),
    "vmdesc of 4 GB": _bytes(build.stream(description=b"\6" + FF + b"{}")),
    "vmdesc of 4 GB that is there": _sparse(build.stream(description=b"\6" + FF + b"{"), 5 << 30),
    "vmdesc of 2^60 elements": _bytes(_fields(build.field("a", "uint8", 1, **_BIG))),
    "vmdesc of 2^60 empty structs": _bytes(
        _fields(build.field("a", "struct", 0, struct=_EMPTY, **_BIG))
    ),
    "vmdesc of 2^60 structs": _bytes(
        _fields(build.field("a", "struct", 1, struct=_EMPTY, **_BIG), body=b"\1" * 4 * MIB)
    ),
    "vmdesc of a field of 2^60": _bytes(_fields(build.field("a", "buffer", 1 << 60))),
    "vmdesc of a size of 2^70": _bytes(_fields(build.field("a", "pci config", 1 << 70))),
    "vmdesc of a million nested arrays": _bytes(_vmdesc("[" * 1_000_000 + "]" * 1_000_000)),
    "vmdesc of nested subsections": _bytes(
        _vmdesc(_device('"subsections": [{' * 400 + '"a": 1' + "}]" * 400))
    ),
    "vmdesc of nested structs": _bytes(
        _vmdesc(_device('"fields": [{"name": "a", "size": 1, "struct": {' * 200 + "}}]" * 200))
    ),
    "vmdesc of ten million elements": _bytes(
        _vmdesc('{"devices": [' + ",".join(["0"] * 10_000_000) + "]}")
    ),
    "vmdesc of ten million arrays": _bytes(
        _vmdesc('{"devices": [' + ",".join(["[]"] * 10_000_000) + "]}")
    ),
    "vmdesc of many small objects": _bytes(
        _vmdesc('{"devices": [' + ",".join(["{}"] * 240_000) + "]}")
    ),
    "vmdesc of many members": _bytes(
        _vmdesc("{" + ",".join(f'"{n:x}":{n}' for n in range(590_000)) + "}")
    ),
    "vmdesc of many fields": _bytes(
        _vmdesc(
            _device(
                '"fields": ['
                + ",".join(f'{{"name": "f{n}", "size": 0, "type": "t{n}"}}' for n in range(195_000))
                + "]"
            )
        )
    ),
    "vmdesc of one long string": _bytes(_vmdesc('{"page_size": "' + "x" * (15 * MIB) + '"}')),
    "vmdesc of one long wide string": _bytes(
        _vmdesc('{"page_size": "\U0001f600' + "x" * (15 * MIB) + '"}')
    ),
    "vmdesc of a number of a million digits": _bytes(
        _vmdesc('{"page_size": ' + "9" * 1_000_000 + "}")
    ),
    "candidates for a vmdesc": _candidates,
    "false footers": _false_footers,
    "300000 sections": _many_sections,
    "1300000 repeats": _many_repeats,
    "40000 sections with descriptions": _many_described,
    "records of version 2": _records_of_2,
    "a million RAM blocks": _many_blocks,
    "50000 lists of RAM blocks": _many_lists,
    "block of 2^63": _ram(build.ram_word(1 << 62, 4) + build.text("r") + FF * 2),
    "compressed page of 4 GB": _ram(
        build.block_list(build.block("r", 1 << 30)) + build.ram_word(0, 0x100) + b"\1r" + FF
    ),
    "mapped-ram of 2^63": _ram(
        build.ram_word(1 << 62, 4) + b"\1r" + build.be64(1 << 62) + _MAPPED + FF * 4,
        _CONFIGURATION,
    ),
    "mapped-ram of a terabyte": _sparse(
        build.header()
        + _CONFIGURATION
        + build.start(2, footers=False)
        + build.ram_word(1 << 40, 4)
        + b"\1r"
        + build.be64(1 << 40)
        + _MAPPED
        + build.be64(1 << 20)
        + build.be64(1 << 30),
        (1 << 40) + (1 << 30),
        build.eos() + build.footer(2) + build.eof(),
    ),
    "zeros behind the stream": _sparse(build.stream(), 1 << 29),
    "a section of 3 GB": _sparse(build.header() + build.full(1, "dev", footers=False), 1 << 29),
    "QCPR of 4 billion": _bytes(b"QCPR\0\0\0\1" + b"\1" + FF * 100),
    "QCPR of a million descriptors": _bytes(
        b"QCPR\0\0\0\1" + (b"\1\0\0\0\2a\0" + bytes(8)) * 1_000_000 + b"\0"
    ),
    "libvirt of 4 GB": _bytes(b"LibvirtQemudSave" + b"\2\0\0\0" + FF * 30),
    "qcow2 of everything": _bytes(b"QFI\xfb\0\0\0\3" + FF * 40),
}

#: Millions of parts, each counted in its own time; that they can be held is what matters.
LONG = {"300000 sections", "1300000 repeats", "records of version 2", "240000 commands"}
