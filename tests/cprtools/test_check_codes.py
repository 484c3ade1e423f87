"""Codes of findings: their manual is made of them, and QEMU's messages lead to the right ones."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tool import ROOT

from cprtools.check.codes import Code, all_codes, as_markdown, explain, register
from cprtools.check.messages import blame, error_lines

PAIRS = json.loads((ROOT / "fixtures" / "truth" / "truth.json").read_text())["pairs"]
#: Causes of the truth table whose failures are seen in what the target prints while it loads.
CODES = {
    "machine-type": {"machine-type"},
    "configuration": {"configuration"},
    "uuid": {"uuid"},
    "unknown-section": {"unknown-section"},
    "version": {"section-version"},
    "subsection": {"unknown-subsection"},
    "footer": {"section-footer"},
    "field": {"field-value"},
    "pci-config": {"pci-config"},
    "features": {"virtio-features"},
    "queue-size": {"virtio-queues"},
    "ram-block": {"ram-block-unknown", "ram-block-page"},
    "ram-size": {"ram-block-size"},
    "ram-pages": {"ram-pages"},
    "unmigratable": {"unmigratable"},
    "command": {"command-unknown"},
    "damaged": {"not-a-stream", "stream-damaged", "stream-cut"},
    "post-load": {"device-refused", "virtio-queues"},
}
SEEN = [
    pair
    for pair in PAIRS
    if pair.get("cause") in CODES and not any("unsupported mach" in x for x in pair["stderr"])
]


def test_the_manual_is_made_of_the_table() -> None:
    assert (ROOT / "docs" / "findings.md").read_text() == as_markdown()


def test_codes_are_whole() -> None:
    codes = all_codes()
    assert len(codes) >= 35
    for name, code in codes.items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert all((code.title, code.why, code.remedy, code.example)), name
        assert code.example in explain(name)


def test_a_name_is_given_once() -> None:
    all_codes()
    with pytest.raises(ValueError, match="there already"):
        register(Code("uuid", "", "", "", ""))


def test_there_is_enough_truth() -> None:
    assert len(SEEN) > 300
    assert {pair["cause"] for pair in SEEN} == set(CODES)


@pytest.mark.parametrize("pair", SEEN, ids=[pair["id"] for pair in SEEN])
def test_real_messages(pair: dict[str, Any]) -> None:
    first = next(blame(error_lines("\n".join(pair["stderr"]))))
    assert first.code in CODES[pair["cause"]]
    assert first.section == pair.get("section", "")
    assert first.qemu_says in "\n".join(pair["stderr"])


@pytest.mark.parametrize(
    ("line", "code", "expected", "found"),
    [
        (
            "qemu: Machine type received is 'pc-a' and local is 'pc-b'",
            "machine-type",
            "pc-b",
            "pc-a",
        ),
        (
            "qemu: Features 0x1f unsupported. Allowed features: 0xf",
            "virtio-features",
            "0xf",
            "0x1f",
        ),
        (
            "qemu: savevm: unsupported version 9 for 'cpu' v8",
            "section-version",
            "version 8 at most",
            "version 9",
        ),
        (
            "qemu: Size mismatch: pc.ram: 0x8 != 0x4: Invalid argument",
            "ram-block-size",
            "0x4 bytes",
            "0x8 bytes",
        ),
        (
            "qemu: cpu: incoming version_id 9 is too new for local version_id 8",
            "section-version",
            "version_id 8",
            "version_id 9",
        ),
        ("qemu: RAM postcopy is disabled but have 16 byte advise", "postcopy", "", ""),
        ("qemu: virtio-net: saved image requires vnet_hdr=on", "virtio-backend", "", "vnet_hdr=on"),
        ("qemu: Received TARGET_PAGE_BITS is 12 but local is 10", "page-bits", "10", "12"),
        ("qemu: load of migration failed: Invalid argument", "load-failed", "", "Invalid argument"),
    ],
)
def test_both_sides_are_told(line: str, code: str, expected: str, found: str) -> None:
    one = next(blame([line]))
    assert (one.code, one.expected, one.found) == (code, expected, found)


def test_warnings_are_no_errors() -> None:
    text = "qemu: warning: hub 0 is not connected\nqemu: info: all is well\nqemu: no\n\n"
    assert error_lines(text) == ["qemu: no"]


def test_the_way_to_a_field_is_told() -> None:
    lines = [
        "qemu: 1 != 2",
        "qemu: Failed to load virtio-gpu-scanouts:parent_obj.conf.max_outputs",
        "qemu: Failed to load virtio-gpu:virtio-gpu",
        "qemu: error while loading state for instance 0x3 of device '0000:00:02.0/virtio-gpu'",
    ]
    one = next(blame(lines))
    assert (one.code, one.section, one.instance) == ("field-value", "0000:00:02.0/virtio-gpu", 3)
    assert one.field == "virtio-gpu.parent_obj.conf.max_outputs"
    assert one.message.startswith("virtio-gpu at 0000:00:02.0: ")
