"""Events that wait for their container's name: in order, once each, and not for ever."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bpf.tables.catalogue import catalogue
from headrace.workers import hold
from headrace.workers.core import Core
from headrace.workers.hold import Hold
from tests.unit.frames import Record, Who, frame, view

MS = 10**6
A, B = bytes([1]) * 32, bytes([2]) * 32
NAMES = {b"": "", A: "a", B: "b"}


@dataclass
class Known:
    """What runtimes have said by now."""

    word: str = "pending"
    known: Any = None
    since_ns: int = 1


@dataclass
class Side:
    """A core and a hold behind it."""

    within_ms: int = 10
    most: int = 1000
    answers: dict[bytes, Known] = field(default_factory=lambda: {A: Known(), B: Known()})

    def __post_init__(self) -> None:
        self.core = Core(catalogue(), 0, 1)
        self.hold = Hold(self.within_ms, self.describe, self.most)
        self.out: list[tuple[int, str]] = []
        """(time in ms, container) of what has left."""

    def describe(self, context: Any) -> Any:
        return self.answers.get(context["container"].tobytes(), Known("unknown"))

    def turn(self, now_ms: int, *events: tuple[int, bytes]) -> list[tuple[int, str]]:
        """Events at these milliseconds, and a watermark; what leaves."""
        records = [Record(time_ns=t * MS, who=Who(container=c, runtime=bool(c))) for t, c in events]
        if records:
            self.core.feed(view(frame(records)))
        batch = self.core.advance(now_ms * MS)
        left = []
        for rows in self.hold.take(batch.rows, self.core.contexts, now_ms * MS):
            containers = self.core.contexts.table["container"][rows.who]
            names = [NAMES.get(c.tobytes() if c.any() else b"", "?") for c in containers]
            left += list(zip((rows.time_ns // MS).tolist(), names, strict=True))
        self.out += left
        return left


def test_a_containers_events_wait_for_its_name_and_others_do_not() -> None:
    side = Side()
    assert side.turn(5, (1, A), (2, b""), (3, B), (4, A)) == [(2, "")]
    side.answers[A] = Known("known", since_ns=6 * MS + 1)
    assert side.turn(6, (6, A)) == [], "given after the turn: another worker may not have seen it"
    assert side.turn(7) == [(1, "a"), (4, "a"), (6, "a")]
    assert len(side.hold) == 1
    side.answers[B] = Known("failed:timeout")
    assert side.turn(8) == [(3, "b")], "an answer that is none is one, too"
    assert side.hold.take_gave_up() == 0


def test_it_is_given_up_after_a_while_for_all_workers_at_once() -> None:
    side = Side()
    side.answers[A].since_ns, side.answers[B].since_ns = 2 * MS, 5 * MS
    side.turn(5, (3, A), (4, A), (5, B))
    assert side.turn(11) == []
    assert side.turn(12) == [(3, "a"), (4, "a")], "so long after it was asked for"
    assert side.hold.take_gave_up() == 2
    assert side.turn(14, (13, A)) == [(13, "a")], "nothing of it waits any more"
    assert side.hold.take_gave_up() == 1, "but it has no name either"
    assert side.turn(15) == [(5, "b")]
    assert side.hold.take_gave_up() == 1


def test_what_nobody_has_heard_of_does_not_wait_for_ever() -> None:
    side = Side()
    side.answers[A].since_ns = 0
    side.turn(5, (3, A))
    assert side.turn(14) == []
    assert side.turn(15) == [(3, "a")]


def test_it_is_given_up_when_too_many_wait() -> None:
    side = Side(within_ms=1000, most=3)
    side.turn(5, (1, A), (2, B), (3, A))
    assert side.turn(6, (6, B)) == [(1, "a"), (2, "b"), (3, "a"), (6, "b")]
    assert side.hold.take_gave_up() == 4
    assert len(side.hold) == 0


def test_what_waits_outlives_the_table_of_contexts() -> None:
    side = Side(within_ms=1000)
    side.turn(5, (1, A), (2, B))
    side.core.contexts.clear()
    side.turn(6, (6, b""))
    side.answers[A] = side.answers[B] = Known("known")
    assert side.turn(7) == [(1, "a"), (2, "b")]


def test_what_waits_outlives_many_tables_of_contexts_with_nothing_between() -> None:
    side = Side(within_ms=1000)
    side.turn(5, (1, A), (2, B), (3, A))
    for now in range(6, 10):
        side.core.contexts.clear()
        # others come first, so that numbers differ each time
        side.turn(now, *((now, bytes([10 + i]) * 32) for i in range(now - 5)))
    side.answers[B] = Known("known")
    assert side.turn(10) == [(2, "b")]
    side.core.contexts.clear()
    side.answers[A] = Known("known")
    assert side.turn(11) == [(1, "a"), (3, "a")]


def test_what_is_too_large_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold, "MAX_BYTES", 90)
    side = Side(within_ms=1000)
    assert side.turn(5, (1, A)) == []
    assert side.turn(6, (6, A), (6, A)) == [(1, "a"), (6, "a"), (6, "a")]


def test_one_that_came_late_leaves_in_its_place() -> None:
    side = Side(within_ms=1000)
    side.turn(5, (2, A), (4, A))
    side.turn(6, (3, A), (6, A))
    side.answers[A] = Known("known")
    assert side.turn(7) == [(2, "a"), (3, "a"), (4, "a"), (6, "a")]


def test_another_answer_makes_nothing_wait_again() -> None:
    side = Side()
    side.turn(5, (1, A))
    side.answers[A] = Known("failed:timeout", since_ns=6 * MS)
    assert side.turn(7, (6, A)) == [(1, "a"), (6, "a")]
    side.answers[A] = Known("known", since_ns=6 * MS)
    assert side.turn(8, (8, A)) == [(8, "a")]


def test_the_end_lets_all_go() -> None:
    side = Side(within_ms=1000)
    side.turn(5, (1, A), (2, B))
    assert (side.hold.end(side.core.contexts).time_ns // MS).tolist() == [1, 2]
    assert (len(side.hold), side.hold.take_gave_up()) == (0, 2)


STEP = st.tuples(
    st.lists(st.sampled_from([b"", A, B]), max_size=6),
    st.sampled_from([(), (A, "known"), (B, "unknown"), (A, "pending"), "clear"]),
    st.integers(1, 8),
)


@given(st.lists(STEP, max_size=25), st.integers(1, 20), st.integers(1, 8))
def test_every_event_leaves_once_and_those_of_a_container_in_order(steps: list[Any], within_ms: int, most: int) -> None:
    side, now, given_in = Side(within_ms, most), 0, []
    for containers, change, pause in steps:
        if change == "clear":
            side.core.contexts.clear()
        elif change:
            side.answers[change[0]] = Known(change[1])
        events = [(now + 1 + i, container) for i, container in enumerate(containers)]
        given_in += [(t, NAMES[c]) for t, c in events]
        now += len(containers) + pause
        side.turn(now, *events)
        assert len(side.hold) <= most
        assert not len(side.hold) or now * MS < 1 + within_ms * MS
    rest = side.hold.end(side.core.contexts)
    for name in "ab":
        left = [t for t, n in side.out if n == name]
        assert left == sorted(left)
    out = [t for t, _ in side.out] + (rest.time_ns // MS).tolist()
    assert sorted(out) == [t for t, _ in given_in]
    assert np.all(np.diff(rest.time_ns.astype(np.int64)) >= 0)
