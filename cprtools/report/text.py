"""The page that a person reads: what the file is, what is in it, what was made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from cprformats.migration.ramparts import PageKind
from cprformats.migration.ramstats import BlockStats
from cprtools.inspector.devices import DeviceRow
from cprtools.inspector.spans import Span
from cprtools.inspector.summary import CommandRow, LayerSummary, StreamSummary, Summary
from cprtools.inspector.totals import Totals
from cprtools.report.output import Column, Output
from cprtools.report.words import TIMES, count, exact_size, percent, size_words

__all__ = ["kind_words", "write_facts", "write_layer", "write_spans", "write_title", "write_totals"]

_KINDS = {
    "migration": "QEMU migration stream",
    "qcpr": "QEMU CPR state file",
    "cpr-2022": "QEMU CPR state file (older form)",
    "libvirt-save": "libvirt save image",
    "qcow2": "qcow2 image",
    "multifd-channel": "channel of a multifd migration",
}
_MAX_NOTICES = 12
_FACT_WIDTH = 14
_NARROW = 100


def kind_words(kind: str) -> str:
    """Give a layer's kind in words."""
    return _KINDS.get(kind, kind)


def write_title(out: Output, summary: Summary) -> None:
    """Write the first line: the file, the kinds of its layers, inside first, and the size."""
    kinds = " in ".join(kind_words(layer.kind) for layer in reversed(summary.layers))
    size = f", {exact_size(summary.size)}" if summary.size is not None else ""
    out.line((f"{summary.name}: {kinds}", "title"), size)


def write_layer(out: Output, layer: LayerSummary, *, ram: bool = True) -> None:
    """Write what is known of a layer without decoding its fields."""
    stream = layer.stream
    if stream is None:
        return
    out.line()
    write_facts(out, _facts(stream, layer.size))
    out.flush()
    if ram:
        _write_ram(out, stream)
    _write_devices(out, stream.devices)


def write_facts(out: Output, facts: Iterable[tuple[str, str]]) -> None:
    """Write names and values, one pair a line."""
    for name, value in facts:
        out.line("  ", (name.ljust(_FACT_WIDTH), "dim"), value)


def _facts(stream: StreamSummary, size: int | None) -> Iterator[tuple[str, str]]:
    configuration = stream.configuration
    yield "machine", configuration.machine if configuration else "not sent"
    yield "target page", size_words(stream.page_size)
    if configuration and configuration.uuid:
        yield "uuid", configuration.uuid
    if configuration and configuration.capabilities:
        yield "capabilities", ", ".join(configuration.capabilities)
    footers = {True: "section footers", False: "no section footers", None: "no sections"}
    vmdesc = "vmdesc" if stream.has_vmdesc else "no vmdesc"
    length = f", {count(size, 'byte')}" if size is not None else ""
    yield "stream", f"version {stream.version}{length}, {footers[stream.footers]}, {vmdesc}"
    if stream.commands:
        yield "commands", _commands(stream.commands)


def _commands(commands: tuple[CommandRow, ...]) -> str:
    first = {row.name: row.offset for row in reversed(commands)}
    counts = Counter(row.name for row in commands)
    return ", ".join(
        f"{name} at {first[name]:#x}"
        if number == 1
        else f"{name} {TIMES}{number} from {first[name]:#x}"
        for name, number in counts.items()
    )


# -- RAM -------------------------------------------------------------------------


def _write_ram(out: Output, stream: StreamSummary) -> None:
    if not stream.ram:
        return
    out.line()
    blocks = count(len(stream.ram), "block")
    out.line(("RAM", "title"), f"  {blocks}, {size_words(stream.ram_bytes)}")
    kinds = [kind for kind in PageKind if any(s.pages.get(kind) for s in stream.ram)]
    paged = any(s.block.page_size for s in stream.ram)
    mapped = any(s.block.address is not None for s in stream.ram)
    columns = [
        Column("block", style="name", fold=True),
        Column("size", right=True),
        *([Column("page size", right=True)] if paged else []),
        *([Column("address", right=True)] if mapped else []),
        *(Column(f"{kind} pages", right=True) for kind in kinds),
        Column("in stream", right=True, style="dim"),
    ]
    out.table(columns, (_ram_row(s, kinds, paged=paged, mapped=mapped) for s in stream.ram))


