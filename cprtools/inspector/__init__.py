"""What a human asks first of a state file, as frozen values: no words, no printing."""

from cprtools.inspector.devices import DeviceRow, device_rows
from cprtools.inspector.select import Selection, chosen_parts
from cprtools.inspector.spans import Span, raw_spans, spans
from cprtools.inspector.summary import LayerSummary, Summary, summarize
from cprtools.inspector.totals import Totals, count_totals

__all__ = [
    "DeviceRow",
    "LayerSummary",
    "Selection",
    "Span",
    "Summary",
    "Totals",
    "chosen_parts",
    "count_totals",
    "device_rows",
    "raw_spans",
    "spans",
    "summarize",
]
