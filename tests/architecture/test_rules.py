"""What CONVENTIONS asks of the source: one-way imports, names, headers, sizes, and no trace of this machine."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ("bpf", "config", "headrace", "pipeline", "workers")
PACKAGES = (*SHIPPED, "bench")
NAME = "headrace."
"""Before the folders, where they are imported."""
LONGEST_FUNCTION = 60
LONGEST_MODULE = 400
RUNS_WHAT_OTHERS_WROTE = ("process", "entry", "bounds", "rehearsal", "reload")
PLAIN_NAMES = frozenset({"utils", "util", "common", "helpers", "helper", "base", "manager", "managers", "misc"})


def sources(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def folder_of(module: str) -> str:
    """A module's name by the folders that it stands in: `bpf.layout` for `headrace.bpf.layout`."""
    inner = module.removeprefix(NAME)
    return inner if inner.split(".")[0] in SHIPPED else module


def imports(path: Path) -> Iterator[str]:
    """Modules that a module imports, inside functions too: `a.b` for `from a import b` if that is a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (folder_of(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            module = folder_of(node.module or "")
            for alias in node.names:
                inner = ROOT / module.replace(".", "/") / alias.name
                yield f"{module}.{alias.name}" if inner.with_suffix(".py").exists() or inner.is_dir() else module


def ours(path: Path) -> set[str]:
    """Modules of the project that a module imports."""
    return {name for name in imports(path) if name.split(".")[0] in (*PACKAGES, "tests")}


def violations(package: str, allowed: Callable[[Path, str], bool]) -> list[str]:
    return [
        f"{name_of(path)} imports {name}"
        for path in sources(package)
        for name in sorted(ours(path))
        if not allowed(path, name)
    ]


def test_the_sources_are_found() -> None:
    assert all(len(sources(package)) > 2 for package in PACKAGES)
    assert "bpf.tables.catalogue" in ours(ROOT / "config" / "filters.py")


def test_nothing_that_ships_imports_tests_or_benchmarks() -> None:
    for package in SHIPPED:
        assert violations(package, lambda _, name: name.split(".")[0] not in ("tests", "bench")) == []


def test_imports_have_no_cycles() -> None:
    graph = {name_of(path): ours(path) for path in sources(*SHIPPED)}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above[above.index(name) :], name))
        if name not in done:
            for inner in sorted(graph.get(name, ())):
                visit(inner, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", sources(*PACKAGES, "tests"), ids=name_of)
def test_a_modules_name_says_what_it_is(path: Path) -> None:
    assert not PLAIN_NAMES & set(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", [p for p in sources(*PACKAGES, "tests") if p.name != "__init__.py"], ids=name_of)
def test_a_module_says_what_it_is_in_its_first_lines(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
    assert len(docstring.split()) >= 3


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=name_of)
def test_no_function_is_longer_than_a_screen(path: Path) -> None:
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    ]
    assert long == []


@pytest.mark.parametrize("path", [p for p in sources(*PACKAGES) if p.stem != "tables"], ids=name_of)
def test_no_module_is_longer_than_can_be_thought_through(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize("path", sources(*SHIPPED), ids=name_of)
def test_broad_exceptions_are_caught_only_at_a_processs_root_or_named_again(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path}: bare except"
            if isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"):
                raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                assert raises or path.stem in RUNS_WHAT_OTHERS_WROTE, f"{path}:{node.lineno}"


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name.decode() for name in listed.split(b"\0") if name]


def test_no_tracked_file_names_a_place_of_this_machine() -> None:
    # put together here, so that this file does not name them
    places = [f"/{name}/".encode() for name in ("work", "root", "farm")]
    named = [
        f"{path.relative_to(ROOT)}: {place.decode()}"
        for path in tracked()
        if path.is_file() and path.suffix != ".hrc" and "data" not in path.parts
        for place in places
        if place in path.read_bytes()
    ]
    assert named == []


def test_tests_sleep_only_while_they_wait_for_a_condition() -> None:
    for path in sources("tests"):
        tree = ast.parse(path.read_text())
        waiting = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.While) for inner in ast.walk(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "sleep"):
                assert id(node) in waiting, f"{path}:{node.lineno}"
