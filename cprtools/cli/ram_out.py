"""``--extract``, ``--physical`` and ``--elf``: take memory out into files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cprformats.memory.census import Census
from cprformats.memory.contents import Expander
from cprtools.cli.exits import Misuse
from cprtools.files import file_size
from cprtools.memory.drafts import drafts
from cprtools.memory.extract import BlockFiles
from cprtools.memory.opening import RamFile
from cprtools.memory.outcome import Outcome, make_outcome
from cprtools.memory.sinks import Tee
from cprtools.memory.writing import FileWriter, Plan
from cprtools.report.output import raw_output, standard_output
from cprtools.report.progress import ProgressBar
from cprtools.report.words import count

if TYPE_CHECKING:
    from cprformats.errors import FormatError
    from cprformats.memory.batch import RamSink
    from cprformats.memory.contents import BadPage
    from cprtools.cli.ramming import Request
    from cprtools.memory.drafts import Drafts

__all__ = ["elf", "extract", "physical"]

_LEFT = "pages behind the damage in a channel are old or not there; which ones can't be told"


def extract(request: Request) -> FormatError | None:
    """Write each block to a file of its own, in the one pass that reads the stream."""
    assert request.extract is not None
    folder, census = Path(request.extract), Census()
    folder.mkdir(parents=True, exist_ok=True)
    with RamFile(request.file, request.channels) as file, drafts() as files:
        plan = BlockFiles(folder, files, request.blocks)
        with ProgressBar(file_size(request.file), speed=True) as progress:
            expander = Expander(FileWriter(plan, progress), keep_going=request.keep_going)
            sink = Tee(census, expander)
            _read(request, file, sink, progress)
        made = {idstr: str(path) for idstr, path in plan.paths.items()}
        if missing := [name for name in request.blocks if name not in made]:
            files.give_up()
            raise Misuse(f"--block: found no block {missing[0]}")
        return _end(request, file, files, make_outcome(file.stream, census, expander.bad, made))


def physical(request: Request) -> FormatError | None:
    """Write guest-physical memory as one file."""
    from cprtools.memory.physical import PhysicalFile, find_layout  # noqa: PLC0415

    assert request.physical is not None
    target = Path(request.physical)
    with _kept(request) as file, drafts() as files:
        census = _count(request, file)
        layout = find_layout(file.stream, request.ram_blocks, request.layout)
        plan = PhysicalFile(layout, files.add(target).fd)
        bad = _fill(request, file, plan)
        made = {one.block: str(target) for one in layout.ranges}
        outcome = make_outcome(file.stream, census, bad, made, layout.notes, layout.ranges)
        return _end(request, file, files, outcome)


def elf(request: Request) -> FormatError | None:
    """Write an ELF core."""
    from cprformats.guest import cpu_states  # noqa: PLC0415
    from cprtools.memory.physical import CoreFile, find_layout  # noqa: PLC0415

    assert request.elf is not None
    target = Path(request.elf)
    with _kept(request) as file, drafts() as files:
        census = _count(request, file)
        layout = find_layout(file.stream, request.ram_blocks, request.layout)
        cpus = cpu_states(file.stream)
        plan = CoreFile(layout, cpus.states, _arch(layout.machine), files.add(target).fd)
        bad = _fill(request, file, plan)
        notes = [*layout.notes, *cpus.notes, f"registers of {count(len(cpus.states), 'CPU')}"]
        notes += ["Linux's VMCOREINFO note is in the core"] if plan.finish() else []
        made = {one.block: str(target) for one in layout.ranges}
        outcome = make_outcome(file.stream, census, bad, made, tuple(notes), layout.ranges)
        return _end(request, file, files, outcome)


def _arch(machine: str) -> str:
    """Say what CPUs a machine has for whose CPUs there is no register."""
    return "x86_64" if machine.startswith(("pc", "q35", "isapc", "microvm")) else ""


def _kept(request: Request) -> RamFile:
    """Open the file so that it can be read twice: the devices, which tell the layout, come last."""
    return RamFile(request.file, request.channels, keep_all=True)


def _read(request: Request, file: RamFile, sink: RamSink, progress: ProgressBar) -> None:
    file.read(sink, progress=progress, snapshot=request.snapshot, keep_going=request.keep_going)


def _count(request: Request, file: RamFile) -> Census:
    census = Census()
    with ProgressBar(file_size(request.file), speed=True) as progress:
        _read(request, file, census, progress)
    if file.error is not None and not request.keep_going:
        raise file.error
    return census


def _fill(request: Request, file: RamFile, plan: Plan) -> tuple[BadPage, ...]:
    with ProgressBar(file_size(request.file), speed=True) as progress:
        expander = Expander(FileWriter(plan, progress), keep_going=request.keep_going)
        file.read_again(expander, progress, keep_going=request.keep_going)
    return expander.bad


def _end(request: Request, file: RamFile, files: Drafts, outcome: Outcome) -> FormatError | None:
    """Say what came of it; leave no file of a damaged stream, unless that was asked for."""
    if file.error is not None and not request.keep_going:
        files.give_up()
        return file.error
    if file.channel_left:
        outcome = replace(outcome, notes=(*outcome.notes, _LEFT))
    if request.json:
        from cprtools.report.ram_json import write_outcome_document  # noqa: PLC0415

        write_outcome_document(raw_output(), request.file, file.stream, outcome, file.error)
    else:
        from cprtools.report.ram_outcome import write_outcome  # noqa: PLC0415

        write_outcome(standard_output(request.colour), outcome)
    return file.error or outcome.error
