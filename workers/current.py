"""The signatures that a worker evaluates, one generation at a time, and the statistics that it reports on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from headrace.bpf.tables.catalogue import Catalogue
from headrace.workers.core import Core
from headrace.workers.detect.detector import Detector, FindingOptions
from headrace.workers.views.style import HostFacts

Array = np.ndarray[Any, Any]
PUBLISH_EVERY_NS = 200_000_000


class Shared(Protocol):
    """State that a worker shares with the supervisor (pipeline/process/plan.py, Control)."""

    off: Array
    running: Array
    tallies: Array

    @property
    def latest_rules(self) -> int:
        """The latest generation."""

    def encoded_rules(self, generation: int) -> bytes:
        """The encoded signatures of a generation."""


class Current:
    """Current signatures of one worker."""

    def __init__(
        self,
        shared: Shared,
        generation: int,
        index: int,
        core: Core,
        catalogue: Catalogue,
        facts: HostFacts,
        options: FindingOptions,
        report: Callable[[str], None],
        now: Callable[[], int],
    ) -> None:
        """`report` receives errors of Python signatures; `now` returns nanoseconds of CLOCK_BOOTTIME."""
        self._shared, self._core, self._catalogue = shared, core, catalogue
        self._running, self._tallies = shared.running[index : index + 1], shared.tallies[index : index + 1]
        self._facts, self._options = facts, options
        self._report, self._now = report, now
        self._published_ns = 0
        self._tried = generation
        """The generation that was last loaded or failed to load."""
        self.detector = self._loaded(generation)

    @property
    def generation(self) -> int:
        """The generation in use."""
        return self.detector.generation

    @property
    def latest(self) -> int | None:
        """The latest generation if it has not been tried yet, else None."""
        latest = self._shared.latest_rules
        return None if latest == self._tried else latest

    def switch_to(self, generation: int) -> None:
        """Switch to a generation. If loading fails, the current signatures stay, the exception propagates (it may come
        from user code), and the supervisor sees the generation as refused.
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
        found.open(self._catalogue, self._facts, self._core.tree, self._options)
        self._core.look(found.match, found.shared)
        return found

    def _guard(self, signature: int) -> None:
        """Publish the running signature and its start time, so the supervisor detects one that does not return."""
        self._running["since_ns"] = self._now()
        self._running["signature"] = signature

    def publish_tallies(self, at_once: bool = False) -> None:
        """Publish the cost of signatures, at most once per PUBLISH_EVERY_NS unless `at_once`."""
        now = self._now()
        if now - self._published_ns < PUBLISH_EVERY_NS and not at_once:
            return
        self._published_ns = now
        self.detector.write_counts(self._tallies["rules"][0], self._tallies["values"][0])
        self._tallies["generation"] = self.generation
