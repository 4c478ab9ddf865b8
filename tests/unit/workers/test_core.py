"""The worker's core: order, watermarks, lateness, ownership, recovery, and any bytes at all."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bpf.tables.catalogue import catalogue
from headrace.workers.core import Core, TurnBatch
from headrace.workers.records import rows as rows_module
from headrace.workers.views.json_lines import JsonStyle
from headrace.workers.views.pieces import Lines
from headrace.workers.views.style import HostFacts
from tests.unit.frames import CLOSE, GETPPID, OPENAT, Blob, Record, Who, claimed, frame, view
from tests.unit.workers.records.test_rows import ANY_FRAME, FIRST_HEAD, SOUND, patched

LAST = 2**63
NO_SUCH_EVENT = 900


def core(worker: int = 0, workers: int = 1) -> Core:
    return Core(catalogue(), worker, workers)


def feed(target: Core, *frames: bytes) -> None:
    for one in frames:
        target.feed(view(one))


def times(batch: TurnBatch) -> list[int]:
    return [int(t) for t in batch.rows.time_ns]


def at(*moments: int, who: Who | None = None, cpu: int = 0) -> bytes:
    """A frame of events at these times."""
    return frame([Record(time_ns=t, who=who or Who()) for t in moments], cpu=cpu)


def test_nothing_fed_is_an_empty_batch() -> None:
    batch = core().advance(10)
    assert (len(batch.rows), batch.watermark_ns, batch.rejected) == (0, 10, 0)


def test_rows_wait_until_the_watermark_has_passed_them() -> None:
    one = core()
    feed(one, at(5, 15, 25))
    assert times(one.advance(14)) == [5]
    assert one.holds_rows
    assert times(one.advance(15)) == [15]
    assert times(one.advance(24)) == []
    assert times(one.advance(LAST)) == [25]
    assert not one.holds_rows


def test_rows_of_all_frames_are_let_go_in_the_order_of_time() -> None:
    one = core()
    feed(one, at(30, 50), at(10, 40, cpu=1), at(20, cpu=2))
    assert times(one.advance(LAST)) == [10, 20, 30, 40, 50]


def test_rows_held_back_are_sorted_in_with_the_next() -> None:
    one = core()
    feed(one, at(10, 30))
    assert times(one.advance(20)) == [10]
    feed(one, at(25, 35, cpu=1))
    batch = one.advance(LAST)
    assert times(batch) == [25, 30, 35]
    assert not batch.rows.late.any()


def test_ties_are_ordered_by_cpu_then_thread_group() -> None:
    one = core()
    feed(one, at(5, who=Who(tgid=9), cpu=1), at(5, who=Who(tgid=8), cpu=1), at(5, who=Who(tgid=20), cpu=0))
    rows = one.advance(LAST).rows
    tgid = one.contexts.table["tgid"][rows.who]
    assert list(zip(rows.cpu.tolist(), tgid.tolist(), strict=True)) == [(0, 20), (1, 8), (1, 9)]


def test_rows_of_one_thread_at_one_time_keep_their_order() -> None:
    one = core()
    feed(one, frame([Record(CLOSE, 5, (n,)) for n in range(20)]), at(1))
    assert one.advance(LAST).rows.arg0.tolist() == [0, *range(20)]


@pytest.mark.parametrize("uptime_ns", [0, 2**53, 2**60])
def test_a_watermark_separates_neighbouring_nanoseconds_whatever_the_uptime(uptime_ns: int) -> None:
    # 2**53 ns are 104 days
    one = core()
    feed(one, at(*(uptime_ns + n for n in range(1, 6))))
    assert times(one.advance(uptime_ns + 3)) == [uptime_ns + n for n in (1, 2, 3)]


def test_what_arrives_below_a_watermark_passed_is_let_go_marked_late() -> None:
    one = core()
    feed(one, at(10))
    one.advance(20)
    feed(one, at(15, 20, 21))
    batch = one.advance(30)
    assert list(zip(times(batch), batch.rows.late.tolist(), strict=True)) == [(15, True), (20, True), (21, False)]


def test_a_late_row_does_not_mark_its_neighbours() -> None:
    one = core()
    feed(one, at(40))
    one.advance(20)
    feed(one, at(5))
    batch = one.advance(50)
    assert list(zip(times(batch), batch.rows.late.tolist(), strict=True)) == [(5, True), (40, False)]


def test_a_frame_may_go_once_advance_has_returned() -> None:
    one = core()
    data = bytearray(frame([Record(OPENAT, 50, blobs=(Blob(1, b"/kept"),))]))
    one.feed(np.frombuffer(data, "u1"))
    one.advance(10)
    data[:] = bytes(len(data))
    rows = one.advance(LAST).rows
    assert rows.time_ns.tolist() == [50]
    assert b"/kept" in rows.data.tobytes()


def test_a_frame_that_lies_is_rejected_with_its_reason_and_the_rest_goes_on() -> None:
    one = core()
    feed(one, SOUND, patched(SOUND, 35, "<B", 9))
    batch = one.advance(LAST)
    assert (len(batch.rows), batch.rejected, batch.rejected_reasons) == (3, 3, {"version": 1})


def test_an_event_that_the_catalogue_does_not_have_is_rejected() -> None:
    one = core()
    feed(one, frame([Record(NO_SUCH_EVENT, 1), Record(GETPPID, 2), Record(65535, 3)]))
    batch = one.advance(LAST)
    assert (times(batch), batch.rejected, batch.rejected_reasons) == ([2], 2, {"event": 2})


def test_a_record_too_short_for_its_arguments_is_rejected() -> None:
    # else they would be read from whatever stands behind it: another record, another process
    one = core()
    short = bytearray(frame([Record(OPENAT, 1, (1, 2, 3, 4)), Record(CLOSE, 2, (99,))]))
    short[FIRST_HEAD + 20 : FIRST_HEAD + 22] = (1).to_bytes(2, "little")
    feed(one, bytes(short))
    batch = one.advance(LAST)
    assert OPENAT not in batch.rows.event.tolist()
    assert len(batch.rows) + batch.rejected == 2


def test_rows_that_a_condition_takes_out_are_counted_by_event() -> None:
    one = Core(catalogue(), 0, 1, keep=lambda rows, contexts: rows.event != CLOSE)
    feed(one, frame([Record(CLOSE, 1), Record(GETPPID, 2), Record(CLOSE, 3)]))
    batch = one.advance(LAST)
    assert times(batch) == [2]
    assert batch.filtered_events is not None
    assert {i: int(n) for i, n in enumerate(batch.filtered_events) if n} == {CLOSE: 2}


def test_conditions_are_asked_once_a_row() -> None:
    asked: list[int] = []

    def keep(rows: rows_module.Rows, contexts: rows_module.Contexts) -> np.ndarray:  # type: ignore[type-arg]
        asked.extend(rows.time_ns.tolist())
        return np.ones(len(rows), bool)

    one = Core(catalogue(), 0, 1, keep)
    feed(one, at(5, 15))
    one.advance(10)
    one.advance(20)
    assert asked == [5, 15]


# -- ownership


def test_a_worker_keeps_the_thread_groups_of_its_remainder() -> None:
    data = frame([Record(time_ns=t, who=Who(tgid=t)) for t in range(30)])
    for workers in (1, 2, 3, 7):
        owned = []
        for worker in range(workers):
            one = core(worker, workers)
            feed(one, data)
            batch = one.advance(LAST)
            assert {t % workers for t in times(batch)} == {worker}
            assert batch.observed == 30 - len(batch.rows)
            owned += times(batch)
        assert sorted(owned) == list(range(30))


def test_an_unknown_event_is_rejected_by_its_owner_alone() -> None:
    data = frame([Record(NO_SUCH_EVENT, 1, who=Who(tgid=5))])
    batches = []
    for worker in range(3):
        one = core(worker, 3)
        feed(one, data)
        batches.append(one.advance(LAST))
    assert [b.rejected for b in batches] == [0, 0, 1]


def test_a_frame_that_every_worker_gets_is_rejected_once() -> None:
    # lifecycle frames go to every worker; the reader has counted their events once
    data = frame([Record(time_ns=1), Record(time_ns=2)], stream=1, version=9, shard=5)
    rejected = []
    for worker in range(3):
        one = core(worker, 3)
        feed(one, data)
        rejected.append(one.advance(LAST).rejected)
    assert sum(rejected) == 2


def stream(seed: int) -> list[bytes]:
    """Frames as 4 CPUs and 2 shards would send them, watermark-free."""
    chance = random.Random(seed)
    frames = []
    for number in range(40):
        shard, cpu = chance.randrange(2), chance.randrange(4)
        base = number * 50
        moments = sorted(base + chance.randrange(60) for _ in range(chance.randrange(1, 8)))
        records = []
        for moment in moments:
            tgid = shard + 2 * chance.randrange(12)
            who = Who(tgid=tgid, tid=tgid * 10 + chance.randrange(2), comm=b"c%d" % (tgid % 5))
            path = b"/p/%d" % chance.randrange(9)
            event = chance.choice([OPENAT, CLOSE, GETPPID])
            blobs = (Blob(1, path),) if event == OPENAT else ()
            records.append(Record(event, moment, (chance.randrange(9),), chance.randrange(-5, 5), 0, blobs, who))
        frames.append(frame(records, cpu=cpu, shard=shard, shards=2))
    return frames


def lines_of(target: Core, frames: Iterable[bytes], watermarks: Sequence[int]) -> list[str]:
    """What one worker renders, advancing every ten frames."""
    view_ = Lines(catalogue(), JsonStyle(HostFacts(0)))
    out = b""
    marks = iter(watermarks)
    for i, one in enumerate(frames):
        feed(target, one)
        if i % 10 == 9:
            out += view_.render(target.advance(next(marks)).rows, target.contexts).data
    out += view_.render(target.advance(LAST).rows, target.contexts).data
    return out.decode().splitlines()


@pytest.mark.parametrize("seed", range(3))
def test_any_number_of_workers_gives_the_same_rows(seed: int) -> None:
    frames = stream(seed)
    events = sum(claimed(f) for f in frames)
    expected = sorted(lines_of(core(), frames, [300, 900, 1500, 1700]))
    assert len(expected) == events
    for workers in (2, 3, 7):
        union: list[str] = []
        for worker in range(workers):
            union += lines_of(core(worker, workers), frames, [300, 900, 1500, 1700])
        assert sorted(union) == expected


# -- contexts


def test_the_table_of_contexts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "MAX_CONTEXTS", 50)
    one = core()
    seen = []
    for turn in range(40):
        records = [Record(time_ns=turn * 100 + n, who=Who(tgid=turn * 100 + n)) for n in range(10)]
        # the last one of each turn stays pending
        feed(one, frame(records))
        batch = one.advance(turn * 100 + 8)
        tgid = one.contexts.table["tgid"][batch.rows.who].tolist()
        seen += list(zip(times(batch), tgid, strict=True))
        assert len(one.contexts.table) <= 50 + 10 + 1
    assert one.contexts.generation > 3
    assert all(moment == tgid for moment, tgid in seen), "a pending row lost its context"
    assert len(seen) == 40 * 10 - 1


# -- death


@given(
    st.lists(st.lists(st.integers(1, 100), min_size=1, max_size=5).map(sorted), min_size=1, max_size=8),
    st.integers(0, 100),
    st.integers(0, 8),
)
def test_a_successor_goes_on_where_the_commit_was(moments: list[list[int]], watermark: int, fed: int) -> None:
    frames = [at(*m, cpu=i) for i, m in enumerate(moments)]
    before, after = frames[:fed], frames[fed:]

    def finish(target: Core) -> list[tuple[int, int, bool]]:
        feed(target, *after)
        rows = target.advance(LAST).rows
        return list(zip(rows.time_ns.tolist(), rows.cpu.tolist(), rows.late.tolist(), strict=True))

    first = core()
    feed(first, *before)
    first.advance(watermark)
    successor = core()
    feed(successor, *before)
    successor.recover(watermark)
    assert finish(successor) == finish(first)


def test_recovery_with_nothing_to_read_is_a_fresh_start_at_the_watermark() -> None:
    one = core()
    one.recover(50)
    feed(one, at(40, 60))
    assert one.advance(LAST).rows.late.tolist() == [True, False]


# -- anything


@given(st.lists(ANY_FRAME, max_size=6), st.lists(st.integers(0, 2**64 - 1), max_size=4))
def test_any_bytes_leave_no_event_uncounted(payloads: list[bytes], marks: list[int]) -> None:
    one = core()
    let_go = rejected = 0
    for i, payload in enumerate(payloads):
        feed(one, payload)
        if i < len(marks):
            batch = one.advance(sorted(marks)[i])
            let_go, rejected = let_go + len(batch.rows), rejected + batch.rejected
    batch = one.advance(2**64 - 1)
    let_go, rejected = let_go + len(batch.rows), rejected + batch.rejected
    assert let_go + rejected == sum(claimed(p) for p in payloads)
    assert not one.holds_rows


@given(st.lists(st.integers(0, 200), min_size=1, max_size=60), st.lists(st.integers(0, 200), max_size=5))
def test_batches_are_sorted_and_nothing_is_lost_between_watermarks(moments: list[int], marks: list[int]) -> None:
    one = core()
    feed(one, *(at(m, cpu=i % 4) for i, m in enumerate(moments)))
    out: list[int] = []
    for mark in [*sorted(marks), LAST]:
        batch = times(one.advance(mark))
        assert batch == sorted(batch)
        assert all(t <= mark for t in batch)
        out += batch
    assert out == sorted(moments)


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("shard", "shards", "foreign"), [(0, 2, 2), (1, 2, 3), (0, 4, 2), (3, 4, 4), (9, 4, 5), (0, 0, 0), (5, 0, 0)]
)
def test_records_that_are_not_of_their_bulk_frames_shard_are_rejected_once(
    workers: int, shard: int, shards: int, foreign: int
) -> None:
    events = [Record(time_ns=t, who=Who(tgid=tgid)) for t, tgid in enumerate((100, 101, 103, 104, 104), 1)]
    made = frame(events, shard=shard, shards=shards)
    cores = [core(i, workers) for i in range(workers)]
    # as the reader and a replay hand them on (pipeline/stages/recording.py)
    for one in [cores[shard % workers]] if shards and shards % workers == 0 else cores:
        feed(one, made)
    batches = [one.advance(LAST) for one in cores]
    assert sum(batch.rejected for batch in batches) == foreign
    assert sum(len(batch.rows) for batch in batches) == len(events) - foreign
