"""Writes what a turn of a worker releases into its result ring: events in every format, and findings.

    TurnBatch --views--> records of a render: header | keys | lines, columns or Arrow --> result ring --> publisher

A record has rows of one render, and of one topic where only some events are subscribed to. Rows that do not fit into
the ring as one record are divided until they do. If the ring is full, the journal gets how far the turn has been
written, and the worker waits.
"""

from __future__ import annotations

import select
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from headrace.config.outputs import FOR_PEOPLE
from headrace.config.policies.claims import mask_of
from headrace.pipeline.process.logs import logger
from headrace.pipeline.process.plan import ALL, Plan, is_lines
from headrace.pipeline.transport.results import RESULT, Buffer, key_bytes, try_write
from headrace.pipeline.transport.ring import Producer
from headrace.pipeline.transport.shm import Array, Journal
from headrace.workers.core import Core, TurnBatch
from headrace.workers.detect.engine.matches import Matches
from headrace.workers.hold import Hold
from headrace.workers.records.rows import Rows, empty_rows
from headrace.workers.target import Target
from headrace.workers.turn import Turn
from headrace.workers.views.choice import LINE_VIEWS, View, part_of, unsay
from headrace.workers.views.columns import ColumnsView
from headrace.workers.views.table import fitted

if TYPE_CHECKING:
    from headrace.workers.detect.detector import Detector
    from headrace.workers.detect.findings.lines import RenderedFindings

ROWS_PER_RECORD, FINDING_ROWS = 4096, 1024
COLUMN_ROWS_PER_RECORD, COLUMN_BYTES = 65536, 64
"""Maximum rows of columns in a record, and the approximate bytes of each in addition to its cells."""
FULL_WAIT_S = 0.0005


