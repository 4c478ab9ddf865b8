"""Files of signatures that cannot be read, or are more than can be: each refused with why, and the rest is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.files import LONGEST_FILE
from config.located import MAX_BITS
from config.rules import load

GOOD = "id: GOOD-1\nname: good\nevents: {getppid: null}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good.yaml").write_text(GOOD)
    return tmp_path


def refused(folder: Path, *more: Path) -> list[str]:
    found = load([folder, *more])
    assert [rule.id for rule in found.rules] == ["GOOD-1"]
    return [str(error) for error in found.refused]


def test_an_enormous_file(folder: Path) -> None:
    (folder / "large.yaml").write_text(GOOD + "#" * (LONGEST_FILE + 1))
    assert refused(folder) == [f"{folder}/large.yaml: larger than {LONGEST_FILE >> 20} MiB"]


def test_a_file_that_is_enormous_once_its_references_are_followed(folder: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (folder / "bomb.yaml").write_text("\n".join(lines) + "\n")
    (error,) = refused(folder)
    assert error.startswith(f"{folder}/bomb.yaml:")


def test_places_that_cannot_be_read(folder: Path) -> None:
    loop = folder / "loop.yaml"
    loop.symlink_to(loop)
    errors = refused(folder, folder / "missing")
    assert len(errors) == 2
    assert any("loop.yaml" in error and "symbolic links" in error for error in errors)
    assert any("missing" in error and "No such file" in error for error in errors)


def test_bytes_that_are_no_text(folder: Path) -> None:
    (folder / "bytes.yaml").write_bytes(b"id: \xff\xfe\x00")
    (error,) = refused(folder)
    assert error.startswith(f"{folder}/bytes.yaml")


@pytest.mark.parametrize(
    "value", ["!!timestamp soon", "!!timestamp '2001-19-39'", "!!int ''", "!!bool maybe", "!!float ''", "!!map x"]
)
def test_a_tag_on_a_text_that_is_none_of_it(folder: Path, value: str) -> None:
    (folder / "tag.yaml").write_text(f"id: X\nname: {value}\n")
    (error,) = refused(folder)
    assert error.startswith(f"{folder}/tag.yaml:2: not a plain value: ")


def test_a_number_of_more_digits_than_python_writes(folder: Path) -> None:
    (folder / "number.yaml").write_text("id: X\nname: x\nevents:\n  openat: {flags: 0x" + "9" * 5000 + "}\n")
    assert refused(folder) == [f"{folder}/number.yaml:4: a number of more than {MAX_BITS} bits"]
