"""The signatures that a worker looks by: those of one generation at a time, and what is told of them meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from headrace.bpf.tables.catalogue import Catalogue
from headrace.workers.core import Core
from headrace.workers.detect.detector import Detector
from headrace.workers.enrich.containers import Describe
from headrace.workers.views.style import Facts

Array = np.ndarray[Any, Any]
TELL_EVERY_NS = 200_000_000


Shown = tuple[bytes, Sequence[str], float, Describe]
"""How findings are shown (Detector.open): secret, hidden arguments, seconds before, what is known of containers."""


class Shared(Protocol):
    """What a worker shares with the supervisor (pipeline/process/plan.py, Control)."""

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
        generation: int,
        index: int,
        core: Core,
        catalogue: Catalogue,
        facts: Facts,
        shown: Shown,
        report: Callable[[str], None],
        now: Callable[[], int],
    ) -> None:
        """`report`: told what goes wrong in signatures in Python; `now`: nanoseconds of CLOCK_BOOTTIME."""
        self._shared, self._core, self._catalogue = shared, core, catalogue
        self._running, self._tallies = shared.running[index : index + 1], shared.tallies[index : index + 1]
        self._facts, self._shown = facts, shown
        self._report, self._now = report, now
        self._told_ns = 0
        self._tried = generation
        """The generation that was tried last."""
        self.detector = self._loaded(generation)

    @property
    def generation(self) -> int:
        """That is looked by."""
        return self.detector.generation

    @property
    def latest(self) -> int | None:
        """A generation that has not been tried yet; None if there is none."""
        latest = self._shared.latest_rules
        return None if latest == self._tried else latest

    def look_by(self, generation: int) -> None:
        """Change to a generation. What code of others raises comes through, and all stays as it was; the supervisor
        sees that it could not be loaded.
        """
        self._tried = generation
        try:
            self.detector = self._loaded(generation, self.detector)
        except Exception:
            self._running["refused"] = generation
            raise

    def _loaded(self, generation: int, before: Detector | None = None) -> Detector:
        found = Detector.of(self._shared.encoded_rules(generation), self._catalogue, self._report)
        if before:
            found.adopt(before)
        found.switch_off((np.flatnonzero(self._shared.off) + 1).tolist())
        found.guard = self._guard
        found.open(self._catalogue, self._facts, self._core.tree, *self._shown)
        self._core.look(found.match, found.shared)
        return found

    def _guard(self, signature: int) -> None:
        """So that the supervisor sees what does not return."""
        self._running["since_ns"] = self._now()
        self._running["signature"] = signature

    def tell(self, at_once: bool = False) -> None:
        """Let people see what signatures cost, a few times a second."""
        now = self._now()
        if now - self._told_ns < TELL_EVERY_NS and not at_once:
            return
        self._told_ns = now
        self.detector.write_counts(self._tallies["rules"][0], self._tallies["values"][0])
        self._tallies["generation"] = self.generation