class Emitter:
    """The writing end of one worker. `interest`: which topics have subscribers, u8 by event id."""

    def __init__(
        self,
        plan: Plan,
        index: int,
        core: Core,
        results: Producer,
        journal: Journal,
        views: Sequence[View],
        holds: Mapping[int, Hold],
        turn: Turn,
        interest: Array,
    ) -> None:
        self._plan, self._index, self._core, self._results = plan, index, core, results
        self._journal, self._state = journal, journal.next[0]
        self._views, self._holds, self._turn, self._interest = views, holds, turn, interest
        self._renders = plan.renders
        self._masks = [np.uint64(mask_of(plan.claims, render.policies)) for render in plan.renders]
        """For each render, the mask of the policies whose rows it takes; 0: all rows."""
        self._hides = bool(plan.conditions or plan.only or plan.claims)
        """Columns carry whole cells: rows that a condition removed must not be carried along."""

    def emit(self, batch: TurnBatch, detector: Detector | None) -> None:
        """Write what a turn releases: events in every format, then findings."""
        for number, render in enumerate(self._renders):
            rows = batch.rows
            if mask := self._masks[number]:
                rows = rows.select(rows.policies & mask != 0)
            target = Target(number, render.format, skipped=len(batch.rows) - len(rows))
            if number in self._holds:
                self._emit_held(target, batch, rows)
            elif self._turn.was_done[number]:
                self._turn.skip(number)
            elif render.has_topics:
                self._emit_topics(target, batch, rows)
            else:
                self._emit_all(target, batch, rows)
            self._turn.done[number] = 1
        if not self._renders and len(batch.rows) and not self._turn.was_done[0]:
            self._write(self._header(batch, 0, len(batch.rows)), b"", [])
            self._turn.done[0] = 1
        if detector is not None:
            # where lines are merged, a turn without findings is reported, too
            self._emit_findings(detector, batch, batch.matches or Matches.none())
            detector.keep(batch.ripe, self._core.contexts)

    def _emit_findings(self, detector: Detector, batch: TurnBatch, matches: Matches) -> None:
        first = self._turn.leave_out(self._plan.finding_render, len(matches))
        if first and first == len(matches):
            return
        starts = range(first, len(matches), FINDING_ROWS) or (range(1) if self._plan.keyed else ())
        for start in starts:
            rendered = detector.render(batch.ripe, self._core.contexts, matches, slice(start, start + FINDING_ROWS))
            self._emit_finding_lines(batch, rendered, start + FINDING_ROWS >= len(matches))
        self._state["cut"] += np.uint64(detector.take_cut())

    def _emit_finding_lines(self, batch: TurnBatch, found: RenderedFindings, final: bool) -> None:
        header = self._header(batch, self._plan.finding_render, len(found), final=final)
        rows = batch.ripe
        tgid = self._core.contexts.table["tgid"][rows.who[found.row]].astype(np.uint64)
        tie = rows.cpu[found.row].astype(np.uint64) << np.uint64(32) | tgid
        keys = key_bytes(rows.time_ns[found.row], tie, found.ends) + found.marks.tobytes()
        size = RESULT.itemsize + len(keys) + len(found.data)
        if len(found) > 1 and not self._results.fits(size, held=len(self._renders) + 1):
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
        told = (self._plan.keyed and is_lines(name)) or target.skipped
        starts = range(first, len(rows), step) or (range(1) if told else ())
        for start in starts:
            part = part_of(name, rows, slice(start, start + step)) if len(rows) > step or first else rows
            self._emit_part(target, batch, part, start + step >= len(rows) and not target.held)

    def _emit_held(self, target: Target, batch: TurnBatch, rows: Rows) -> None:
        """Emit for an output that waits for names: first the held rows that leave, then the rows that need not wait.

        With held rows, the journal does not say which rows of an interrupted turn a predecessor wrote. The remaining
        rows of that turn are counted as lost.
        """
        number, hold, already = target.number, self._holds[target.number], self._turn.already(target.number)
        if already or self._turn.was_done[number]:
            self._state["held_lost"][number] += np.uint64(len(rows) - already)
            self._turn.leave_out(number, already)
            if not self._turn.was_done[number] and self._plan.keyed:
                self._write(self._header(batch, number, 0), b"", [])
            return
        left, rows = hold.take(rows, self._core.contexts, batch.watermark_ns)
        self._emit_after(target, batch, left, rows)

    def _emit_after(self, target: Target, batch: TurnBatch, left: Rows, rows: Rows) -> None:
        """Emit the held rows, then the others."""
        if len(left):
            self._emit_all(target._replace(held=True), batch, left)
        self._emit_all(target, batch, rows)
        self._state["gave_up"] += np.uint64(self._holds[target.number].take_gave_up())

    def let_go(self) -> None:
        """At the end: emit all held rows."""
        for number, hold in self._holds.items():
            batch, left = TurnBatch(empty_rows(), self._core.watermark_ns + 1), hold.end(self._core.contexts)
            self._emit_after(Target(number, self._renders[number].format), batch, left, batch.rows)

    def give_up_held(self) -> None:
        """Count the rows that a predecessor held back as lost."""
        self._state["held_lost"] += self._state["held"]
        self._state["held"] = 0

    def _column_rows(self, rows: Rows) -> int:
        """Estimated number of rows of columns in a record that fits in the ring."""
        cells = len(rows.data) // max(len(rows), 1) if rows.blobs.any() else 0
        return max(1, min(COLUMN_ROWS_PER_RECORD, self._results.capacity // 4 // (COLUMN_BYTES + cells)))

    def _emit_part(self, target: Target, batch: TurnBatch, rows: Rows, final: bool) -> None:
        number, name = target.number, target.name
        if name == "columns" and self._hides:
            rows = rows.compact()
        view, ends = self._views[number], None
        if isinstance(view, LINE_VIEWS):
            lines, ends = view.render(rows, self._core.contexts)
            if name in FOR_PEOPLE and self._plan.columns:
                lines, ends = fitted(lines, ends, self._plan.columns)
            payload: list[Buffer] = [lines]
        elif not len(rows):
            payload = []
        elif isinstance(view, ColumnsView):
            payload = view.render(rows, self._core.contexts)
        else:
            payload = view.render(rows, self._core.contexts, whole=self._renders[number].has_topics)
        header = self._header(batch, number, len(rows), target.topic, final)
        header["covered"], keys = len(rows) if target.counted else 0, b""
        header["skipped"] = target.skipped if final else 0
        if self._plan.keyed and ends is not None and len(rows):
            tgid = self._core.contexts.table["tgid"][rows.who].astype(np.uint64)
            keys = key_bytes(rows.time_ns, rows.cpu.astype(np.uint64) << np.uint64(32) | tgid, ends)
        # the publisher may hold one record of each render until it has seen another (pipeline/publish/merge.py)
        size = RESULT.itemsize + len(keys) + sum(map(len, payload))
        if len(rows) > 1 and not self._results.fits(size, held=len(self._renders) + self._plan.detects):
            unsay(view)
            for half, last in (slice(len(rows) // 2), False), (slice(len(rows) // 2, None), final):
                self._emit_part(target, batch, part_of(name, rows, half), last)
        elif len(rows) == 1 and not self._results.fits(size, held=0):
            self._give_up_row(header, number, target.held)
        elif target.held:
            self._write(header, keys, payload)
            self._state["held"][number] -= np.uint64(len(rows))
        else:
            self._write(header, keys, payload, len(rows))

    def _give_up_row(self, header: Array, number: int, held: bool) -> None:
        """Drop a row that does not fit even in an empty ring. It counts as dropped for each sink that would receive
        it.
        """
        header["rows"] = header["covered"] = 0
        self._write(header, b"", [], rows=not held)
        self._state["held_lost"][number] += np.uint64(1)
        self._state["held"][number] -= np.uint64(held)
        logger(f"worker-{self._index}").error("worker.row_too_large", render=self._renders[number].format)

    def _emit_topics(self, target: Target, batch: TurnBatch, rows: Rows) -> None:
        """Emit for a ZeroMQ sink. Only events with subscribers are rendered."""
        interest = self._interest
        if not len(rows) and not target.skipped:
            return
        present = np.flatnonzero(np.bincount(rows.event, minlength=ALL)[:ALL])
        wanted = [int(e) for e in present if interest[e]]
        everything = bool(interest[ALL])
        covered = 0
        for event in wanted:
            chosen = rows.select(rows.event == event).compact()
            covered += len(chosen)
            # a subscriber to all topics has these rows counted there
            self._emit_all(target._replace(topic=event, counted=not everything, skipped=0), batch, chosen)
        if everything:
            self._emit_all(target, batch, rows)
        else:
            header = self._header(batch, target.number, len(rows))
            header["covered"], header["skipped"] = covered, target.skipped
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
        while not try_write(self._results, header, keys, payload):
            self._turn.write_progress(self._state)
            self._state["result_head"] = self._results.write_position
            self._journal.commit()
            self._results.publish()
            self._plan.publisher_bell.ring()
            select.select([], [], [], FULL_WAIT_S)
        self._turn.written[int(header["render"][0])] += np.uint64(rows)
