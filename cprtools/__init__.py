"""See, predict and do QEMU upgrades in place.

::

    import cprtools
    state = cprtools.open("qemu.sav")
    print(state.stream.machine)
    for section in state.stream.sections():
        field, notices = state.stream.decode(section)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cprtools.statefile import Layer, StateFile, open

__all__ = ["Layer", "StateFile", "__version__", "open"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import the readers when they are first used: `--version` needs none of them."""
    if name in {"Layer", "StateFile", "open"}:
        return getattr(import_module("cprtools.statefile"), name)
    raise AttributeError(f"module 'cprtools' has no attribute {name!r}")
