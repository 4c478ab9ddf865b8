"""The reader's announcement of losses; the reader at work is for tests/kernel and tests/process."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.stages.reader import ANNOUNCE_EVERY_NS, Reader
from pipeline.transport.clock import boottime_ns
from pipeline.transport.frames import Loss
from pipeline.transport.ring import Ring
from pipeline.transport.shm import Segment
from tests.unit.frames import CONTEXT_BYTES, HEAD, HEADER


@pytest.fixture
def ring() -> Iterator[Ring]:
    segment = Segment(Ring.bytes_for(1 << 16))
    made = Ring(segment)
    yield made
    made.close()
    segment.close()


def reader(ring: Ring) -> Any:
    """A reader of which only what losses need is there."""
    made = object.__new__(Reader)
    made.plan = SimpleNamespace(workers=1, boot_epoch_ns=0, nodename=b"host")  # type: ignore[assignment]
    made._offsets = SimpleNamespace(at=lambda time_ns: 0)  # type: ignore[assignment]
    made.rings, made.state, made._losses = [ring], {"losses_sent": 0}, {}
    made._announced_ns = made._logged_ns = made._latest_ns = made._lost_unlogged = 0
    return made


def heads(ring: Ring) -> list[tuple[Any, ...]]:
    """Heads of the loss frames in the ring."""
    ring.publish()
    found, position = [], 0
    while (record := ring.read(position)) is not None:
        found.append(HEAD.unpack_from(record.payload.tobytes(), HEADER.size + CONTEXT_BYTES))
        position = record.next
    return found


def test_losses_of_one_cpu_and_shard_are_announced_together(ring: Ring) -> None:
    one = reader(ring)
    one._lose(Loss(1, 0, 3, 50, 60))
    one._lose(Loss(1, 0, 4, 40, 55))
    assert one._losses == {(1, 0): Loss(1, 0, 7, 40, 60)}
    one._announce(0)
    assert len(heads(ring)) == 1
    assert (one.state["losses_sent"], one._losses) == (1, {})


def test_a_loss_stays_owed_while_the_ring_is_full(ring: Ring) -> None:
    one = reader(ring)
    while ring.try_reserve(1000, 1) is not None:
        continue
    one._lose(Loss(0, 0, 1, 1, 1))
    one._announce(0)
    assert (0, 0) in one._losses
    assert one.state["losses_sent"] == 0


def test_a_loss_announced_at_the_end_carries_the_time_of_then(ring: Ring) -> None:
    one = reader(ring)
    one._lose(Loss(0, 0, 1, 1, 1))
    before = boottime_ns()
    one._announce(before, at_once=True)
    assert before <= heads(ring)[0][0] <= boottime_ns()


def test_a_loss_behind_another_is_announced_without_traffic(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is not due when it is noticed, and nothing comes that would make the reader look again."""
    one, now = reader(ring), [10**12]
    monkeypatch.setattr("pipeline.stages.reader.boottime_ns", lambda: now[0])
    one.marks, one._owed, one.control = SimpleNamespace(sample=lambda: now[0]), [], SimpleNamespace(workers=())
    one._offsets = SimpleNamespace(look=lambda: False, at=lambda time_ns: 0)
    one.state["watermark_ns"] = now[0]
    for method in ("_flush_stale", "_drain", "_notice_losses", "_commit"):
        monkeypatch.setattr(one, method, lambda: False)
    for count in (1, 2):
        one._lose(Loss(0, 0, count, now[0], now[0]))
        one.cycle()
        now[0] += 10**6
    assert one._losses
    now[0] += ANNOUNCE_EVERY_NS
    one.cycle()
    assert not one._losses
    assert one.state["losses_sent"] == 2
