"""Read a migration stream of our own devices by their declarations.

The stream must be one that `cprproto.state.stream` or the same declarations in another program
wrote: device sections in footers, no guest memory. What it holds is judged as QEMU judges it
(versions, subsections), but strictly: the machine's whole name must fit, each device must be
there once, nothing unknown is passed over. Imported inside the pause; the description at the end
is for tools and not read.

Source: QEMU migration/savevm.c (qemu_loadvm_state, qemu_loadvm_section_start_full), 10.0.
"""

from __future__ import annotations

import struct

from cprproto.errors import Incompatible, StateError
from cprproto.state.plan import Plan
from cprproto.state.schema import Schema

TYPE_CHECKING = False  # `typing` takes 10 ms to import
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Loader", "State"]

State = dict[tuple[str, int], "dict[str, Any]"]

_EOF, _FULL, _CONFIGURATION, _FOOTER = 0x00, 0x04, 0x07, 0x7E
_HEADER = struct.pack(">4sI", b"QEVM", 3)
_WORD = struct.Struct(">I")


class Loader:
    """Reads streams of one schema; made ready once, before the guest is paused where one can."""

    __slots__ = ("_plans", "_schema")

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._plans = {(x.idstr, x.instance): Plan(x.vmsd) for x in schema.sections}

    def load(self, data: bytes) -> State:
        """Give the values of all devices, by name and instance.

        Raises:
            StateError: it is cut, damaged, or not a stream of this machine.
            Incompatible: it has devices, versions or subsections that the schema has not.
        """
        at = self._start(data)
        state: State = {}
        while _byte(data, at) != _EOF:
            at = self._section(data, at, state)
        missing = [f"{name} {instance}" for name, instance in self._plans.keys() - state.keys()]
        if missing:
            raise Incompatible(f"no state for {', '.join(sorted(missing))}", tuple(sorted(missing)))
        return state

    def _start(self, data: bytes) -> int:
        if not data.startswith(_HEADER):
            raise StateError(
                f"no migration stream: it begins with {data[:8].hex(' ') or 'nothing'}"
            )
        at = len(_HEADER)
        if _byte(data, at) != _CONFIGURATION:
            raise StateError(f"no configuration at {at:#x}")
        size = _word(data, at + 1)
        machine = data[at + 5 : at + 5 + size]
        if machine != self._schema.machine.encode():
            text = f"the state is of machine {machine[:80].decode(errors='replace')!r}"
            raise Incompatible(f"{text}, this is {self._schema.machine!r}")
        return at + 5 + size

    def _section(self, data: bytes, at: int, state: State) -> int:
        if (kind := _byte(data, at)) != _FULL:
            raise StateError(f"part of type {kind:#x} at {at:#x}: only device sections are read")
        section_id, size = _word(data, at + 1), _byte(data, at + 5)
        name = data[at + 6 : at + 6 + size].decode(errors="surrogateescape")
        instance = _word(data, at + 6 + size)
        plan = self._plans.get((name, instance))
        if plan is None:
            raise Incompatible(f"device {name!r} instance {instance} is not known, at {at:#x}")
        if (name, instance) in state:
            raise StateError(f"device {name!r} instance {instance} is there twice, at {at:#x}")
        values: dict[str, Any] = {}
        end = plan.unpack_versioned(data, at + 10 + size, values)
        if _byte(data, end) != _FOOTER or _word(data, end + 1) != section_id:
            text = f"{name}: expected its footer at {end:#x}"
            raise StateError(f"{text}, found {data[end : end + 5].hex(' ')}")
        state[name, instance] = values
        return end + 5


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise StateError(f"the stream is cut at {len(data):#x}")
    return data[at]


def _word(data: bytes, at: int) -> int:
    if at + 4 > len(data):
        raise StateError(f"the stream is cut at {len(data):#x}")
    word: int = _WORD.unpack_from(data, at)[0]
    return word
