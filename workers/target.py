"""Destination of a worker's rows. Used in each worker."""

from __future__ import annotations

from typing import NamedTuple

from headrace.bpf.layout import EVENTS


class Target(NamedTuple):
    """Destination of rows: a render and one of its topics."""

    number: int
    name: str
    topic: int = EVENTS
    """An event id, or EVENTS for the topic of all events (pipeline/process/plan.py, ALL)."""
    counted: bool = False
    """Whether the rows count as covered by this topic."""
    skipped: int = 0
    """Rows of the turn that do not belong to the policies of the outputs."""
    held: bool = False
    """Whether the rows were held back in earlier turns."""
