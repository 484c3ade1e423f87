"""Compare what stands in front of the devices: header, configuration, RAMBlocks, commands.

Source: QEMU migration/savevm.c (qemu_loadvm_state_header, configuration_post_load,
vmstate_uuid_post_load, loadvm_process_command), migration/ram.c (parse_ramblock,
ram_load_precopy), system/physmem.c (qemu_ram_resize), 5.2 to 11.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from cprformats.errors import FormatError, Truncated
from cprformats.migration import Command, Configuration, MigrationStream
from cprformats.migration.ramparts import PageKind, RamBlock
from cprtools.check.messages import finding
from cprtools.check.model import Finding
from cprtools.check.probe_run import Asked

__all__ = [
    "addresses",
    "blocks",
    "channels",
    "commands",
    "configuration",
    "damage",
    "pages",
    "release",
]

#: Capabilities that both sides compare.
_COMPARED: Final = ("x-ignore-shared", "mapped-ram")
_PAGE: Final = 4096
_WANTS_FOOTER: Final = re.compile(r"section (.+): expected its footer")
#: The last command that a release knows, and those it has dropped.
_LAST_COMMAND: Final = {(10, 0): 11, (0, 0): 10}
_COLO, _COLO_GONE = 8, (11, 0)
_COMPRESS_GONE: Final = (9, 1)


def release(asked: Asked) -> tuple[int, int]:
    """Give the target's release: its first two numbers."""
    found = re.match(r"(\d+)\.(\d+)", asked.outcome.version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def configuration(
    state: MigrationStream, own: MigrationStream, asked: Asked, set_on: Mapping[str, str]
) -> Iterator[Finding]:
    """Compare the configuration section, in the order in which it is loaded."""
    ours, theirs = state.configuration, own.configuration
    if not asked.described:  # only devices were saved
        theirs = Configuration(asked.machine)
    if ours is None:
        cut = state.error is not None and state.error.path[:1] == ("configuration",)
        if theirs is not None and not cut:
            says = "Configuration section missing"
            yield finding("configuration", "the stream has no configuration section", says=says)
        return
    if theirs is None:
        if asked.described:
            says = "Unknown savevm section type 7"
            message = "the target's machine type expects no configuration section"
            yield finding("stream-damaged", message, says=says)
        return
    for name in ours.capabilities:
        if name not in asked.capabilities:
            says = f"Received unknown capability {name}"
            yield finding("capability-unknown", says, field=name, found="on", says=says)
    yield from _uuid(ours.uuid, asked.uuid)
    if not theirs.machine.startswith(ours.machine):
        says = f"Machine type received is '{ours.machine}' and local is '{theirs.machine}'"
        yield finding("machine-type", says, expected=theirs.machine, found=ours.machine, says=says)
    yield from _page_bits(ours.target_page_bits, theirs.target_page_bits)
    for name in _COMPARED:
        yield from _capability(name, name in ours.capabilities, set_on.get(name) == "on")


def _uuid(ours: str | None, theirs: str) -> Iterator[Finding]:
    if ours and theirs and ours.lower() != theirs.lower():
        says = f"UUID received is {ours} and local is {theirs}"
        yield finding("uuid", says, expected=theirs, found=ours, says=says)


def _page_bits(ours: int | None, theirs: int | None) -> Iterator[Finding]:
    if ours is not None and theirs is not None and ours != theirs:
        says = f"Received TARGET_PAGE_BITS is {ours} but local is {theirs}"
        yield finding("page-bits", says, expected=str(theirs), found=str(ours), says=says)


def _capability(name: str, received: bool, local: bool) -> Iterator[Finding]:
    if received != local:
        here, there = ("on" if one else "off" for one in (local, received))
        says = f"Capability {name} is {here}, but received capability is {there}"
        yield finding("capability", says, field=name, expected=here, found=there, says=says)


# -- RAM -----------------------------------------------------------------------------------


def blocks(state: MigrationStream, asked: Asked) -> Iterator[Finding]:
    """Compare RAMBlocks with the target's, in the order of the stream's list."""
    for name, block in state.ram.blocks.items():
        local = asked.blocks.get(name)
        if local is None:
            says = f'Unknown ramblock "{name}", cannot accept migration'
            message = f"the target has no RAMBlock {name}"
            yield finding("ram-block-unknown", message, section=name, found=name, says=says)
            return
        size = block.used_length
        if block.mapped is not None:
            # Its pages are read where they lie, and sizes are not compared.
            yield from _mapped(state, block, local.used)
            continue
        rounded = -(-size // _PAGE) * _PAGE
        if rounded == local.used or (rounded <= local.most and _grows(name, local.grows)):
            continue
        grows = _grows(name, local.grows)
        here = local.most if grows else local.used
        kind, sign = ("too large", ">") if grows else ("mismatch", "!=")
        says = f"Size {kind}: {name}: {size:#x} {sign} {here:#x}"
        yield finding(
            "ram-block-size",
            f"RAMBlock {name}: {says}",
            section=name,
            expected=f"{here:#x} bytes",
            found=f"{size:#x} bytes",
            says=says,
        )
        return


def _mapped(state: MigrationStream, block: RamBlock, used: int) -> Iterator[Finding]:
    mapped = block.mapped
    assert mapped is not None
    if mapped.page_size != _PAGE:
        expected = f"(expected {_PAGE})"
        says = f"Migration mapped-ram header has invalid page_size {mapped.page_size} {expected}"
        yield finding("ram-pages", says, section="ram", says=says)
    elif mapped.present(state.source, used // _PAGE) if used < block.used_length else 0:
        says = f"page outside of ramblock {block.idstr} range"
        yield finding("ram-pages", says, section=block.idstr, says=says)


def addresses(state: MigrationStream, own: MigrationStream) -> Iterator[Finding]:
    """With x-ignore-shared: where shared blocks lie must be the same (parse_ramblock)."""
    for name, block in state.ram.blocks.items():
        local = own.ram.blocks.get(name)
        if local is None or None in (block.address, local.address):
            continue
        if block.address != local.address:
            says = f"Mismatched GPAs for block {name} {block.address}!= {local.address}"
            yield finding("ram-block-page", says, section=name, says=says)


def channels(state: MigrationStream, set_on: Mapping[str, str]) -> Iterator[Finding]:
    """A file or pipe is one channel: multifd takes it only with mapped-ram."""
    if set_on.get("multifd") == "on" and set_on.get("mapped-ram") != "on" and not state.ram.flushes:
        says = "multifd is not supported by current protocol"
        yield finding("capability-refused", says, field="multifd", says=says)


def _grows(name: str, bigger: bool) -> bool:
    """Tables for the firmware may have any size up to their most (hw/core/loader.c: rom_set_mr)."""
    return bigger or name.startswith("/rom@")


def pages(state: MigrationStream, asked: Asked, set_on: Mapping[str, str]) -> Iterator[Finding]:
    """Compare how pages were sent with what the target takes."""
    for one in state.ram.per_block:
        compressed = one.pages.get(PageKind.COMPRESSED, 0)
        gone = release(asked) >= _COMPRESS_GONE
        if compressed and (gone or set_on.get("compress") != "on"):
            says = (
                "Unknown combination of migration flags: 0x120"
                if gone
                else "Received an unexpected compressed page"
            )
            message = f"pages of {one.block.idstr} are compressed"
            yield finding("ram-pages", message, section="ram", says=says)
            return


# -- commands ------------------------------------------------------------------------------


def commands(item: Command, asked: Asked) -> Iterator[Finding]:
    """Compare a command with those that the target's release knows."""
    here = release(asked)
    last = next(number for since, number in _LAST_COMMAND.items() if here >= since)
    if item.number > last or (item.number == _COLO and here >= _COLO_GONE):
        says = f"MIG_CMD {item.number:#x} unknown"
        message = f"the target does not know the command {item.name}"
        yield finding("command-unknown", message, found=item.name, says=says)


def damage(error: FormatError) -> Finding | None:
    """Make a finding of what ends the reading of a stream; None if no loader reads so far."""
    path = error.path
    if path[:1] == ("vmdesc",):
        return None  # a description that is cut is left alone (qemu_loadvm_state)
    wants = _WANTS_FOOTER.match(error.message)
    section = wants[1] if wants else path[0] if path else ""
    if isinstance(error, Truncated) or wants:
        code = "stream-cut"
    elif path[:1] == ("ram",):
        code = "ram-pages"
        unknown = path[1:] and "unknown RAMBlock" in error.message
        section = path[1] if unknown else "ram"
    else:
        code = "section-footer" if section and "footer" in error.message else "stream-damaged"
    section = "" if section == "configuration" else section
    return finding(code, f"the stream is damaged: {error}", section=section, says=str(error))
