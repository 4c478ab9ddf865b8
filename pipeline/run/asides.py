"""The auxiliary stages, which events do not pass through: hasher, collector and enricher.

Workers send them requests through a pipe, and read their answers or counters from a segment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from headrace.config.capture import Capture
from headrace.config.runtimes import Endpoint
from headrace.config.settings import Settings
from headrace.pipeline.capture import collector
from headrace.pipeline.capture.requests import ArtifactCounters
from headrace.pipeline.capture.store import open_directory
from headrace.pipeline.containers import enricher, enrichment, hashes
from headrace.pipeline.process.books import Ledger
from headrace.pipeline.process.privilege import stage_ids
from headrace.pipeline.run.stage import Stage
from headrace.pipeline.transport.doorbell import InheritedFd
from headrace.pipeline.transport.shm import Segment

ENRICHER_NICE = -10
"""The enricher has little work, but container names are missing until it is done."""
COLLECTOR_NICE = 10
"""A process that writes a lot makes work for the collector, which must not take it from the others."""
Pipe = tuple[InheritedFd, InheritedFd]


class Asides:
    """Their segments, pipes and stages."""

    def __init__(
        self,
        settings: Settings,
        segment: Callable[[int], Segment],
        has_hashes: bool,
        endpoints: tuple[Endpoint, ...],
        capture: Capture | None,
    ) -> None:
        """`segment` creates a segment of a size in bytes. Raises StoreError."""
        workers = settings.workers
        self.table: enrichment.ContainerTable | None = None
        self.counters: ArtifactCounters | None = None
        self._pipes: dict[str, Pipe] = {}
        self.plan: dict[str, Any] = {"endpoints": endpoints, "capture": capture}
        """Fields of the Plan."""
        if has_hashes:
            self.plan |= {"hashes": segment(hashes.HashTable.size()).name, "hash_requests": self._pipe("hasher")}
        if capture:
            counts = segment(ArtifactCounters.size(workers))
            self.counters = ArtifactCounters(counts, workers)
            self._directory = InheritedFd(open_directory(settings.capture_dir, stage_ids()))
            self.plan |= {"captured": counts.name, "capture_requests": self._pipe("collector")}
            self.plan |= {"capture_quota": settings.capture_limit_mb << 20}
        if endpoints:
            containers = segment(enrichment.ContainerTable.size())
            self.table = enrichment.ContainerTable(containers)
            self.plan |= {"enrichment": containers.name, "enrichment_requests": self._pipe("enricher")}

    @staticmethod
    def room(has_hashes: bool, has_endpoints: bool) -> int:
        """Bytes of shared memory that they need."""
        return hashes.HashTable.size() * has_hashes + enrichment.ContainerTable.size() * has_endpoints

    def _pipe(self, name: str) -> InheritedFd:
        """The write end of a new pipe. Both ends are non-blocking."""
        ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._pipes[name] = InheritedFd(ends[0]), InheritedFd(ends[1])
        return self._pipes[name][1]

    def stages(self) -> Iterator[Stage]:
        """The stages to launch."""
        if pipe := self._pipes.get("hasher"):
            yield Stage("hasher", hashes.run, (pipe[0],), kept=hashes.KEPT, prepare=hashes.prepare, aside=True)
        if pipe := self._pipes.get("collector"):
            arguments = pipe[0], self._directory
            one = Stage("collector", collector.run, arguments, kept=collector.KEPT, prepare=collector.prepare)
            one.spare, one.aside, one.nice = True, True, COLLECTOR_NICE
            yield one
        if pipe := self._pipes.get("enricher"):
            one = Stage("enricher", enricher.run, (pipe[0],), kept=enricher.KEPT, prepare=enricher.prepare)
            one.spare, one.aside, one.nice = True, True, ENRICHER_NICE
            yield one

    def add_to(self, ledger: Ledger, workers: list[np.ndarray[Any, Any]]) -> None:
        """Add their counters. `workers`: the committed states of the workers."""
        if self.table:
            ledger.containers = self.table.states() | self.table.counters()
            ledger.containers["gave_up"] = sum(int(state["gave_up"][0]) for state in workers)
        if self.counters:
            ledger.artifacts = self.counters.shown()
            ledger.cpu_seconds["collector"] = int(self.counters.of_collector["cpu_ns"][0]) / 1e9

    def close(self) -> None:
        """Close pipes and the directory."""
        for pipe in self._pipes.values():
            for end in pipe:
                end.close()
        if self.counters:
            self._directory.close()
