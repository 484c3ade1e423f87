"""Ways to decode one section's body in a test, with what must hold of every tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from builders import migration as build
from checks import assert_tiles, read
from cprformats.encode import encode
from cprformats.fields import Field
from cprformats.migration import MigrationStream
from cprformats.migration.model import Located, Section

__all__ = ["by_handler", "by_rule", "described", "fitting"]

Result = tuple[Field, tuple[str, ...]]


def _body(found: MigrationStream, section: Section, data: bytes) -> Result:
    """Decode a section, check that it tiles and encodes to itself; gives its body."""
    tree, notices = found.decode(section)
    assert_tiles([tree], section.offset)
    assert b"".join(encode([tree])) == data[section.offset : section.end]
    return tree["body"], notices


def described(body: bytes, entries: Sequence[Any], name: str = "dev", **more: Any) -> Result:
    """Decode a body by a device's description."""
    data = build.stream(
        build.configuration("pc"),
        build.full(3, name, body=body),
        description=build.vmdesc(build.device(name, entries, **more)),
    )
    found = read(data)
    assert found.error is None, found.error
    (section,) = found.sections()
    assert section.body_size == len(body)
    return _body(found, section, data)


def fitting(body: bytes, entries: Sequence[Any], name: str = "dev", **more: Any) -> Field:
    """Decode a body by a description that fits."""
    tree, notices = described(body, entries, name, **more)
    assert not notices
    return tree


def by_rule(type_name: str, data: bytes) -> Field:
    """Decode one field of a type that has a rule."""
    return fitting(data, [build.field("x", type_name, len(data))])["x"]


def by_handler(
    idstr: str, *bodies: bytes, kind: str = "full", version: int = 1, footers: bool = True
) -> list[Field]:
    """Frame and decode sections that only a handler can tell the end of.

    Args:
        bodies: of one FULL section; or of START, PART ... PART, END for kind "live".
    """
    more = {"version": version, "footers": footers}
    if kind == "full":
        parts = [build.full(3, idstr, body=bodies[0], **more)]
    else:
        parts = [build.start(3, idstr, body=bodies[0], **more)]
        parts += [build.part(3, body=body, footers=footers) for body in bodies[1:-1]]
        parts += [build.end(3, body=bodies[-1], footers=footers)]
    data = build.stream(build.configuration("pc"), *parts)
    found = read(data)
    assert found.error is None, found.error
    trees = []
    for section, body in zip(found.sections(), bodies, strict=True):
        assert section.located is Located.ITSELF
        assert section.body_size == len(body)
        tree, notices = _body(found, section, data)
        assert not notices
        trees.append(tree)
    return trees
