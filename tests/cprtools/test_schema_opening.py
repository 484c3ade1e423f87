"""Whatever a user names becomes a schema, or an error that says what was expected."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import struct
import threading
from pathlib import Path

import pytest
from tool import cprtools as run

import cprtools
from builders import schemas as build
from builders.installed import install, module, program, put
from cprformats.errors import FormatError, Unsupported, WrongFormat
from cprformats.schema import jsontext
from cprformats.schema.publish import write_document
from cprformats.schema.stamps import ModuleFacts
from cprtools.schemas import folder, opening
from cprtools.schemas.choices import NeedsChoice
from cprtools.schemas.modules import module_folders


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("QEMU_MODULE_DIR", raising=False)


# -- files ----------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_a_schema_file(tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    path = put(tmp_path / "schema", pack(write_document(build.rich())))
    assert cprtools.open_schema(str(path)) == build.rich()


def test_a_dump(tmp_path: Path) -> None:
    path = put(tmp_path / "dump", b"\n" + build.dump(dev=build.dumped("d")))
    assert cprtools.open_schema(str(path)).devices == {"dev": "d"}


def test_what_json_writes_is_read_wherever_a_program_is(tmp_path: Path) -> None:
    binary = str(install(tmp_path))
    made = run("schema", "--json", binary).stdout
    path = put(tmp_path / "s.json", made)
    assert cprtools.open_schema(str(path)) == cprtools.open_schema(binary)
    again = run("schema", "--json", path)
    assert (again.returncode, again.stdout) == (0, made)
    piped = run("schema", "--json", "-", stdin=made)
    assert (piped.returncode, piped.stdout) == (0, made)


def test_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for data, wanted in ((write_document(build.rich()), 1), (program(), 1), (b"{}", 1)):
        writer = threading.Thread(target=pipe.write_bytes, args=(data,))
        writer.start()
        done = run("schema", pipe)
        writer.join()
        assert done.returncode == wanted
        if data.startswith(b"\x7fELF"):
            assert b"found a program: name its file" in done.stderr
        elif len(data) > 2:
            assert done.stderr.decode() == f"cprtools: {pipe}: only a test\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lzma.compress(program()), "expected a schema file or a dump, found a program: name its"),
        (b"", "expected a QEMU program, a schema file or a dump of one; found bytes nothing"),
        (b"MZ\x90\0", "schema file or a dump of one; found bytes 4d 5a 90 00"),
        (b"{}", 'expected a member "format": "cprtools-schema", or "vmschkmachine", found neither'),
        (b"#!/bin/sh -e\nexec qemu", r"found a script \(#!/bin/sh -e\).* name the ELF file itself"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(WrongFormat, match=message):
        cprtools.open_schema(str(put(tmp_path / "file", data)))


def test_compressed_data_that_is_damaged_or_endless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = lzma.compress(write_document(build.rich()))
    with pytest.raises(FormatError, match="xz"):
        cprtools.open_schema(str(put(tmp_path / "cut", data[:-30])))
    monkeypatch.setattr(opening, "MAX_JSON_BYTES", 1000)
    with pytest.raises(Unsupported, match="expected at most 1000 bytes inside, found more"):
        cprtools.open_schema(str(put(tmp_path / "bomb", lzma.compress(b" " * 5000))))
    monkeypatch.setattr(jsontext, "MAX_JSON_BYTES", 1000)
    with pytest.raises(Unsupported, match="expected at most 1000 bytes, found 1001"):
        cprtools.open_schema(str(put(tmp_path / "large", b"{" + b" " * 5000)))


# -- with cprtools ---------------------------------------------------------------------


def test_schemas_that_come_along() -> None:
    done = run("schema", "--list")
    names = [line.split()[0] for line in done.stdout.decode().splitlines()[1:]]
    assert names == [f"builtin:{version}" for version in ("5.2", "7.2", "8.2", "10.0", "11.1")]
    for name in names:
        schema = cprtools.open_schema(name)
        assert len(schema.descriptions) > 400
        assert len(schema.devices) > 200
        assert set(schema.provenance) == {"package", "source", "qemu", "sha256", "command"}
        assert schema.missing == schema.unlinked == ()


def test_schemas_that_come_along_are_small() -> None:
    data = Path(cprtools.__file__).parent / "schemas" / "data"
    assert sum(path.stat().st_size for path in data.iterdir()) < 600_000


def test_one_that_does_not_come_along() -> None:
    with pytest.raises(NeedsChoice, match=r"expected one of builtin:5\.2, .*, found builtin:4"):
        cprtools.open_schema("builtin:4")
    done = run("schema", "builtin:../data/5.2")
    assert done.returncode == 2
    assert b"found builtin:../data/5.2" in done.stderr


# -- folders ---------------------------------------------------------------------------


def test_a_folder_with_one_program(tmp_path: Path) -> None:
    install(tmp_path / "root")
    put(tmp_path / "root/usr/bin/qemu-system-wrapper", b"#!/bin/sh\n")
    (tmp_path / "root/usr/bin/qemu-system-link").symlink_to("qemu-system-x86_64")
    schema = cprtools.open_schema(str(tmp_path / "root"))
    assert schema.binaries[0].name == "qemu-system-x86_64"
    assert list(schema.descriptions) == ["timer", "one"]


def test_where_programs_are_installed_is_looked_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = put(tmp_path / "usr/libexec/qemu-kvm", program())
    for number in range(30):
        put(tmp_path / f"etc/file{number}", b"")
    put(tmp_path / "home/build/qemu-system-arm", program())
    (tmp_path / "bin").symlink_to("usr/libexec")
    monkeypatch.setattr(folder, "_MAX_FILES", 20)
    assert folder.program_in(tmp_path) == installed


def test_a_folder_with_several(tmp_path: Path) -> None:
    for name in ("qemu-system-arm", "qemu-kvm"):
        put(tmp_path / "root/usr/libexec" / name, program())
    with pytest.raises(NeedsChoice) as caught:
        cprtools.open_schema(str(tmp_path / "root"))
    assert [Path(one).name for one in caught.value.choices] == ["qemu-kvm", "qemu-system-arm"]
    done = run("schema", tmp_path / "root")
    assert (done.returncode, done.stdout) == (2, b"")
    assert f"name one of: {tmp_path}/root/usr/libexec/qemu-kvm, " in done.stderr.decode()


def test_a_folder_with_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("schema", tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"expected a program qemu-system-... in this folder, found none\n" in done.stderr
    put(tmp_path / "a/b/c/d/e/f/g/qemu-system-deep", program())
    with pytest.raises(WrongFormat):
        folder.program_in(tmp_path)
    put(tmp_path / "z/qemu-system-late", program())
    assert folder.program_in(tmp_path).name == "qemu-system-late"
    monkeypatch.setattr(folder, "_MAX_FILES", 5)
    with pytest.raises(NeedsChoice, match="expected at most 5 files in this folder, found more"):
        folder.program_in(tmp_path)


# -- modules ---------------------------------------------------------------------------


def test_modules_of_the_same_build_are_found(tmp_path: Path) -> None:
    schema = cprtools.open_schema(str(install(tmp_path)))
    assert [one.name for one in schema.binaries] == ["qemu-system-x86_64", "hw-one.so"]
    assert schema.left_out == {"hw-two.so": "of another build"}
    assert schema.descriptions["one"].object == "hw-one.so"
    text = run("schema", tmp_path / "usr/bin/qemu-system-x86_64").stdout.decode()
    assert "hw-two.so: of another build, left out" in text
    assert "  modules       1: hw-one.so\n" in text


def test_modules_can_be_left_alone_or_named(tmp_path: Path) -> None:
    binary = install(tmp_path)
    alone = cprtools.open_schema(str(binary), find_modules=False)
    assert (list(alone.descriptions), alone.left_out) == (["timer"], {})
    assert b"hw-one.so" not in run("schema", binary, "--no-modules").stdout
    named = cprtools.open_schema(str(binary), [str(tmp_path / "usr/lib/qemu/hw-two.so")])
    assert list(named.descriptions) == ["timer", "two"]


def test_a_program_without_a_stamp_has_none(tmp_path: Path) -> None:
    install(tmp_path)
    binary = put(tmp_path / "usr/bin/qemu", program(stamp="qemu_stamp_%s"))
    schema = cprtools.open_schema(str(binary))
    assert (len(schema.binaries), schema.left_out) == (1, {})


def test_a_module_that_is_damaged_is_left_out(tmp_path: Path) -> None:
    binary = install(tmp_path)
    good = tmp_path / "usr/lib/qemu/hw-one.so"
    put(good.with_name("hw-cut.so"), good.read_bytes()[:2000])
    put(good.with_name("hw-text.so"), b"no module")
    schema = cprtools.open_schema(str(binary))
    assert list(schema.descriptions) == ["timer", "one"]
    assert set(schema.left_out) == {"hw-two.so", "hw-cut.so", "hw-text.so"}
    assert schema.left_out["hw-cut.so"].startswith("can't be read: ")


def test_a_module_whose_pointers_are_damaged_is_left_out(tmp_path: Path) -> None:
    binary = install(tmp_path)
    data = module("four")
    at = data.rindex(struct.pack("<Q", 8))  # DT_RELASZ
    put(tmp_path / "usr/lib/qemu/hw-four.so", data[: at + 8] + b"\xff" * 5 + data[at + 13 :])
    schema = cprtools.open_schema(str(binary))
    assert list(schema.descriptions) == ["timer", "one"]
    assert schema.left_out["hw-four.so"].startswith("can't be read: ")


def test_the_folders_have_the_order_that_qemu_asks_them_in(tmp_path: Path) -> None:
    for name in ("set", "usr/lib64/qemu", "usr/lib/x86_64-linux-gnu/qemu", "usr/bin"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "usr/bin/qemu-bundle/usr/lib64/qemu").mkdir(parents=True)
    facts = ModuleFacts(
        ("qemu_stamp_1",), ("/usr/lib64/qemu", "/nowhere/lib/qemu", "/usr/share/qemu")
    )
    found = module_folders(
        tmp_path / "usr/bin/qemu", facts, {"QEMU_MODULE_DIR": str(tmp_path / "set")}
    )
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        "set",
        "usr/lib64/qemu",
        "usr/bin/qemu-bundle/usr/lib64/qemu",
        "usr/lib/x86_64-linux-gnu/qemu",
    ]
    assert module_folders(tmp_path / "usr/bin/qemu", ModuleFacts((), facts.folders), {}) == []


def test_the_variable_of_qemu_is_heeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = install(tmp_path)
    put(tmp_path / "mine/hw-one.so", module("mine"))
    monkeypatch.setenv("QEMU_MODULE_DIR", str(tmp_path / "mine"))
    assert list(cprtools.open_schema(str(binary)).descriptions) == ["timer", "mine"]


# -- wrong usage -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("schema",),
        ("schema", "builtin:5.2", "module.so"),
        ("schema", "builtin:5.2", "--run"),
        ("schema", "builtin:5.2", "--elf", "x"),
        ("schema", "-", "--run"),
        ("schema", "x", "--time-limit", "0"),
        ("schema", "/no/such/file"),
    ],
)
def test_wrong_usage(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Traceback" not in done.stderr


def test_a_schema_file_is_no_program(tmp_path: Path) -> None:
    path = put(tmp_path / "schema", write_document(build.rich()))
    for options in ({"run": True}, {"modules": ["x"]}):
        with pytest.raises(NeedsChoice, match="found a file"):
            cprtools.open_schema(str(path), **options)  # type: ignore[arg-type]


def test_part_of_a_schema_is_whole(tmp_path: Path) -> None:
    path = put(tmp_path / "schema", write_document(build.rich()))
    made = run("schema", "--json", "-n", "timer", path).stdout
    found = json.loads(made)
    assert [one["key"] for one in found["descriptions"]] == ["timer/late", "timer"]
    assert cprtools.open_schema(str(put(tmp_path / "part", made))).devices == {
        "timer-device": "timer"
    }
