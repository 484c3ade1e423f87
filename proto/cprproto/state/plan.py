"""A description made ready: plain fields that follow each other become one `struct` call.

A `Plan` packs values into bytes and unpacks bytes into values, subsections included. What does
not fit is a StateError with the field's name. Imported inside the pause.

Source of the rules: QEMU migration/vmstate.c (vmstate_save_state_v, vmstate_load_state,
vmstate_subsection_load), 10.0.
"""

from __future__ import annotations

import struct

from cprproto.errors import Incompatible, StateError
from cprproto.state.schema import LETTERS, Plain, Struct, Vmsd

TYPE_CHECKING = False  # `typing` takes 10 ms to import
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    # What lies in a dict of values is only known by its field.
    Bag = dict[str, Any]
    Given = Mapping[str, Any]

__all__ = ["SUBSECTION", "Plan"]

#: The byte in front of a subsection (QEMU_VM_SUBSECTION).
SUBSECTION = 0x05
#: What makes `struct`, or a look-up, refuse a value.
_MISFITS = (struct.error, KeyError, TypeError, ValueError, OverflowError)
_VERSION = struct.Struct(">I")


class Plan:
    """One description, ready to pack and to unpack.

    Args:
        vmsd: the description.
        version: of the bytes to be read; the newest by default.
    """

    __slots__ = ("_steps", "_subsections", "vmsd")

    def __init__(self, vmsd: Vmsd, version: int | None = None) -> None:
        self.vmsd = vmsd
        self._steps: list[_Run | _Varying | _Structs] = []
        self._subsections = [(_head(sub), Plan(sub)) for sub in vmsd.subsections]
        run: list[Plain] = []
        for field in vmsd.fields:
            if field.since > (version or vmsd.version):
                continue
            if isinstance(field, Plain) and not field.by:
                run.append(field)
                continue
            self._end_run(run)
            run = []
            self._steps.append(_Structs(field) if isinstance(field, Struct) else _Varying(field))
        self._end_run(run)

    def _end_run(self, run: list[Plain]) -> None:
        if run:
            self._steps.append(_Run(run))

    def pack(self, values: Given, pieces: list[bytes], shape: list[int]) -> None:
        """Append the bytes of fields and subsections to `pieces`.

        Args:
            values: by field name; what no field asks for is left alone.
            pieces: gets the bytes.
            shape: gets the numbers on which the description of these values depends.

        Raises:
            StateError: a value is missing or does not fit its field.
        """
        try:
            for step in self._steps:
                step.pack(values, pieces, shape)
        except _MISFITS as problem:
            raise StateError(f"{self.vmsd.name}: {type(problem).__name__}: {problem}") from None
        for head, sub in self._subsections:
            inner = values.get(sub.vmsd.name)
            shape.append(inner is not None)
            if inner is not None:
                pieces.append(head)
                sub.pack(inner, pieces, shape)

    def unpack(self, data: bytes, at: int, values: Bag) -> int:
        """Read fields and subsections into `values`; give the offset behind them.

        Raises:
            StateError: the data ends too early, or a value can't be.
            Incompatible: a subsection that is not known, or of a later version.
        """
        try:
            for step in self._steps:
                at = step.unpack(data, at, values)
        except struct.error:
            text = f"{self.vmsd.name}: expected more from {at:#x} on, the data ends at"
            raise StateError(f"{text} {len(data):#x}") from None
        return self._unpack_subsections(data, at, values)

    def _unpack_subsections(self, data: bytes, at: int, values: Bag) -> int:
        """As QEMU, take 05 for one only if the name fits: it may be a value of what follows."""
        lead = f"{self.vmsd.name}/".encode()
        while data[at : at + 1] == b"\5" and data.startswith(lead, at + 2):
            size = data[at + 1]
            name = data[at + 2 : at + 2 + size].decode(errors="surrogateescape")
            sub = next((sub for _, sub in self._subsections if sub.vmsd.name == name), None)
            if sub is None:
                raise Incompatible(f"subsection {name!r} is not known, at {at:#x}")
            if name in values:
                raise StateError(f"subsection {name!r} is there twice, at {at:#x}")
            inner: Bag = {}
            at = sub.unpack_versioned(data, at + 2 + size, inner)
            values[name] = inner
        return at

    def unpack_versioned(self, data: bytes, at: int, values: Bag) -> int:
        """Read a version and what it is the version of. Raises as `unpack`."""
        if at + _VERSION.size > len(data):
            raise StateError(f"{self.vmsd.name}: the data ends at {len(data):#x}")
        (version,) = _VERSION.unpack_from(data, at)
        vmsd = self.vmsd
        if not vmsd.minimum <= version <= vmsd.version:
            known = f"{vmsd.minimum} to {vmsd.version}"
            raise Incompatible(f"{vmsd.name}: version {version}, known are {known}, at {at:#x}")
        plan = self if version == vmsd.version else Plan(vmsd, version)
        return plan.unpack(data, at + _VERSION.size, values)


