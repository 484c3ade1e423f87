"""Read a CPR state file of QEMU 10.0 and later.

::

    file       = "QCPR" version:be32 fds [subsection]
    fds        = list of (name id:be32 fd)
    fd         = number:be32                 cpr-exec: the number stays valid
               | 20                          cpr-transfer: the descriptor goes beside the data
    subsection = 05 15 "CprState/vfio devices" version:be32 list of (name devid ioas_id hwpt_id)

Nothing follows: no end mark, no description, no footer. Which of the two a
descriptor is can be seen from its first byte: no number of one begins with 20.

Source: QEMU migration/cpr.c (cpr_state_save), migration/vmstate-types.c (put_fd),
migration/qemu-file.c (qemu_file_put_fd), hw/vfio/cpr-iommufd.c; 10.0 to 11.1.
"""

from __future__ import annotations

from cprformats.cpr.lists import Draft, read_list, read_name, run
from cprformats.cpr.model import CprFd, CprState, CprVfioDevice
from cprformats.cpr.wire import FD_BYTE, FILE_HEADER, MAGIC, SUBSECTION, VERSION, VFIO_DEVICES
from cprformats.errors import Unsupported, WrongFormat
from cprformats.fields import Kind
from cprformats.layout import read_record
from cprformats.reader import Reader
from cprformats.source import Source

__all__ = ["read_state"]


def read_state(source: Source, offset: int = 0, end: int | None = None) -> CprState:
    """Read the QCPR file that begins at `offset`.

    Damage inside does not raise: it ends the reading and is kept as `error`.

    Raises:
        WrongFormat: there is no magic.
        Unsupported: a version other than 1.
        Truncated: there is no whole header.
    """
    reader = Reader(source, offset, end)
    magic = reader.peek(4)
    if magic != MAGIC:
        raise WrongFormat(f"no CPR state file: expected {MAGIC!r}, found {magic!r}", offset=offset)
    version = read_record(reader, "header", FILE_HEADER, kind=Kind.HEADER)["version"]
    if version != VERSION:
        raise Unsupported(
            f"version of the CPR state file: expected {VERSION}, found {version!r}",
            offset=offset + len(MAGIC),
        )
    return run(Draft("qcpr", reader, version=VERSION), _body)


def _body(draft: Draft) -> None:
    read_list(draft, "fds", _fd)
    if draft.reader.peek(1) == bytes([SUBSECTION]):
        _vfio_devices(draft)


def _fd(draft: Draft) -> None:
    reader = draft.reader
    offset = reader.offset - 1
    name = read_name(draft)
    id_number = reader.number("id", "i32be")
    passed, fd = "exec", None
    if reader.peek(1) == bytes([FD_BYTE]):
        passed = "transfer"
        reader.number("fd", "u8", type="fd")
    else:
        fd = reader.number("fd", "i32be", type="fd")
    if passed != (draft.passed or passed):
        raise reader.mismatch("way of passing descriptors", draft.passed, passed, offset)
    draft.passed = passed
    draft.entries.append(CprFd(name, id_number, fd, offset=offset))


def _vfio_devices(draft: Draft) -> None:
    reader = draft.reader
    with reader.group(VFIO_DEVICES, VFIO_DEVICES):
        reader.number("type", "u8", kind=Kind.SUBSECTION_HEAD, meaning="section-type")
        name = reader.counted_text("name", kind=Kind.SUBSECTION_HEAD)
        if name != VFIO_DEVICES:
            raise reader.error(
                Unsupported, f"subsection: expected {VFIO_DEVICES!r}, found {name!r}"
            )
        version = reader.number("version", "u32be", kind=Kind.SUBSECTION_HEAD)
        if version != 1:
            raise reader.error(Unsupported, f"version of {name!r}: expected 1, found {version}")
        draft.has_vfio = True
        read_list(draft, "vfio_devices", _vfio_device)


def _vfio_device(draft: Draft) -> None:
    reader = draft.reader
    offset = reader.offset - 1
    name = read_name(draft)
    devid = reader.number("devid", "i32be")
    ioas_id = reader.number("ioas_id", "u32be")
    hwpt_id = reader.number("hwpt_id", "u32be")
    draft.vfio_devices.append(CprVfioDevice(name, devid, ioas_id, hwpt_id, offset))
