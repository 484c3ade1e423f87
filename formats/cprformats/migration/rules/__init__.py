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
from typing import TYPE_CHECKING, Any

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
    "pci config": "pci:config",
    "pci irq state": "pci:irq_state",
    "msix state": "pci:msix",
    "shpc": "pci:shpc",
    "virtio": "virtio:virtio",
    "virtio-gpu": "virtio_gpu:resources",
    "blob": "virtio_gpu:blob",
    "virtio-fs back-end state": "virtio_devices:backend",
    "GByteArray": "devices:byte_array",
    "fd": "devices:file_descriptor",
    "scsi-requests": "scsi:requests",
    "usb-redir-bufpq": "devices:usb_packets",
    "usb-redir-packet-id-q": "devices:usb_packet_ids",
    "usb-redir-parser": "devices:usb_parser",
    "vdagent/cbinfos": "generic:inline",
    "avr": "cpu:pair",
    "fpr": "cpu:pair",
    "irqs": "cpu:flic_irqs",
    "octeon_llm_tree": "cpu:llm_tree",
    "slbe": "cpu:slb_entry",
    "tlb entry": "cpu:hppa_tlb",
    "tlb_entry": "cpu:mips_tlb",
    "undecided": "generic:undecided",
}

#: Pattern of the section's idstr -> "module:function" below this package.
HANDLERS: dict[str, str] = {
    "block": "handlers_block:block",
    "dirty-bitmap": "handlers_block:dirty_bitmap",
    "s390-skeys": "handlers_arch:skeys",
    "s390-storage_attributes": "handlers_arch:storage_attributes",
    "slirp": "handlers_slirp:slirp",
    "spapr/htab": "handlers_arch:htab",
    "todclock": "handlers_arch:todclock",
    "vfio": "handlers_vfio:vfio",
    "*/vfio": "handlers_vfio:vfio",
    "virtio-*": "virtio:section",
    "*/virtio-*": "virtio:section",
    "vhost-user-*": "virtio:section",
    "*/vhost-user-*": "virtio:section",
}


@cache
def _load(where: str) -> Callable[..., Any]:
    module, function = where.split(":")
    found: Callable[..., Any] = getattr(import_module(f"{__name__}.{module}"), function)
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
    known: bool = _load("builtin:is_known")(idstr)
    return _load("builtin:builtin") if known else None
