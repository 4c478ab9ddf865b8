"""The worker's core: takes frames, returns batches of rows. Pure: no I/O and no clock.

Lifecycle records of all shards enter the process tree before any row of their turn is released. Lifecycle records
that no output requested (frames of facts) are used only there.

Order. Rows are held until the watermark has passed them. The watermark is the reader's promise that nothing older
will arrive (pipeline/transport/watermark.py). Released rows are sorted by (time, CPU, thread group). A row that
arrives below a passed watermark is released with the next batch and marked `late`.

    feed(frame)...   ->  pending
    advance(W)       ->  TurnBatch of all pending rows with time <= W, and the late ones
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.bpf.layout import EVENTS, FRAME, FRAME_CELLS, STREAM_FACTS
from headrace.bpf.tables.catalogue import Catalogue
from headrace.workers.detect.engine.matches import Matches
from headrace.workers.enrich.tree import ProcessTree
from headrace.workers.records.blobs import argument_cells
from headrace.workers.records.pieces import Pieces, is_piece
from headrace.workers.records.rows import Contexts, Decoded, Rows, concatenate, empty_rows, read_frames

Array = np.ndarray[Any, Any]
STREAM_AT = FRAME.fields["stream"][1] if FRAME.fields else 0
"""Offset of the byte in a frame that holds its stream."""
END_OF_TIME = 2**63 - 1
ENDED_WORKER = "ended a worker"
"""Rejection reason of rows that were given up."""
Predicate = Callable[[Rows, Contexts], Array]
"""Maps rows and contexts to the mask of rows to keep."""
Detect = Callable[[Rows, Contexts, ProcessTree], Matches]
"""Maps rows, contexts and the process tree to the matches of signatures."""


@dataclass
class TurnBatch:
    """The rows that a turn releases, and the counts that balance the worker's part of the accounting."""

    rows: Rows
    """Rows that satisfy the conditions."""
    watermark_ns: int
    rejected: int = 0
    filtered_events: Array | None = None
    """Events that a condition removed, per event id; None if there are none."""
    observed: int = 0
    rejected_reasons: dict[str, int] = field(default_factory=dict)
    matches: Matches | None = None
    """Matches of signatures, as positions in `ripe`."""
    ripe: Rows = field(default_factory=empty_rows)
    """All rows before conditions. Signatures evaluate these."""
    facts: int = 0
    """Lifecycle records that the tree took from frames of facts."""
    given_up: int = 0
    """Rejected rows that had killed a worker (workers/attempts.py)."""


