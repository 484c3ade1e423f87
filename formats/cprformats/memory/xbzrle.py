"""XBZRLE: a page as what differs from the page sent before.

::

    delta = (same:uleb128 differs:uleb128 byte*differs)*

`same` bytes stay as they are, the next `differs` bytes come from the delta.
Only the first `same` may be 0. Both numbers have 14 bits at most.

Source: QEMU migration/xbzrle.c (xbzrle_decode_buffer), util/cutils.c
(uleb128_decode_small); unchanged from 1.2 to 11.1.
"""

from __future__ import annotations

__all__ = ["apply_delta"]


def apply_delta(page: bytes, delta: bytes) -> bytes:
    """Give the page that a delta makes of the one before; both of the same size.

    Raises:
        ValueError: the delta runs over its own end or the page's, or has an empty run.
    """
    result = bytearray(page)
    place = at = 0
    while at < len(delta):
        same, begin = _number(delta, at)
        if at and not same:
            raise ValueError(f"XBZRLE: expected a run of unchanged bytes, found 0 at {at:#x}")
        differs, begin = _number(delta, begin)
        if not differs:
            raise ValueError(f"XBZRLE: expected a run of new bytes, found 0 at {at:#x}")
        place, at = place + same, begin + differs
        if at > len(delta):
            raise ValueError(f"XBZRLE: expected {at} bytes, found {len(delta)}")
        if place + differs > len(page):
            raise ValueError(
                f"XBZRLE: expected at most {len(page)} bytes of page, found {place + differs}"
            )
        result[place : place + differs] = delta[begin:at]
        place += differs
    return bytes(result)


def _number(delta: bytes, at: int) -> tuple[int, int]:
    """Read one number; give it and the place behind it."""
    if at >= len(delta):
        raise ValueError(f"XBZRLE: expected a length, found the end at {at:#x}")
    low = delta[at]
    if not low & 0x80:
        return low, at + 1
    if at + 1 >= len(delta) or delta[at + 1] & 0x80:
        raise ValueError(f"XBZRLE: expected a length of at most two bytes at {at:#x}")
    return low & 0x7F | delta[at + 1] << 7, at + 2
