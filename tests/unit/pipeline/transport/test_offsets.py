"""The wall clock is set while events go by: each is shown by the offset that held at its time, live and in replay."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.pipeline.stages.recording import OFFSETS, block, last_tables
from headrace.pipeline.transport import clock
from headrace.pipeline.transport.clock import ClockError, StepAlarm, namespace_ns, sample_offset
from headrace.pipeline.transport.offsets import (
    LAST_NS,
    MAX_STEPS,
    STEP,
    TABLE,
    TOLERANCE_NS,
    OffsetReader,
    OffsetTable,
    are_steps,
)
from headrace.pipeline.transport.shm import Journal, Segment
from headrace.workers.views.json_lines import JsonStyle
from headrace.workers.views.style import HostFacts
from headrace.workers.views.table import TableStyle

SECOND = 10**9
BASE = 1_700_000_000 * SECOND


class Clock:
    """Both clocks, as a test sets them."""

    def __init__(self) -> None:
        self.boot_ns, self.offset_ns, self.doubt_ns = 100 * SECOND, BASE, 100

    def sample(self) -> tuple[int, int]:
        return self.offset_ns, self.doubt_ns

    def now(self) -> int:
        return self.boot_ns


@pytest.fixture
def journals() -> Iterator[tuple[Journal, Journal]]:
    """The writer's and a reader's."""
    segment = Segment(Journal.bytes_for(TABLE))
    ends = Journal(segment, TABLE, 0), Journal(segment, TABLE, 0)
    yield ends
    for end in ends:
        end.close()
    segment.close()


@pytest.fixture
def set_clock() -> Clock:
    return Clock()


def table(journals: tuple[Journal, Journal], of: Clock) -> OffsetTable:
    return OffsetTable(journals[0], BASE, of.sample, of.now)


def shown(facts: HostFacts, *times: int) -> list[int]:
    return [int(t) for t in facts.shown_ns(np.array(times, np.uint64)).tolist()]


def test_events_before_and_after_a_step_have_the_time_of_the_wall_clock_at_theirs(
    journals: tuple[Journal, Journal], set_clock: Clock
) -> None:
    writer, reader, facts = table(journals, set_clock), OffsetReader(journals[1]), HostFacts(BASE)
    assert not writer.look()
    assert reader.changed() is None
    for boot_s, ahead_s in ((200, 3600), (300, -86400), (400, 0)):
        set_clock.boot_ns, set_clock.offset_ns = boot_s * SECOND, BASE + ahead_s * SECOND
        assert writer.look()
        assert not writer.look(), "it is known by now"
    steps = reader.changed()
    assert steps is not None
    facts.steps.know(steps)
    times = [n * SECOND for n in (150, 199, 200, 250, 300, 350, 450)]
    ahead = [0, 0, 3600, 3600, -86400, -86400, 0]
    assert shown(facts, *times) == [BASE + t + a * SECOND for t, a in zip(times, ahead, strict=True)]
    assert [writer.at(t) for t in times] == [BASE + a * SECOND for a in ahead]


def test_slow_drift_is_followed_within_a_tenth_of_a_millisecond(
    journals: tuple[Journal, Journal], set_clock: Clock
) -> None:
    writer, facts = table(journals, set_clock), HostFacts(BASE)
    for _ in range(10_000):
        set_clock.boot_ns += SECOND
        set_clock.offset_ns += 20_000
        writer.look()
        steps = OffsetReader(journals[1]).changed()
        if steps is not None:
            facts.steps.know(steps)
        assert abs(shown(facts, set_clock.boot_ns)[0] - set_clock.boot_ns - set_clock.offset_ns) <= 2 * TOLERANCE_NS
    assert len(facts.steps.since_ns) == MAX_STEPS


def test_a_reading_that_was_interrupted_is_no_step(journals: tuple[Journal, Journal], set_clock: Clock) -> None:
    writer = table(journals, set_clock)
    set_clock.offset_ns, set_clock.doubt_ns = BASE + 4_000_000, 5_000_000
    assert not writer.look()


def test_a_reader_that_is_started_again_goes_on_with_the_steps_that_are_known(
    journals: tuple[Journal, Journal], set_clock: Clock
) -> None:
    set_clock.offset_ns += SECOND
    assert table(journals, set_clock).look()
    journals[1].next = journals[1].committed()  # as a process has it that has just begun
    again = table((journals[1], journals[0]), set_clock)
    assert not again.look()
    assert again.at(set_clock.boot_ns) == set_clock.offset_ns


def test_relative_times_do_not_move_with_the_wall_clock() -> None:
    facts = HostFacts(BASE, 50 * SECOND)
    facts.steps.know(np.array([(60 * SECOND, 0)], STEP))
    assert shown(facts, 70 * SECOND) == [20 * SECOND]


def test_every_style_of_lines_shows_the_steps() -> None:
    facts = HostFacts(BASE)
    json, shown_table = JsonStyle(facts), TableStyle(facts)
    facts.steps.know(np.array([(100 * SECOND, BASE + 3600 * SECOND)], STEP))
    times, flags = np.array([99 * SECOND, 101 * SECOND], np.uint64), np.zeros(2, np.uint8)
    assert json.time(times, flags).tolist() == [
        b'{"timestamp":%d' % (BASE + 99 * SECOND),
        b'{"timestamp":%d' % (BASE + 3701 * SECOND),
    ]
    assert shown_table.time(times, flags).tolist() == [b"22:14:59.000000 ", b"23:15:01.000000 "]


def test_a_recording_has_the_steps_and_the_last_table_holds() -> None:
    one, two = np.array([(5, BASE)], STEP), np.array([(5, BASE), (9, BASE + 1)], STEP)
    data = bytes(8) + block(OFFSETS, one.tobytes()) + block(OFFSETS, two.tobytes())
    assert last_tables(memoryview(data), 8)[1].tolist() == two.tolist()
    assert last_tables(memoryview(data[:-20]), 8)[1].tolist() == one.tolist()


@pytest.mark.parametrize(
    "steps",
    [[(9, 1), (5, 1)], [(5, 1), (5, 2)], [(5, -1)], [(5, LAST_NS + 1)], [(LAST_NS + 1, 5)], [(1, -(2**63))]],
)
def test_times_that_are_none_are_no_steps(steps: list[tuple[int, int]]) -> None:
    assert not are_steps(np.array(steps, STEP).tobytes())


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_steps_or_refused_and_never_an_error(data: bytes) -> None:
    if are_steps(data):
        facts = HostFacts(BASE)
        facts.steps.know(np.frombuffer(data, STEP))
        assert len(facts.shown_ns(np.array([0, 7, LAST_NS], np.uint64))) == 3


def namespace(folder: Path, offsets: str | None, mine: str = "time:[1]", theirs: str = "time:[1]") -> Path:
    (folder / "ns").mkdir()
    os.symlink(mine, folder / "ns" / "time")
    os.symlink(theirs, folder / "ns" / "time_for_children")
    if offsets is not None:
        (folder / "timens_offsets").write_text(offsets)
    return folder


@pytest.mark.parametrize(
    ("offsets", "added_ns"),
    [
        ("monotonic           0         0\nboottime            0         0\n", 0),
        ("monotonic          -5         0\nboottime          100       250\n", 100 * SECOND + 250),
        ("monotonic           0         0\nboottime          -100  999999999\n", -100 * SECOND + 999_999_999),
        (None, 0),
    ],
)
def test_what_a_time_namespace_adds_is_read(offsets: str | None, added_ns: int, tmp_path: Path) -> None:
    assert namespace_ns(namespace(tmp_path, offsets)) == added_ns


def test_a_process_whose_children_are_in_another_time_namespace_is_refused(tmp_path: Path) -> None:
    text = "monotonic 0 0\nboottime 100 0\n"
    with pytest.raises(ClockError, match="in another one than those that it starts"):
        namespace_ns(namespace(tmp_path, text, theirs="time:[2]"))


def test_a_file_that_does_not_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClockError, match="says nothing of CLOCK_BOOTTIME"):
        namespace_ns(namespace(tmp_path, "monotonic 0 0\n"))


def test_a_sample_is_what_the_clocks_show(monkeypatch: pytest.MonkeyPatch) -> None:
    readings: dict[str, Any] = {"boot": iter([10, 14, 20, 22, 30, 90, 100, 190, 200, 290])}
    monkeypatch.setattr(clock, "boottime_ns", lambda: next(readings["boot"]))
    monkeypatch.setattr(clock.time, "time_ns", lambda: 1000)
    assert sample_offset() == (1000 - 21, 2)


def test_an_alarm_does_not_ring_while_nobody_sets_the_clock() -> None:
    alarm = StepAlarm()
    assert not alarm.rang()
    alarm.close()


def test_an_alarm_that_was_cancelled_rings(monkeypatch: pytest.MonkeyPatch) -> None:
    alarm = StepAlarm()

    def cancelled(fd: int, size: int) -> bytes:
        raise OSError(125, "Operation canceled")

    with monkeypatch.context() as patch:
        patch.setattr(clock.os, "read", cancelled)
        assert alarm.rang()
    assert struct.calcsize("4l") == 32
    alarm.close()
