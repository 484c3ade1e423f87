"""The CPR state file: which descriptors an upgraded QEMU inherits, and under what names."""

from cprformats.cpr.model import CprFd, CprMemfd, CprState, CprVfioDevice
from cprformats.cpr.old import read_old_state
from cprformats.cpr.state import read_state

__all__ = ["CprFd", "CprMemfd", "CprState", "CprVfioDevice", "read_old_state", "read_state"]
