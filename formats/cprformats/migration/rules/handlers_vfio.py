"""Handler for ``vfio``: devices passed through, with state of their vendor's own form.

::

    body    = record+            up to the first word that is no tag
    record  = tag:be64 [ size:be64 data:size, of DEV_DATA_STATE
                       | config, of DEV_CONFIG_STATE ]
    config  = PCIDevice ["msix state", if the device has MSI-X] subsection*

Which record ends a body differs by release and by START, PART, END or FULL
(two END_OF_STATE in one END of 5.2, INIT_DATA_SENT alone since 8.1). All tags
begin with ff ff ff ff, and neither a footer nor a section does: so a body
goes on as long as tags come.

Source: QEMU hw/vfio/migration.c (vfio_save_setup, vfio_save_iterate,
vfio_save_complete_precopy, vfio_save_state), hw/vfio/pci.c
(vmstate_vfio_pci_config), include/hw/vfio/vfio-common.h; 5.2 to 11.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cprformats.errors import FormatError
from cprformats.fields import Kind
from cprformats.migration.rules.pci import msix_vectors, read_msix, read_pci_device
from cprformats.migration.wire import SectionType
from cprformats.reader import Reader

if TYPE_CHECKING:
    from cprformats.migration.device import Decoder

__all__ = ["TAGS", "vfio"]

#: Tag -> QEMU's name of it, without VFIO_MIG_FLAG_.
TAGS = {
    0xFFFF_FFFF_EF10_0001: "END_OF_STATE",
    0xFFFF_FFFF_EF10_0002: "DEV_CONFIG_STATE",
    0xFFFF_FFFF_EF10_0003: "DEV_SETUP_STATE",
    0xFFFF_FFFF_EF10_0004: "DEV_DATA_STATE",
    0xFFFF_FFFF_EF10_0005: "DEV_INIT_DATA_SENT",
    0xFFFF_FFFF_EF10_0006: "DEV_CONFIG_LOAD_READY",
}
_TAG_START = b"\xff\xff\xff\xff"
_END_TAG = 0xFFFF_FFFF_EF10_0001.to_bytes(8)
#: More than a PCI Express device with a full MSI-X table and a display takes.
_MAX_CONFIG_BYTES = 1 << 17


def vfio(decoder: Decoder, reader: Reader) -> None:
    """Read one section's records."""
    index = 0
    while not index or reader.peek(4) == _TAG_START:
        decoder.count(reader)
        tag = TAGS.get(int.from_bytes(reader.peek(8)), "")
        if not tag:
            raise reader.mismatch("vfio tag", "ffffffffef100001 to ...06", reader.peek(8).hex())
        with reader.group(f"[{index}]", tag):
            reader.number("tag", "u64be", meaning="vfio-tag")
            if tag == "DEV_DATA_STATE":
                size = reader.number("data_size", "u64be")
                reader.blob("data", size, kind=Kind.PAYLOAD)
            elif tag == "DEV_CONFIG_STATE":
                _config(decoder, reader)
        index += 1


def _config(decoder: Decoder, reader: Reader) -> None:
    """Read a PCI device's part, or, if it is another kind of device, up to the next tag."""
    size = reader.peek(_MAX_CONFIG_BYTES).find(_END_TAG)
    if size < 0:
        raise reader.damaged(f"vfio configuration: no end within {_MAX_CONFIG_BYTES} bytes")
    if not size:
        return
    outer, reader.end = reader.end, reader.offset + size
    try:
        with reader.group("config", "VFIOPCIDevice"):
            _pci_config(decoder, reader)
        if reader.offset != reader.end:
            raise reader.mismatch("end of the configuration", hex(reader.end), hex(reader.offset))
    except FormatError as error:
        reader.rewind()
        decoder.notice(f"vfio configuration kept whole: {error}", reader)
        reader.blob("config", size, kind=Kind.PAYLOAD)
    finally:
        reader.end = outer


def _pci_config(decoder: Decoder, reader: Reader) -> None:
    with reader.group("parent_obj", "PCIDevice"):
        data = read_pci_device(decoder, reader)
    vectors = msix_vectors(data)
    if vectors and not reader.at_end():
        with reader.group("msix", "msix state"):
            read_msix(reader, vectors)
    while not reader.at_end():
        _subsection(reader)


def _subsection(reader: Reader) -> None:
    """Read the display's subsection: a head, then contents up to the end (VFIODisplay)."""
    with reader.group("subsection", "subsection"):
        with reader.group("head", "subsection", Kind.SUBSECTION_HEAD):
            reader.expect("type", "u8", int(SectionType.SUBSECTION))
            reader.counted_text("idstr")
            reader.number("version", "u32be")
        reader.blob("data", reader.remaining, kind=Kind.PAYLOAD)
