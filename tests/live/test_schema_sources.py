"""Real QEMUs: their modules found, their dumps joined, the schemas that come along made anew."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

import cprtools
import qemus
import schemas
from cprformats.schema.document import read_document
from cprformats.schema.model import Schema
from cprformats.schema.priorities import priority_names
from cprformats.schema.publish import write_document
from cprtools.schemas.choices import NeedsChoice
from cprtools.schemas.running import RunFailed

pytestmark = pytest.mark.live

OLD = {1: "IOMMU", 2: "PCI_BUS"}
PRIORITIES = {
    "5.2": OLD,
    "7.2": OLD | {3: "VIRTIO_MEM"},
    "8.2": OLD | {3: "VIRTIO_MEM"},
    "10.0": OLD | {3: "VIRTIO_MEM"},
    "11.1": {1: "LOW", 3: "IOMMU", 4: "PCI_BUS", 5: "VIRTIO_MEM", 6: "APIC"},
}


@pytest.fixture(scope="module", params=qemus.VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def made(version: str) -> Schema:
    return schemas.make(version)


def test_what_comes_along_is_what_is_made_now(version: str, made: Schema) -> None:
    kept = cprtools.open_schema(f"builtin:{version}")
    assert kept.provenance["sha256"] == made.provenance["sha256"], "make it anew: another build"
    assert asdict(kept) == asdict(made)
    assert asdict(read_document(write_document(made))) == asdict(made)


def test_every_device_type_has_its_description(made: Schema) -> None:
    assert made.unlinked == ()
    assert len(made.devices) > 200
    for name in ("virtio-net-device", "e1000", "ICH9-LPC", "mc146818rtc"):
        assert made.devices[name] in made.descriptions
    assert made.descriptions[made.devices["virtio-net-device"]].name == "virtio-net"
    assert made.descriptions[made.devices["ICH9-LPC"]].name == "ICH9LPC"


def test_priorities_have_names(version: str, made: Schema) -> None:
    assert priority_names(made) == PRIORITIES[version]


def test_modules_beside_it_are_found(version: str) -> None:
    program = schemas.program(version)
    alone = cprtools.open_schema(str(program), find_modules=False, cache=False)
    whole = cprtools.open_schema(str(program), cache=False)
    folder = program.parents[1] / "lib" / "x86_64-linux-gnu" / "qemu"
    names = {path.name for path in folder.glob("*.so")}
    assert {one.name for one in whole.binaries[1:]} == names
    assert whole.left_out == {}
    assert len(alone.binaries) == 1
    from_modules = {one.name for one in whole.descriptions.values() if one.object in names}
    assert {one.name for one in whole.descriptions.values()} == from_modules | {
        one.name for one in alone.descriptions.values()
    }
    assert ("qxl" in from_modules) == ("hw-display-qxl.so" in names)


def test_a_package_with_several_programs() -> None:
    root = schemas.program("10.0").parents[2]
    with pytest.raises(NeedsChoice) as caught:
        cprtools.open_schema(str(root))
    names = {Path(one).name for one in caught.value.choices}
    assert {"qemu-system-i386", "qemu-system-x86_64"} <= names


def test_modules_of_another_build_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    other = schemas.program("11.1").parents[1] / "lib" / "x86_64-linux-gnu" / "qemu"
    monkeypatch.setenv("QEMU_MODULE_DIR", str(other))
    schema = cprtools.open_schema(str(schemas.program("10.0")), cache=False)
    assert len(schema.binaries) == 1
    assert "hw-display-qxl.so" in schema.left_out
    assert set(schema.left_out.values()) == {"of another build"}


def test_what_is_kept_is_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = str(schemas.program("7.2"))
    first = cprtools.open_schema(program)
    assert cprtools.open_schema(program) == first == cprtools.open_schema(program, cache=False)


def test_a_machine_can_be_chosen() -> None:
    wrapper = str(qemus.qemu_path("10.0"))
    schema = cprtools.open_schema(wrapper, run=True, machine="microvm")
    assert (schema.origin, schema.machine) == ("dump", "microvm")
    with pytest.raises(RunFailed, match="unsupported machine type"):
        cprtools.open_schema(wrapper, run=True, machine="no such one")
