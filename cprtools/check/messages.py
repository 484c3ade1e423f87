"""What QEMU prints when a load fails, as findings.

Each line is looked up in a table of QEMU's own messages, 5.2 to 11.1. The most
telling one makes the first finding; lines that only say which section or
description was being read give it its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cprtools.check.codes import all_codes
from cprtools.check.model import Finding, Severity

__all__ = ["Where", "blame", "error_lines", "finding", "tells"]


@dataclass(frozen=True, slots=True)
class _Message:
    """A message: its code, its form, and how both sides are put into words."""

    code: str
    form: re.Pattern[str]
    expected: str = ""
    found: str = ""


def _m(code: str, form: str, expected: str = "", found: str = "") -> _Message:
    return _Message(code, re.compile(form), expected, found)


#: The most telling first. Groups: section, instance, field, and what the words use.
_MESSAGES: Final = (
    # migration/savevm.c
    _m("not-a-stream", r"Not a migration stream|Unsupported migration stream version|SaveVM v2"),
    _m(
        "machine-type",
        r"Machine type received is '(?P<a>.*)' and local is '(?P<b>[^']*)'",
        "{b}",
        "{a}",
    ),
    _m(
        "page-bits",
        r"Received TARGET_PAGE_BITS is (?P<a>\d+) but local is (?P<b>\d+)",
        "{b}",
        "{a}",
    ),
    _m(
        "capability",
        r"Capability (?P<field>\S+) is (?P<b>\w+), but received capability is (?P<a>\w+)",
        "{b}",
        "{a}",
    ),
    _m("capability-unknown", r"Received unknown capability (?P<field>\S+)", "", "on"),
    _m("capability-refused", r"(?P<field>multifd) is not supported by current protocol"),
    _m("uuid", r"UUID received is (?P<a>\S+) and local is (?P<b>\S+)", "{b}", "{a}"),
    _m("configuration", r"Configuration section missing"),
    _m(
        "unknown-section",
        r"nknown (?:savevm )?section or instance '(?P<section>.*?)' (?P<instance>\d+)",
        "no such section",
        "{section} {instance}",
    ),
    _m("unmigratable", r"State blocked by non-migratable (CPU )?device '?(?P<section>[^']*)"),
    _m(
        "section-version",
        r"unsupported version (?P<a>-?\d+) for '(?P<section>.*?)' v(?P<b>-?\d+)",
        "version {b} at most",
        "version {a}",
    ),
    _m("command-unknown", r"MIG_CMD (?P<a>0x[0-9a-f]+) unknown", "", "command {a}"),
    # system/physmem.c, migration/ram.c
    _m(
        "ram-block-size",
        r"Size (?:mismatch|too large): (?P<section>.+?): "
        r"(?P<a>0x[0-9a-f]+) (?:!=|>) (?P<b>0x[0-9a-f]+)",
        "{b} bytes",
        "{a} bytes",
    ),
    _m("stream-damaged", r'Unknown ramblock ""|migration flags: 0x0\b'),
    _m("ram-block-unknown", r'Unknown ramblock "(?P<section>.*?)"', "no such block", "{section}"),
    _m(
        "ram-block-page",
        r"Mismatched RAM page size (?P<section>.+?) \(local\) (?P<b>\d+) != (?P<a>\d+)",
        "{b}",
        "{a}",
    ),
    _m(
        "ram-block-page",
        r"Mismatched GPAs for block (?P<section>\S+) (?P<a>\d+)!= (?P<b>\d+)",
        "{b}",
        "{a}",
    ),
    _m("ram-block-page", r"Postcopy needs matching (RAM|target) page sizes"),
    _m("ram-pages", r"block (?P<section>\S+) should not be migrated"),
    _m("ram-pages", r"page outside of ramblock (?P<section>\S+) range"),
    _m("ram-pages", r"Can't find block (?P<section>\S+)", "no such block", "{section}"),
    _m("ram-pages", r"Received an unexpected compressed page|Invalid compressed data length"),
    _m("ram-pages", r"Failed to (load|decompress) XBZRLE|decompress data failed"),
    _m("ram-pages", r"Found a zero page with value|Illegal RAM offset|Unexpected RAM flags"),
    _m("ram-pages", r"Unknown combination of migration flags: 0x[0-9a-f]+"),
    _m("ram-pages", r"[Mm]apped-ram (?:migration|header|only|capability)|whole mapped-ram"),
    _m("postcopy", r"RAM postcopy is (dis|en)abled|CMD_POSTCOPY|[Pp]ostcopy is not supported"),
    # hw/virtio, hw/net
    _m(
        "virtio-features",
        r"Features (?P<a>0x[0-9a-f]+) unsupported\. Allowed features: (?P<b>0x[0-9a-f]+)",
        "{b}",
        "{a}",
    ),
    _m("virtio-backend", r"virtio-net: saved image requires (?P<a>.+)", "", "{a}"),
    _m(
        "virtio-queues",
        r"VQ \d+ vring\.num (?P<a>\d+) exceeds allocated max (?P<b>\d+)",
        "{b} at most",
        "{a}",
    ),
    _m("virtio-queues", r"VQ (?P<field>\d+) (size|address)|Invalid number of (virtqueues|queues)"),
    _m(
        "virtio-queues",
        r"saved image has (more|invalid)|Invalid virtqueue (number|index)",
    ),
    # hw/pci/pci.c
    _m(
        "pci-config",
        r"Bad config data: i=(?P<field>0x[0-9a-f]+) "
        r"read: (?P<a>[0-9a-f]+) device: (?P<b>[0-9a-f]+)",
        "{b}",
        "{a}",
    ),
    # migration/vmstate-types.c, vmstate.c
    _m("unknown-subsection", r"VM subsection '(?P<field>.*?)' in '(?P<b>.*?)' does not exist"),
    _m(
        "field-value",
        r"Input validation failed: (?P<field>\S+?)/(?P<b>.+?)(?: version_id: \d+)?$",
        "{b}",
    ),
    _m(
        "field-value",
        r"^(?:.*: )?(?P<a>(?:0x)?[0-9a-f]+) != (?P<b>(?:0x)?[0-9a-f]+)$",
        "{b}",
        "{a}",
    ),
    _m(
        "section-version",
        r"(?P<field>\S+): incoming version_id (?P<a>-?\d+) is too (?:new|old) "
        r"for local (?P<w>.*?version_id) +(?P<b>\d+)",
        "{w} {b}",
        "version_id {a}",
    ),
    _m("section-version", r"^(?:[^ ]*: )?(?P<field>\S+) too (new|old)$"),
    _m("section-footer", r"Missing section footer for (?P<section>.+?)(?:, section_id|$)"),
    _m("section-footer", r"Mismatched section id in footer for (?P<section>.+?) ?-"),
    # target/i386
    _m(
        "device-refused",
        r"(?:Mismatch between user-specified TSC|nested state|Unsupported old non-soft)",
    ),
    # the framing
    _m("stream-damaged", r"Unknown (savevm )?section (type )?\d+"),
    _m("stream-damaged", r"Expected vmdescription section|Unable to read ID string"),
    _m("stream-damaged", r"CMD_\w+|invalid payload length|invalid block name|Unreasonably large"),
    _m("stream-damaged", r"Failed to read (instance|section)|Read section footer failed"),
)
#: Which section was being read, and which of its descriptions.
_PLACE: Final = re.compile(
    r"(?:error while loading state|[Ll]oad(?:ing)? (?:of )?state).*?"
    r"instance (?P<instance>0x[0-9a-f]+|\d+) of device '(?P<section>.*?)'"
)
_PLACE_ID: Final = re.compile(r"error while loading state section id \d+\((?P<section>.*?)\)")
_CHAIN: Final = re.compile(
    r"[Ff]ailed to load (?:element of type .+? for (?P<field>\S+)|(?P<vmsd>[^\s:]+):(?P<part>\S+))"
)
_LAST: Final = re.compile(
    r"(?:[Ll]oad of migration failed|Migration failed|loading VM state)(?:: (?P<why>.*))?"
)
_CUT: Final = re.compile(r"Input/output error|stream error|ret: -5\b")
_WARNING: Final = re.compile(r"warning: |^(?:[^ ]*: )?info: |^ALSA|^pulseaudio|deprecated")


@dataclass(frozen=True, slots=True)
class Where:
    """The section that was being read.

    Attributes:
        section: its idstr, "" if no line says it.
        instance: its instance id.
        field: dotted path of the field, as far as the lines say it.
        reason: the words for the system's error number, from the last line.
    """

    section: str = ""
    instance: int | None = None
    field: str = ""
    reason: str = ""


def error_lines(text: str) -> list[str]:
    """Give the lines that are not warnings."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not _WARNING.search(line)]


