"""Lines that are no events are refused one by one, and all others are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.bpf.tables.catalogue import catalogue
from headrace.pipeline.command.analyze import EX_REJECTED, PIECE_BYTES, _lines
from headrace.workers.detect.offline.analysis import MAX_LINE_BYTES, Analysis

GOOD = b'{"eventName":"close"}'


def refused(path: Path, lines: list[bytes], end: bytes = b"\n") -> int:
    path.write_bytes(b"\n".join(lines) + end)
    with path.open("rb") as file:
        return _lines("some.json", file, Analysis((), catalogue()))


def test_bad_lines_are_refused_by_number_and_others_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    deep = b'{"eventName":"close","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert refused(tmp_path / "x", [GOOD, deep, GOOD, b"[]", b"\xff", GOOD]) == EX_REJECTED
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines[:-1]] == ["some.json:2", "some.json:4", "some.json:5"]
    assert lines[-1] == "analyzed: lines 6  rejected 3"


@pytest.mark.parametrize("end", [b"\n", b""])
@pytest.mark.parametrize("more", [1, PIECE_BYTES, 3 * PIECE_BYTES + 7])
def test_a_line_that_is_too_long_is_no_event_though_its_ends_make_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], more: int, end: bytes
) -> None:
    room = MAX_LINE_BYTES + more - len(GOOD)
    long = GOOD[:-1] + b" " * room + GOOD[-1:]
    assert refused(tmp_path / "x", [GOOD, long, GOOD, long], end) == EX_REJECTED
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "headrace: some.json:2: longer than 16 MiB"
    assert lines[1] == "headrace: some.json:4: longer than 16 MiB"
    assert lines[2] == "analyzed: lines 4  rejected 2"


def test_a_line_that_is_just_not_too_long_is_an_event(tmp_path: Path) -> None:
    assert refused(tmp_path / "x", [GOOD[:-1] + b" " * (MAX_LINE_BYTES - len(GOOD)) + GOOD[-1:]]) == 0
