"""The ring against a deque, from every offset, full, and after its producer's death."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.config.settings import Settings
from headrace.pipeline.stages.recording import MAX_BLOCK_BYTES
from headrace.pipeline.transport.ring import DATA_AT, FRAME, WATERMARK, Consumer, Producer, Ring, put
from headrace.pipeline.transport.shm import Segment

CAPACITY = 4096
LEAD = 8


def size_of(payload_bytes: int) -> int:
    """Bytes of a record, by the drawing in pipeline/transport/ring.py."""
    return LEAD + -(-payload_bytes // 8) * 8


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment(Ring.bytes_for(CAPACITY))
    yield made
    made.close()


def ends(segment: Segment) -> tuple[Producer, Consumer]:
    return Producer(segment), Consumer(segment)


def drain(ring: Consumer, position: int) -> tuple[list[tuple[int, bytes]], int]:
    """Every record from `position` on."""
    found = []
    while (record := ring.read(position)) is not None:
        found.append((record.kind, record.payload.tobytes()))
        position = record.next
    return found, position


@pytest.mark.parametrize("asked", [1, 4096, 4097, 100_000, 1 << 17])
def test_capacity_is_the_power_of_two_that_holds_what_was_asked(asked: int) -> None:
    segment = Segment(Ring.bytes_for(asked))
    ring = Ring(segment)
    assert ring.capacity >= asked
    assert ring.capacity & (ring.capacity - 1) == 0
    assert ring.capacity < 2 * max(asked, 4096)
    assert DATA_AT + ring.capacity <= segment.size
    ring.close()
    segment.close()


def test_the_cursors_stand_on_cache_lines_of_their_own(segment: Segment) -> None:
    producer, consumer = ends(segment)
    put(producer, FRAME, b"x")
    producer.publish()
    consumer.release(16)
    raw = segment.array("<u8", DATA_AT // 8, 0)
    assert {i * 8: int(v) for i, v in enumerate(raw) if v} == {0: 16, 64: 16}


def test_records_come_out_as_they_went_in(segment: Segment) -> None:
    producer, consumer = ends(segment)
    records = [(FRAME, b"abc"), (WATERMARK, b"12345678"), (FRAME, b""), (FRAME, b"x" * 100)]
    for kind, payload in records:
        assert put(producer, kind, payload)
    producer.publish()
    assert drain(consumer, 0)[0] == records


@pytest.mark.parametrize("payload_bytes", [0, 5, 8, 24, 100, 2000])
def test_a_record_is_whole_from_every_offset(segment: Segment, payload_bytes: int) -> None:
    payload = bytes(i * 7 & 0xFF for i in range(payload_bytes))
    for start in range(3 * CAPACITY, 4 * CAPACITY, 8):
        producer, consumer = ends(segment)
        producer.restore_head(start)
        consumer.release(start)
        assert put(producer, FRAME, payload)
        assert put(producer, WATERMARK, b"after")
        producer.publish()
        found, position = drain(consumer, start)
        assert found == [(FRAME, payload), (WATERMARK, b"after")]
        assert position == producer.head
        assert producer.used <= CAPACITY


def test_a_full_ring_says_so_and_takes_again_once_released(segment: Segment) -> None:
    producer, consumer = ends(segment)
    sent = 0
    while put(producer, FRAME, sent.to_bytes(8, "little")):
        sent += 1
    assert sent == CAPACITY // 16
    assert producer.used == CAPACITY
    producer.publish()
    assert not put(producer, FRAME, b"")
    found, position = drain(consumer, 0)
    assert [int.from_bytes(payload, "little") for _, payload in found] == list(range(sent))
    consumer.release(position)
    assert put(producer, FRAME, b"again")


def test_what_was_not_published_is_not_seen(segment: Segment) -> None:
    producer, consumer = ends(segment)
    put(producer, FRAME, b"hidden")
    assert consumer.read(0) is None
    producer.publish()
    assert consumer.read(0) is not None


def test_a_successor_of_the_producer_overwrites_what_was_not_published(segment: Segment) -> None:
    producer, consumer = ends(segment)
    put(producer, FRAME, b"kept")
    producer.publish()
    kept = producer.head
    put(producer, FRAME, b"lost with its writer")
    successor = Producer(segment)
    successor.restore_head(kept)
    put(successor, FRAME, b"new")
    successor.publish()
    assert drain(consumer, 0)[0] == [(FRAME, b"kept"), (FRAME, b"new")]


def test_a_head_published_beyond_the_journal_is_taken_back(segment: Segment) -> None:
    producer, consumer = ends(segment)
    put(producer, FRAME, b"journalled")
    journalled = producer.write_position
    put(producer, FRAME, b"published, not journalled")
    producer.publish()
    Producer(segment).restore_head(journalled)
    assert drain(consumer, 0)[0] == [(FRAME, b"journalled")]


def test_what_fits_can_be_written_at_any_offset_of_an_empty_ring(segment: Segment) -> None:
    ring, consumer = ends(segment)
    most = max(n for n in range(CAPACITY) if ring.fits(n))
    for start in range(0, CAPACITY, 8):
        ring.restore_head(start)
        consumer.release(start)
        assert ring.try_reserve(most, FRAME) is not None
    assert not ring.fits(CAPACITY)


def test_the_smallest_ring_that_settings_allow_fits_the_longest_block_of_a_recording() -> None:
    # else a replayer waits for ever for room that cannot come
    smallest = min(n for n in range(1 << 16, (1 << 19) + 1, 1 << 16) if accepted(n))
    segment = Segment(Ring.bytes_for(smallest))
    ring = Producer(segment)
    assert ring.fits(MAX_BLOCK_BYTES)
    ring.close()
    segment.close()


def accepted(ring_bytes: int) -> bool:
    import msgspec

    try:
        msgspec.convert({"ring_bytes": ring_bytes}, Settings)
    except msgspec.ValidationError:
        return False
    return True


# -- publishing before the payload


class PublishesFirst(Producer):
    """The control: makes a record visible before its payload is written."""

    def try_reserve(self, payload_bytes: int, kind: int) -> Any:
        room = super().try_reserve(payload_bytes, kind)
        self.publish()
        return room


def steps(ring: Producer, payloads: list[bytes]) -> Iterator[None]:
    """A producer that can be looked at after each of its stores."""
    for payload in payloads:
        room = ring.try_reserve(len(payload), FRAME)
        assert room is not None
        yield
        half = len(payload) // 2
        room[:half] = np.frombuffer(payload[:half], "u1")
        yield
        room[half:] = np.frombuffer(payload[half:], "u1")
        yield
        ring.publish()
        yield


def seen_only_whole(producer: Producer, consumer: Consumer, payloads: list[bytes]) -> bool:
    """Whether a consumer that looks after every store sees nothing but whole payloads, in order."""
    seen: list[bytes] = []
    position = consumer.tail
    for _ in steps(producer, payloads):
        found, position = drain(consumer, position)
        seen += [payload for _, payload in found]
    return seen == payloads


PAYLOADS = [bytes([i + 1]) * (i * 13 % 90 + 8) for i in range(30)]


def test_a_consumer_that_looks_at_any_moment_sees_whole_records(segment: Segment) -> None:
    producer, consumer = ends(segment)
    assert seen_only_whole(producer, consumer, PAYLOADS)


def test_the_control_that_publishes_before_the_payload_is_caught(segment: Segment) -> None:
    assert not seen_only_whole(PublishesFirst(segment), Consumer(segment), PAYLOADS)


# -- against a naive model


class Model(RuleBasedStateMachine):
    """Any order of writing, publishing, dying, reading and releasing."""

    @initialize(start=st.integers(0, CAPACITY // 8 - 1))
    def begin(self, start: int) -> None:
        self.segment = Segment(Ring.bytes_for(CAPACITY))
        self.producer, self.consumer = ends(self.segment)
        self.producer.restore_head(start * 8)
        self.consumer.release(start * 8)
        self.position = start * 8
        self.unpublished: deque[bytes] = deque()
        self.published: deque[bytes] = deque()
        self.read: deque[int] = deque()
        self.number = 0

    @rule(payload_bytes=st.integers(0, 1500))
    def write(self, payload_bytes: int) -> None:
        self.number += 1
        payload = bytes((self.number + i) & 0xFF for i in range(payload_bytes))
        free = CAPACITY - (self.producer.write_position - self.consumer.tail)
        to_end = CAPACITY - self.producer.write_position % CAPACITY
        need = size_of(payload_bytes)
        fits = need + (to_end if need > to_end else 0) <= free
        assert put(self.producer, FRAME, payload) == fits
        if fits:
            self.unpublished.append(payload)

    @rule()
    def publish(self) -> None:
        self.producer.publish()
        self.published += self.unpublished
        self.unpublished.clear()

    @rule()
    def die(self) -> None:
        head = self.producer.head
        self.producer = Producer(self.segment)
        self.producer.restore_head(head)
        self.unpublished.clear()

    @rule()
    def consume(self) -> None:
        record = self.consumer.read(self.position)
        if not self.published:
            assert record is None
            return
        assert record is not None
        assert record.payload.tobytes() == self.published.popleft()
        self.position = record.next
        self.read.append(record.next)

    @precondition(lambda self: self.read)
    @rule()
    def release(self) -> None:
        self.consumer.release(self.read.popleft())

    @rule()
    def consumer_dies(self) -> None:
        self.consumer = Consumer(self.segment)

    @invariant()
    def cursors_keep_their_order(self) -> None:
        ring = self.consumer
        assert ring.tail <= ring.head <= ring.tail + CAPACITY

    def teardown(self) -> None:
        self.producer.close()
        self.consumer.close()
        self.segment.close()


Model.TestCase.settings = hypothesis_settings(max_examples=40, stateful_step_count=60, deadline=None)
TestAgainstADeque = Model.TestCase


@given(st.lists(st.integers(0, 1000), max_size=60), st.integers(0, CAPACITY // 8 - 1))
def test_used_never_exceeds_the_capacity(sizes: list[int], start: int) -> None:
    segment = Segment(Ring.bytes_for(CAPACITY))
    ring, consumer = ends(segment)
    ring.restore_head(start * 8)
    consumer.release(start * 8)
    for size in sizes:
        ring.try_reserve(size, FRAME)
        assert ring.used <= CAPACITY
    ring.close()
    consumer.close()
    segment.close()
