"""What findings there are: their stable names, what they mean, and what helps.

docs/findings.md is made of this table (`as_markdown`), and so is what
``cprtools check --explain CODE`` prints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches

__all__ = ["Code", "all_codes", "as_markdown", "close_to", "explain", "register"]


@dataclass(frozen=True, slots=True)
class Code:
    """One kind of finding.

    Attributes:
        name: stable, in kebab-case.
        title: what it says, in a few words.
        why: why QEMU refuses, or why it matters.
        remedy: what helps.
        example: what QEMU prints, or what the finding says.
    """

    name: str
    title: str
    why: str
    remedy: str
    example: str


_CODES: dict[str, Code] = {}


def register(*codes: Code) -> None:
    """Add codes.

    Raises:
        ValueError: a name is taken.
    """
    for code in codes:
        if code.name in _CODES:
            raise ValueError(f"code {code.name}: there already")
        _CODES[code.name] = code


def all_codes() -> dict[str, Code]:
    """Give all codes by name, in the order of names."""
    import cprtools.check.codelist  # noqa: F401, PLC0415 (it registers them)

    return dict(sorted(_CODES.items()))


def close_to(name: str) -> list[str]:
    """Give the names that may be meant."""
    return get_close_matches(name, all_codes(), 3)


def explain(name: str) -> str:
    """Give the page of a code.

    Raises:
        KeyError: there is no such code.
    """
    return "\n".join(_page(all_codes()[name])) + "\n"


def as_markdown() -> str:
    """Give all pages, as docs/findings.md has them."""
    lines = [
        "# Findings of cprtools check",
        "",
        "Each finding has one of these codes. They are stable: a code keeps its name and its",
        "meaning. `cprtools check --explain CODE` prints the same text.",
        "",
        "| Code | Says |",
        "| --- | --- |",
    ]
    codes = all_codes().values()
    lines += [f"| [{code.name}](#{code.name}) | {code.title} |" for code in codes]
    for code in codes:
        lines += ["", *_page(code)]
    return "\n".join(lines) + "\n"


def _page(code: Code) -> Iterator[str]:
    yield f"## {code.name}"
    yield ""
    yield f"{code.title[0].upper()}{code.title[1:]}."
    yield ""
    yield f"**Cause.** {code.why}"
    yield ""
    yield f"**What to do.** {code.remedy}"
    yield ""
    yield "```text"
    yield from code.example.splitlines()
    yield "```"
