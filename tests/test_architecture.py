"""The shape of the project, held by reading its sources: who imports whom, who prints."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "cprformats": ROOT / "formats" / "cprformats",
    "cprproto": ROOT / "proto" / "cprproto",
    "cprtools": ROOT / "cprtools",
}
#: Which of our packages each package may import besides itself.
ARROWS: dict[str, set[str]] = {
    "cprformats": set(),
    "cprproto": {"cprformats"},
    "cprtools": {"cprformats", "cprproto"},
}
#: What a library of parsers has no business with.
NOT_IN_FORMATS = {"asyncio", "http", "multiprocessing", "rich", "select", "socket", "subprocess"}
NOT_IN_FORMATS |= {"typer", "urllib", "logging", "argparse", "yaml"}
MOST_LINES = 500


def modules(package: str) -> Iterator[Path]:
    yield from sorted(PACKAGES[package].rglob("*.py"))


ALL = [path for package in PACKAGES for path in modules(package)]
IDS = [str(path.relative_to(ROOT)) for path in ALL]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def dotted(path: Path) -> str:
    """The import name of a source file."""
    package = next(name for name, root in PACKAGES.items() if root in path.parents)
    parts = [package, *path.relative_to(PACKAGES[package]).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.module or "", node.lineno
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
            target = node.args[0]
            if isinstance(target, ast.Constant):
                yield str(target.value), node.lineno


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_between_packages(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(package)
        for name, line in imports(path)
        if name.split(".")[0] in PACKAGES.keys() - ARROWS[package] - {package}
    ]
    assert wrong == []


def test_parsers_have_no_process_network_or_terminal() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules("cprformats")
        for name, line in imports(path)
        if name.split(".")[0] in NOT_IN_FORMATS
    ]
    assert wrong == []


def prints(path: Path) -> Iterator[int]:
    """Lines that print, or take hold of a standard stream to write to."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
            yield node.lineno
        if (
            isinstance(node, ast.Attribute)
            and node.attr in {"stdout", "stderr", "__stdout__"}
            and getattr(node.value, "id", "") == "sys"
        ):
            yield node.lineno


def test_only_the_report_prints() -> None:
    allowed = {ROOT / "cprtools" / "__main__.py"}
    report = ROOT / "cprtools" / "report"
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in ALL
        if path not in allowed and report not in path.parents
        for line in prints(path)
    ]
    assert wrong == []


@pytest.mark.parametrize("path", ALL, ids=IDS)
def test_every_module_says_what_it_is(path: Path) -> None:
    text = ast.get_docstring(tree(path))
    assert text
    assert len(text.splitlines()[0]) > 10


@pytest.mark.parametrize("path", ALL, ids=IDS)
def test_no_module_is_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", ALL, ids=IDS)
def test_all_names_exist_and_are_public(path: Path) -> None:
    if path.name == "__main__.py":
        return
    module = importlib.import_module(dotted(path))
    names = getattr(module, "__all__", None)
    if names is None:
        public = [
            node.name
            for node in tree(path).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        ]
        assert public == [], "public names and no __all__"
        return
    assert len(set(names)) == len(names)
    assert [name for name in names if not hasattr(module, name)] == []
    assert [name for name in names if name.startswith("_") and name != "__version__"] == []


def test_the_packages_are_typed() -> None:
    assert [name for name, path in PACKAGES.items() if not (path / "py.typed").exists()] == []


# -- what the papers promise is there --------------------------------------------

_PATH = re.compile(
    r"(?<![\w/.<-])((?:cprtools|formats|proto|tests|fixtures|docs|\.ci)/[\w./-]*\w/?|LICENSE|CHANGELOG\.md)"
)


@pytest.mark.parametrize("name", ["README.md", "pyproject.toml", "CHANGELOG.md"])
def test_paths_that_are_named_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    named = {match[1] for match in _PATH.finditer(text)}
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_pyproject_has_what_it_points_at() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert (ROOT / project["project"]["readme"]).exists()
    for path in project["tool"]["pytest"]["ini_options"]["pythonpath"]:
        assert (ROOT / path).is_dir()
    for target in project["project"]["scripts"].values():
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_no_two_tests_share_a_name() -> None:
    """Test folders are no packages, so a module's name must be enough."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
