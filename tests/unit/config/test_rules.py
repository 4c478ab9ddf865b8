"""Files of signatures that cannot be read, or are more than can be: each refused with why, and the rest is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.config.files import MAX_FILE_BYTES
from headrace.config.rules import load

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
    (folder / "large.yaml").write_text(GOOD + "#" * (MAX_FILE_BYTES + 1))
    assert refused(folder) == [f"{folder}/large.yaml: larger than {MAX_FILE_BYTES >> 20} MiB"]


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
    assert refused(folder) == [f"{folder}/number.yaml:4: a number of more than 64 bits"]


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30])
def test_a_number_of_more_than_64_bits_wherever_it_stands(folder: Path, number: int) -> None:
    (folder / "number.yaml").write_text(f"id: X\nname: x\nevents:\n  openat:\n    pathname: {number}\n")
    assert refused(folder) == [f"{folder}/number.yaml:5: a number of more than 64 bits"]


def test_a_reference_to_a_list_that_is_no_name(folder: Path) -> None:
    (folder / "lists.yaml").write_text("lists:\n  a:\n  - {list: [b]}\n")
    assert refused(folder) == [f"{folder}/lists.yaml:3: list a: no such list: ['b']"]


def test_lists_of_lists_that_grow_beyond_measure(folder: Path) -> None:
    lines = ["lists:", f"  a0: [{', '.join('x' * 10)}]"]
    lines += [f"  a{i}: [{', '.join([f'{{list: a{i - 1}}}'] * 10)}]" for i in range(1, 12)]
    (folder / "lists.yaml").write_text("\n".join(lines) + "\n")
    errors = refused(folder)
    assert errors
    assert all("values, those of its lists included" in error for error in errors)


def test_lists_in_lists_without_end(folder: Path) -> None:
    lines = ["lists:", "  a0: [x]", *(f"  a{i}: [{{list: a{i - 1}}}]" for i in range(1, 2000))]
    (folder / "lists.yaml").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    errors = refused(folder)
    assert errors
    assert all("deep" in error for error in errors)


def test_a_test_with_more_values_than_any(folder: Path) -> None:
    many = ", ".join(["x"] * 1000)
    uses = ", ".join(["{list: a}"] * 101)
    text = f"id: X\nname: x\nevents:\n  openat:\n    pathname: [{uses}]\n"
    (folder / "many.yaml").write_text(f"lists: {{a: [{many}]}}\n---\n{text}")
    (error,) = refused(folder)
    assert "pathname: more than 100000 values" in error