def _head(vmsd: Vmsd) -> bytes:
    name = vmsd.name.encode()
    return bytes([SUBSECTION, len(name)]) + name + _VERSION.pack(vmsd.version)


def _letters(field: Plain) -> str:
    return f"{field.count or ''}{LETTERS[field.type]}"


def _sized(field: Plain | Struct, values: Given) -> int:
    """How many elements a field of varying length has."""
    count = int(values[field.by]) if field.by else field.count
    if not 0 <= count <= field.count:
        raise StateError(f"{field.name}: {field.by} says {count}, the most is {field.count}")
    return count


def _elements(field: Plain | Struct, values: Given, count: int) -> Sequence[Any]:
    value: Sequence[Any] = values[field.name]
    if len(value) != count:
        raise ValueError(f"{field.name} has {len(value)} elements, expected {count}")
    return value


class _Run:
    """Plain fields one behind the other."""

    __slots__ = ("_fields", "_layout")

    def __init__(self, fields: Sequence[Plain]) -> None:
        self._layout = struct.Struct(">" + "".join(map(_letters, fields)))
        self._fields = tuple(fields)

    def pack(self, values: Given, pieces: list[bytes], _: list[int]) -> None:
        words: list[object] = []
        for field in self._fields:
            if not field.count:
                words.append(values[field.name])
                continue
            value = _elements(field, values, field.count)
            if field.type == "buffer":
                words.append(value)
            else:
                words.extend(value)
        pieces.append(self._layout.pack(*words))

    def unpack(self, data: bytes, at: int, values: Bag) -> int:
        words = self._layout.unpack_from(data, at)
        place = 0
        for field in self._fields:
            if field.count and field.type != "buffer":
                values[field.name] = words[place : place + field.count]
                place += field.count
                continue
            word = words[place]
            values[field.name] = _boolean(field.name, word) if field.type == "bool" else word
            place += 1
        return at + self._layout.size


def _boolean(name: str, word: int) -> bool:
    if word > 1:
        raise StateError(f"{name}: expected 0 or 1, found {word}")
    return word == 1


class _Varying:
    """An array of plain values, or a buffer, whose length another field says."""

    __slots__ = ("_field", "_letter")

    def __init__(self, field: Plain) -> None:
        self._field, self._letter = field, LETTERS[field.type]

    def pack(self, values: Given, pieces: list[bytes], shape: list[int]) -> None:
        count = _sized(self._field, values)
        shape.append(count)
        value = _elements(self._field, values, count)
        words = (value,) if self._letter == "s" else value
        pieces.append(struct.pack(f">{count}{self._letter}", *words))

    def unpack(self, data: bytes, at: int, values: Bag) -> int:
        layout = f">{_sized(self._field, values)}{self._letter}"
        words = struct.unpack_from(layout, data, at)
        values[self._field.name] = words[0] if self._letter == "s" else words
        return at + struct.calcsize(layout)


class _Structs:
    """A struct, or an array of them."""

    __slots__ = ("_field", "_plan")

    def __init__(self, field: Struct) -> None:
        self._field, self._plan = field, Plan(field.vmsd)

    def pack(self, values: Given, pieces: list[bytes], shape: list[int]) -> None:
        field = self._field
        if not field.count:
            self._plan.pack(values[field.name], pieces, shape)
            return
        count = _sized(field, values)
        if field.by:
            shape.append(count)
        for element in _elements(field, values, count):
            self._plan.pack(element, pieces, shape)

    def unpack(self, data: bytes, at: int, values: Bag) -> int:
        field = self._field
        if not field.count:
            inner: Bag = {}
            values[field.name] = inner
            return self._plan.unpack(data, at, inner)
        elements: list[Bag] = []
        for _ in range(_sized(field, values)):
            element: Bag = {}
            at = self._plan.unpack(data, at, element)
            elements.append(element)
        values[field.name] = elements
        return at
