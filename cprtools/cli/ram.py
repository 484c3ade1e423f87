"""``cprtools ram``: its arguments."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Exit, Option

from cprtools.cli.inspect import Colour

__all__ = ["ram"]

_Names = list[str] | None


def ram(
    file: Annotated[str, Argument(metavar="FILE", help="The file; - for standard input.")],
    extract: Annotated[
        str | None,
        Option(metavar="DIR", help="Write each block to DIR/BLOCK.raw, zero pages as holes."),
    ] = None,
    physical: Annotated[
        str | None, Option(metavar="OUT", help="Write guest-physical memory as one sparse file.")
    ] = None,
    elf: Annotated[
        str | None, Option(metavar="OUT", help="Write an ELF core with memory and registers.")
    ] = None,
    read: Annotated[
        tuple[str, str] | None,
        Option(metavar="ADDR LEN", help="Show memory: physical, or BLOCK+OFFSET."),
    ] = None,
    search: Annotated[
        str | None, Option(metavar="HEX|TEXT", help="Find bytes (hex) or text in all blocks.")
    ] = None,
    diff: Annotated[
        str | None, Option(metavar="OTHER", help="List the pages that OTHER has changed.")
    ] = None,
    plot: Annotated[
        str | None, Option(metavar="OUT", help="Draw zero, data and entropy; .svg or .png.")
    ] = None,
    block: Annotated[
        _Names, Option("--block", "-b", metavar="NAME", help="Only this block; repeatable.")
    ] = None,
    channel: Annotated[
        _Names,
        Option("--channel", metavar="FILE", help="A channel of a multifd migration; repeatable."),
    ] = None,
    other_channel: Annotated[
        _Names, Option("--other-channel", metavar="FILE", help="The same for OTHER of --diff.")
    ] = None,
    ram_block: Annotated[
        _Names,
        Option("--ram-block", metavar="NAME", help="Main memory, in address order; repeatable."),
    ] = None,
    layout: Annotated[
        _Names,
        Option(
            "--layout",
            metavar="ADDR=BLOCK[+OFFSET][:SIZE]",
            help="Where a block is in guest-physical memory, instead of the machine's rule.",
        ),
    ] = None,
    snapshot: Annotated[
        str | None, Option(metavar="NAME", help="Read this snapshot of a qcow2 image.")
    ] = None,
    keep_going: Annotated[
        bool, Option("--keep-going", help="Take out all that can be read; list the holes.")
    ] = False,
    no_map: Annotated[bool, Option("--no-map", help="Leave out the picture of memory.")] = False,
    raw: Annotated[bool, Option("--raw", help="With --read: write the bytes as they are.")] = False,
    json: Annotated[bool, Option("--json", help="Write JSON.")] = False,
    color: Annotated[Colour, Option("--color", help="When to use colours.")] = Colour.AUTO,
) -> None:
    """Show the guest memory in a VM state file, or take it out.

    Reads all encodings: page records, XBZRLE, compressed pages, mapped-ram,
    multifd channels, postcopy. Exits with 0 if the file is good, 1 if it is
    damaged, not of a kind that is read, or of a machine whose layout is not
    known, 2 for wrong usage or a file that can't be opened or written.
    """
    from cprtools.cli.exits import guarded  # noqa: PLC0415
    from cprtools.cli.ramming import Request, run  # noqa: PLC0415

    request = Request(
        file,
        extract=extract,
        physical=physical,
        elf=elf,
        read=read,
        search=search,
        diff=diff,
        plot=plot,
        blocks=tuple(block or ()),
        channels=tuple(channel or ()),
        other_channels=tuple(other_channel or ()),
        ram_blocks=tuple(ram_block or ()),
        layout=tuple(layout or ()),
        snapshot=snapshot,
        keep_going=keep_going,
        map=not no_map,
        raw=raw,
        json=json,
        colour=color.value,
    )
    raise Exit(guarded(lambda: run(request)))
