"""See, predict and do QEMU upgrades in place.

::

    import cprtools
    state = cprtools.open("qemu.sav")
    print(state.stream.machine)
    for section in state.stream.sections():
        field, notices = state.stream.decode(section)

    with cprtools.open_memory("qemu.sav") as memory:
        print(memory["pc.ram"].read(0x7c00, 512))

    schema = cprtools.open_schema("qemu-system-x86_64")
    print(schema.named("virtio-net"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cprtools.memory.opening import Memory, open_memory
    from cprtools.schemas.opening import open_schema
    from cprtools.statefile import Layer, StateFile, open

__all__ = ["Layer", "Memory", "StateFile", "__version__", "open", "open_memory", "open_schema"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import the readers when they are first used: `--version` needs none of them."""
    if name in {"Layer", "StateFile", "open"}:
        return getattr(import_module("cprtools.statefile"), name)
    if name in {"Memory", "open_memory"}:
        return getattr(import_module("cprtools.memory.opening"), name)
    if name == "open_schema":
        return getattr(import_module("cprtools.schemas.opening"), name)
    raise AttributeError(f"module 'cprtools' has no attribute {name!r}")
