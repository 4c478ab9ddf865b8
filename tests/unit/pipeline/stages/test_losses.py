"""Losses until they are announced. The reader at work is for tests/kernel and tests/process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from headrace.pipeline.stages.losses import ANNOUNCE_EVERY_NS, Losses
from headrace.pipeline.transport.clock import boottime_ns
from headrace.pipeline.transport.frames import Loss, loss_frame
from headrace.pipeline.transport.ring import Consumer, Producer, Ring
from headrace.pipeline.transport.shm import Segment
from tests.unit.frames import CONTEXT_BYTES, HEAD, HEADER


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment(Ring.bytes_for(1 << 16))
    yield made
    made.close()


@pytest.fixture
def ring(segment: Segment) -> Iterator[Producer]:
    made = Producer(segment)
    yield made
    made.close()


def losses(ring: Producer) -> Losses:
    return Losses(lambda loss, time_ns: loss_frame(loss, time_ns, 0, b"host"), ring, None)


def heads(segment: Segment, ring: Producer) -> list[tuple[Any, ...]]:
    """Heads of the loss frames in the ring."""
    ring.publish()
    consumer, found, position = Consumer(segment), [], 0
    while (record := consumer.read(position)) is not None:
        found.append(HEAD.unpack_from(record.payload.tobytes(), HEADER.size + CONTEXT_BYTES))
        position = record.next
    del record
    consumer.close()
    return found


def test_losses_of_one_cpu_and_shard_are_announced_together(segment: Segment, ring: Producer) -> None:
    one = losses(ring)
    one.add(Loss(1, 0, 3, 50, 60))
    one.add(Loss(1, 0, 4, 40, 55))
    assert one.owed == {(1, 0): Loss(1, 0, 7, 40, 60)}
    assert one.announce(0) == 1
    assert len(heads(segment, ring)) == 1
    assert one.owed == {}


def test_a_loss_stays_owed_while_the_ring_is_full(ring: Producer) -> None:
    one = losses(ring)
    while ring.try_reserve(1000, 1) is not None:
        continue
    one.add(Loss(0, 0, 1, 1, 1))
    assert one.announce(0) == 0
    assert (0, 0) in one.owed


def test_a_loss_announced_at_the_end_carries_the_time_of_then(segment: Segment, ring: Producer) -> None:
    one = losses(ring)
    one.add(Loss(0, 0, 1, 1, 1))
    before = boottime_ns()
    one.announce(before, at_once=True)
    assert before <= heads(segment, ring)[0][0] <= boottime_ns()


def test_a_loss_behind_another_is_due_after_some_time(ring: Producer, monkeypatch: pytest.MonkeyPatch) -> None:
    one, now = losses(ring), [10**12]
    monkeypatch.setattr("headrace.pipeline.stages.losses.boottime_ns", lambda: now[0])
    for count in (1, 2):
        one.add(Loss(0, 0, count, now[0], now[0]))
        one.announce(now[0])
        now[0] += 10**6
    assert one.owed
    assert not one.due
    now[0] += ANNOUNCE_EVERY_NS
    assert one.due
    assert one.announce(now[0]) == 1
    assert not one.owed
