"""Values of signatures that no matcher can be made of: refused with the rule when it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.rules import MAX_CODE
from headrace.workers.detect.rules.rulesets import build
from headrace.workers.detect.rules.sigma_files import load_sigma
from headrace.workers.detect.rules.sigma_rules import MAX_SELECTIONS


@pytest.mark.parametrize(
    "test", ["pathname|glob: '[z-a]'", "pathname|glob|nocase: '[Z-a]*'", "pathname|glob: '[!b-a]?'"]
)
def test_a_glob_with_a_range_that_runs_backwards(tmp_path: Path, test: str) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(f"id: X\nname: x\nevents:\n  openat:\n    {test}\n")
    (error,) = build(catalogue(), (str(path),), shipped=False, only=(), also_off=True).refused
    assert str(error).startswith(f"{path}:5: X: pathname: not a glob: ")


def test_a_signature_in_python_that_cannot_be_given_to_workers(tmp_path: Path) -> None:
    path = tmp_path / "one.py"
    path.write_text(
        "from headrace.signature import Signature\n"
        "class One(Signature):\n"
        "    id, name, title, events = 'X', 'x', chr(0xD800), {'openat': None}\n"
    )
    (error,) = build(catalogue(), (str(path),), shipped=False, also_off=True).refused
    assert "X: " in str(error)
    assert "surrogates not allowed" in str(error)


def test_a_sigma_condition_that_grows_faster_than_its_text(tmp_path: Path) -> None:
    path = tmp_path / "one.yml"
    selections = "".join(f"  s{i}: {{Image: /x{i}}}\n" for i in range(200))
    condition = " and ".join(["1 of s*"] * 200)
    source = "title: t\nlogsource: {category: process_creation, product: linux}\ndetection:\n"
    path.write_text(f"{source}{selections}  condition: {condition}\n")
    rules, (error,) = load_sigma([path], catalogue())
    assert rules == []
    assert str(error) == f"{path}: t: its condition refers to selections over {MAX_SELECTIONS} times"


def test_a_signature_that_is_named_and_refused_is_said_to_be_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import nosuch\n")
    found = build(catalogue(), (str(tmp_path),), only=("MINE",))
    assert found.rules == ()
    (error,) = found.refused
    assert str(error) == f"{tmp_path}/mine.py:1: ModuleNotFoundError: No module named 'nosuch'"


def test_a_signature_with_state_fork_that_takes_batches_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.py"
    path.write_text(
        "from headrace.signature import Signature\n"
        "class One(Signature):\n"
        "    id, name, state, events = 'X', 'x', 'fork', {'sched_process_exec': None}\n"
        "    def on_batch(self, batch):\n"
        "        return [True] * len(batch)\n"
    )
    (error,) = build(catalogue(), (str(path),), shipped=False, also_off=True).refused
    assert "on_batch: with state fork" in str(error)


def test_as_many_signatures_in_python_as_the_limit_says(tmp_path: Path) -> None:
    one = (
        "from headrace.signature import Signature\n"
        "class S{0}(Signature):\n"
        "    id, name, events = 'S{0}', 's', {{'close': None}}\n"
    )
    for number in range(MAX_CODE):
        (tmp_path / f"s{number}.py").write_text(one.format(number))
    found = build(catalogue(), (str(tmp_path),), also_off=True)
    assert sum(bool(rule.code) for rule in found.rules) == MAX_CODE
    assert all("signatures in Python" in error.why for error in found.refused)
