"""The dry run: the real target loads the state, without its RAM and with nothing behind it.

It says `loads` only if the target completed the load and nothing that could
have made it fail was left out; `fails` if the target, started as it is with its
own devices, refused.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cprtools.check.attempt import Ending, Outcome, Stage, attempt
from cprtools.check.cage import Cage, can_make_tap
from cprtools.check.dryrun_stream import reduce_state
from cprtools.check.messages import blame, error_lines, finding, tells
from cprtools.check.model import Answer, Case, Finding, Severity, Verdict
from cprtools.check.standins import Host, Rewritten, rewrite
from cprtools.memory.opening import Memory, open_memory

__all__ = ["DryRun"]

_NAME: Final = "dry-run"
#: What the target says where the host lacks something.
_HOST: Final = re.compile(
    r"Permission denied|Could not access KVM|failed to initialize kvm|No space left|"
    r"Cannot allocate memory|cannot set up guest memory|Could not open|could not open|"
    r"No such file or directory|Device or resource busy|Operation not permitted|"
    r"Address already in use|could not load|failed to find romfile|can't bind|"
    r"error while loading shared libraries|No such device$|seccomp"
)
#: And where one of our stand-ins does not suit it.
_OURS: Final = re.compile(
    r"cprtools|cpr\d+|null-co|read-zeroes|memfd|pci-testdev|hubport|tun/tap|/dev/net/tun"
)
#: What may also come of guest memory that is not there.
_BY_MEMORY: Final = frozenset(("virtio-queues", "device-refused", "target-crashed"))
_SHOWN: Final = 2000
_RUN_AGAIN_SECONDS: Final = 10.0


class DryRun:
    """The engine.

    Args:
        seconds: how long the target may take.
    """

    name = _NAME

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = seconds

    def answer(self, case: Case) -> Answer:
        """Answer one case.

        Raises:
            OSError: a file can't be read, or the target can't be started.
            FormatError: the state can't be read.
        """
        if case.target.arguments is None:
            said = finding(
                "no-arguments", "the target's command line is not known", severity=Severity.WARNING
            )
            return Answer(Verdict.UNDECIDED, _NAME, (said,), ("the target's arguments, behind --",))
        with Cage() as cage, open_memory(case.state) as memory:
            line = rewrite(_arguments(case), _host(cage, memory, case.target.capabilities))
            state = reduce_state(memory, line.left_out)
            words = [_program(case.target.program), *line.words]
            words += ["-display", "none", "-monitor", "none", "-S", "-incoming", "defer"]
            outcome = attempt(
                cage, words, state, case.target.capabilities, self.seconds, line.memory_bytes
            )
            lacks_memory = _lacks_memory(memory)
        return _Judge(case, line, outcome, self.seconds, lacks_memory).answer()


def _program(program: Path) -> str:
    """Give the path of what is to be run; a bare name is looked for as the shell does."""
    if len(program.parts) == 1 and not program.exists():
        return shutil.which(str(program)) or str(program.absolute())
    return str(program.absolute())


def _arguments(case: Case) -> list[str]:
    words = list(case.target.arguments or ())
    return [*words, "-machine", case.target.machine] if case.target.machine else words


def _host(cage: Cage, memory: Memory, capabilities: Mapping[str, str]) -> Host:
    blocks = memory.stream.ram.blocks
    total = sum(block.used_length for block in blocks.values())
    own = [name for name in blocks if "/" not in name]
    return Host(
        cage.folder,
        taps=can_make_tap(),
        vhost=os.access("/dev/vhost-net", os.R_OK | os.W_OK),
        shared_files=capabilities.get("x-ignore-shared") == "on",
        big=total > _promised(),
        main_memory=max(own, key=lambda name: blocks[name].used_length, default=""),
    )


def _lacks_memory(memory: Memory) -> bool:
    """Say whether guest memory stands elsewhere: in shared files, or in descriptors (CPR)."""
    stream = memory.stream
    if stream.configuration and "x-ignore-shared" in stream.configuration.capabilities:
        return True
    return stream.error is None and not any(any(one.pages.values()) for one in stream.ram.per_block)


def _promised() -> int:
    """Bytes that the kernel gives away for sure: half of what is free."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    return int(found[1]) << 9 if found else 1 << 30


