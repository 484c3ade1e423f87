"""Ask the kernel whether two descriptors, of any two processes, are one open file.

This is the only proof for timerfds and KVM's descriptors, which share an inode. It needs the
right to trace both processes, and is not needed inside the pause: the observer asks, from outside.

Source: Linux kernel/kcmp.c (KCMP_FILE), man 2 kcmp.
"""

from __future__ import annotations

import ctypes
import errno
import os

from cprproto.errors import HostError

__all__ = ["same_open_file"]

_KCMP_FILE = 0
_CALLS = {"x86_64": 312, "aarch64": 272, "riscv64": 272, "s390x": 343, "ppc64le": 354}
_NOT_TO_BE_ASKED = (errno.EPERM, errno.ENOSYS, errno.EACCES)


def same_open_file(pid: int, number: int, other_pid: int, other_number: int) -> bool | None:
    """Say whether both are the same open file; None where the kernel does not tell.

    Raises:
        HostError: one of the processes or descriptors is not there.
    """
    call = _CALLS.get(os.uname().machine)
    if call is None:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    words = (pid, other_pid, _KCMP_FILE, number, other_number)
    answer = libc.syscall(ctypes.c_long(call), *map(ctypes.c_long, words))
    if answer >= 0:
        return bool(answer == 0)
    problem = ctypes.get_errno()
    if problem in _NOT_TO_BE_ASKED:
        return None
    where = f"{number} of {pid} and {other_number} of {other_pid}"
    raise HostError(f"can't compare {where}: {os.strerror(problem)}", problem)