class Core:
    """State of one worker: pending rows, known contexts, the process tree."""

    def __init__(
        self,
        catalogue: Catalogue,
        worker: int,
        workers: int,
        keep: Predicate | None = None,
        detect: Detect | None = None,
        shared: Sequence[int] = (),
    ) -> None:
        """`shared`: ids of events that `detect` receives from all workers' thread groups."""
        self.worker, self.workers = worker, workers
        self.contexts = Contexts()
        self.watermark_ns = 0
        self.tree = ProcessTree(catalogue)
        self._frames: list[Array] = []
        self._facts: list[Array] = []
        self._pieces = Pieces(lambda event: int(self._least_cells[event]))
        self._pending: Rows | None = None
        self._keep = keep
        self._detect: Detect | None = None
        self._shared: Array | None = None
        if detect is not None:
            self.look(detect, shared)
        # minimum cells of a record per event; for unknown events, more than a frame can hold
        self._least_cells = np.full(1 << 16, FRAME_CELLS + 1, np.uint16)
        for event in catalogue.by_id.values():
            self._least_cells[event.id] = argument_cells(event.cells)
        self._owned = np.zeros(0, bool)
        self._generation = 0
        self._next = TurnBatch(empty_rows(), 0)
        """Counts for the next batch."""

    def look(self, detect: Detect, shared: Sequence[int]) -> None:
        """Set the function that detects from now on, and its shared events."""
        self._detect = detect
        self._shared = np.isin(np.arange(1 << 16), list(shared)) if shared else None

    def feed(self, frame: Array) -> None:
        """Take a whole frame. The view must stay valid until the next take_in() or advance()."""
        if is_piece(frame):
            self._pieces.add(frame)
            return
        is_fact = len(frame) > STREAM_AT and frame[STREAM_AT] == STREAM_FACTS
        (self._facts if is_fact else self._frames).append(frame)

    @property
    def holds_rows(self) -> bool:
        """Whether rows wait for a later watermark."""
        return self._pending is not None

    def take_in(self) -> None:
        """Decode and copy the frames that were fed. advance() calls this first."""
        if not self._frames and not self._facts:
            return
        self._shrink()
        decoded, facts = self._decode()
        batch = self._next
        batch.rejected, batch.facts = batch.rejected + decoded.rejected, batch.facts + facts
        batch.rejected_reasons |= decoded.reasons
        fresh = self._own(decoded.rows, batch)
        if len(fresh) and int(fresh.time_ns.min()) <= self.watermark_ns:
            fresh.late = fresh.time_ns <= np.uint64(self.watermark_ns)
        parts = [part for part in (self._pending, fresh) if part is not None and len(part)]
        self._pending = self._ordered(concatenate(parts)) if parts else None

    def time_of(self, rows: int) -> int:
        """Time of the last of the next `rows` pending rows; END_OF_TIME if no rows are pending."""
        waiting = self._pending
        return int(waiting.time_ns[:rows][-1]) if waiting is not None and len(waiting) else END_OF_TIME

    def give_up(self, until_ns: int) -> None:
        """Remove the pending rows up to `until_ns`, which have killed a worker. The next batch counts them as
        rejected.
        """
        if self._pending is None:
            return
        gone = int(np.searchsorted(self._pending.time_ns, np.uint64(until_ns), "right"))
        own = gone - int(np.count_nonzero(self._pending.select(slice(0, gone)).foreign))
        self._pending = self._pending.select(slice(gone, None)).compact() if gone < len(self._pending) else None
        batch = self._next
        batch.rejected, batch.given_up = batch.rejected + own, batch.given_up + own
        batch.rejected_reasons[ENDED_WORKER] = batch.rejected_reasons.get(ENDED_WORKER, 0) + own

    def advance(self, watermark_ns: int) -> TurnBatch:
        """Release all rows up to `watermark_ns`."""
        self.take_in()
        self._pieces.turn()
        batch, self._next = self._next, TurnBatch(empty_rows(), 0)
        batch.watermark_ns, rows = watermark_ns, self._pending
        self._pending = None
        self.watermark_ns = max(self.watermark_ns, watermark_ns)
        if rows is None:
            return batch
        ripe = int(np.searchsorted(rows.time_ns, np.uint64(watermark_ns), "right"))
        if ripe < len(rows):
            self._pending = rows.select(slice(ripe, None)).compact()
            rows = rows.select(slice(0, ripe))
        batch.ripe = rows
        if self._detect is not None:
            batch.matches = self._detect(rows, self.contexts, self.tree)
            if self._shared is not None and rows.foreign.any():
                rows = rows.select(~rows.foreign)
        if self._keep is not None and len(rows):
            stays = self._keep(rows, self.contexts)
            if not stays.all():
                batch.filtered_events = np.bincount(rows.event[~stays], minlength=EVENTS)
                rows = rows.select(stays)
        batch.rows = rows
        return batch

    def _decode(self) -> tuple[Decoded, int]:
        """Rows of all fed frames, and the number of facts. Updates the process tree."""
        told = read_frames(self._pieces.joined(self._facts), self.contexts).rows
        decoded = read_frames(self._pieces.joined(self._frames), self.contexts, self._owns_shard)
        facts, asked = self._lifecycle(told), self._lifecycle(decoded.rows)
        if len(facts) or len(asked):
            self.tree.apply(concatenate([facts, asked]), self.contexts)
        self._frames, self._facts = [], []
        return decoded, len(facts)

    def _lifecycle(self, rows: Rows) -> Rows:
        """Lifecycle records that have all their arguments."""
        chosen = self.tree.lifecycle(rows)
        if not len(chosen):
            return empty_rows()
        rows = rows.select(chosen)
        return rows.select(rows.cells >= self._least_cells[rows.event]).compact()

    def _owns_shard(self, shard: int) -> bool:
        return shard % self.workers == self.worker

    def _shrink(self) -> None:
        """Clear a full table of contexts and re-add those of the pending rows."""
        if not self.contexts.full:
            return
        held = self._pending
        raw = [] if held is None else [self.contexts.entry(w) for w in held.who.tolist()]
        self.contexts.clear()
        if held is not None:
            held.who = np.array(self.contexts.intern_all(raw), np.uint32)

    def recover(self, watermark_ns: int) -> None:
        """After a restart: rows of the fed frames above the committed watermark become pending."""
        decoded, _ = self._decode()
        self.watermark_ns = watermark_ns
        rows = self._own(decoded.rows, TurnBatch(decoded.rows, watermark_ns))
        rows = rows.select(rows.time_ns > np.uint64(watermark_ns))
        self._pending = self._ordered(rows).compact() if len(rows) else None

    def _own(self, rows: Rows, batch: TurnBatch) -> Rows:
        """The rows of known events that this worker owns, or that are shared with `detect`."""
        if not len(rows):
            return rows
        table = self.contexts.table
        if self._generation != self.contexts.generation:
            self._generation, self._owned = self.contexts.generation, np.zeros(0, bool)
        if len(self._owned) < len(table):
            self._owned = table["tgid"] % np.uint32(self.workers) == self.worker
        known = rows.cells >= self._least_cells[rows.event]
        if self._owned.all() and known.all():
            return rows
        owned = self._owned[rows.who]
        if owned.all() and known.all():
            return rows
        batch.observed = len(rows) - int(owned.sum())
        if self._shared is not None:
            rows.foreign = ~owned & self._shared[rows.event]
            owned = owned | rows.foreign
        unknown = int((owned & ~known).sum())
        if unknown:
            batch.rejected += unknown
            batch.rejected_reasons["event"] = batch.rejected_reasons.get("event", 0) + unknown
        return rows.select(owned & known)

    def _ordered(self, rows: Rows) -> Rows:
        time = rows.time_ns
        if len(time) < 2:
            return rows
        later = time[1:] > time[:-1]
        if later.all():
            return rows
        tgid = self.contexts.table["tgid"][rows.who]
        return rows.select(np.lexsort((tgid, rows.cpu, time)))