def blame(lines: Sequence[str]) -> Iterator[Finding]:
    """Make findings of a failed load's lines, the most telling first; at least one.

    Args:
        lines: what QEMU printed, without warnings.
    """
    where = _where(lines)
    told = list(_told(lines, where))
    if told:
        yield from told
        return
    yield finding(
        _untold(where),
        _in_words(where),
        section=where.section,
        instance=where.instance,
        field=where.field,
        found=where.reason,
        says="\n".join(lines),
    )


def tells(lines: Sequence[str]) -> bool:
    """Say whether some line is a message that only a failing load prints."""
    return next(_told(lines, Where()), None) is not None


def _told(lines: Sequence[str], where: Where) -> Iterator[Finding]:
    """Give what the most telling message says, once for each line that has it."""
    for message in _MESSAGES:
        found = [(line, match) for line in lines if (match := message.form.search(line))]
        if found:
            yield from (_of_match(message, match, line, where) for line, match in found)
            return


def _of_match(message: _Message, match: re.Match[str], line: str, where: Where) -> Finding:
    groups = {key: value or "" for key, value in match.groupdict().items()}
    section = groups.get("section") or where.section
    number = groups.get("instance")
    return finding(
        message.code,
        f"{_named(section)}: {_plain(line)}" if section else _plain(line),
        section=section,
        instance=int(number, 0) if number else where.instance if section == where.section else None,
        field=groups.get("field") or where.field,
        expected=message.expected.format_map(groups),
        found=message.found.format_map(groups),
        says=line,
    )


