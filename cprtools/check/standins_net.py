"""Networks for a try: they reach nobody, and promise the guest what the real ones do.

What virtio-net may offer depends on its backend: offloads need one that takes
a virtio header (hw/net/virtio-net.c: virtio_net_get_features, peer_has_vnet_hdr).
A TAP takes it, so a TAP stands for a TAP, in a network namespace of its own.
Where none can be made, features that are refused say nothing.

`user` stays what it is: its state is in the stream (net/slirp.c).
"""

from __future__ import annotations

from typing import Final

from cprtools.check.cmdline import Pairs, join_pairs, split_pairs, value_of

__all__ = ["Networks"]

#: Backends that take a virtio header.
_TAPS: Final = frozenset(("tap", "bridge"))
_OUTSIDE: Final = frozenset(("vhost-user", "vhost-vdpa", "af-xdp", "netmap", "passt"))
_NIC_KEYS: Final = frozenset(("id", "model", "mac", "mac-address", "name", "addr", "vectors"))
_USER_GONE: Final = frozenset(("hostfwd", "smb", "smbserver", "tftp", "bootfile"))
_FIRST_HUB: Final = 9000


class Networks:
    """Rewrites network backends.

    Args:
        taps: a TAP can be made.
        vhost: and the kernel's vhost be used with it.
        notes: takes what is worth knowing.
        unsure: takes what could not be looked at.

    Attributes:
        blind: some stand-in promises less than the real one.
    """

    def __init__(self, taps: bool, vhost: bool, notes: list[str], unsure: list[str]) -> None:
        self.taps = taps
        self.vhost = vhost
        self.notes = notes
        self.unsure = unsure
        self.blind = False
        self._count = 0

    def backend(self, value: str) -> str:
        """Give the value of -netdev."""
        pairs = split_pairs(value, "type")
        return self._stand_in(pairs, value, [pair for pair in pairs if pair[0] == "id"])

    def nic(self, value: str) -> str:
        """Give the value of -nic, which is a backend and a device."""
        pairs = split_pairs(value, "type")
        return self._stand_in(pairs, value, [pair for pair in pairs if pair[0] in _NIC_KEYS])

    def old(self, value: str) -> list[str]:
        """Give the words for -net; without one its hub has no other side, as is right."""
        pairs = split_pairs(value, "type")
        if value_of(pairs, "type") in ("nic", "none"):
            return ["-net", value]
        kept = [pair for pair in pairs if pair[0] in ("id", "name")]
        made = self._stand_in(pairs, value, kept)
        return [] if made.startswith("type=hubport") else ["-net", made]

    def _stand_in(self, pairs: Pairs, value: str, kept: Pairs) -> str:
        kind = value_of(pairs, "type")
        if kind in ("none", "hubport", "nic"):
            return value
        if kind == "user":
            return join_pairs(_user(pairs))
        if kind in _OUTSIDE:
            self.unsure.append(f"the backend {kind}: what it offers to the guest is its own matter")
        if kind in _TAPS or kind in _OUTSIDE:
            return self._tap(kind, pairs, kept)
        return self._hub(kept)

    def _tap(self, kind: str, pairs: Pairs, kept: Pairs) -> str:
        wants_header = value_of(pairs, "vnet_hdr") != "off"
        if not self.taps:
            self.blind = self.blind or wants_header
            self.unsure.append(f"the backend {kind}: no TAP can be made here to stand for it")
            return self._hub(kept)
        self._count += 1
        made = [("type", "tap"), *kept, ("ifname", f"cpr{self._count}")]
        made += [("script", "no"), ("downscript", "no")]
        if not wants_header:
            made.append(("vnet_hdr", "off"))
        queues = _queues(pairs)
        if queues > 1:
            made.append(("queues", str(queues)))
        if value_of(pairs, "vhost") == "on" or value_of(pairs, "vhostfd", "vhostfds"):
            if self.vhost:
                made.append(("vhost", "on"))
            else:
                self.unsure.append("the kernel's vhost-net, which is not to be used here")
        return join_pairs(made)

    def _hub(self, kept: Pairs) -> str:
        self._count += 1
        hub = str(_FIRST_HUB + self._count)
        return join_pairs([("type", "hubport"), ("hubid", hub), *kept])


def _user(pairs: Pairs) -> Pairs:
    """Keep what the state depends on: addresses, and commands that a guest may start."""
    return [
        pair
        for pair in pairs
        if pair[0] not in _USER_GONE and (pair[0] != "guestfwd" or "-cmd:" in pair[1])
    ]


def _queues(pairs: Pairs) -> int:
    fds = value_of(pairs, "fds", "vhostfds")
    if fds:
        return fds.count(":") + 1
    number = value_of(pairs, "queues", default="1")
    return int(number) if number.isdigit() else 1
