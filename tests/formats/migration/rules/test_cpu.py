"""Registers of CPUs whose layout depends on target and release."""

from __future__ import annotations

import pytest

from bodies import by_rule, described
from builders import migration as build
from cprformats.fields import Field


def values(field: Field) -> list[tuple[str, object]]:
    return [(leaf.name, leaf.value) for leaf in field.children]


def test_vector_registers() -> None:
    data = bytes(7) + b"\1" + bytes(7) + b"\2"
    assert values(by_rule("avr", data)) == [("u64", (1, 2))]
    assert values(by_rule("fpr", data)) == [("u64", (1, 2))]


def test_segment_lookaside_buffer() -> None:
    assert values(by_rule("slbe", bytes(7) + b"\1" + bytes(7) + b"\2")) == [
        ("esid", 1),
        ("vsid", 2),
    ]


@pytest.mark.parametrize(
    ("size", "names"),
    [
        (32, ["start", "last", "pa", "bits"]),
        (20, ["va_b", "pa", "bits"]),
        (16, ["va_b", "pa", "bits"]),
    ],
)
def test_hppa_tlb(size: int, names: list[str]) -> None:
    assert [name for name, _ in values(by_rule("tlb entry", bytes(size)))] == names


@pytest.mark.parametrize("size", [28, 32, 36])
def test_mips_tlb(size: int) -> None:
    assert by_rule("tlb_entry", bytes(size)).children[-1].name == "PFN1"


def test_octeon_tree() -> None:
    tree = by_rule("octeon_llm_tree", b"\0\0\0\1" + bytes(7) + b"\5" + bytes(7) + b"\6")
    assert values(tree["[0]"]) == [("key", 5), ("value", 6)]


def test_floating_interrupts() -> None:
    tree = by_rule("irqs", bytes(7) + b"\2" + (b"\0" * 6 + b"\x10\4" + bytes(64)) * 2)
    assert tree["[1].type"].value == 0x1004
    assert values(by_rule("irqs", b"\xff" * 8)) == [("count", 2**64 - 1)]


@pytest.mark.parametrize(
    ("type", "data"),
    [
        ("slbe", bytes(15)),
        ("tlb entry", bytes(24)),
        ("irqs", b"\xff" * 7 + b"\xfe"),
        ("octeon_llm_tree", b"\xff" * 20),
    ],
)
def test_misfits_are_said(type: str, data: bytes) -> None:
    _, notices = described(data, [build.field("x", type, len(data))])
    assert f"rule for type '{type}' does not fit" in notices[0]
