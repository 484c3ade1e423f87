"""COMMAND sections: what the source tells the destination between the sections.

::

    command = 08 number:be16 len:be16 data
    PACKAGED's data is be32 length; that many bytes of a stream without header follow.

Source: QEMU migration/savevm.c (mig_cmd_args, qemu_savevm_command_send,
loadvm_process_command), migration/postcopy-ram.c.
"""

from __future__ import annotations

from cprformats.fields import Kind
from cprformats.migration.wire import COMMANDS
from cprformats.reader import Reader

__all__ = ["read_command"]


def read_command(reader: Reader) -> tuple[int, str, int]:
    """Read one command as a group.

    Gives its number, its name (``UNKNOWN`` for numbers that QEMU doesn't
    have) and, for PACKAGED, how many bytes of embedded stream follow.

    Raises:
        Truncated: the command is cut (of the stream embedded in it nothing is read).
        Damaged: data that doesn't fit the command's length.
    """
    packaged = 0
    with reader.group("command", "COMMAND", Kind.COMMAND):
        reader.number("type", "u8", meaning="section-type")
        number = reader.number("command", "u16be", meaning="command")
        size = reader.number("len", "u16be")
        name = COMMANDS.get(number, "UNKNOWN")
        reader.require(f"data of command {name}", size)
        with reader.group("data", name):
            end = reader.offset + size
            _data(reader, name, size)
            if reader.offset > end:
                raise reader.mismatch(f"length of {name}", size, reader.offset + size - end)
            if reader.offset < end:
                reader.blob("rest", end - reader.offset, kind=Kind.UNKNOWN)
        if name == "PACKAGED":
            value = reader.siblings[-1]["length"].value
            assert isinstance(value, int)
            packaged = value
    return number, name, packaged


def _data(reader: Reader, name: str, size: int) -> None:
    if name == "PING" and size == 4:
        reader.number("value", "u32be")
    elif name == "PACKAGED" and size == 4:
        reader.number("length", "u32be")
    elif name == "POSTCOPY_ADVISE" and size == 16:
        # Both are 0-length when postcopy-ram is off but dirty-bitmaps need postcopy.
        reader.number("page_sizes_summary", "u64be", meaning="page-sizes")
        reader.number("target_page_size", "u64be")
    elif name == "POSTCOPY_RAM_DISCARD" and size >= 3:
        _discard(reader, size)
    elif name == "RECV_BITMAP" and size >= 1:
        reader.counted_text("block")
    elif name == "PACKAGED":
        raise reader.mismatch("length of PACKAGED", 4, size)


def _discard(reader: Reader, size: int) -> None:
    """RAM_DISCARD: a version, a block with its NUL, then (start, length) pairs."""
    end = reader.offset + size
    reader.number("version", "u8")
    reader.counted_text("block")
    reader.number("nul", "u8")
    index = 0
    while end - reader.offset >= 16:
        with reader.group(f"range[{index}]"):
            reader.number("start", "u64be")
            reader.number("length", "u64be")
        index += 1
