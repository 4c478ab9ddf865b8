"""Worker: the loop around the core. Takes frames from its ring, renders the rows and passes them to the publisher.

    ring --feed--> Core --advance at each watermark--> TurnBatch --views--> result ring --> publisher

Each turn ends with one journal commit that holds the position in the ring, the position in the result ring and the
counters. A restarted worker continues from its last commit: it reads the frames again that still had unripe rows and
takes only the rows above the committed watermark. Nothing is lost or repeated between the two rings.

The successor of a worker that died takes that turn in slices and gives up rows that kill it again
(workers/attempts.py).

A worker that waits within a turn because the result ring is full commits how many rows of the turn each render has
written. A successor begins that turn again, up to the same watermark, and skips these rows. Progress is counted in
rows because the size of a record depends on what is known of containers when it is rendered.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from headrace.bpf.tables.catalogue import LOSS, catalogue
from headrace.config.rules import RuleError
from headrace.pipeline.capture.requests import ArtifactCounters, CaptureClient
from headrace.pipeline.containers import enrichment
from headrace.pipeline.containers.hashes import HashClient
from headrace.pipeline.process.logs import logger
from headrace.pipeline.process.plan import (
    READY_WORKER,
    Plan,
    attach_consumer,
    attach_control,
    attach_producer,
)
from headrace.pipeline.transport.clock import CpuClock, boottime_ns
from headrace.pipeline.transport.gaps import GapReader
from headrace.pipeline.transport.intake import Intake
from headrace.pipeline.transport.offsets import OffsetReader
from headrace.pipeline.transport.shm import Segment
from headrace.workers.attempts import Attempts
from headrace.workers.conditions.claims import ClaimFilter
from headrace.workers.conditions.filters import Predicates
from headrace.workers.core import Core, TurnBatch
from headrace.workers.counters import count
from headrace.workers.emit import Emitter
from headrace.workers.enrich.artifacts import Artifacts
from headrace.workers.enrich.containers import nobody
from headrace.workers.enrich.executables import Executables
from headrace.workers.enrich.users import fix_users
from headrace.workers.hold import Hold
from headrace.workers.turn import Turn
from headrace.workers.views.choice import Sources, forget_who, view_of
from headrace.workers.views.named import unasked
from headrace.workers.views.style import HostFacts

if TYPE_CHECKING:
    from headrace.workers.current import Current

WAIT_MS = 1000


class Worker:
    """State of one worker process."""

    def __init__(self, plan: Plan, index: int) -> None:
        self.plan, self.index = plan, index
        self.control, self.results = attach_control(plan), attach_producer(plan.results[index])
        self.journal = self.control.workers[index]
        self.state = self.journal.next[0]
        self._cpu = CpuClock(int(self.state["cpu_ns"]))
        self._keep = _filter(plan)
        self.core = Core(catalogue(), index, plan.workers, self._keep)
        self.intake = Intake(attach_consumer(plan.rings[index]), self.core.feed)
        self._attempts = Attempts(self.control.attempts[index : index + 1], self.core)
        self._gaps = GapReader(self.control.gaps)
        self._offsets = OffsetReader(self.control.offsets)
        self._facts = facts = HostFacts(plan.boot_epoch_ns, plan.relative_to_ns)
        self._containers = enrichment.client(plan.enrichment, plan.enrichment_requests)
        self._describe = nobody if self._containers is None else self._containers.of
        self.renders = plan.renders
        self._current = self._signatures(facts) if plan.detects else None
        self._executables = Executables(catalogue(), HashClient(plan)) if plan.hashes else None
        self._artifacts = _artifacts(plan, index)
        named = unasked if self._containers is None else self._containers.named
        waits = [render.held_ms if self._containers else 0 for render in self.renders]
        self._holds = {n: Hold(ms, self._describe, named=named) for n, ms in enumerate(waits) if ms}
        sources = Sources(
            plan, catalogue(), facts, self.core.tree, self._executables, self._describe, self._containers, named
        )
        self.views = [view_of(each.format, sources, with_lineage=not each.has_topics) for each in self.renders]
        self._turn = Turn(self.state, [render.has_topics for render in self.renders], catalogue().by_name[LOSS].id)
        self._emitter = Emitter(
            plan,
            index,
            self.core,
            self.results,
            self.journal,
            self.views,
            self._holds,
            self._turn,
            self.control.interest,
        )
        self._emitter.give_up_held()
        self._recover()

    def _signatures(self, facts: HostFacts) -> Current:
        """The signatures of the run. A turn that was begun is evaluated with the generation that it was begun with."""
        from headrace.workers.current import Current  # loaded on demand
        from headrace.workers.detect.detector import FindingOptions

        plan = self.plan
        generation = int(self.state["generation"]) or self.control.latest_rules
        options = FindingOptions(plan.secret, plan.hidden, plan.before_s, self._describe, plan.claims)
        try:
            found = Current(
                self.control,
                generation,
                self.index,
                self.core,
                catalogue(),
                facts,
                options,
                self._report,
                boottime_ns,
            )
        except RuleError as error:  # at the start of a run: a restart would fail the same way
            self._report(str(error))
            raise SystemExit(os.EX_DATAERR) from error
        self.state["generation"] = found.generation
        return found

    def _switch_to_latest(self) -> bool:
        """Load a new generation between turns. Returns whether there was one."""
        if self._current is None or (latest := self._current.latest) is None:
            return False
        try:
            self._current.switch_to(latest)
        except Exception as error:  # loading runs user code
            self._report(f"generation {latest} could not be loaded here, {self.state['generation']} stays: {error!r}")
        self.state["generation"] = self._current.generation
        return True

    def _report(self, text: str) -> None:
        logger(f"worker-{self.index}").error("worker.signature_failed", reason=text)

    def _recover(self) -> None:
        """Continue from the committed state."""
        self.results.restore_head(int(self.state["result_head"]))
        self.intake.recover(int(self.state["release"]), int(self.state["next"]))
        self.core.recover(int(self.state["watermark_ns"]))

    def turn(self) -> bool:
        """Process everything up to the last available watermark. False if there is none. END ends the process."""
        if self._turn.begun:
            # a turn that a predecessor has partly written must end at the same position
            self.intake.take_up_to(int(self.state["turn_end"]))
            self._advance(int(self.state["turn_ns"]))
            return True
        watermark_ns = self._attempts.rest_ns or self.intake.take(self.core.watermark_ns)
        for end_ns in self._attempts.ends(watermark_ns, lambda: int(self.state["turns"])):
            self._advance(end_ns)
        if not watermark_ns and self.intake.ended:
            if self._current:
                self._current.publish_tallies(at_once=True)
            self._emitter.let_go()
            self.state["ended"] = 1
            self._commit(self.intake.ended, self.intake.ended)
        return watermark_ns > 0

    def _advance(self, watermark_ns: int) -> None:
        self.state["turn_ns"], self.state["turn_end"] = watermark_ns, self.intake.position
        if not self._turn.begun:
            self._switch_to_latest()
        if (steps := self._offsets.changed()) is not None:
            self._facts.steps.know(steps)
        if self._current and (gaps := self._gaps.changed()) is not None:
            self._current.detector.gaps.know(gaps)
        if self._containers and self._containers.changed():
            forget_who(self.views)
            if self._current:
                self._current.detector.forget_who()
        batch = self.core.advance(watermark_ns)
        self._turn.begin(batch.rows)
        if self._artifacts is not None:
            self._artifacts.take(batch.ripe, self.core.contexts)
        if self._executables is not None:
            self._executables.prepare(batch.rows, self.core.contexts)
        self._emitter.emit(batch, self._current.detector if self._current else None)
        self._count(batch)
        self._commit(self.intake.position, self.intake.ripe(watermark_ns))
        if self._current:
            self._current.publish_tallies()

    def _count(self, batch: TurnBatch) -> None:
        state = self.state
        count(state, batch, self.plan.cpus, catalogue().by_name[LOSS].id)
        state["evicted"] += np.uint64(self.core.tree.take_evicted())
        if self._keep is not None:
            state["unknown"] += np.uint64(self._keep.take_unknown())
        if batch.rejected_reasons:
            logger(f"worker-{self.index}").warning("worker.records_rejected", reasons=batch.rejected_reasons)

    def _commit(self, position: int, release: int) -> None:
        state = self.state
        state["next"], state["release"], state["result_head"] = position, release, self.results.write_position
        state["written"] = state["done"] = state["handed"] = state["handed_cpu"] = 0
        for number, hold in self._holds.items():
            state["held"][number] = len(hold)
        self._turn.end()
        state["cpu_ns"] = self._cpu.now_ns()
        self.journal.commit()
        self.results.publish()
        self.intake.release(release)
        self.plan.publisher_bell.ring()

    def run(self) -> None:
        """Process turns until END."""
        while not self.state["ended"]:
            if not self.turn() and not self.state["ended"]:
                if self._switch_to_latest():
                    self.journal.commit()
                self.plan.bells[self.index].wait(WAIT_MS)


def _filter(plan: Plan) -> Predicates | ClaimFilter | None:
    """What decides which rows stay; None if all do."""
    if plan.claims:
        return ClaimFilter(catalogue(), plan.claims)
    has_conditions = bool(plan.conditions) or plan.only is not None
    return Predicates(catalogue(), plan.conditions, plan.only) if has_conditions else None


def _artifacts(plan: Plan, index: int) -> Artifacts | None:
    if plan.capture is None:
        return None
    assert plan.capture_requests is not None
    counters = ArtifactCounters(Segment(name=plan.captured), plan.workers)
    client = CaptureClient(plan.capture_requests, counters, index)
    return Artifacts(catalogue(), plan.capture, client, plan.boot_epoch_ns)


def run(plan: Plan, index: int) -> None:
    """Main function of a worker process."""
    fix_users(plan.users)
    worker = Worker(plan, index)
    worker.control.ready[READY_WORKER + index] = 1
    worker.run()
