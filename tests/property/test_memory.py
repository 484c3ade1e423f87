"""Whatever a file says of itself: memory stays below 200 MB, and nothing hangs.

Each input is built, opened, decoded and reported in a process of its own,
whose peak (VmHWM) is read at the end; building is not counted.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import hostile
import pytest

MIB = 1 << 20
MOST = 200 * MIB
#: Of CPU time, for opening and counting; the document gets three more.
SECONDS = 60

_RUN = """
import pathlib, re, signal, sys
import cprtools
from cprformats.errors import FormatError
from cprformats.migration import MigrationStream
from cprtools.inspector.select import Selection
from cprtools.report.document import DocumentStyle, write_document
from cprtools.report.json_out import JsonEmitter

class Enough(Exception):
    pass  # the document goes on and on, in a straight line

def stop(*_):
    raise Enough

try:
    with cprtools.open(sys.argv[1]) as state:
        for layer in state.layers if sys.argv[2] == "count" else ():
            layer.content.tally()
        style = DocumentStyle(None, Selection())
        signal.signal(signal.SIGPROF, stop)
        signal.setitimer(signal.ITIMER_PROF, 3)
        try:
            write_document(JsonEmitter(lambda _: None), sys.argv[1], state, style)
        except Enough:
            pass
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        end = str(state.error or "good")
except FormatError as error:
    end = str(error)
peak = re.search("VmHWM:\\\\s*(\\\\d+)", pathlib.Path("/proc/self/status").read_text())[1]
print(int(peak) << 10, end[:200])
"""


@pytest.mark.parametrize("name", hostile.ALL)
def test_hostile_input_takes_bounded_memory_and_time(name: str, tmp_path: Path) -> None:
    path = tmp_path / "input"
    with path.open("wb") as file:
        hostile.ALL[name](file)
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(path), "open" if name in hostile.LONG else "count"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS)),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    peak, _, end = done.stdout.partition(" ")
    assert int(peak) < MOST, f"{int(peak) // MIB} MiB: {end}"
