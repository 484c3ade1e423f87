"""``cprtools ram FILE``: count the pages and show the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cprformats.memory.census import Census
from cprtools.cli.exits import Misuse
from cprtools.files import file_size
from cprtools.memory.opening import RamFile
from cprtools.report.output import raw_output, standard_output
from cprtools.report.progress import ProgressBar

if TYPE_CHECKING:
    from cprformats.errors import FormatError
    from cprtools.cli.ramming import Request

__all__ = ["table"]


def table(request: Request) -> FormatError | None:
    """Read the file once and write the table, or the same as JSON."""
    census = Census()
    with RamFile(request.file, request.channels) as file:
        with ProgressBar(file_size(request.file), speed=True) as progress:
            stream = file.read(
                census,
                progress=progress,
                snapshot=request.snapshot,
                keep_going=request.keep_going,
            )
        _check_blocks(request, census, file.error)
        if request.json:
            from cprtools.report.ram_json import write_census  # noqa: PLC0415

            write_census(raw_output(), request.file, stream, census, file.error, request.blocks)
        else:
            from cprtools.report.ram_text import write_table  # noqa: PLC0415

            out = standard_output(request.colour)
            write_table(out, request.file, stream, census, request.blocks, picture=request.map)
    return file.error


def _check_blocks(request: Request, census: Census, error: FormatError | None) -> None:
    if not request.blocks:
        return
    known = [block.idstr for block in census.report()]
    missing = [name for name in request.blocks if name not in known]
    if missing and error is None:
        raise Misuse(f"--block: expected one of {', '.join(known)}, found {missing[0]}")