@dataclass(frozen=True, slots=True)
class _Judge:
    """Makes an answer of what the target did."""

    case: Case
    line: Rewritten
    outcome: Outcome
    seconds: float
    lacks_memory: bool = False

    def answer(self) -> Answer:
        """Give the answer."""
        verdict, findings, left = self._judged()
        notes = [finding("stand-in", note, severity=Severity.INFO) for note in self.line.notes]
        notes += [finding("bounds", note, severity=Severity.INFO) for note in self.outcome.notes]
        return Answer(verdict, _NAME, (*findings, *notes), tuple(left))

    def _judged(self) -> tuple[Verdict, list[Finding], list[str]]:
        outcome = self.outcome
        if outcome.ending is Ending.LOADED:
            return self._loaded()
        if outcome.ending is Ending.LATE and tells(error_lines(outcome.text)):
            return self._failed()
        if outcome.ending is Ending.LATE:
            said = f"it was not done after {self.seconds:g} s ({outcome.stage})"
            return self._open("target-hangs", said, "more time: --timeout")
        if outcome.ending is Ending.FLOODED:
            return self._open("target-floods", "it printed without end", "a target that is a QEMU")
        if outcome.ending is Ending.REFUSED and outcome.stage is not Stage.START:
            return self._refused()
        if outcome.stage is Stage.START:
            return self._not_started()
        return self._failed()

    def _loaded(self) -> tuple[Verdict, list[Finding], list[str]]:
        lines = error_lines(self.outcome.text)
        said = [
            finding("target-said", one, severity=Severity.WARNING, says=one) for one in lines[:20]
        ]
        unsure = [
            finding("not-looked-at", one, severity=Severity.WARNING) for one in self.line.unsure
        ]
        if unsure:
            return Verdict.UNDECIDED, [*unsure, *said], list(dict.fromkeys(self.line.unsure))
        return Verdict.LOADS, said, []

    def _refused(self) -> tuple[Verdict, list[Finding], list[str]]:
        lines = error_lines(self.outcome.text)
        if self.outcome.stage is Stage.LOAD and lines:
            return self._failed()
        said = self.outcome.refused
        if self.outcome.stage is Stage.LOAD:
            findings = list(blame([said]))
            if findings[0].code not in ("load-failed", "device-refused"):
                return Verdict.FAILS, findings, []
        one = finding("capability-refused", f"the target says: {said}", says=f"QMP: {said}")
        return Verdict.FAILS, [one], []

    def _failed(self) -> tuple[Verdict, list[Finding], list[str]]:
        """The target refused the state, or broke on it."""
        lines = error_lines(self.outcome.text)
        findings: list[Finding] = []
        code = self.outcome.code
        if code is not None and code < 0:
            if -code in (signal.SIGKILL, signal.SIGTERM, signal.SIGXCPU):
                return self._open("target-crashed", self._ended(), "a run that nobody ends")
            says = "\n".join(lines)[-_SHOWN:]
            findings.append(finding("target-crashed", self._ended(), says=says))
        if not findings and not lines:
            return self._open("target-ended", self._ended(), "what it prints")
        if lines:
            known = list(blame(lines))
            findings = known if not findings else findings + known
        if self.line.blind and any(one.code.startswith("virtio-") for one in findings):
            return (
                Verdict.UNDECIDED,
                findings,
                ["network backends of the same kind as the real ones"],
            )
        if self.lacks_memory and any(one.code in _BY_MEMORY for one in findings):
            return Verdict.UNDECIDED, findings, ["guest memory, which is not in the state"]
        return Verdict.FAILS, findings, []

    def _not_started(self) -> tuple[Verdict, list[Finding], list[str]]:
        """It never spoke QMP: its arguments, the host, or no QEMU at all."""
        text = "\n".join(error_lines(self.outcome.text))[-_SHOWN:]
        code = self.outcome.code
        if code is not None and code < 0:
            return self._open("target-crashed", self._ended(), "a target that starts")
        if not code or not _is_qemu(self.case.target.program):
            return self._open("target-not-qemu", self._ended(), "a target that is a QEMU")
        last = text.splitlines()[-1] if text else self._ended()
        if "unsupported machine type" in text:
            return (
                Verdict.FAILS,
                [finding("machine-unknown", "it has no such machine type", says=text)],
                [],
            )
        if _HOST.search(text):
            return self._open("target-host", last, "a host that has what the target needs", text)
        if _OURS.search(text):
            return self._open("not-looked-at", last, "the real backends, on a copy", text)
        return Verdict.FAILS, [finding("target-arguments", last, says=text)], []

    def _open(
        self, code: str, message: str, left: str, says: str = ""
    ) -> tuple[Verdict, list[Finding], list[str]]:
        says = says or "\n".join(error_lines(self.outcome.text))[-_SHOWN:]
        found = finding(code, message, severity=Severity.WARNING, says=says)
        return Verdict.UNDECIDED, [found], [left]

    def _ended(self) -> str:
        code = self.outcome.code
        if code is None:
            return "it closed its monitor"
        if code >= 0:
            return f"it ended with status {code} ({self.outcome.stage})"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"it was ended by {name} ({self.outcome.stage})"


def _is_qemu(program: Path) -> bool:
    """Ask a program for its version, in bounds too."""
    read, write = os.pipe()
    try:
        with Cage() as cage:
            process = cage.start([_program(program), "--version"], (), write, 10, 0)
            os.close(write)
            write = -1
            try:
                process.wait(_RUN_AGAIN_SECONDS)
            except subprocess.TimeoutExpired:
                return False
            return b"QEMU" in os.read(read, 4096)
    except OSError:
        return False
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)
