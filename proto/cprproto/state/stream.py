"""Write device state as a genuine QEMU migration stream, with its description.

::

    writer = StreamWriter(schema)
    writer.write(memfd, {("serial", 4): {"divider": 12, "irq": False}})

What does not depend on values (header, configuration, section heads, footers) is encoded once
with cprformats, when the writer is made; the description once for each shape of the values, or
beforehand with `prepare`. So inside the pause only the fields are packed.

Source: QEMU migration/savevm.c (qemu_savevm_state_header, save_section_header,
qemu_savevm_state_complete_precopy), 10.0.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from cprformats.encode import encode
from cprformats.fields import Field, Kind
from cprformats.migration.wire import MAGIC, VERSION, SectionType
from cprproto.errors import HostError, StateError
from cprproto.state.describe import describe
from cprproto.state.plan import Plan
from cprproto.state.ram import RamBlock, cpr_ram
from cprproto.state.schema import Schema, Section

__all__ = ["PAGE_SIZE", "State", "StreamWriter", "header", "write_all"]

State = Mapping[tuple[str, int], Mapping[str, Any]]

PAGE_SIZE = 4096
#: Descriptions are some kilobytes; shapes change with devices, not with time.
_MOST_SHAPES = 64


class StreamWriter:
    """Writes states of one schema.

    Args:
        schema: the devices.
        ram: blocks of guest memory to list in a RAM section, without pages, as QEMU's
            CPR modes do; a machine of our own needs none.
    """

    def __init__(self, schema: Schema, *, ram: Sequence[RamBlock] = ()) -> None:
        self.schema = schema
        self._start = header(schema.machine) + (cpr_ram(ram, 1) if ram else b"")
        first = 2 if ram else 0
        self._parts = [
            ((x.idstr, x.instance), _head(number, x), Plan(x.vmsd), _footer(number))
            for number, x in enumerate(schema.sections, first)
        ]
        self._descriptions: dict[tuple[int, ...], bytes] = {}

    def prepare(self, state: State) -> None:
        """Make the description for values of this shape, before it is needed."""
        self.encode(state)

    def encode(self, state: State) -> bytes:
        """Give the whole stream.

        Raises:
            StateError: a device or a value is missing, or a value does not fit.
        """
        pieces: list[bytes] = [self._start]
        shape: list[int] = []
        for key, head, plan, footer in self._parts:
            values = state.get(key)
            if values is None:
                raise StateError(f"no values for {key[0]!r} instance {key[1]}")
            pieces.append(head)
            plan.pack(values, pieces, shape)
            pieces.append(footer)
        pieces.append(self._description(tuple(shape), state))
        return b"".join(pieces)

    def _description(self, shape: tuple[int, ...], state: State) -> bytes:
        """End mark and description, kept for the next state of the same shape."""
        known = self._descriptions.get(shape)
        if known is None:
            if len(self._descriptions) >= _MOST_SHAPES:
                self._descriptions.clear()
            text = describe(self.schema, state, PAGE_SIZE).encode()
            known = _made(
                ("eof", "u8", int(SectionType.EOF), Kind.EOF),
                ("type", "u8", int(SectionType.VMDESCRIPTION), Kind.VMDESC),
                ("size", "u32be", len(text), Kind.VMDESC),
                ("json", "bytes", text, Kind.VMDESC),
            )
            self._descriptions[shape] = known
        return known

    def write(self, number: int, state: State) -> int:
        """Write the whole stream to a file, a memfd or a pipe, and give its size in bytes.

        Raises:
            StateError: as `encode`.
            HostError: no space, or nobody reads the pipe.
        """
        data = self.encode(state)
        write_all(number, data)
        return len(data)


def write_all(number: int, data: bytes) -> None:
    """Write all of it at the descriptor's offset.

    Raises:
        HostError: no space, or nobody reads the pipe.
    """
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(number, left) :]
    except OSError as problem:
        done = len(data) - len(left)
        text = f"state: {done} of {len(data)} bytes written: {problem.strerror}"
        raise HostError(text, problem.errno or 0) from None


def header(machine: str) -> bytes:
    """Give the stream's header and the configuration section."""
    name = machine.encode()
    return _made(
        ("magic", "bytes", MAGIC, Kind.HEADER),
        ("version", "u32be", VERSION, Kind.HEADER),
        ("type", "u8", int(SectionType.CONFIGURATION), Kind.CONFIGURATION),
        ("len", "u32be", len(name), Kind.CONFIGURATION),
        ("name", "bytes", name, Kind.CONFIGURATION),
    )


def _head(number: int, section: Section) -> bytes:
    name = section.idstr.encode()
    return _made(
        ("type", "u8", int(SectionType.FULL), Kind.SECTION_HEAD),
        ("section_id", "u32be", number, Kind.SECTION_HEAD),
        ("idstr_len", "u8", len(name), Kind.SECTION_HEAD),
        ("idstr", "bytes", name, Kind.SECTION_HEAD),
        ("instance_id", "u32be", section.instance, Kind.SECTION_HEAD),
        ("version_id", "u32be", section.vmsd.version, Kind.SECTION_HEAD),
    )


def _footer(number: int) -> bytes:
    return _made(
        ("type", "u8", int(SectionType.FOOTER), Kind.FOOTER),
        ("section_id", "u32be", number, Kind.FOOTER),
    )


def _made(*leaves: tuple[str, str, int | bytes, Kind]) -> bytes:
    """Encode leaves with cprformats."""
    return b"".join(
        encode(Field(name, "", codec, kind, 0, 0, value) for name, codec, value, kind in leaves)
    )
