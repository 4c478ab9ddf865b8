"""Where a worker's rows go. In each worker."""

from __future__ import annotations

from typing import NamedTuple

from headrace.bpf.layout import EVENTS


class Target(NamedTuple):
    """Where rows go: to a render and a topic of it."""

    number: int
    name: str
    topic: int = EVENTS
    """EVENTS (pipeline/process/plan.py, ALL): of all events."""
    counted: bool = False
    """Whether they are counted there."""
    held: bool = False
    """Whether they are of earlier turns."""
