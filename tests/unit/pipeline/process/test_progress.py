"""What a writer that was killed has left: the file and the table say how many rows there are, or how many at most."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bpf.tables.catalogue import LOSS, catalogue
from headrace.config.outputs import parse
from headrace.pipeline.process import books
from headrace.pipeline.process.books import Ledger, Line
from headrace.pipeline.process.plan import ALL
from headrace.pipeline.process.progress import PROGRESS, Progress, Settled, settled
from headrace.pipeline.publish import sinks
from headrace.pipeline.publish.settling import settle
from headrace.pipeline.publish.sinks import FileSink, Offer, nothing
from headrace.pipeline.transport.doorbell import InheritedFd
from headrace.pipeline.transport.gather import Gather
from headrace.workers.turn import Turn
from tests.live import wait_for

BEFORE, BATCH = b"one\ntwo\n", b"three\nfour\nfive\n"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "out", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, BEFORE)
    yield fd
    os.close(fd)


def begun(fd: int) -> tuple[Any, Progress]:
    row = np.zeros(1, PROGRESS)
    progress = Progress(row)
    progress.end(2, size=len(BEFORE))
    progress.begin(5, fd, len(BATCH))
    return row[0], progress


def content(tmp_path: Path) -> bytes:
    return (tmp_path / "out").read_bytes()


def test_a_write_that_was_killed_before_it_began_has_added_nothing(file: int) -> None:
    assert settled(begun(file)[0], file, lines=True) == Settled(2, 0, 0, len(BEFORE))


def test_a_write_that_nobody_saw_the_end_of_is_found_whole(file: int) -> None:
    row, _ = begun(file)
    os.write(file, BATCH)
    assert settled(row, file, lines=True) == Settled(5, 0, 0, len(BEFORE + BATCH))


@pytest.mark.parametrize("cut", range(1, len(BATCH)))
def test_of_half_a_write_the_whole_lines_stay_and_are_counted(cut: int, file: int, tmp_path: Path) -> None:
    row, _ = begun(file)
    os.write(file, BATCH[:cut])
    found = settled(row, file, lines=True)
    assert found == Settled(content(tmp_path).count(b"\n"), 0, 0, len(content(tmp_path)))
    assert content(tmp_path).endswith(b"\n")
    assert found.written == 2 + BATCH[:cut].count(b"\n")


def test_of_half_a_batch_that_is_not_of_lines_nothing_stays(file: int, tmp_path: Path) -> None:
    row, _ = begun(file)
    os.write(file, BATCH[:8])
    assert settled(row, file, lines=False) == Settled(2, 0, 0, len(BEFORE))
    assert content(tmp_path) == BEFORE


def test_what_others_have_added_makes_it_uncertain(file: int, tmp_path: Path) -> None:
    row, _ = begun(file)
    os.write(file, BATCH + b"theirs\n")
    assert settled(row, file, lines=True) == Settled(2, 3, 0, len(BEFORE))
    assert content(tmp_path).endswith(b"theirs\n")


def test_another_file_by_that_name_says_nothing(file: int, tmp_path: Path) -> None:
    row, _ = begun(file)
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT, 0o600)
    assert settled(row, other, lines=True).uncertain == 3
    os.close(other)
    assert settled(row, -1, lines=True).uncertain == 3


def test_a_successor_takes_back_half_a_write_and_nothing_else(file: int, tmp_path: Path) -> None:
    _, progress = begun(file)
    os.write(file, BATCH[:8])
    progress.restart(file)
    assert content(tmp_path) == BEFORE
    os.write(file, BATCH)
    progress.restart(file)
    assert content(tmp_path) == BEFORE + BATCH


def test_a_pipe_counts_what_has_gone_out_while_it_waits_for_room() -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    sink, row = FileSink(parse(["json:/dev/null"]).sinks[0], writing), np.zeros(1, PROGRESS)
    sink.progress = Progress(row)
    lines = b"".join(b"%099d\n" % n for n in range(2000))
    sink.try_offer(Offer(Gather.of(np.frombuffer(lines, "u1")), 2000, ALL, 0, nothing))
    wait_for(lambda: row["written"][0] and row["begun"] == row["written"], "a full pipe")
    stopped = row[0].copy()
    there = os.read(reading, 1 << 20)
    found = settled(stopped, writing, lines=True)
    os.set_blocking(reading, True)
    rest: list[bytes] = []
    reader = threading.Thread(target=lambda: rest.extend(iter(lambda: os.read(reading, 1 << 16), b"")))
    reader.start()
    sink.close()
    reader.join()
    os.close(reading)
    assert (found.written, found.uncertain) == (there.count(b"\n"), 0)
    assert there + b"".join(rest) == lines
    assert row["written"] == row["begun"] == 2000


def test_a_pipe_that_is_killed_in_a_write_says_at_most() -> None:
    row = np.zeros(1, PROGRESS)
    Progress(row).begin(7)
    line = Line(name="json:p", offered=0)
    ledger = Ledger(sinks=[line], produced=9, delivered=9)
    settle(ledger, parse(["json:p"]).sinks, [None], row, 9)
    ledger.close(abandoned=True)
    assert (line.offered, line.written, line.uncertain, line.dropped) == (9, 0, 7, 2)
    assert not ledger.balanced
    assert "written 0 at least, 7 at most" in "\n".join(ledger.text())


def test_a_publisher_that_cannot_be_ended_leaves_all_uncertain() -> None:
    line = Line(name="none")
    ledger = Ledger(sinks=[line])
    settle(ledger, parse(["none"]).sinks, [None], np.zeros(1, PROGRESS), 9, goes_on=True)
    assert (line.written, line.uncertain) == (0, 9)


def test_what_was_delivered_and_never_offered_is_not_balanced() -> None:
    ledger = Ledger(unoffered=1)
    ledger.close()
    assert not ledger.balanced


OPENAT, LOSSES = 257, catalogue().by_name[LOSS].id


class FourRows(SimpleNamespace):
    def __len__(self) -> int:
        return 4


def turn(topics: list[bool]) -> tuple[Any, Turn]:
    state = np.zeros(1, books.worker_journal(2, 2))[0]
    rows: Any = np.array([OPENAT, LOSSES, OPENAT, 3])
    found = Turn(state, topics, LOSSES)
    found.begin(FourRows(event=rows, cpu=np.array([0, 0, 1, 1])))  # type: ignore[arg-type]
    return state, found


@given(st.integers(0, 4), st.integers(0, 4))
def test_of_a_turn_that_was_begun_the_most_that_an_output_has_counts(first: int, second: int) -> None:
    state, found = turn([False, False])
    found.written[:2] = first, second
    found.write_progress(state)
    assert state["handed"].sum() == max(first, second)
    assert state["handed_cpu"].sum() == max(first, second) - (max(first, second) > 1), "losses are of no CPU"
    whole = books.with_begun(np.array([state]), 2)[0]
    assert whole["delivered"].sum() == max(first, second)


def test_of_topics_the_whole_turn_counts_with_the_first_row() -> None:
    state, found = turn([True])
    found.write_progress(state)
    assert state["handed"].sum() == 0
    found.written[0] = 1
    found.write_progress(state)
    assert (state["handed"].sum(), state["handed"][OPENAT]) == (4, 2)


def test_standard_output_that_is_a_pipe_gets_an_end_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    kept = os.dup(1)
    os.dup2(writing, 1)
    try:
        target = InheritedFd(sinks.open_target("-", "output"))
        assert os.get_blocking(1)
        assert not os.get_blocking(target.fd)
        os.write(target.fd, b"x")
        assert os.read(reading, 1) == b"x"
    finally:
        os.dup2(kept, 1)
    for fd in (kept, reading, writing, target.fd):
        os.close(fd)
