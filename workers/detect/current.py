"""The signatures that a worker looks by: those of one generation at a time, and what is told of them meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from bpf.catalogue import Catalogue
from workers.core import Core
from workers.detect.detector import Detector
from workers.views.pieces import Facts

Array = np.ndarray[Any, Any]
TELL_EVERY_NS = 200_000_000


class Shared(Protocol):
    """What a worker shares with the supervisor (pipeline/plan.py, Control)."""

    off: Array
    running: Array
    tallies: Array

    @property
    def latest_rules(self) -> int:
        """The generation that holds."""

    def encoded_rules(self, generation: int) -> bytes:
        """The signatures of a generation."""


class Current:
    """State of one worker."""

    def __init__(
        self,
        shared: Shared,
        index: int,
        core: Core,
        catalogue: Catalogue,
        facts: Facts,
        secret: bytes,
        hidden: Sequence[str],
        before_s: float,
        report: Callable[[str], None],
        now: Callable[[], int],
    ) -> None:
        """`report`: told what goes wrong in signatures in Python; `now`: nanoseconds of CLOCK_BOOTTIME."""
        self._shared, self._core, self._catalogue = shared, core, catalogue
        self._running, self._tallies = shared.running[index : index + 1], shared.tallies[index : index + 1]
        self._facts, self._shown = facts, (secret, hidden, before_s)
        self._report, self._now = report, now
        self._told_ns = 0
        self.tried = 0
        """The generation that was tried last."""
        self.detector: Detector | None = None

    @property
    def generation(self) -> int:
        """That is looked by."""
        return self.detector.generation if self.detector else 0

    @property
    def latest(self) -> int | None:
        """A generation that has not been tried yet; None if there is none."""
        latest = self._shared.latest_rules
        return None if latest == self.tried else latest

    def look_by(self, generation: int) -> None:
        """Have the signatures of a generation. What code of others raises comes through, and all stays as it was."""
        self.tried = generation
        found = Detector.of(self._shared.encoded_rules(generation), self._catalogue, self._report)
        if self.detector:
            found.adopt(self.detector)
        found.switch_off((np.flatnonzero(self._shared.off) + 1).tolist())
        found.guard = self._guard
        found.open(self._catalogue, self._facts, self._core.tree, *self._shown)
        self._core.look(found.match, found.shared)
        self.detector = found

    def _guard(self, signature: int) -> None:
        """So that the supervisor sees what does not return."""
        self._running["since_ns"] = self._now()
        self._running["signature"] = signature

    def tell(self, at_once: bool = False) -> None:
        """Let people see what signatures cost, a few times a second."""
        now = self._now()
        if self.detector is None or (now - self._told_ns < TELL_EVERY_NS and not at_once):
            return
        self._told_ns = now
        tally, memory = self.detector.counted()
        shown = self._tallies["rules"][0]
        count = min(len(tally), len(shown))
        shown[:count] = tally[:count]
        self._tallies["memory"][0] = memory
        self._tallies["generation"] = self.generation
