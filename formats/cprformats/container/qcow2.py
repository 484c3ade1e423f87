"""Read qcow2 images: which snapshots they hold, and the VM state of one of them.

An image is a store of clusters; its first one says where the tables are that
lead to all others (see `qcow2_header`, `qcow2_state`). A snapshot made by
``savevm`` keeps the VM's migration stream behind the end of its disk. Every
cluster of the file is named by what leads to it (`qcow2_map`, `qcow2_tables`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from cprformats.container import qcow2_wire as wire
from cprformats.container.qcow2_header import Header, Snapshot, read_header, read_snapshots
from cprformats.container.qcow2_map import ImageMap
from cprformats.container.qcow2_state import VmState
from cprformats.container.qcow2_tables import draw_map
from cprformats.errors import FormatError, Unsupported, WrongFormat
from cprformats.fields import Field, Tally
from cprformats.source import Source

__all__ = ["Qcow2", "Snapshot", "read_qcow2"]


class Qcow2:
    """A qcow2 image.

    `walk`, `tally`, `warnings` and `error` look at all of its tables, once.

    Attributes:
        source: its bytes.
        header: what its first cluster says.
        snapshots: in the order of the table.
        state: the VM state of the chosen snapshot; None where there is none.
    """

    def __init__(
        self,
        source: Source,
        header: Header,
        snapshots: tuple[Snapshot, ...],
        state: VmState | None,
        warnings: tuple[str, ...],
        error: FormatError | None,
    ) -> None:
        self.source = source
        self.header = header
        self.snapshots = snapshots
        self.state = state
        self.offset = 0
        self._warnings = warnings
        self._error = error

    @property
    def end(self) -> int:
        """Size of the file in bytes."""
        return self.source.size()

    @property
    def snapshot(self) -> Snapshot | None:
        """The snapshot whose VM state is read."""
        return self.state.snapshot if self.state else None

    @cached_property
    def map(self) -> ImageMap:
        """What each cluster of the file is for."""
        return draw_map(self.source, self.header, self.snapshots)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Oddities that don't stop a reader."""
        return self._warnings + self.map.warnings

    @property
    def error(self) -> FormatError | None:
        """The first thing that is wrong with the image."""
        return self._error or self.map.error

    def walk(self) -> Iterator[Field]:
        """Give all clusters as trees in file order."""
        return self.map.walk()

    def tally(self) -> Tally:
        """Count the bytes by kind."""
        return self.map.tally()


def read_qcow2(source: Source, snapshot: str | None = None) -> Qcow2:
    """Read the image's header and snapshot table, and choose a snapshot.

    Damage behind the header does not raise: it is kept as `error`.

    Args:
        source: the image.
        snapshot: id or name; by default the last one that has a VM state.

    Raises:
        WrongFormat: there is no magic, or no snapshot of that id or name.
        Truncated: the header is cut.
        Unsupported: another version, unknown features.
        Damaged: sizes in the header that no image has.
    """
    header = read_header(source)
    found: list[Snapshot] = []
    error: FormatError | None = None
    state: VmState | None = None
    warnings: list[str] = []
    try:
        found.extend(read_snapshots(source, header))
    except FormatError as caught:
        error = caught
    chosen = _choose(found, snapshot, warnings)
    if chosen is not None and chosen.vm_state_size:
        try:
            _check_readable(header)
            state = VmState(source, header, chosen)
            error = error or state.error
        except FormatError as caught:
            error = error or caught
    return Qcow2(source, header, tuple(found), state, tuple(warnings), error)


def _choose(found: list[Snapshot], wanted: str | None, warnings: list[str]) -> Snapshot | None:
    if wanted is not None:
        # As QEMU does: the id first, then the name.
        for key in ("id", "name"):
            for snapshot in found:
                if getattr(snapshot, key) == wanted:
                    return _with_state(snapshot, warnings)
        names = ", ".join(f"{x.name!r} (id {x.id})" for x in found) or "none"
        raise WrongFormat(f"snapshot {wanted!r}: expected one of those in the image: {names}")
    with_state = [snapshot for snapshot in found if snapshot.vm_state_size]
    if len(with_state) > 1:
        last = with_state[-1]
        others = ", ".join(f"{x.name!r}" for x in with_state[:-1][:8])
        warnings.append(
            f"snapshot {last.name!r} (id {last.id}) is read, the last of {len(with_state)} "
            f"with a VM state; the others: {others}"
        )
    return with_state[-1] if with_state else None


def _with_state(snapshot: Snapshot, warnings: list[str]) -> Snapshot:
    if not snapshot.vm_state_size:
        warnings.append(f"snapshot {snapshot.name!r} is of the disk alone: it has no VM state")
    return snapshot


def _check_readable(header: Header) -> None:
    if header.crypt_method:
        name = (
            wire.CryptMethod(header.crypt_method).name
            if header.crypt_method in tuple(wire.CryptMethod)
            else str(header.crypt_method)
        )
        raise Unsupported(f"the image is encrypted ({name}): its VM state can't be read", offset=32)
    if header.incompatible & wire.Incompatible.DATA_FILE:
        raise Unsupported("clusters lie in an external data file", offset=72)
