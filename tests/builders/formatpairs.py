"""Pairs of schemas where one grew out of the other, and a QEMU in small that saves and loads.

The saver and the loader follow migration/vmstate.c step by step on bytes that know
which field they came from; they share nothing with the code that judges schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

from builders.schemas import description, field, schema
from cprformats.schema.model import Description, FieldFormat, Schema

WIDTHS = {"uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8}
TOP = "top"


# -- making -----------------------------------------------------------------------


def random_field(random: Random, name: str) -> FieldFormat:
    kind = random.choice([*WIDTHS, *WIDTHS, "buffer", "unused_buffer"])
    size = WIDTHS.get(kind) or random.randint(1, 6)
    return field(
        "unused" if kind == "unused_buffer" else name,
        info=kind,
        size=size,
        num=random.choice((0, 0, 0, 2, 3)) if kind in WIDTHS else 0,
        conditional=random.random() < 0.2 and kind != "unused_buffer",
    )


def nested_field(random: Random, name: str, nested: str) -> FieldFormat:
    num = random.choice((0, 0, 2))
    return field(name, info="", nested=nested, size=99, num=num, flags=("STRUCT",))


def random_schema(random: Random) -> Schema:
    """A description with one nested in it and up to two subsections."""
    inner = description("inner", *(random_field(random, f"i{n}") for n in range(3)))
    late = [
        description(
            f"{TOP}/{n}",
            random_field(random, f"s{n}"),
            hooks=("needed",) if random.random() < 0.8 else (),
        )
        for n in range(random.randint(0, 2))
    ]
    fields = [random_field(random, f"f{n}") for n in range(4)]
    fields.insert(random.randint(0, 4), nested_field(random, "in", "inner"))
    keys = tuple(one.key for one in late)
    return schema(inner, *late, description(TOP, *fields, subsections=keys))


def grown(random: Random, old: Schema) -> Schema:
    """The schema with one to three changes, as developers make them."""
    made = dict(old.descriptions)
    for _ in range(random.randint(1, 3)):
        key = random.choice(list(made))
        made[key] = random.choice(CHANGES)(random, made[key])
    if random.random() < 0.2:
        made = _inlined(made)
    return schema(*made.values())


def _at(random: Random, one: Description) -> int:
    return random.randrange(len(one.fields))


def _with(one: Description, *fields: FieldFormat) -> Description:
    return replace(one, fields=fields)


def _removed(random: Random, one: Description) -> Description:
    at = _at(random, one) if len(one.fields) > 1 else None
    return one if at is None else _with(one, *one.fields[:at], *one.fields[at + 1 :])


def _unused(random: Random, one: Description) -> Description:
    """A removed field leaves a hole of its size."""
    at = _at(random, one)
    gone = one.fields[at]
    if gone.nested or gone.conditional:
        return one
    size = gone.size * max(gone.num, 1)
    hole = field("unused", info="unused_buffer", size=size)
    return _with(one, *one.fields[:at], hole, *one.fields[at + 1 :])


def _added(random: Random, one: Description) -> Description:
    at = random.randint(0, len(one.fields))
    new = random_field(random, f"n{random.randint(0, 9)}")
    return _with(one, *one.fields[:at], new, *one.fields[at:])


def _added_since(random: Random, one: Description) -> Description:
    """The right way: a new version, and fields that are there since then."""
    version = one.version_id + 1
    made = replace(one, version_id=version)
    new = replace(random_field(random, "late"), version_id=version, conditional=False)
    return _with(made, *one.fields, new)


def _bumped(random: Random, one: Description) -> Description:
    version = one.version_id + 1
    return replace(one, version_id=version, minimum_version_id=random.choice((1, version)))


def _renamed(random: Random, one: Description) -> Description:
    at = _at(random, one)
    new = replace(one.fields[at], name="other")
    return _with(one, *one.fields[:at], new, *one.fields[at + 1 :])


def _retyped(random: Random, one: Description) -> Description:
    at = _at(random, one)
    if one.fields[at].nested:
        return one
    new = replace(random_field(random, "x"), name=one.fields[at].name, conditional=False)
    return _with(one, *one.fields[:at], new, *one.fields[at + 1 :])


def _toggled(random: Random, one: Description) -> Description:
    at = _at(random, one)
    new = replace(one.fields[at], conditional=not one.fields[at].conditional)
    return _with(one, *one.fields[:at], new, *one.fields[at + 1 :])


def _moved(random: Random, one: Description) -> Description:
    fields = list(one.fields)
    random.shuffle(fields)
    return _with(one, *fields)


def _fewer_subsections(_: Random, one: Description) -> Description:
    return replace(one, subsections=one.subsections[:-1])


CHANGES: list[Callable[[Random, Description], Description]] = [
    _removed,
    _unused,
    _added,
    _added_since,
    _bumped,
    _renamed,
    _retyped,
    _toggled,
    _moved,
    _fewer_subsections,
]


def _inlined(made: dict[str, Description]) -> dict[str, Description]:
    """The members of the nested structure as members of the outer one."""
    top = made[TOP]
    fields: list[FieldFormat] = []
    for one in top.fields:
        fields += made["inner"].fields if one.nested and not one.num else [one]
    return made | {TOP: _with(top, *fields)}


# -- saving and loading -----------------------------------------------------------------

#: A byte of the stream: (name of the field, place in it), or the head of a subsection.
Byte = tuple[str, int] | tuple[str, int, int]


class Refused(Exception):
    """The loader gives an error."""


@dataclass
class World:
    """What is decided while QEMU runs: for one name the same on both sides.

    Args:
        random: decides each test of a field and each `needed`, once.
    """

    random: Random

    def __post_init__(self) -> None:
        self.decided: dict[str, bool] = {}

    def test(self, name: str) -> bool:
        return self.decided.setdefault(name, self.random.random() < 0.5)

    # -- the sender ---------------------------------------------------------------------

    def save(self, schema: Schema, key: str = TOP) -> list[Byte]:
        """What vmstate_save_state writes."""
        one = schema.descriptions[key]
        made: list[Byte] = []
        for each in one.fields:
            if self.exists(each, one.version_id):
                for index in range(max(each.num, 1)):
                    made += self._element(schema, each, index)
        for sub in map(schema.descriptions.__getitem__, one.subsections):
            if "needed" not in sub.hooks or self.test(sub.name):
                made.append((sub.name, sub.version_id, -1))
                made += self.save(schema, sub.key)
        return made

    def _element(self, schema: Schema, one: FieldFormat, index: int) -> Iterator[Byte]:
        if one.nested:
            yield from self.save(schema, one.nested)
            return
        yield from ((one.name, index * one.size + at) for at in range(one.size))

    def exists(self, each: FieldFormat, version: int) -> bool:
        if each.conditional:
            return self.test(each.name)
        return each.version_id <= version

    # -- the receiver -------------------------------------------------------------------

    def load(self, schema: Schema, stream: list[Byte], version: int) -> dict[str, list[Byte]]:
        """What vmstate_load_state reads: the bytes of each field by its name.

        Raises:
            Refused: it gives an error, or the section has no footer where it should be.
        """
        got: dict[str, list[Byte]] = {}
        rest = self._load(schema, TOP, list(reversed(stream)), version, got)
        if rest:
            raise Refused("no footer")
        return got

    def _load(
        self,
        schema: Schema,
        key: str,
        rest: list[Byte],
        version: int,
        got: dict[str, list[Byte]],
    ) -> list[Byte]:
        one = schema.descriptions[key]
        if not one.minimum_version_id <= version <= one.version_id:
            raise Refused("version")
        for each in one.fields:
            if self.exists(each, version):
                for _ in range(max(each.num, 1)):
                    self._take(schema, each, rest, got)
        known = {schema.descriptions[sub].name: sub for sub in one.subsections}
        while rest and len(rest[-1]) == 3 and rest[-1][0].startswith(one.name):
            name, sent = rest.pop()[:2]
            if name not in known:
                raise Refused("subsection")
            self._load(schema, known[name], rest, sent, got)
        return rest

    def _take(
        self, schema: Schema, one: FieldFormat, rest: list[Byte], got: dict[str, list[Byte]]
    ) -> None:
        if one.nested:
            version = schema.descriptions[one.nested].version_id
            self._load(schema, one.nested, rest, version, got)
            return
        for _ in range(one.size):
            if not rest or len(rest[-1]) == 3:
                raise Refused("the footer is read as data")
            got.setdefault(one.name, []).append(rest.pop())
