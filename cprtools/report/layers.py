"""What is said of layers that are not streams: wrappings, images, CPR state files."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import fields

from cprformats.container.libvirt import LibvirtSave
from cprformats.container.qcow2 import Qcow2, Snapshot
from cprformats.cpr import CprFd, CprState, CprVfioDevice
from cprtools.inspector.parts import parts
from cprtools.inspector.summary import LayerSummary
from cprtools.report.output import Column, Output
from cprtools.report.text import write_facts
from cprtools.report.tree import TreeStyle, write_part
from cprtools.report.words import count, size_words

__all__ = ["write_content", "write_outer"]


def write_outer(out: Output, layers: Sequence[LayerSummary]) -> None:
    """Write what the layers around the innermost one say."""
    for layer in layers[:-1]:
        if isinstance(layer.content, LibvirtSave):
            out.line()
            write_facts(out, _libvirt(layer.content))
        elif isinstance(layer.content, Qcow2):
            _write_snapshots(out, layer.content)


def _write_snapshots(out: Output, image: Qcow2) -> None:
    out.line()
    out.line(("Snapshots", "title"), f"  {len(image.snapshots)}")
    if not image.snapshots:
        return
    columns = [
        Column(""),
        Column("id"),
        Column("name", style="name", fold=True),
        Column("date (UTC)"),
        Column("VM clock", right=True),
        Column("VM state", right=True),
    ]
    chosen = image.snapshot
    out.table(columns, (_snapshot_row(row, chosen=row is chosen) for row in image.snapshots))


def _snapshot_row(snapshot: Snapshot, *, chosen: bool) -> list[str]:
    state = size_words(snapshot.vm_state_size) if snapshot.vm_state_size else "none"
    clock = f"{snapshot.vm_clock_ns / 1e9:.3f} s"
    date = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(snapshot.date))
    return ["*" if chosen else "", snapshot.id, snapshot.name, date, clock, state]


def _libvirt(save: LibvirtSave) -> Iterator[tuple[str, str]]:
    whole = "complete" if save.complete else "not complete"
    yield "libvirt", f"version {save.version}, {whole}, {save.byte_order}-endian header"
    yield "saved", "while running" if save.was_running else "while paused"
    yield "format", save.format
    cookie = f", cookie {count(len(save.cookie), 'character')}" if save.cookie else ", no cookie"
    yield "domain", f"XML of {count(len(save.xml), 'character')}{cookie}"


def write_content(out: Output, layer: LayerSummary, style: TreeStyle) -> None:
    """Write the contents of an innermost layer that is not a stream."""
    if isinstance(layer.content, CprState):
        _write_cpr(out, layer.content)
        return
    if isinstance(layer.content, Qcow2):
        _write_snapshots(out, layer.content)
        return
    if layer.kind == "multifd-channel":
        # Rare, so what it imports is imported here.
        from cprformats.migration.multifd import MultifdChannel  # noqa: PLC0415
        from cprtools.report.multifd import write_multifd  # noqa: PLC0415

        assert isinstance(layer.content, MultifdChannel)
        write_multifd(out, layer.content)
        return
    for part in parts(layer.content):
        out.line()
        write_part(out, part, style)


def _write_cpr(out: Output, state: CprState) -> None:
    out.line()
    write_facts(out, _cpr(state))
    if state.entries:
        out.line()
        out.line(("Descriptors", "title"), f"  {len(state.entries)}")
        columns = [
            Column("offset", right=True, style="dim"),
            Column("name", style="name", fold=True),
            Column("id", right=True),
            Column("fd", right=True),
            Column("value", right=True),
        ]
        out.table(columns, map(_cpr_row, state.entries))
    _write_memfds(out, state)
    _write_vfio(out, state)


def _cpr(state: CprState) -> Iterator[tuple[str, str]]:
    if state.version is not None:
        yield "version", str(state.version)
    if state.mode is not None:
        yield "mode", str(state.mode)
    passed = {
        "exec": "by number: they stay open over exec (cpr-exec)",
        "transfer": "beside the data, over a socket (cpr-transfer)",
    }
    yield "descriptors", passed.get(state.passed, "none")


def _cpr_row(entry: CprFd) -> list[str]:
    number = "beside" if entry.fd is None else str(entry.fd)
    fd, value = ("", number) if entry.is_value else (number, "")
    return [f"{entry.offset:#x}", entry.name, str(entry.id), fd, value]


def _write_memfds(out: Output, state: CprState) -> None:
    if not state.memfds:
        return
    out.line()
    out.line(("RAM blocks", "title"), f"  {len(state.memfds)}")
    columns = [
        Column("offset", right=True, style="dim"),
        Column("name", style="name", fold=True),
        Column("id", right=True),
        Column("length", right=True),
        Column("at most", right=True),
        Column("aligned to", right=True),
    ]
    out.table(
        columns,
        (
            [
                f"{memfd.offset:#x}",
                memfd.name,
                str(memfd.id),
                *map(size_words, (memfd.length, memfd.max_length, memfd.align)),
            ]
            for memfd in state.memfds
        ),
    )


def _write_vfio(out: Output, state: CprState) -> None:
    if not state.has_vfio:
        return
    out.line()
    out.line(("VFIO devices", "title"), f"  {len(state.vfio_devices)}")
    if not state.vfio_devices:
        return
    names = [field.name for field in fields(CprVfioDevice)]
    columns = [Column(name, right=name != "name", style="") for name in names]
    out.table(
        columns,
        ([str(getattr(device, name)) for name in names] for device in state.vfio_devices),
    )
