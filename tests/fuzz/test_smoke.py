"""A minute of every target, the same inputs each time: without atheris (docs/explanation/fuzzing.md)."""

from __future__ import annotations

import mmap
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import NAMES, load, trees
from tests.fuzz.campaign import PROGRESS, ROOT, counted, place, plainly
from tests.fuzz.mutation import children, siblings

SEED = 17
EXECUTIONS = {
    "arguments": 120,
    "frames": 140,
    "recordings": 250,
    "wire": 3000,
    "lines": 1500,
    "signatures": 500,
    "sigma": 800,
    "exceptions": 1500,
    "settings": 1000,
    "views": 90,
}
"""As many as take some five seconds, beside other tests ten; the seeds come first."""


@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_is_read_or_shown_raises_or_gets_lost(name: str, tmp_path: Path) -> None:
    target, progress = load(name), mmap.mmap(-1, PROGRESS.size)
    plainly(target, counted(target, tmp_path, progress), EXECUTIONS[name], 120, SEED)
    assert [path.read_text() for path in tmp_path.glob("*.txt")] == []
    assert PROGRESS.unpack_from(progress)[0] == EXECUTIONS[name]


def test_a_defect_is_kept_once_with_its_input_and_is_known_by_its_place(tmp_path: Path) -> None:
    class Faulty:
        EACH, TOKENS, FORM = 1, (), ""

        def target(self, data: bytes) -> None:
            if data:
                raise ValueError(data)

        def seeds(self) -> list[bytes]:
            return [b"", b"a", b"b"]

    progress = mmap.mmap(-1, PROGRESS.size)
    plainly(Faulty(), counted(Faulty(), tmp_path, progress), 6, 10, SEED)
    kept = [path for path in tmp_path.iterdir() if not path.suffix]
    assert [path.read_bytes() for path in kept] == [b"a"]
    assert "ValueError" in kept[0].with_suffix(".txt").read_text()
    assert PROGRESS.unpack_from(progress)[0] == 6


def test_an_assertion_is_known_by_what_it_says() -> None:
    places = []
    for why in ("one", "other"):
        try:
            raise AssertionError(why)
        except AssertionError as error:
            places.append(place(error))
    assert len(set(places)) == 2


def test_the_command_runs_targets_and_writes_their_figures(tmp_path: Path) -> None:
    figures = tmp_path / "fuzz.json"
    command = ["-m", "tests.fuzz", "wire", "--plain", "--inputs", "80", "--seed", "1", "--result", str(figures)]
    done = subprocess.run(
        [sys.executable, *command, "--cache", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert '"inputs": 80' in figures.read_text()
    assert "crashes 0" in done.stdout


@pytest.mark.parametrize(
    ("form", "text"), [("yaml", "a: [1, {b: c}]"), ("json", '{"a":[1,{"b":"c"}]}'), ("toml", "a = [1, 2]")]
)
def test_a_text_that_was_changed_by_what_it_says_is_of_its_form_again(form: str, text: str) -> None:
    chance = random.Random(SEED)
    found = [trees.mutated(form, text.encode(), chance, (b"word",)) for _ in range(100)]
    made = {data for data in found if data is not None}
    assert len(made) > 20
    for data in made:
        trees.FORMS[form][0](data.decode())


def test_children_are_made_of_their_parents_bytes_alone_and_the_first_is_the_parent() -> None:
    parent = bytes(range(100))
    rows = children(parent, 50)
    assert rows[0].tobytes() == parent
    assert (rows == children(parent, 50)).all()
    assert len({row.tobytes() for row in rows}) > 40
    assert siblings(parent, 9) == siblings(parent, 9)
