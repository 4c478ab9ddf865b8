"""A turn that ended a worker is not given whole to its successor: what ends it is found and given up, no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.bpf.tables.catalogue import catalogue
from headrace.pipeline.process.plan import ATTEMPT
from headrace.workers.attempts import DEATHS, Attempts
from headrace.workers.core import Core, TurnBatch
from tests.unit.frames import Record, frame, view

GETPPID = 110


class Death(Exception):
    """Of the worker."""


class Model:
    """One worker and its successors: what the ring, the journal and the shared attempts keep."""

    def __init__(self, frames: Sequence[Any], look: Callable[[TurnBatch], None]) -> None:
        self.frames, self.look = frames, look
        self.shared = np.zeros(1, ATTEMPT)
        self.turns = self.watermark_ns = self.deaths = self.given_up = self.rejected = 0
        self.taken = False
        self.delivered: list[int] = []

    def run(self, watermark_ns: int) -> None:
        while self.watermark_ns < watermark_ns:
            try:
                self._lives(watermark_ns)
            except Death:
                self.deaths += 1
                assert self.deaths < 10_000

    def _lives(self, watermark_ns: int) -> None:
        core = Core(catalogue(), 0, 1)
        attempts = Attempts(self.shared, core)
        for each in self.frames:
            core.feed(view(each))
        if self.taken:
            core.recover(self.watermark_ns)
            assert attempts.rest_ns == watermark_ns
        for end_ns in attempts.ends(watermark_ns, lambda: self.turns):
            batch = core.advance(end_ns)
            self.look(batch)
            self.delivered += batch.rows.time_ns.tolist()
            self.given_up += batch.given_up
            self.rejected += batch.rejected
            self.watermark_ns, self.taken, self.turns = end_ns, True, self.turns + 1


def frames_of(times: Sequence[int]) -> list[bytes]:
    """Several frames, each in order, as those of several CPUs."""
    parts = [sorted(times[start::3]) for start in range(3)]
    return [frame([Record(GETPPID, time_ns=time) for time in part]) for part in parts if part]


TIMES = st.lists(st.integers(1, 400), min_size=1, max_size=300)


@settings(deadline=None, max_examples=60)
@given(TIMES, st.sets(st.integers(1, 400), max_size=4))
def test_only_rows_that_end_a_worker_are_given_up(times: list[int], deadly: set[int]) -> None:
    def look(batch: TurnBatch) -> None:
        if deadly & set(batch.rows.time_ns.tolist()):
            raise Death

    model = Model(frames_of(times), look)
    model.run(500)
    assert model.delivered == sorted(time for time in times if time not in deadly)
    assert model.given_up == model.rejected == sum(time in deadly for time in times)
    assert model.deaths <= len(deadly) * (DEATHS + 2)


@settings(deadline=None, max_examples=60)
@given(TIMES, st.lists(st.booleans(), max_size=8))
def test_nothing_is_given_up_for_deaths_that_no_row_caused(times: list[int], deaths: list[bool]) -> None:
    """At most every other look ends in a death: that of the same rows does not end twice."""
    left = [death for some in deaths for death in (some, False)]

    def look(batch: TurnBatch) -> None:
        if left and left.pop():
            raise Death

    model = Model(frames_of(times), look)
    model.run(500)
    assert model.delivered == sorted(times)
    assert not model.given_up


def test_a_turn_that_ended_nobody_is_taken_whole() -> None:
    looks: list[int] = []
    model = Model(frames_of(range(1, 300)), lambda batch: looks.append(len(batch.rows)))
    model.run(500)
    assert looks == [299]
