"""Segments and journals, a writer's death at every byte included."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.pipeline.transport.shm import Journal, Segment, UnorderedMemory, require_total_store_order

STATE = np.dtype([("position", "<u8"), ("counts", "<u8", 6), ("check", "<u8")])


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment(4096)
    yield made
    made.close()


def test_an_owner_and_an_attached_segment_share_bytes(segment: Segment) -> None:
    other = Segment(name=segment.name)
    segment.array("<u8", 4, 64)[2] = 7
    assert other.array("<u8", 4, 64).tolist() == [0, 0, 7, 0]
    assert (segment.owner, other.owner) == (True, False)
    other.close()


def test_the_owner_removes_the_segment_and_nobody_else() -> None:
    owner = Segment(4096)
    path = Path("/dev/shm", owner.name.lstrip("/"))
    Segment(name=owner.name).close()
    assert path.exists()
    owner.close()
    assert not path.exists()


def test_a_view_outlives_the_closing_of_its_segment() -> None:
    owner = Segment(4096)
    array = owner.array("u1", 8)
    owner.close()
    array[0] = 5
    assert array[0] == 5


def test_a_view_beyond_the_segment_is_refused(segment: Segment) -> None:
    with pytest.raises(ValueError, match="buffer"):
        segment.array("u1", segment.size + 1)


def test_machines_that_reorder_stores_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    require_total_store_order()
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(UnorderedMemory, match="aarch64"):
        require_total_store_order()


def fill(journal: Journal, value: int) -> None:
    """Make a state whose every field says `value`."""
    for name in STATE.names or ():
        journal.next[name] = value


def whole(state: Any) -> int:
    """The value that every field of a state says."""
    values = {int(v) for name in STATE.names or () for v in np.atleast_1d(state[name][0])}
    assert len(values) == 1, f"mixed: {sorted(values)}"
    return values.pop()


def test_a_new_journal_is_all_zero(segment: Segment) -> None:
    assert whole(Journal(segment, STATE, 0).committed()) == 0


def test_a_commit_replaces_the_state_as_a_whole(segment: Segment) -> None:
    journal = Journal(segment, STATE, 0)
    for value in range(1, 6):
        fill(journal, value)
        assert whole(journal.committed()) == value - 1
        journal.commit()
        assert whole(journal.committed()) == value


def test_a_successor_begins_with_the_committed_state(segment: Segment) -> None:
    journal = Journal(segment, STATE, 0)
    fill(journal, 9)
    journal.commit()
    fill(journal, 10)
    assert whole(Journal(segment, STATE, 0).next) == 9


def test_changing_a_copy_changes_nothing(segment: Segment) -> None:
    journal = Journal(segment, STATE, 0)
    journal.committed()["position"] = 5
    assert whole(journal.committed()) == 0


@pytest.mark.parametrize("commits", [1, 2, 3])
def test_a_slot_half_written_at_death_leaves_the_committed_state(segment: Segment, commits: int) -> None:
    journal = Journal(segment, STATE, 0)
    for value in range(1, commits + 1):
        fill(journal, value)
        journal.commit()
    raw = segment.array("u1", Journal.bytes_for(STATE), 0)
    unused = Journal.HEADER_BYTES + STATE.itemsize * ((commits + 1) & 1)
    for count in range(STATE.itemsize + 1):
        raw[unused : unused + count] = 0xAA
        assert whole(journal.committed()) == commits
        assert whole(Journal(segment, STATE, 0).next) == commits


def test_the_control_that_writes_in_place_is_caught(segment: Segment) -> None:
    journal = Journal(segment, STATE, 0)
    fill(journal, 1)
    journal.commit()
    raw = segment.array("u1", Journal.bytes_for(STATE), 0)
    in_place = Journal.HEADER_BYTES + STATE.itemsize
    raw[in_place : in_place + 12] = 0xAA
    with pytest.raises(AssertionError, match="mixed"):
        whole(journal.committed())


class Interleaved:
    """Slots whose copy is interrupted half way: `between` runs there."""

    def __init__(self, slots: Any, between: Any) -> None:
        self.slots, self.between = slots, between

    def __getitem__(self, at: slice) -> Interleaved:
        self.at = at
        return self

    def copy(self) -> Any:
        found = self.slots[self.at].copy()
        half = STATE.itemsize // 2
        between, self.between = self.between, lambda: None
        between()
        found.view("u1")[half:] = self.slots[self.at].copy().view("u1")[half:]
        return found


@pytest.mark.parametrize("commits", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("dies", [False, True], ids=["whole", "then half a slot"])
def test_a_reader_never_mixes_two_states(segment: Segment, commits: int, dies: bool) -> None:
    writer, reader = Journal(segment, STATE, 0), Journal(segment, STATE, 0)
    fill(writer, 1)
    writer.commit()

    def between() -> None:
        for value in range(2, commits + 2):
            fill(writer, value)
            writer.commit()
        if dies:
            # the next commit's slot, written but not committed
            segment.array(STATE, 2, Journal.HEADER_BYTES)[(commits + 2) & 1] = (77, 77, 77)

    reader._slots = Interleaved(reader._slots, between)  # type: ignore[assignment]
    assert whole(reader.committed()) in range(1, commits + 2)


def test_journals_stand_on_cache_lines_of_their_own() -> None:
    for size in (8, 60, 64, 100):
        dtype = np.dtype([("x", "u1", size)])
        assert Journal.bytes_for(dtype) % 64 == 0
        assert Journal.bytes_for(dtype) >= 64 + 2 * size
