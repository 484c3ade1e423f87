"""Put a page together: the summary, or the parts of it that were asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cprformats.errors import FormatError
from cprtools.inspector.parts import Part
from cprtools.inspector.select import Selection, chosen_parts
from cprtools.inspector.spans import ram_spans, raw_spans, spans
from cprtools.inspector.summary import summarize
from cprtools.inspector.totals import count_totals
from cprtools.report.layers import write_content, write_outer
from cprtools.report.output import Output
from cprtools.report.text import kind_words, write_layer, write_spans, write_title, write_totals
from cprtools.report.tree import TreeStyle, write_field_lines, write_part
from cprtools.statefile import Content, Layer, StateFile

__all__ = ["PageStyle", "write_page"]


@dataclass(frozen=True, slots=True)
class PageStyle:
    """What is on the page.

    Attributes:
        layers: numbers of the layers to show.
        selection: sections and fields; with none, the summary.
        map: list the spans instead.
        coverage: list what is raw or unknown instead.
        ram: show runs of pages.
        offsets: see `TreeStyle`.
        raw: see `TreeStyle`.
        full: see `TreeStyle`.
    """

    layers: frozenset[int]
    selection: Selection
    map: bool = False
    coverage: bool = False
    ram: bool = True
    offsets: bool = False
    raw: bool = False
    full: bool = False

    @property
    def detailed(self) -> bool:
        """Whether something other than the summary was asked for."""
        selection = self.selection
        return bool(self.map or self.coverage or selection.sections or selection.fields)


def write_page(
    out: Output, state: StateFile, style: PageStyle, progress: Callable[[int], None]
) -> FormatError | None:
    """Write the page of an opened file; gives the error that is to be said at the end."""
    failed = None
    if style.detailed:
        for number in sorted(style.layers):
            layer = state.layers[number]
            if len(style.layers) > 1:
                out.line((f"{kind_words(layer.kind)}:", "title"))
            failed = _details(out, layer, style) or failed
    else:
        failed = _summary(out, state, style, progress)
    return state.error or failed


def _summary(
    out: Output, state: StateFile, style: PageStyle, progress: Callable[[int], None]
) -> FormatError | None:
    summary = summarize(state)
    write_title(out, summary)
    out.flush()
    write_outer(out, summary.layers)
    failed = None
    for number in sorted(style.layers):
        layer = summary.layers[number]
        if layer.stream is not None:
            write_layer(out, layer, ram=style.ram)
        else:
            write_content(out, layer, TreeStyle(style.offsets, style.raw, style.full))
        out.flush()
        totals = count_totals(layer.content, progress)
        warnings = state.warnings if layer is summary.layers[-1] else layer.warnings
        write_totals(out, totals, warnings)
        failed = failed or totals.error
    return failed


def _details(out: Output, layer: Layer, style: PageStyle) -> FormatError | None:
    content, selection = layer.content, style.selection
    try:
        if style.map:
            write_spans(out, spans(content, selection, ram=style.ram), none="no bytes")
        elif style.coverage:
            write_spans(out, raw_spans(content, selection), none="every byte has a rule")
        else:
            for number, part in enumerate(chosen_parts(content, selection)):
                if number and not selection.fields:
                    out.line()
                _part(out, part, content, style)
    except FormatError as error:
        return error
    return content.error


def _part(out: Output, part: Part, content: Content, style: PageStyle) -> None:
    tree = TreeStyle(style.offsets, style.raw, style.full)
    if style.selection.fields:
        write_field_lines(out, part, style.selection, tree)
        return
    write_part(out, part, tree)
    if part.what == "ram" and style.ram:
        write_spans(out, ram_spans(content, part), none="no pages")
