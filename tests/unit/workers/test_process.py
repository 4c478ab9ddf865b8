"""What a worker puts into its journal for a batch; the process at work is for tests/process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from headrace.bpf.tables.catalogue import catalogue
from headrace.pipeline.process import books
from headrace.pipeline.process.books import Ledger
from headrace.pipeline.transport.frames import Loss, loss_frame
from headrace.workers.core import Core
from headrace.workers.process import Worker
from tests.unit.frames import CLOSE, OPENAT, Record, frame, view


def ledger_of(*frames: bytes) -> Ledger:
    """The books after one turn over these frames, on a host of two CPUs."""
    worker: Any = object.__new__(Worker)
    worker.plan, worker.index = SimpleNamespace(cpus=2), 0
    state = np.zeros(1, books.worker_journal(2, 1))
    worker.state, worker._keep = state[0], None
    worker.core = core = Core(catalogue(), 0, 1)
    for one in frames:
        core.feed(view(one))
    worker._count(core.advance(2**62))
    ledger = Ledger()
    books.add_workers(ledger, [state], catalogue())
    return ledger


FRAMES = (frame([Record(CLOSE, 1), Record(OPENAT, 2)], cpu=0), frame([Record(CLOSE, 3)], cpu=1))


def test_delivered_is_the_same_by_event_and_by_cpu() -> None:
    ledger = ledger_of(*FRAMES)
    assert ledger.delivered == 3
    assert ledger.by_event == {"close": {"delivered": 2}, "openat": {"delivered": 1}}
    assert ledger.by_cpu == {"0": {"delivered": 2}, "1": {"delivered": 1}}


def test_an_announced_loss_is_outside_the_books_of_its_cpu_too() -> None:
    ledger = ledger_of(*FRAMES, loss_frame(Loss(1, 0, 5, 1, 2), 10, 0, b"host"))
    assert (ledger.delivered, ledger.announced) == (3, 1)
    assert ledger.by_cpu == {"0": {"delivered": 2}, "1": {"delivered": 1}}


def test_rejected_events_are_counted() -> None:
    bad = bytearray(FRAMES[0])
    bad[35] = 9
    ledger = ledger_of(FRAMES[1], bytes(bad))
    assert (ledger.delivered, ledger.rejected) == (1, 2)
