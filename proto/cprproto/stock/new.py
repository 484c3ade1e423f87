"""The program that a stock QEMU execs as its successor: `cpr-exec-command` of 10.2 on.

::

    python -m cprproto.stock.new --report FILE [--wants FILE] [--stream FILE] [--then PROGRAM ...]

Adopts the inherited state, writes what it found as JSON, and ends: 0 if nothing lacked, 1 if
something did. With `--then` it goes on instead: to another program, in the same process, with
the same descriptors, numbers and state, as if it had not been there.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from cprproto.errors import ProtoError
from cprproto.fds.table import set_cloexec
from cprproto.state.qcpr import ENVIRONMENT, read_state, state_from_exec
from cprproto.state.stream import write_all
from cprproto.stock.adopting import adopt, decode_wants, report

__all__ = ["hand_on", "main"]


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="cprproto.stock.new", description="adopt a CPR state")
    parser.add_argument("--report", type=Path, required=True, help="gets what was found, as JSON")
    parser.add_argument("--wants", type=Path, help="JSON list of what should be there")
    parser.add_argument("--stream", type=Path, help="the migration stream that goes with it")
    parser.add_argument("--then", nargs=argparse.REMAINDER, help="program to exec afterwards")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Adopt, report, and go on if asked to.

    Returns:
        Exit code: 0 nothing lacked, 1 something did or could not be read.
    """
    options = _options(sys.argv[1:] if arguments is None else arguments)
    try:
        data = state_from_exec()
        wants = decode_wants(options.wants.read_bytes()) if options.wants else ()
        stream = options.stream.read_bytes() if options.stream else b""
        adoption = adopt(data, wants, stream=stream)
        options.report.write_bytes(report(adoption))
        if options.then:
            hand_on(data, options.then)
    except (ProtoError, OSError) as problem:
        options.report.with_suffix(".error").write_text(f"{problem}\n")
        return 1
    return 0 if adoption.is_whole else 1


def hand_on(data: bytes, command: list[str]) -> None:
    """Exec a program that inherits the same state; returns only by an exception.

    Raises:
        HostError: a descriptor of the state is not open.
        OSError: the program can't be run.
    """
    state = os.memfd_create(ENVIRONMENT, 0)
    write_all(state, data)
    for entry in read_state(data).entries:
        set_cloexec(entry.number, on=False)
    os.environ[ENVIRONMENT] = str(state)
    os.execvp(command[0], command)  # noqa: S606 -- the user's own command


if __name__ == "__main__":
    sys.exit(main())
