"""What VM state is wrapped in: compressions, libvirt's save image, qcow2 images."""

from cprformats.container.compressed import Compressed, read_compressed
from cprformats.container.libvirt import LibvirtSave, read_libvirt
from cprformats.container.qcow2 import Qcow2, Snapshot, read_qcow2

__all__ = [
    "Compressed",
    "LibvirtSave",
    "Qcow2",
    "Snapshot",
    "read_compressed",
    "read_libvirt",
    "read_qcow2",
]
