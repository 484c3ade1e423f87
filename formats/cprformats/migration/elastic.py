"""Decode arrays whose elements differ in size although the description says one size.

QEMU describes an array of structs by its first element if it takes the
elements to be alike. It does not look at lists, buffers and arrays inside that
have a length of their own, nor, before 10.0, at NULL pointers. Then the sizes
of the description do not add up to the section's end, and such arrays are
read by what the data says:

* a list goes on while its markers say so;
* an array or buffer has as many elements as some number in front of it in the
  same struct says, which is found in the first element: the nearest number
  that equals the described count;
* where pointers may be NULL, the byte 0x30 in place of an element is one.

It is tried first without NULL pointers, then with them, and taken only if it
ends exactly at the section's end.

Source: QEMU migration/vmstate.c (vmsd_can_compress, vmsd_desc_field_start).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cprformats.codecs import is_integer
from cprformats.fields import Field
from cprformats.migration.vmdesc import FieldDesc, VmsdDesc
from cprformats.reader import Reader

if TYPE_CHECKING:
    from cprformats.migration.device import Decoder

__all__ = ["Elastic"]

_NULL = b"0"
#: Names around a body's own fields: the section's, and "body".
_BODY_DEPTH = 2
_LISTS = ("qtailq", "qlist")
#: Types without a fixed size, of which `size` is the count of bytes.
_BYTES = ("buffer", "unused_buffer")

_CHANNEL_PATH = VmsdDesc(
    "s390_chp_info",
    1,
    tuple(FieldDesc(name, "uint8", 1) for name in ("in_use", "type", "is_virtual")),
)
#: (section, field of its body) -> what QEMU does not describe because its first pointer is NULL.
#: Source: hw/s390x/css.c (vmstate_css_img), 5.2 and 7.2.
_KNOWN = {
    ("s390_css", "css"): VmsdDesc(
        "s390_css_img", 1, (FieldDesc("chpids", "struct", 3, 256, struct=_CHANNEL_PATH),)
    )
}


@dataclass(slots=True)
class Elastic:
    """Reads arrays by their data, for one attempt at one section.

    Attributes:
        nulls: whether an element may be a NULL pointer.
    """

    nulls: bool
    _counts: dict[int, str | None] = field(default_factory=dict)

    def array(self, decoder: Decoder, reader: Reader, desc: FieldDesc, count: int) -> None:
        """Read `count` elements of an array of structs."""
        struct = self._struct(reader, desc)
        for index in range(count):
            decoder.count(reader)
            name = f"{desc.name}[{index}]"
            if self.nulls and reader.peek(1) == _NULL:
                decoder.field(reader, FieldDesc(name, "nullptr", 1))
                continue
            if struct is None:
                raise reader.damaged(f"{name} is no NULL pointer, and not described")
            with reader.group(name, struct.vmsd_name):
                self._vmsd(decoder, reader, struct)

    def _struct(self, reader: Reader, desc: FieldDesc) -> VmsdDesc | None:
        struct = desc.struct
        if struct is None or struct.fields or struct.subsections:
            return struct
        return _KNOWN.get((reader.path[0], desc.name)) if len(reader.path) == _BODY_DEPTH else None

    def _vmsd(self, decoder: Decoder, reader: Reader, desc: VmsdDesc) -> None:
        for item in desc.fields:
            self._field(decoder, reader, item)
        for sub in desc.subsections:
            if reader.peek(len(sub.vmsd_name), skip=2) == sub.vmsd_name.encode():
                decoder.subsection(reader, sub)

    def _field(self, decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
        if desc.type in _LISTS and desc.array_len is None:
            self._list(decoder, reader, desc)
        elif desc.type in _BYTES and desc.array_len is None:
            size = self._count(reader, desc, desc.size)
            decoder.field(reader, replace(desc, size=size))
        elif desc.array_len is None:
            self._single(decoder, reader, desc)
        elif desc.struct is None:
            count = self._count(reader, desc, desc.array_len)
            if count:
                decoder.field(reader, replace(desc, array_len=count))
        else:
            self.array(decoder, reader, desc, self._count(reader, desc, desc.array_len))

    def _single(self, decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
        """Read a struct, also one written straight into the field, or any other type."""
        inner = desc.struct or (desc.inline[0] if len(desc.inline) == 1 else None)
        if inner is None:
            decoder.field(reader, desc)
            return
        with reader.group(desc.name, inner.vmsd_name):
            self._vmsd(decoder, reader, inner)

    def _list(self, decoder: Decoder, reader: Reader, desc: FieldDesc) -> None:
        with reader.group(desc.name, desc.type):
            index = 0
            while reader.peek(1) == b"\1":
                decoder.count(reader)
                reader.expect(f"more[{index}]", "u8", 1)
                if not desc.inline:
                    raise reader.damaged(f"elements of the list {desc.name} are not described")
                with reader.group(f"[{index}]", desc.inline[0].vmsd_name):
                    self._vmsd(decoder, reader, desc.inline[0])
                index += 1
            reader.expect("end", "u8", 0)

    def _count(self, reader: Reader, desc: FieldDesc, described: int) -> int:
        """Give the count of this time: as described at first, later as the same number says."""
        numbers = {leaf.name: leaf.value for leaf in reader.siblings if _is_count(leaf)}
        if id(desc) not in self._counts:
            equal = [name for name, value in numbers.items() if value == described]
            self._counts[id(desc)] = equal[-1] if equal else None
            return described
        value = numbers.get(self._counts[id(desc)] or "", described)
        assert isinstance(value, int)
        if value > max(reader.remaining, 0):
            raise reader.mismatch(desc.name, f"at most {reader.remaining} elements", value)
        return value


def _is_count(leaf: Field) -> bool:
    """Say whether a leaf can hold a count: an integer that is not negative."""
    return is_integer(leaf.codec) and isinstance(leaf.value, int) and leaf.value >= 0
