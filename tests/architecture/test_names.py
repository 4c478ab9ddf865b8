"""One name means one thing: no class stands twice in what ships, but for what is listed with its reason."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from tests.architecture.test_rules import SHIPPED, name_of, sources

SAME = {
    "Event": "the event of a signature's author, and the kind of event of the catalogue",
    "RefusedError": "of the loader, and of the Python API",
}
"""Names that two classes share, and why."""


def classes(path: Path) -> list[str]:
    return [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]


def test_a_class_has_a_name_of_its_own() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for path in sources(*SHIPPED):
        for name in classes(path):
            found[name].append(name_of(path))
    twice = {name: places for name, places in found.items() if len(places) > 1}
    assert {name: places for name, places in twice.items() if name not in SAME} == {}
    assert set(SAME) <= set(twice), "a name is listed that no two classes share"


def test_bounds_are_called_max() -> None:
    named = [
        f"{name_of(path)}: {target.id}"
        for path in sources(*SHIPPED)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.startswith(("MOST_", "LONGEST_", "LARGEST_"))
    ]
    assert named == []
