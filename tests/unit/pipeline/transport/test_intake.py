"""What a worker takes from its ring in a turn, and what stays there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.pipeline.transport.intake import MAX_BYTES, Intake
from headrace.pipeline.transport.ring import END, FRAME, U64, WATERMARK, Consumer, Producer, Ring, put
from headrace.pipeline.transport.shm import Array, Segment
from tests.unit.frames import CLOSE, Record, frame


class Side:
    """A producer, and an intake with what it was given."""

    def __init__(self, segment: Segment) -> None:
        self.ring = Producer(segment)
        self.fed: list[bytes] = []
        self.intake = Intake(Consumer(segment), lambda payload: self.fed.append(payload.tobytes()))

    def write(self, kind: int, payload: bytes) -> int:
        """A record's end."""
        assert put(self.ring, kind, payload)
        self.ring.publish()
        return self.ring.write_position

    def mark(self, watermark_ns: int) -> int:
        return self.write(WATERMARK, U64.pack(watermark_ns))


@pytest.fixture
def side() -> Iterator[Side]:
    segment = Segment(Ring.bytes_for(4 * MAX_BYTES))
    yield Side(segment)
    segment.close()


def closing(time_ns: int) -> bytes:
    return frame([Record(CLOSE, time_ns)])


def test_there_is_no_turn_without_a_watermark(side: Side) -> None:
    side.write(FRAME, closing(5))
    assert side.intake.take(0) == 0
    assert side.fed == [closing(5)]
    side.mark(7)
    assert side.intake.take(0) == 7
    assert side.fed == [closing(5)], "a frame is taken once"


def test_all_watermarks_that_are_there_make_one_turn(side: Side) -> None:
    for time in (10, 20, 30):
        side.write(FRAME, closing(time))
        end = side.mark(time + 5)
    side.write(FRAME, closing(40))
    assert side.intake.take(0) == 35
    assert side.fed == [closing(time) for time in (10, 20, 30, 40)]
    assert side.intake.position > end
    assert side.intake.ripe(35) == end, "the last frame has to wait, and to stay"


def test_a_turn_ends_at_the_first_watermark_behind_its_bound(side: Side) -> None:
    large = bytes(MAX_BYTES // 2)
    for time in (1, 2, 3):
        side.write(FRAME, large)
        side.mark(time)
    assert side.intake.take(0) == 2
    assert len(side.fed) == 2
    assert side.intake.take(2) == 3


def test_however_large_a_turn_has_a_watermark(side: Side) -> None:
    for _ in range(3):
        side.write(FRAME, bytes(MAX_BYTES))
    side.mark(9)
    assert side.intake.take(0) == 9
    assert len(side.fed) == 3


def test_the_end_comes_after_the_last_turn(side: Side) -> None:
    side.write(FRAME, closing(1))
    side.mark(2)
    end = side.write(END, b"")
    assert (side.intake.take(0), side.intake.ended) == (2, 0)
    assert (side.intake.take(2), side.intake.ended) == (0, end)


def test_a_watermark_that_found_no_room_counts_if_it_is_later(side: Side) -> None:
    side.mark(5)
    side.ring.promise(8)
    assert side.intake.take(0) == 8
    assert side.intake.take(8) == 0
    side.mark(9)
    assert side.intake.take(8) == 9


def test_a_successor_takes_again_what_was_not_ripe(side: Side) -> None:
    side.write(FRAME, closing(1))
    held = side.mark(2)
    side.write(FRAME, closing(10))
    taken = side.mark(3)
    assert side.intake.take(0) == 3
    assert side.intake.ripe(3) == held
    side.write(FRAME, closing(11))
    side.mark(12)
    again: list[bytes] = []

    def feed(payload: Array) -> None:
        again.append(payload.tobytes())

    successor = Intake(side.intake._ring, feed)
    successor.recover(held, taken)
    assert again == [closing(10)]
    assert successor.position == taken
    assert successor.take(3) == 12
    assert again == [closing(10), closing(11)]
    assert successor.ripe(12) == successor.position


def test_a_turn_that_was_begun_ends_where_it_did(side: Side) -> None:
    side.write(FRAME, closing(1))
    cut = side.mark(2)
    side.write(FRAME, closing(3))
    side.mark(4)
    side.intake.take_up_to(cut)
    assert (side.fed, side.intake.position) == ([closing(1)], cut)
    assert side.intake.take(2) == 4