def finding(
    code: str,
    message: str,
    *,
    severity: Severity = Severity.ERROR,
    section: str = "",
    instance: int | None = None,
    field: str = "",
    expected: str = "",
    found: str = "",
    says: str = "",
) -> Finding:
    """Make a finding with the words of its code."""
    known = all_codes()[code]
    return Finding(
        code,
        severity,
        message,
        section,
        instance,
        field,
        expected,
        found,
        known.why,
        known.remedy,
        says,
    )


def _where(lines: Iterable[str]) -> Where:
    section, instance, reason = "", None, ""
    chain: list[str] = []
    for line in lines:
        if match := _PLACE.search(line):
            section, instance = match["section"], int(match["instance"], 0)
        elif match := _PLACE_ID.search(line):
            section = section or match["section"]
        for step in _CHAIN.finditer(line):
            chain.insert(0, step["field"] or step["part"])
        if match := _LAST.search(line):
            reason = match["why"] or ""
    return Where(section, instance, ".".join(dict.fromkeys(chain)), reason)


def _untold(where: Where) -> str:
    """Choose a code by the system's error number, where no message says more."""
    if "No such file" in where.reason:
        return "unknown-subsection"
    if _CUT.search(where.reason):
        return "stream-cut"
    return "device-refused" if where.section else "load-failed"


def _in_words(where: Where) -> str:
    reason = f": {where.reason}" if where.reason else ""
    if where.section:
        return f"{_named(where.section)}: its state does not load{reason}"
    return f"the state does not load{reason}"


def _named(section: str) -> str:
    """Name a section as an operator does: model, and bus address."""
    address, slash, model = section.rpartition("/")
    return f"{model} at {address}" if slash and address else section


def _plain(line: str) -> str:
    """Leave out the program's name in front of a message."""
    return re.sub(r"^[^ ]*qemu[^ ]*: ", "", line)
