"""The gap table, what a finding says of it, and how it goes through a recording."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from headrace.pipeline.stages.recording import GAPS, block, last_gaps
from headrace.pipeline.transport.gaps import GAP, MAX_GAPS, NEAR_NS, TABLE, GapReader, GapTable
from headrace.pipeline.transport.ring import FRAME
from headrace.pipeline.transport.shm import Journal, Segment
from headrace.workers.detect.findings.gaps import MAX_SHOWN, NO_GAPS, Gaps, Reach

FAR = 2 * NEAR_NS


@pytest.fixture
def journal() -> Iterator[Journal]:
    segment = Segment(Journal.bytes_for(TABLE))
    found = Journal(segment, TABLE, 0)
    yield found
    found.close()
    segment.close()


def test_gaps_are_seen_once_they_are_committed(journal: Journal) -> None:
    reader, table = GapReader(journal), GapTable(journal)
    first = reader.changed()
    assert first is not None
    assert len(first) == 0
    table.add(10, 20, 3, 1, 2)
    assert reader.changed() is None
    table.commit()
    found = reader.changed()
    assert found is not None
    assert found.tolist() == [(10, 20, 3, 1, 2)]
    assert reader.changed() is None
    table.commit()
    assert reader.changed() is None


def test_gaps_of_a_shard_that_touch_are_one(journal: Journal) -> None:
    table, reader = GapTable(journal), GapReader(journal)
    table.add(FAR, FAR + 5, 1, 0, 2)
    table.add(FAR + 5 + NEAR_NS, FAR + 6 + NEAR_NS, 2, 0, 2)
    table.add(FAR, FAR + 5, 4, 1, 2)
    table.add(FAR, FAR + 5, 8)
    table.add(FAR + 7 + 2 * NEAR_NS, 9 * FAR, 16, 0, 2)
    table.commit()
    found = reader.changed()
    assert found is not None
    assert sorted(found["events"].tolist()) == [3, 4, 8, 16]


def test_a_full_table_joins_what_is_nearest_and_forgets_nothing(journal: Journal) -> None:
    table, reader = GapTable(journal), GapReader(journal)
    for i in range(MAX_GAPS + 40):
        table.add(i * FAR, i * FAR + 1, 1, i % 2, 2)
    table.commit()
    found = reader.changed()
    assert found is not None
    assert len(found) == MAX_GAPS
    assert found["events"].sum() == MAX_GAPS + 40
    for i in range(MAX_GAPS + 40):
        mine = found[found["shard"] == i % 2]
        assert ((mine["first_ns"] <= i * FAR) & (mine["last_ns"] > i * FAR)).any()


def test_a_successor_of_the_writer_goes_on(journal: Journal) -> None:
    GapTable(journal).add(1, 2, 1)  # died before it was committed
    table = GapTable(journal)
    table.add(FAR, FAR, 1)
    table.commit()
    journal.next = journal.committed()
    later = GapTable(journal)
    later.add(5 * FAR, 5 * FAR, 1)
    later.commit()
    found = GapReader(journal).changed()
    assert found is not None
    assert found["first_ns"].tolist() == [FAR, 5 * FAR]


def said(gaps: Gaps, **reach: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(b"{" + gaps.piece(Reach(**reach))[1:])
    return found


def known(*rows: tuple[int, int, int, int, int]) -> Gaps:
    gaps = Gaps()
    gaps.know(np.array(list(rows), GAP))
    return gaps


def test_a_finding_without_state_minds_lifecycle_since_its_oldest_ancestor() -> None:
    gaps = known((100, 200, 7, 0, 0), (500, 600, 9, 1, 2))
    assert said(gaps, tgid=1, time_ns=1000, ancestry_ns=150) == {
        "complete": False,
        "gaps": [{"firstTime": 100, "lastTime": 200, "events": 7, "lost": "lifecycle"}],
    }
    assert gaps.piece(Reach(1, 1000, 201)) == NO_GAPS
    assert gaps.piece(Reach(1, 99, 50)) == NO_GAPS
    assert Gaps().piece(Reach(1, 1000, 0)) == NO_GAPS


def test_a_finding_with_state_minds_its_shard_since_that_began() -> None:
    gaps = known((500, 600, 9, 1, 2))
    assert not said(gaps, tgid=3, time_ns=1000, ancestry_ns=1000, state_ns=600)["complete"]
    assert said(gaps, tgid=3, time_ns=1000, ancestry_ns=1000, state_ns=601)["complete"]
    assert said(gaps, tgid=4, time_ns=1000, ancestry_ns=1000, state_ns=1)["complete"]
    assert said(gaps, tgid=3, time_ns=499, ancestry_ns=400, state_ns=1)["complete"]
    both = known((500, 600, 9, 1, 2), (1, 2, 5, 0, 0))
    assert len(said(both, tgid=3, time_ns=1000, ancestry_ns=1, state_ns=1)["gaps"]) == 2


def test_so_many_gaps_are_shown_and_no_more() -> None:
    gaps = known(*((i, i, 1, 0, 0) for i in range(100)))
    shown = said(gaps, tgid=1, time_ns=1000, ancestry_ns=0)["gaps"]
    assert [gap["firstTime"] for gap in shown] == list(range(100 - MAX_SHOWN, 100))


def test_the_last_gaps_of_a_recording_hold_and_damage_is_left_to_others() -> None:
    one, two = (np.array([(n, n, 1, 0, 0)] * n, GAP) for n in (1, 2))
    data = bytes(8) + block(GAPS, one.tobytes()) + block(FRAME, b"frame") + block(GAPS, two.tobytes())
    assert last_gaps(memoryview(data), 8).tolist() == two.tolist()
    assert last_gaps(memoryview(data[:-20]), 8).tolist() == one.tolist()
    assert last_gaps(memoryview(data[:8]), 8).tolist() == []
