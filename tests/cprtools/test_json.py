"""The document for programs: valid by its schema, whole, the same in JSON and YAML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from tool import ROOT, sample
from tool import cprtools as run

import cprtools
from checks import entries, fixture_path
from cprformats.errors import FormatError
from cprtools.inspector import Selection
from cprtools.report.document import DocumentStyle, write_document
from cprtools.report.json_out import JsonEmitter
from cprtools.report.yaml_out import YamlEmitter

SCHEMA = json.loads((ROOT / "docs" / "inspect.schema.json").read_text())
#: The one in Rust: a document has 100,000 parts, and Python takes a second for each.
VALIDATOR = jsonschema_rs.validator_for(SCHEMA)


def text_of(path: Path, emitter: Any = JsonEmitter, **style: Any) -> str:
    pieces: list[str] = []
    selection = Selection(style.pop("sections", ()), style.pop("fields", ()))
    try:
        state: Any = cprtools.open(path, keep_all=True)
    except FormatError as error:
        state = error
    write_document(
        emitter(pieces.append), str(path), state, DocumentStyle(None, selection, **style)
    )
    return "".join(pieces)


def document(path: Path, **style: Any) -> Any:
    return json.loads(text_of(path, **style))


def check(found: Any) -> None:
    """Validate by the schema."""
    VALIDATOR.validate(found)


def sample_names() -> list[str]:
    """The smallest fixture of each kind, target and QEMU release."""
    found: dict[Any, str] = {}
    for name, entry in sorted(entries().items(), key=lambda item: item[1]["bytes"]):
        found.setdefault((entry["kind"], entry["target"], entry["qemu"][:4]), name)
    return sorted(found.values())


def leaves(fields: Any) -> Iterator[Any]:
    for field in fields:
        if "children" in field:
            yield from leaves(field["children"])
        else:
            yield field


def check_fixture(name: str) -> None:
    """Valid, and all bytes counted; which fixtures are to have an error is test_corpus's."""
    found = document(fixture_path(name))
    check(found)
    for layer in found["layers"]:
        assert layer["bytes"]["total"] == sum(layer["bytes_by_kind"].values())
        assert layer["bytes"]["unread"] == 0 or layer["error"] is not None


def test_the_schema_is_one() -> None:
    jsonschema_rs.meta.validate(SCHEMA)


@pytest.mark.parametrize("name", sample_names())
def test_fixtures_of_each_kind(name: str) -> None:
    check_fixture(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(entries()) - set(sample_names())))
def test_all_other_fixtures(name: str) -> None:
    check_fixture(name)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state.sav"
    path.write_bytes(sample())
    return path


def test_every_byte_is_in_it(state: Path) -> None:
    """Leaves and runs, put in a row, are the file."""
    spans = []
    for item in document(state)["layers"][0]["items"]:
        spans += [(leaf["offset"], leaf["size"]) for leaf in leaves(item["fields"])]
        for part in item.get("parts", ()):
            inner = [(part["offset"], part["size"])]
            listed = [(leaf["offset"], leaf["size"]) for leaf in leaves(part.get("fields", ()))]
            spans += listed or inner
    reached = 0
    for offset, size in sorted(spans):
        assert offset == reached
        reached += size
    assert reached == len(sample())


def test_runs_of_pages(state: Path) -> None:
    items = document(state)["layers"][0]["items"]
    (end,) = (item for item in items if item.get("type") == "END")
    runs = [part for part in end["parts"] if part["part"] == "run"]
    assert [(r["kind"], r["address"], r["count"]) for r in runs] == [
        ("data", 0, 2),
        ("zero", 0x2000, 3),
        ("xbzrle", 0x5000, 1),
    ]
    without = document(state, ram=False)["layers"][0]["items"]
    assert not any("parts" in item for item in without)


def test_values(state: Path) -> None:
    found = document(state, sections=("dev",))["layers"][0]
    (item,) = found["items"]
    values = {leaf["name"]: leaf["value"] for leaf in leaves(item["fields"])}
    assert values["level"] == 1234
    assert values["table"] == [0] * 8
    assert values["data"] == {"bytes": 40, "hex": bytes(range(1, 41)).hex()}
    assert len(item["notices"]) == 1
    assert "bytes" not in found


def test_chosen_fields(state: Path) -> None:
    found = document(state, fields=("level",))["layers"][0]
    names = [leaf["name"] for item in found["items"] for leaf in leaves(item["fields"])]
    assert names == ["level"]


def test_it_is_the_same_each_time_and_in_yaml(state: Path) -> None:
    assert text_of(state) == text_of(state)
    assert yaml.load(text_of(state, YamlEmitter), yaml.CSafeLoader) == document(state)


def test_yaml_of_fixtures() -> None:
    for name in ("cpr/openeuler-6.2-QEMU_CPR_STATE.bin", "qcow2/10.0-two.qcow2.xz"):
        text = text_of(fixture_path(name), YamlEmitter)
        assert yaml.load(text, yaml.CSafeLoader) == document(fixture_path(name))


@pytest.mark.parametrize("idstr", ["\x85\u2028\x7f", "\U0001f600", "a: b # c", "null", "'\"\\"])
def test_names_of_all_sorts(tmp_path: Path, idstr: str) -> None:
    path = tmp_path / "odd.sav"
    path.write_bytes(sample(idstr=idstr))
    found = document(path)
    assert any(item.get("idstr") == idstr for item in found["layers"][0]["items"])
    assert text_of(path).isascii()
    assert yaml.load(text_of(path, YamlEmitter), yaml.SafeLoader) == found


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "odd.sav"
    path.write_bytes(sample(idstr="dev\x01").replace(b"dev\x01\0", b"de\xff\xfe\0"))
    found = document(path)
    json.dumps(found, ensure_ascii=False).encode()
    (item,) = (item for item in found["layers"][0]["items"] if item.get("type") == "FULL")
    assert item["idstr"] == "de\\xff\\xfe"


@pytest.mark.parametrize("form", [JsonEmitter, YamlEmitter])
def test_a_cut_stream_gives_a_whole_document(tmp_path: Path, form: Any) -> None:
    data = sample()
    path = tmp_path / "cut.sav"
    for size in [*range(0, len(data) - 8300, 7), *range(len(data) - 900, len(data), 11)]:
        path.write_bytes(data[:size])
        found = yaml.load(text_of(path, form), yaml.CSafeLoader)
        check(found)
        assert found["error"] is not None or size > len(data) - 600
    path.write_bytes(data[:400])
    error = document(path)["error"]
    assert error["type"] == "Truncated"
    assert error["offset"] <= 400
    assert error["expected"]
    assert error["found"]


def test_the_command_says_the_error_too(tmp_path: Path) -> None:
    path = tmp_path / "cut.sav"
    path.write_bytes(sample()[:400])
    done = run("inspect", "--json", path)
    assert done.returncode == 1
    check(json.loads(done.stdout))
    assert done.stderr.startswith(b"cprtools: ")


def test_from_a_pipe_it_is_the_same() -> None:
    done = run("inspect", "--json", "-", stdin=sample())
    found = json.loads(done.stdout)
    assert found["file"] == {"name": "-", "size": None}
    assert found["error"] is None
    items = found["layers"][0]["items"]
    assert sum(len(item.get("parts", ())) for item in items) == 8