def _ram_row(stats: BlockStats, kinds: list[PageKind], *, paged: bool, mapped: bool) -> list[str]:
    block = stats.block
    row = [block.idstr, size_words(block.used_length)]
    if paged:
        row.append(size_words(block.page_size) if block.page_size else "")
    if mapped:
        row.append("" if block.address is None else f"{block.address:#x}")
    pages = [str(stats.pages.get(kind, 0)) for kind in kinds]
    return [*row, *pages, size_words(stats.stream_bytes)]


# -- sections --------------------------------------------------------------------


def _write_devices(out: Output, rows: tuple[DeviceRow, ...]) -> None:
    sections = sum(row.sections for row in rows)
    out.line()
    out.line(("Sections", "title"), f"  {sections}")
    if not rows:
        return
    # Where room is scarce, a vmsd name that the idstr ends in can be left out.
    narrow = out.width is not None and out.width < _NARROW
    named = not narrow or any(row.vmsd_name not in ("", row.idstr.split("/")[-1]) for row in rows)
    columns = [
        Column("offset", right=True, style="dim"),
        Column("size", right=True),
        Column("type", style="dim"),
        Column("section", style="name", fold=True),
        Column("inst", right=True),
        Column("ver", right=True),
        *([Column("vmsd", fold=True)] if named else []),
        Column("end by", style="dim"),
    ]
    out.table(columns, (_device_row(row, named=named) for row in rows))


def _device_row(row: DeviceRow, *, named: bool) -> list[str]:
    many = f" {TIMES}{row.sections}" if row.sections > 1 else ""
    return [
        f"{row.offset:#x}",
        str(row.size),
        row.type + many,
        row.idstr,
        str(row.instance_id),
        str(row.version),
        *([row.vmsd_name] if named else []),
        row.located,
    ]


# -- the end ---------------------------------------------------------------------


def write_totals(out: Output, totals: Totals, warnings: Sequence[str]) -> None:
    """Write where the bytes went, and what was odd."""
    tally = totals.tally
    whole = tally.total + totals.unread
    out.line()
    out.line(
        ("Bytes", "title"),
        f"  {whole}: decoded {percent(tally.decoded, whole)}, ",
        *_share("kept raw", tally.raw, whole),
        ", ",
        *_share("unknown", tally.unknown, whole),
        *((", ", *_share("not read", totals.unread, whole)) if totals.unread else ()),
    )
    by_size = sorted(tally.by_kind.items(), key=lambda item: (-item[1], item[0]))
    columns = [Column("kind", style="name"), Column("bytes", right=True), Column("", right=True)]
    rows = [(kind.value, str(size), percent(size, whole)) for kind, size in by_size if size]
    out.table(columns, rows)
    _write_warnings(out, warnings, totals)


def _share(name: str, size: int, whole: int) -> tuple[str | tuple[str, str], ...]:
    if not size:
        return (f"{name} 0",)
    return ((f"{name} {size} ({percent(size, whole)})", "warn"),)


def _write_warnings(out: Output, warnings: Sequence[str], totals: Totals) -> None:
    number = len(warnings) + len(totals.notices) + totals.more_notices
    if not number:
        return
    out.line()
    out.line(("Warnings", "title"), f"  {number}")
    shown = [*warnings, *totals.notices][:_MAX_NOTICES]
    for text in shown:
        out.line("  ", (text, "warn"))
    if number > len(shown):
        out.line(f"  … {number - len(shown)} more; --coverage lists all that is raw")


def write_spans(out: Output, spans: Iterable[Span], *, none: str) -> None:
    """Write spans one a line, as they come."""
    spans = iter(spans)
    first = next(spans, None)
    if first is None:
        out.line(none)
        return
    for span in chain([first], spans):
        inner = "  " if span.inner else ""
        out.line(
            (f"{span.offset:#012x}  {span.size:>12}  ", "dim"),
            f"{span.kind:<16}  {inner}",
            (span.name, "dim" if span.inner else "name"),
        )
