"""The names of the Python API: each is there, and typed for those who check types."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import headrace


@pytest.mark.parametrize("name", headrace.__all__)
def test_a_name_is_there(name: str) -> None:
    assert getattr(headrace, name).__module__.startswith("headrace.pipeline.api.")


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(headrace.__file__).read_text())
    (only,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = [
        alias.asname or alias.name for node in only.body if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    assert sorted(seen) == sorted(headrace.__all__)


def test_a_name_that_is_not_there_says_so() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        headrace.nosuch  # noqa: B018
