"""What is compiled: the same text for scopes that differ in numbers alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.bpf.programs.scope import Scope, parse
from headrace.bpf.programs.source import WantedPrograms, joined, numbers
from headrace.bpf.tables.catalogue import catalogue


def scope(proc: Path, now_ns: int, *expressions: str) -> Scope:
    return parse(expressions, now_ns, proc=proc)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    for pid in (7, 4_000_001):
        (tmp_path / str(pid)).mkdir()
    return tmp_path


def text(of: Scope) -> str:
    return joined(WantedPrograms((catalogue().by_name["getppid"],), of, 1), "x86_64")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("pid=7", "new"), ("pid=4000001", "new")),
        (("uid<1", "mntns!=1,2"), ("uid<1000", "mntns!=4026531841,9")),
        (("comm=a",), ("comm=abcdefghijklmno",)),
        (("container=a1b2",), ("container=ffee",)),
    ],
)
def test_numbers_are_not_in_the_text(proc: Path, one: tuple[str, ...], other: tuple[str, ...]) -> None:
    first, second = scope(proc, 5, *one), scope(proc, 2**63, *other)
    assert text(first) == text(second)
    assert numbers(first) != numbers(second)
    assert len(numbers(first)) == text(first).count("SCOPE_NUMBER(") - DEFINED


DEFINED = text(Scope()).count("SCOPE_NUMBER(")


def test_they_stand_in_the_order_of_the_text(proc: Path) -> None:
    found = scope(proc, 99, "container=a1", "pid=7,4000001", "uid>=3", "new")
    assert numbers(found)[-4:] == [7, 4_000_001, 3, 99]
    places = [part.split(")")[0] for part in text(found).split("SCOPE_NUMBER(")[1 + DEFINED :]]
    assert places == [str(i) for i in range(len(numbers(found)))]


def test_another_shape_is_another_text(proc: Path) -> None:
    assert text(scope(proc, 5, "pid=7")) != text(scope(proc, 5, "pid=7,4000001"))
