"""Compare virtio devices: features, sizes of queues, ports.

Source: QEMU hw/virtio/virtio.c (virtio_load, virtio_set_features_nocheck),
hw/char/virtio-serial-bus.c (virtio_serial_load_device, fetch_active_ports_list), 5.2 to 11.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from cprformats.fields import Field
from cprformats.migration import Section
from cprtools.check.messages import finding
from cprtools.check.model import Finding
from cprtools.check.probe_problem import Problem

if TYPE_CHECKING:
    from cprtools.check.probe_sections import Sections

__all__ = ["guest_features", "virtio_config", "virtio_problems"]

#: Features that a guest is not to set; QEMU has them on its side only.
_BAD_FEATURE: Final = 1 << 30
#: The first release that compares the sizes of queues with those that it has made.
_SIZES_SINCE: Final = (11, 1)
_MOST_QUEUES: Final = 1024


def body_of(tree: Field) -> Field | None:
    """Give the hand-written part of a virtio device's section."""
    body = next((one for one in tree.children if one.name == "body"), None)
    found = body.get("virtio") if body is not None else None
    return found if found is not None and found.get("transport") is not None else None


def virtio_config(tree: Field) -> Field | None:
    """Give the configuration space of a virtio device on PCI."""
    body = body_of(tree)
    return body.get("transport.pci_device.config") if body is not None else None


def guest_features(body: Field) -> int:
    """Give the features that the guest has taken, as bits."""
    found = _number(body.get("guest_features"))
    for sub in body.children:
        # It holds all of them, and the loader goes by it (virtio_load).
        if sub.name in ("virtio/64bit_features", "virtio/128bit_features"):
            numbers = [one for one in _leaves(sub) if one.name.startswith("guest_features")]
            found = sum(_number(one) << 64 * place for place, one in enumerate(numbers))
    return found


def _number(leaf: Field | None) -> int:
    return leaf.value if leaf is not None and isinstance(leaf.value, int) else 0


def _leaves(node: Field) -> Iterator[Field]:
    for child in node.children:
        if child.codec:
            yield child
        yield from _leaves(child)


def virtio_problems(
    target: Sections, section: Section, tree: Field, mine: Field
) -> Iterator[Problem]:
    """Give what is wrong with a virtio device's own values."""
    body, local = body_of(tree), body_of(mine)
    if body is None or local is None:
        return
    yield from _queues(target, section, body, local)
    yield from _features(target, section, body)
    yield from _ports(section, body, local)


def _features(target: Sections, section: Section, body: Field) -> Iterator[Problem]:
    taken = guest_features(body)
    offered = target.features.get(section.idstr)
    if offered is None:
        if taken:
            made = finding(
                "virtio-features",
                f"{section.name}: what the target offers is not known",
                section=section.idstr,
                instance=section.instance_id,
                found=f"{taken:#x}",
            )
            yield Problem(body.end, made, f"the features that {section.idstr} offers on the target")
        return
    wrong = taken & ~offered & ~_BAD_FEATURE
    if wrong:
        says = f"Features {taken:#x} unsupported. Allowed features: {offered:#x}"
        made = finding(
            "virtio-features",
            f"{section.name}: the guest uses features {wrong:#x} that the target does not offer",
            section=section.idstr,
            instance=section.instance_id,
            expected=f"{offered:#x}",
            found=f"{taken:#x}",
            says=says,
        )
        yield Problem(body.end, made)


def _queues(target: Sections, section: Section, body: Field, local: Field) -> Iterator[Problem]:
    count = body.get("queues")
    if count is not None and isinstance(count.value, int) and count.value > _MOST_QUEUES:
        says = f"Invalid number of virtqueues: {count.value:#x}"
        yield Problem(count.offset, _finding("virtio-queues", section, says, "queues"))
        return
    chosen = body.get("queue_sel")
    if chosen is not None and isinstance(chosen.value, int) and chosen.value >= _MOST_QUEUES:
        says = _refusal(section)
        yield Problem(chosen.offset, _finding("device-refused", section, says, "queue_sel"))
    if target.release < _SIZES_SINCE:
        return
    for queue in body.children:
        if queue.type != "virtqueue":
            continue
        here, there = queue.get("vring.num"), local.get(f"{queue.name}.vring.num")
        most = there.value if there is not None and isinstance(there.value, int) else 0
        if here is not None and isinstance(here.value, int) and here.value > most:
            number = queue.name.partition("[")[2].rstrip("]")
            says = f"VQ {number} vring.num {here.value} exceeds allocated max {most}"
            yield Problem(here.offset, _finding("virtio-queues", section, says, queue.name))
            return


def _ports(section: Section, body: Field, local: Field) -> Iterator[Problem]:
    """The ports of a serial device must be those of the target."""
    here, there = (_port_values(one) for one in (body, local))
    if not here or here == there:
        return
    says = _refusal(section)
    yield Problem(body.end, _finding("device-refused", section, says, "ports"))


def _port_values(body: Field) -> list[object]:
    device = next((one for one in body.children if one.type == "virtio-serial-device"), None)
    device = device.get("ports") if device is not None else None
    if device is None:
        return []
    ids = [one.get("id") for one in device.children if one.type == "VirtIOSerialPort"]
    fixed = [device.get(name) for name in ("ports_map", "nr_active_ports")]
    return [one.value for one in (*fixed, *ids) if one is not None]


def _refusal(section: Section) -> str:
    place = f"instance {section.instance_id:#x} of device '{section.idstr}'"
    return f"error while loading state for {place}"


def _finding(code: str, section: Section, says: str, field: str) -> Finding:
    return finding(
        code,
        f"{section.name}: {says}",
        section=section.idstr,
        instance=section.instance_id,
        field=field,
        says=says,
    )
