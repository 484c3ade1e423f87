"""Names of virtio's bits and numbers.

Source: OASIS virtio 1.3 and the Linux headers virtio_config.h, virtio_net.h,
virtio_blk.h and so on, as QEMU carries them (include/standard-headers/linux);
the names are those of the macros without VIRTIO_ and the device's prefix.
Feature bits 0 to 23 and 50 up belong to the kind of device, the others to all.
"""

from __future__ import annotations

from collections.abc import Mapping

from cprformats.names import Bits, Enum, Table

__all__ = ["TABLES"]

#: virtio_config.h, virtio_ring.h; 26 and 30 as vhost uses them (linux/vhost.h, vhost-user).
_COMMON = {
    24: "NOTIFY_ON_EMPTY",
    26: "LOG_ALL",
    27: "ANY_LAYOUT",
    28: "RING_INDIRECT_DESC",
    29: "RING_EVENT_IDX",
    30: "PROTOCOL_FEATURES",
    32: "VERSION_1",
    33: "ACCESS_PLATFORM",
    34: "RING_PACKED",
    35: "IN_ORDER",
    36: "ORDER_PLATFORM",
    37: "SR_IOV",
    38: "NOTIFICATION_DATA",
    39: "NOTIF_CONFIG_DATA",
    40: "RING_RESET",
    41: "ADMIN_VQ",
}

_NET = {
    0: "CSUM",
    1: "GUEST_CSUM",
    2: "CTRL_GUEST_OFFLOADS",
    3: "MTU",
    5: "MAC",
    6: "GSO",
    7: "GUEST_TSO4",
    8: "GUEST_TSO6",
    9: "GUEST_ECN",
    10: "GUEST_UFO",
    11: "HOST_TSO4",
    12: "HOST_TSO6",
    13: "HOST_ECN",
    14: "HOST_UFO",
    15: "MRG_RXBUF",
    16: "STATUS",
    17: "CTRL_VQ",
    18: "CTRL_RX",
    19: "CTRL_VLAN",
    20: "CTRL_RX_EXTRA",
    21: "GUEST_ANNOUNCE",
    22: "MQ",
    23: "CTRL_MAC_ADDR",
    50: "DEVICE_STATS",
    52: "VQ_NOTF_COAL",
    53: "NOTF_COAL",
    54: "GUEST_USO4",
    55: "GUEST_USO6",
    56: "HOST_USO",
    57: "HASH_REPORT",
    59: "GUEST_HDRLEN",
    60: "RSS",
    61: "RSC_EXT",
    62: "STANDBY",
    63: "SPEED_DUPLEX",
    65: "GUEST_UDP_TUNNEL_GSO",
    66: "GUEST_UDP_TUNNEL_GSO_CSUM",
    67: "HOST_UDP_TUNNEL_GSO",
    68: "HOST_UDP_TUNNEL_GSO_CSUM",
}

#: By kind of device: what its own bits are called. A kind without any has the common ones.
_FEATURES: Mapping[str, Mapping[int, str]] = {
    "net": _NET,
    "blk": {
        0: "BARRIER",
        1: "SIZE_MAX",
        2: "SEG_MAX",
        4: "GEOMETRY",
        5: "RO",
        6: "BLK_SIZE",
        7: "SCSI",
        9: "FLUSH",
        10: "TOPOLOGY",
        11: "CONFIG_WCE",
        12: "MQ",
        13: "DISCARD",
        14: "WRITE_ZEROES",
        16: "SECURE_ERASE",
        17: "ZONED",
    },
    "console": {0: "SIZE", 1: "MULTIPORT", 2: "EMERG_WRITE"},
    "rng": {},
    "balloon": {
        0: "MUST_TELL_HOST",
        1: "STATS_VQ",
        2: "DEFLATE_ON_OOM",
        3: "FREE_PAGE_HINT",
        4: "PAGE_POISON",
        5: "REPORTING",
    },
    "scsi": {0: "INOUT", 1: "HOTPLUG", 2: "CHANGE", 3: "T10_PI"},
    "9p": {0: "MOUNT_TAG"},
    "gpu": {
        0: "VIRGL",
        1: "EDID",
        2: "RESOURCE_UUID",
        3: "RESOURCE_BLOB",
        4: "CONTEXT_INIT",
        5: "BLOB_ALIGNMENT",
    },
    "rtc": {0: "ALARM"},
    "input": {},
    "vsock": {0: "STREAM", 1: "SEQPACKET", 2: "NO_IMPLIED_STREAM"},
    "crypto": {
        0: "REVISION_1",
        1: "CIPHER_STATELESS_MODE",
        2: "HASH_STATELESS_MODE",
        3: "MAC_STATELESS_MODE",
        4: "AEAD_STATELESS_MODE",
        5: "AKCIPHER_STATELESS_MODE",
    },
    "iommu": {
        0: "INPUT_RANGE",
        1: "DOMAIN_RANGE",
        2: "MAP_UNMAP",
        3: "BYPASS",
        4: "PROBE",
        5: "MMIO",
        6: "BYPASS_CONFIG",
    },
    "mem": {0: "ACPI_PXM", 1: "UNPLUGGED_INACCESSIBLE", 2: "PERSISTENT_SUSPEND"},
    "sound": {0: "CTLS"},
    "fs": {0: "NOTIFICATION"},
    "pmem": {0: "SHMEM_REGION"},
    "scmi": {0: "P2A_CHANNELS", 1: "SHARED_MEMORY"},
    "nsm": {},
    "i2c": {0: "ZERO_LENGTH_REQUEST"},
    "gpio": {0: "IRQ"},
    "": {},
}


