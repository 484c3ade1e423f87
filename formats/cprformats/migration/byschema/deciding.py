"""What a schema has only as an address of QEMU's code or memory, known from the source.

Of a conditional field: which other member of the structure must not be 0. Of an
array whose count is not in the stream: the count, where QEMU sets it to a
constant. Both are taken as true at first; if nothing fits then, they are not.

Source: hw/ide/core.c (is_identify_set, ide_init1), hw/block/fdc.c
(fdctrl_realize_common), hw/display/vmware_vga.c (vmsvga_init), 7.2 and 10.0.
"""

from __future__ import annotations

from typing import Final

__all__ = ["COUNTS", "DECIDED_BY"]

#: (description, field) -> the member that must not be 0.
DECIDED_BY: Final = {("ide_drive", "identify_data"): "identify_set"}
#: (description, field) -> elements.
COUNTS: Final = {
    ("fdc", "fifo"): 512,
    ("ide_drive/pio_state", "io_buffer"): 256 * 512 + 4,
    ("vmware_vga_internal", "scratch"): 0x8000,
}
