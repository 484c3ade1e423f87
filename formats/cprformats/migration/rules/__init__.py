"""Rules for what QEMU's own description leaves opaque, found by name, loaded when used.

A *rule* decodes one field whose type is written by a hand-made function; it
is found by its VMStateInfo name and must read exactly the field's size. A
*handler* decodes the whole body of a section that has no description at all
and reads up to its own end, which also tells the framing where that is.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cprformats.migration.device import Decoder
    from cprformats.migration.vmdesc import FieldDesc
    from cprformats.reader import Reader

__all__ = ["HANDLERS", "RULES", "Handler", "Rule", "find_handler", "find_rule"]

Rule = Callable[["Decoder", "Reader", "FieldDesc"], None]
Handler = Callable[["Decoder", "Reader"], None]

#: VMStateInfo name -> "module:function" below this package.
RULES: dict[str, str] = {
    "buffer": "generic:buffer",
    "unused_buffer": "generic:unused",
    "bitmap": "generic:bitmap",
    "tmp": "generic:inline",
    "qtailq": "generic:qtailq",
    "qlist": "generic:qtailq",
    "gtree": "generic:gtree",
    "nullptr": "generic:null_marker",
    "ptr-marker": "generic:null_marker",
}

#: Pattern of the section's idstr -> "module:function" below this package.
HANDLERS: dict[str, str] = {}


@cache
def _load(where: str) -> Callable[..., None]:
    module, function = where.split(":")
    found: Callable[..., None] = getattr(import_module(f"{__name__}.{module}"), function)
    return found


def find_rule(type_name: str, desc: FieldDesc) -> Rule | None:
    """Find the rule for a field's type."""
    if where := RULES.get(type_name):
        return _load(where)
    if desc.inline:
        # A VMS_VSTRUCT has its description inside the field and type "struct" or none.
        return _load("generic:inline")
    if desc.size == 1:
        # Before 10.0 (commits f52965bf0e, 35049eb0d2) a NULL pointer in an array
        # was described with the type of the elements.
        return _load("generic:null_marker")
    return None


def find_handler(idstr: str) -> Handler | None:
    """Find the handler for a section without a description."""
    for pattern, where in HANDLERS.items():
        if fnmatchcase(idstr, pattern):
            return _load(where)
    return None
