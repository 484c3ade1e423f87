"""The static engine: a state against the target's file and command line; nothing is run.

It says `fails` where the target certainly refuses; `loads` only where every section and RAM
block of the state is accounted for by a command line that is understood in full.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cprformats.errors import FormatError, Truncated
from cprformats.migration.model import Command
from cprformats.migration.ramparts import PageKind
from cprformats.migration.stream import MigrationStream
from cprtools import statefile
from cprtools.check.messages import finding
from cprtools.check.model import Answer, Case, Finding, Severity, Verdict
from cprtools.check.static_compare import check_blocks, check_sections
from cprtools.check.static_config import check_configuration, sends
from cprtools.check.static_expect import Expected, expect
from cprtools.check.static_facts import facts_of
from cprtools.check.static_plan import Plan, make_plan
from cprtools.check.static_target import TargetFile, elf_of

__all__ = ["Static"]

_FAMILIES = {"pc": "pc-i440fx-", "q35": "pc-q35-", "virt": "virt-"}
_SWITCHOVER = 11
_ENOUGH = 8
_HEAD = b"QEVM\0\0\0\3"


class Static:
    """See above."""

    name = "static"

    def answer(self, case: Case) -> Answer:
        """Answer one case.

        Raises:
            OSError: a file can't be read.
            FormatError: the state or the target can't be read.
        """
        file = TargetFile(elf_of(case.target))
        if _wrong_version(case.state):
            said = "the state is of a version that QEMU does not load"
            return Answer(Verdict.FAILS, self.name, (finding("not-a-stream", said),))
        with statefile.open(case.state) as opened:
            stream = opened.stream
            if stream.vmdesc is not None:
                return _Look(case, file, stream).answer()
        with statefile.open(case.state, schema=file.schema) as opened:
            return _Look(case, file, opened.stream).answer()


def _wrong_version(path: Path) -> bool:
    """Say whether it begins like a stream, but of a version that nobody wrote."""
    with path.open("rb") as file:
        head = file.read(8) if path.is_file() else b""
    if len(head) < len(_HEAD):
        return bool(head) and _HEAD.startswith(head)
    return head.startswith(b"QEVM") and head != _HEAD


class _Look:
    def __init__(self, case: Case, file: TargetFile, stream: MigrationStream) -> None:
        self.case, self.file, self.stream = case, file, stream
        self.plan: Plan | None = None
        self.open: list[str] = []
        self.expected: Expected | None = None
        words = case.target.arguments
        if words is not None:
            self.plan = make_plan(words, case.target.machine)
        self.machine = self._machine()

    def _machine(self) -> str:
        """The target's machine type without aliases; "" where it is not known."""
        name = self.plan.machine if self.plan else self.case.target.machine
        facts = facts_of(self.file.release)
        if not name:
            return (facts.default if facts else "") if self.plan else ""
        if name in self.file.machines or not self.file.machines:
            if facts is not None and name in facts.aliases:
                return facts.aliases[name]
            return name
        if facts is not None and name in facts.aliases:
            return facts.aliases[name]
        family = _FAMILIES.get(name)
        if family and any(one.startswith(family) for one in self.file.machines):
            return f"{family}{self.file.release}"
        return name

    def answer(self) -> Answer:
        errors: list[Finding] = []
        networks = self.plan.networks if self.plan else set()
        self.open += [f"what network backends of the kind {one} offer" for one in sorted(networks)]
        for one in self._findings():
            if isinstance(one, str):
                self.open.append(one)
            elif not (networks and one.code == "virtio-features" and "net" in one.section):
                errors.append(one)
                if len(errors) >= _ENOUGH:
                    break
        if errors:
            return Answer(Verdict.FAILS, "static", tuple(errors))
        notes = tuple(
            finding("not-looked-at", one, severity=Severity.WARNING)
            for one in dict.fromkeys(self.open)
        )
        if notes:
            return Answer(Verdict.UNDECIDED, "static", notes, ("a dry run: --engine dry-run",))
        return Answer(Verdict.LOADS, "static")

    def _findings(self) -> Iterator[Finding | str]:
        stream = self.stream
        yield from self._unmigratable()
        found = list(
            check_configuration(stream, self.case.target, self.file, self.machine, self.plan)
        )
        yield from found
        if any(not isinstance(one, str) for one in found):
            return
        self._expect()
        if self.expected is not None:
            yield from self.expected.holes
        if stream.footers is not None and self.plan is not None and stream.configuration:
            yield from self._footers()
        yield from self._commands()
        yield from self._pages()
        yield from self._cpu()
        if self.expected is not None:
            yield from check_blocks(stream, self.expected)
        counted = self.file.says(b"exceeds allocated max")
        yield from check_sections(stream, self.file.schema, self.expected, counted=counted)
        if stream.error is not None and not _after_end(stream.error):
            yield _broken(stream.error)
        if self.expected is None:
            yield "the target's command line: give it behind --"
        else:
            yield from self.expected.doubts

    def _expect(self) -> None:
        facts = facts_of(self.file.release)
        if self.plan is None or facts is None:
            return
        self.expected = expect(self.plan, facts, self.machine)

    def _unmigratable(self) -> Iterator[Finding]:
        """Such a device blocks loading, too."""
        for device in self.plan.devices if self.plan else ():
            named = self.file.schema.named(device.model)
            if named and all(one.unmigratable for one in named):
                section = f"{device.path}/{device.model}" if device.path else device.model
                yield finding(
                    "unmigratable",
                    f"the target's device {device.model} can't be migrated",
                    section=section,
                    says=f"State blocked by non-migratable device '{section}'",
                )

    def _pages(self) -> Iterator[Finding]:
        """Kinds of pages that a target refuses (migration/ram.c: ram_load_precopy)."""
        kinds = {
            kind for one in self.stream.ram.per_block for kind, count in one.pages.items() if count
        }
        on = self.case.target.capabilities.get("compress") == "on"
        if PageKind.COMPRESSED in kinds and not on:
            yield finding(
                "ram-pages",
                "pages of the state are compressed, and the target's capability compress is off",
                section="ram",
                says="Received an unexpected compressed page",
            )
        if PageKind.FILL in kinds and self.file.release not in ("5.2", "7.2", "8.2"):
            yield finding(
                "ram-pages",
                "the state has zero pages with a value",
                says="Found a zero page with value",
            )
        mapped = any(one.mapped is not None for one in self.stream.ram.blocks.values())
        if self.case.target.capabilities.get("multifd") == "on" and not mapped:
            yield finding(
                "capability-refused",
                "the target has multifd on, and the state comes by one channel",
                field="multifd",
                expected="on",
                found="one channel",
                says="multifd is not supported by current protocol",
            )

    def _cpu(self) -> Iterator[Finding | str]:
        name = self.plan.cpu if self.plan else ""
        if not name or not self.file.machines:
            return
        if re.search(r"-v\d+$", name) or (
            name not in ("host", "max") and not self.file.says(b"\0" + name.encode() + b"\0")
        ):
            yield f"whether the target has the CPU model {name}"

    def _footers(self) -> Iterator[Finding]:
        wanted = sends(self.machine, self.plan, "section-footer")
        if wanted != self.stream.footers:
            first = next(iter(self.stream.sections()))
            says = f"Missing section footer for {first.idstr}"
            yield finding(
                "section-footer" if wanted else "stream-damaged",
                "sections of the state end without footers, and the target wants them"
                if wanted
                else "sections of the state have footers, and the target expects none",
                section=first.idstr if wanted else "",
                says=says if wanted else "Unknown savevm section type 126",
            )

    def _commands(self) -> Iterator[Finding]:
        for item in self.stream.items:
            if (
                isinstance(item, Command)
                and item.number == _SWITCHOVER
                and self.file.release in ("5.2", "7.2", "8.2", "9.0", "9.1", "9.2")
            ):
                yield finding(
                    "command-unknown",
                    "the state has a command that the target does not know: switchover",
                    says="MIG_CMD 0xb unknown (len 0x0)",
                )


def _after_end(error: FormatError) -> bool:
    """Say whether it breaks in the description, of which a loader skips what there is."""
    return error.path[:1] == ("vmdesc",)


def _broken(error: FormatError) -> Finding:
    code, section = "stream-cut" if isinstance(error, Truncated) else "stream-damaged", ""
    if error.path and error.path[0] not in ("configuration", "header"):
        section = error.path[0]
    if found := re.match(r"section (\S+): ", str(error)):
        section = found[1]
    if error.message.startswith("footer:"):
        code = "section-footer"
    elif section == "ram" and code != "stream-cut":
        code = "ram-pages"
        if "unknown RAMBlock" in error.message:
            section = error.path[1] if len(error.path) > 1 else section
    says = f"Missing section footer for {section}" if code == "section-footer" else ""
    return finding(code, f"the state breaks: {error}", section=section, says=says)
