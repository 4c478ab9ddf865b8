"""Adds the counts of each turn to a worker's journal (pipeline/process/books.py)."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.workers.core import TurnBatch


def count(state: Any, batch: TurnBatch, cpus: int, loss: int) -> None:
    """Add a turn to a worker's state. `loss`: id of the loss event, which is not counted per CPU."""
    rows = batch.rows
    if len(rows):
        state["delivered"] += np.bincount(rows.event, minlength=len(state["delivered"])).astype(np.uint64)
        by_cpu = np.bincount(rows.cpu[rows.event != loss], minlength=cpus)[:cpus]
        state["delivered_cpu"] += by_cpu.astype(np.uint64)
        state["late"] += np.uint64(rows.late.sum())
    if batch.filtered_events is not None:
        state["filtered"] += batch.filtered_events.astype(np.uint64)
    state["found"] += np.uint64(sum(map(len, batch.matches.rules)) if batch.matches else 0)
    state["rejected"] += np.uint64(batch.rejected)
    state["given_up"] += np.uint64(batch.given_up)
    state["observed"] += np.uint64(batch.observed)
    state["facts"] += np.uint64(batch.facts)
    state["turns"] += np.uint64(1)
    state["watermark_ns"] = batch.watermark_ns
