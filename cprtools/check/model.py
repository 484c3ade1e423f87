"""What a check is asked and what it answers.

An engine gets a `Case` and gives an `Answer`. It says `loads` only of what it
has looked at in full; whatever it could not look at makes `undecided`, with
what would decide it. A wrong `loads` kills a VM; a wrong `fails` costs a question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

__all__ = ["Answer", "Case", "Engine", "Finding", "Severity", "Target", "Verdict"]


class Verdict(StrEnum):
    """The three answers; exit status 0, 1 and 3."""

    LOADS = "loads"
    FAILS = "fails"
    UNDECIDED = "undecided"


class Severity(StrEnum):
    """How much a finding says.

    An error makes the load fail. A warning is about the VM after the load, or about
    what could not be looked at. An info is worth knowing.
    """

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found.

    Attributes:
        code: stable name of the cause, as in docs/findings.md.
        severity: see there.
        message: what was found, in one sentence, with the device as the operator knows it.
        section: idstr of the stream's section, or of the RAMBlock; "" where neither.
        instance: instance id of the section.
        field: dotted path of the field.
        expected: what the target takes.
        found: what the state has.
        why: why QEMU refuses it.
        remedy: what helps.
        qemu_says: the message that QEMU itself prints.
    """

    code: str
    severity: Severity
    message: str
    section: str = ""
    instance: int | None = None
    field: str = ""
    expected: str = ""
    found: str = ""
    why: str = ""
    remedy: str = ""
    qemu_says: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """The QEMU that is to load the state.

    Attributes:
        program: what is executed: the binary, or a wrapper around it.
        elf: the ELF file that it runs, or a schema file; None for the program itself.
        arguments: its command line, without the program; None where it is not known.
        machine: the machine type, "" for that of the arguments.
        capabilities: migration capabilities and parameters set before it loads, by name.
    """

    program: Path
    elf: Path | None = None
    arguments: tuple[str, ...] | None = None
    machine: str = ""
    capabilities: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """One state and one target.

    Attributes:
        state: path of a file that `inspect` reads.
        target: see there.
    """

    state: Path
    target: Target


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine says.

    Attributes:
        verdict: see `Verdict`.
        engine: name of the engine that decided.
        findings: errors first.
        open: what would decide it, if it is undecided.
    """

    verdict: Verdict
    engine: str
    findings: tuple[Finding, ...] = ()
    open: tuple[str, ...] = ()


class Engine(Protocol):
    """Answers cases."""

    name: str

    def answer(self, case: Case) -> Answer:
        """Answer one case.

        Raises:
            OSError: a file can't be read.
            FormatError: the state can't be read.
        """
