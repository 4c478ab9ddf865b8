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
import select
from typing import TYPE_CHECKING

import numpy as np

from headrace.bpf.tables.catalogue import LOSS, catalogue
from headrace.config.rules import RuleError
from headrace.pipeline.containers import enrichment
from headrace.pipeline.containers.hashes import HashClient
from headrace.pipeline.process.logs import logger
from headrace.pipeline.process.plan import (
    ALL,
    LINES,
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
from headrace.pipeline.transport.results import RESULT, Buffer, key_bytes, try_write
from headrace.pipeline.transport.shm import Array
from headrace.workers.attempts import Attempts
from headrace.workers.conditions.filters import Predicates
from headrace.workers.core import Core, TurnBatch
from headrace.workers.counters import count
from headrace.workers.detect.engine.matches import Matches
from headrace.workers.enrich.containers import nobody
from headrace.workers.enrich.executables import Executables
from headrace.workers.enrich.users import fix_users
from headrace.workers.hold import Hold
from headrace.workers.records.rows import Rows, empty_rows
from headrace.workers.target import Target
from headrace.workers.turn import Turn
from headrace.workers.views.choice import forget_who, part_of, unsay, view_of
from headrace.workers.views.columns import ColumnsView
from headrace.workers.views.named import unasked
from headrace.workers.views.pieces import Lines
from headrace.workers.views.style import HostFacts
from headrace.workers.views.table import fitted

if TYPE_CHECKING:
    from headrace.workers.current import Current
    from headrace.workers.detect.detector import Detector
    from headrace.workers.detect.findings.lines import RenderedFindings

ROWS_PER_RECORD, FINDING_ROWS = 4096, 1024
COLUMN_ROWS_PER_RECORD, COLUMN_BYTES = 65536, 64
"""Maximum rows of columns in a record, and the approximate bytes of each in addition to its cells."""
WAIT_MS, FULL_WAIT_S = 1000, 0.0005


class Worker:
    """State of one worker process."""

    def __init__(self, plan: Plan, index: int) -> None:
        self.plan, self.index = plan, index
        self.control, self.results = attach_control(plan), attach_producer(plan.results[index])
        self.journal = self.control.workers[index]
        self.state = self.journal.next[0]
        self._cpu = CpuClock(int(self.state["cpu_ns"]))
        conditions = plan.conditions or plan.only
        self._keep = Predicates(catalogue(), plan.conditions, plan.only) if conditions else None
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
        waits = self.renders if self._containers else []
        named = unasked if self._containers is None else self._containers.named
        self._holds = {n: Hold(ms, self._describe, named=named) for n, (_, _, ms) in enumerate(waits) if ms}
        about = plan, catalogue(), facts, self.core.tree, self._executables, self._describe, self._containers, named
        self.views = [view_of(name, *about, tells=not topics) for name, topics, _ in self.renders]
        self._hides = bool(plan.conditions or plan.only)
        """Columns carry whole cells: rows that a condition removed must not be carried along."""
        self._turn = Turn(self.state, [is_topic for _, is_topic, _ in self.renders], catalogue().by_name[LOSS].id)
        self._give_up_held()
        self._recover()

    def _signatures(self, facts: HostFacts) -> Current:
        """The signatures of the run. A turn that was begun is evaluated with the generation that it was begun with."""
        from headrace.workers.current import Current  # loaded on demand

        plan = self.plan
        generation = int(self.state["generation"]) or self.control.latest_rules
        shown = facts, (plan.secret, plan.hidden, plan.before_s, self._describe), self._report, boottime_ns
        try:
            found = Current(self.control, generation, self.index, self.core, catalogue(), *shown)
        except RuleError as error:  # at the start of a run: a restart would fail the same way
            self._report(str(error))
            raise SystemExit(os.EX_DATAERR) from error
        self.state["generation"] = found.generation
        return found

    def _look_by_latest(self) -> bool:
        """Load a new generation between turns. Returns whether there was one."""
        if self._current is None or (latest := self._current.latest) is None:
            return False
        try:
            self._current.look_by(latest)
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
                self._current.tell(at_once=True)
            self._let_go()
            self.state["ended"] = 1
            self._commit(self.intake.ended, self.intake.ended)
        return watermark_ns > 0

    def _advance(self, watermark_ns: int) -> None:
        self.state["turn_ns"], self.state["turn_end"] = watermark_ns, self.intake.position
        if not self._turn.begun:
            self._look_by_latest()
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
        if self._executables is not None:
            self._executables.prepare(batch.rows, self.core.contexts)
        self._emit(batch)
        self._count(batch)
        self._commit(self.intake.position, self.intake.ripe(watermark_ns))
        if self._current:
            self._current.tell()

    def _count(self, batch: TurnBatch) -> None:
        state = self.state
        count(state, batch, self.plan.cpus, catalogue().by_name[LOSS].id)
        state["evicted"] += np.uint64(self.core.tree.take_evicted())
        if self._keep is not None:
            state["unknown"] += np.uint64(self._keep.take_unknown())
        if batch.rejected_reasons:
            logger(f"worker-{self.index}").warning("worker.records_rejected", reasons=batch.rejected_reasons)

    def _emit(self, batch: TurnBatch) -> None:
        for number, (name, is_topic, _) in enumerate(self.renders):
            target = Target(number, name)
            if number in self._holds:
                self._emit_held(target, batch)
            elif self._turn.was_done[number]:
                self._turn.skip(number)
            elif is_topic:
                self._emit_topics(target, batch)
            else:
                self._emit_all(target, batch, batch.rows)
            self._turn.done[number] = 1
        if not self.renders and len(batch.rows) and not self._turn.was_done[0]:
            self._write(self._header(batch, 0, len(batch.rows)), b"", [])
            self._turn.done[0] = 1
        if self._current:
            # where lines are merged, a turn without findings is reported, too
            self._emit_findings(self._current.detector, batch, batch.matches or Matches.none())
            self._current.detector.keep(batch.ripe, self.core.contexts)

    def _emit_findings(self, detector: Detector, batch: TurnBatch, matches: Matches) -> None:
        first = self._turn.leave_out(self.plan.finding_render, len(matches))
        if first and first == len(matches):
            return
        starts = range(first, len(matches), FINDING_ROWS) or (range(1) if self.plan.keyed else ())
        for start in starts:
            rendered = detector.render(batch.ripe, self.core.contexts, matches, slice(start, start + FINDING_ROWS))
            self._emit_finding_lines(batch, rendered, start + FINDING_ROWS >= len(matches))
        self.state["cut"] += np.uint64(detector.take_cut())

    def _emit_finding_lines(self, batch: TurnBatch, found: RenderedFindings, final: bool) -> None:
        header = self._header(batch, self.plan.finding_render, len(found), final=final)
        rows = batch.ripe
        tgid = self.core.contexts.table["tgid"][rows.who[found.row]].astype(np.uint64)
        tie = rows.cpu[found.row].astype(np.uint64) << np.uint64(32) | tgid
        keys = key_bytes(rows.time_ns[found.row], tie, found.ends) + found.marks.tobytes()
        size = RESULT.itemsize + len(keys) + len(found.data)
        if len(found) > 1 and not self.results.fits(size, held=len(self.renders) + 1):
            first, second = found.halves()
            self._emit_finding_lines(batch, first, False)
            self._emit_finding_lines(batch, second, final)
            return
        self._write(header, keys, [found.data], len(found))

    def _emit_all(self, target: Target, batch: TurnBatch, rows: Rows) -> None:
        name = target.name
        first = 0 if target.held else self._turn.leave_out(target.number, len(rows))
        if first and first == len(rows):
            return
        step = self._column_rows(rows) if name == "columns" else ROWS_PER_RECORD
        starts = range(first, len(rows), step) or (range(1) if self.plan.keyed and name in LINES else ())
        for start in starts:
            part = part_of(name, rows, slice(start, start + step)) if len(rows) > step or first else rows
            self._emit_part(target, batch, part, start + step >= len(rows) and not target.held)

    def _emit_held(self, target: Target, batch: TurnBatch) -> None:
        """Emit for an output that waits for names: first the held rows that leave, then the rows that need not wait.

        With held rows, the journal does not say which rows of an interrupted turn a predecessor wrote. The remaining
        rows of that turn are counted as lost.
        """
        number, hold, already = target.number, self._holds[target.number], self._turn.already(target.number)
        if already or self._turn.was_done[number]:
            self.state["held_lost"][number] += np.uint64(len(batch.rows) - already)
            self._turn.leave_out(number, already)
            if not self._turn.was_done[number] and self.plan.keyed:
                self._write(self._header(batch, number, 0), b"", [])
            return
        left, rows = hold.take(batch.rows, self.core.contexts, batch.watermark_ns)
        self._emit_after(target, batch, left, rows)

    def _emit_after(self, target: Target, batch: TurnBatch, left: Rows, rows: Rows) -> None:
        """Emit the held rows, then the others."""
        if len(left):
            self._emit_all(target._replace(held=True), batch, left)
        self._emit_all(target, batch, rows)
        self.state["gave_up"] += np.uint64(self._holds[target.number].take_gave_up())

    def _let_go(self) -> None:
        """At the end: emit all held rows."""
        for number, hold in self._holds.items():
            batch, left = TurnBatch(empty_rows(), self.core.watermark_ns + 1), hold.end(self.core.contexts)
            self._emit_after(Target(number, self.renders[number][0]), batch, left, batch.rows)

    def _give_up_held(self) -> None:
        """Count the rows that a predecessor held back as lost."""
        self.state["held_lost"] += self.state["held"]
        self.state["held"] = 0

    def _column_rows(self, rows: Rows) -> int:
        """Estimated number of rows of columns in a record that fits in the ring."""
        cells = len(rows.data) // max(len(rows), 1) if rows.blobs.any() else 0
        return max(1, min(COLUMN_ROWS_PER_RECORD, self.results.capacity // 4 // (COLUMN_BYTES + cells)))

    def _emit_part(self, target: Target, batch: TurnBatch, rows: Rows, final: bool) -> None:
        number, name = target.number, target.name
        if name == "columns" and self._hides:
            rows = rows.compact()
        view, ends = self.views[number], None
        if isinstance(view, Lines):
            lines, ends = view.render(rows, self.core.contexts)
            if name == "table" and self.plan.columns:
                lines, ends = fitted(lines, ends, self.plan.columns)
            payload: list[Buffer] = [lines]
        elif not len(rows):
            payload = []
        elif isinstance(view, ColumnsView):
            payload = view.render(rows, self.core.contexts)
        else:
            payload = view.render(rows, self.core.contexts, whole=self.renders[number][1])
        header = self._header(batch, number, len(rows), target.topic, final)
        header["covered"], keys = len(rows) if target.counted else 0, b""
        if self.plan.keyed and ends is not None and len(rows):
            tgid = self.core.contexts.table["tgid"][rows.who].astype(np.uint64)
            keys = key_bytes(rows.time_ns, rows.cpu.astype(np.uint64) << np.uint64(32) | tgid, ends)
        # the publisher may hold one record of each render until it has seen another (pipeline/publish/merge.py)
        size = RESULT.itemsize + len(keys) + sum(map(len, payload))
        if len(rows) > 1 and not self.results.fits(size, held=len(self.renders) + self.plan.detects):
            unsay(view)
            for half, last in (slice(len(rows) // 2), False), (slice(len(rows) // 2, None), final):
                self._emit_part(target, batch, part_of(name, rows, half), last)
        elif len(rows) == 1 and not self.results.fits(size, held=0):
            self._give_up_row(header, number, target.held)
        elif target.held:
            self._write(header, keys, payload)
            self.state["held"][number] -= np.uint64(len(rows))
        else:
            self._write(header, keys, payload, len(rows))

    def _give_up_row(self, header: Array, number: int, held: bool) -> None:
        """Drop a row that does not fit even in an empty ring. It counts as dropped for each sink that would receive
        it.
        """
        header["rows"] = header["covered"] = 0
        self._write(header, b"", [], rows=not held)
        self.state["held_lost"][number] += np.uint64(1)
        self.state["held"][number] -= np.uint64(held)
        logger(f"worker-{self.index}").error("worker.row_too_large", render=self.renders[number][0])

    def _emit_topics(self, target: Target, batch: TurnBatch) -> None:
        """Emit for a ZeroMQ sink. Only events with subscribers are rendered."""
        interest = self.control.interest
        rows = batch.rows
        if not len(rows):
            return
        present = np.flatnonzero(np.bincount(rows.event, minlength=ALL)[:ALL])
        wanted = [int(e) for e in present if interest[e]]
        everything = bool(interest[ALL])
        covered = 0
        for event in wanted:
            chosen = rows.select(rows.event == event).compact()
            covered += len(chosen)
            # a subscriber to all topics has these rows counted there
            self._emit_all(target._replace(topic=event, counted=not everything), batch, chosen)
        if everything:
            self._emit_all(target, batch, rows)
        else:
            header = self._header(batch, target.number, len(rows))
            header["covered"] = covered
            self._write(header, b"", [])

    def _header(self, batch: TurnBatch, number: int, rows: int, topic: int = ALL, final: bool = True) -> Array:
        header = np.zeros(1, RESULT)
        header["watermark_ns"], header["rows"], header["render"] = batch.watermark_ns, rows, number
        header["topic"], header["final"] = topic, final
        return header

    def _write(self, header: Array, keys: bytes, payload: list[Buffer], rows: int = 0) -> None:
        """Write a record with `rows` rows of the turn to the result ring. Waits while the ring is full, which is where
        a slow sink stops the worker. Before each wait, the records written so far are committed and published.
        """
        while not try_write(self.results, header, keys, payload):
            self._turn.tell(self.state)
            self.state["result_head"] = self.results.write_position
            self.journal.commit()
            self.results.publish()
            self.plan.publisher_bell.ring()
            select.select([], [], [], FULL_WAIT_S)
        self._turn.written[int(header["render"][0])] += np.uint64(rows)

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
                if self._look_by_latest():
                    self.journal.commit()
                self.plan.bells[self.index].wait(WAIT_MS)


def run(plan: Plan, index: int) -> None:
    """Main function of a worker process."""
    fix_users(plan.users)
    worker = Worker(plan, index)
    worker.control.ready[READY_WORKER + index] = 1
    worker.run()