def _features(kind: str, own: Mapping[int, str]) -> Bits:
    return Bits(f"virtio-{kind}-features", {**_COMMON, **own})


_HASHES = ("IPv4", "TCPv4", "UDPv4", "IPv6", "TCPv6", "UDPv6", "IP_EX", "TCP_EX", "UDP_EX")
#: VIRTIO_NET_CTRL_GUEST_OFFLOADS takes the numbers of the guest's feature bits;
#: those above 63 are mapped to 46 and up (virtio_net.h, VIRTIO_OFFLOAD_MAP).
_OFFLOADS = {
    bit: name
    for bit, name in _NET.items()
    if bit < 64 and (name.startswith("GUEST_") or name == "RSC_EXT")
} | {46: "GUEST_UDP_TUNNEL_GSO", 47: "GUEST_UDP_TUNNEL_GSO_CSUM"}

TABLES: tuple[Table, ...] = (
    *(_features(kind, own) for kind, own in _FEATURES.items()),
    Bits(
        "virtio-status",
        {
            0: "ACKNOWLEDGE",
            1: "DRIVER",
            2: "DRIVER_OK",
            3: "FEATURES_OK",
            6: "NEEDS_RESET",
            7: "FAILED",
        },
    ),
    Bits("virtio-isr", {0: "QUEUE", 1: "CONFIG"}),
    # VIRTIO_MSI_NO_VECTOR is the only value with a name.
    Enum("virtio-vector", {0xFFFF: "NO_VECTOR"}, plain=True),
    # QEMU's VIRTIO_DEVICE_ENDIAN_*.
    Enum("virtio-endian", {1: "little", 2: "big"}),
    Bits("virtio-net-status", {0: "LINK_UP", 1: "ANNOUNCE"}),
    Enum("virtio-net-duplex", {0: "half", 1: "full", 0xFF: "unknown"}),
    Bits("virtio-net-hash", dict(enumerate(_HASHES))),
    Bits("virtio-net-offloads", _OFFLOADS),
    Enum("virtio-blk-zoned", {0: "none", 1: "host-managed", 2: "host-aware"}),
    # QEMU's free_page_hint_status.
    Enum("virtio-balloon-hint", {0: "STOP", 1: "REQUESTED", 2: "START", 3: "DONE"}),
    Enum(
        "virtio-gpu-format",
        {
            1: "B8G8R8A8_UNORM",
            2: "B8G8R8X8_UNORM",
            3: "A8R8G8B8_UNORM",
            4: "X8R8G8B8_UNORM",
            67: "R8G8B8A8_UNORM",
            68: "X8B8G8R8_UNORM",
            121: "A8B8G8R8_UNORM",
            134: "R8G8B8X8_UNORM",
        },
    ),
    Bits("virtio-gpu-events", {0: "DISPLAY"}),
    Enum(
        "virtio-input-select",
        {
            0: "UNSET",
            1: "ID_NAME",
            2: "ID_SERIAL",
            3: "ID_DEVIDS",
            0x10: "PROP_BITS",
            0x11: "EV_BITS",
            0x12: "ABS_INFO",
        },
    ),
    Bits("virtio-crypto-services", {0: "CIPHER", 1: "HASH", 2: "MAC", 3: "AEAD", 4: "AKCIPHER"}),
    Bits("virtio-iommu-map", {0: "READ", 1: "WRITE", 2: "MMIO"}),
)
