"""What processes did before: which rows, how many, and what is forgotten."""

from __future__ import annotations

import numpy as np

from headrace.workers.detect.findings.history import MAX_EVENTS, SECOND_NS, History, HistoryTurn
from headrace.workers.records.rows import Contexts, Rows, read_frames
from tests.unit.frames import Record, Who, frame, view

ONE, OTHER = Who(tgid=7, comm=b"one"), Who(tgid=8, comm=b"other")


def rows(contexts: Contexts, *made: tuple[Who, int]) -> Rows:
    return read_frames([view(frame([Record(who=who, time_ns=time_ns) for who, time_ns in made]))], contexts).rows


def past(history: History, contexts: Contexts, turn: Rows, row: int) -> tuple[list[int], int]:
    found, more = history.before(HistoryTurn(turn, contexts.table["tgid"][turn.who]), row)
    return ([] if found is None else found.time_ns.tolist()), more


def test_events_of_the_same_process_in_the_time_before() -> None:
    contexts, history = Contexts(), History(2)
    history.keep(rows(contexts, (ONE, 1), (OTHER, 2), (ONE, SECOND_NS)), contexts)
    turn = rows(contexts, (OTHER, 2 * SECOND_NS), (ONE, 2 * SECOND_NS + 2), (ONE, 2 * SECOND_NS + 3))
    assert past(history, contexts, turn, 2) == ([SECOND_NS, 2 * SECOND_NS + 2], 0)
    assert past(history, contexts, turn, 0) == ([2], 0)


def test_so_many_and_no_more() -> None:
    contexts, history = Contexts(), History(10)
    history.keep(rows(contexts, *((ONE, i + 1) for i in range(60))), contexts)
    turn = rows(contexts, *((ONE, i + 61) for i in range(40)))
    found, more = past(history, contexts, turn, 39)
    assert (len(found), more) == (MAX_EVENTS, 99 - MAX_EVENTS)
    assert found == list(range(100 - MAX_EVENTS, 100))


def test_what_is_too_old_goes_uncounted_and_what_is_too_much_counted() -> None:
    contexts, history = Contexts(), History(1, most_bytes=600)
    for second in range(4):
        history.keep(rows(contexts, (ONE, (second + 1) * SECOND_NS * 2)), contexts)
    assert history.dropped == 0
    for i in range(4):
        history.keep(rows(contexts, *((ONE, 9 * SECOND_NS + 10 * i + j) for j in range(8))), contexts)
    assert history.dropped == 16
    contexts.clear()
    turn = rows(contexts, (ONE, 9 * SECOND_NS + 100))
    history.follow(contexts)
    assert past(history, contexts, turn, 0) == ([], 0)
    assert history.dropped == 32
    assert np.array_equal(turn.time_ns, [9 * SECOND_NS + 100])
