"""Holds back events of containers whose name is not known yet, for outputs that request names (`enriched=MS`).

All events of a container wait together and leave together, in order. They leave when the runtime has answered in any
way, when the request is MS milliseconds old, or when too many events wait. Workers compare these times with the
watermark and therefore agree: an answer counts from the first turn whose watermark reaches it. Later answers change
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from headrace.bpf.layout import CELL_BYTES
from headrace.bpf.tables.catalogue import Event, catalogue
from headrace.config.runtimes import RuntimeAnswer
from headrace.workers.decode.texts import Texts
from headrace.workers.enrich.containers import Describe
from headrace.workers.records.blobs import argument_counts, blobs
from headrace.workers.records.rows import Contexts, Rows, concatenate, empty_rows
from headrace.workers.views.named import Named, unasked

Array = np.ndarray[Any, Any]
MAX_ROWS, MAX_BYTES = 65_536, 64 << 20
MAX_PARTS = 16
MAX_GIVEN_UP = 4096
PENDING = "pending"
CONTAINER_EVENT = "existing_container"
"""An event that headrace itself generates about a container. It waits for the name of that container."""


class HoldVerdict(NamedTuple):
    """State of a container: whether its events must wait, and whether its runtime has not answered."""

    waits: bool
    nameless: bool


@dataclass
class HeldPart:
    """Rows with `data` of their own, and their contexts: `rows.who` is `who[which]`."""

    rows: Rows
    who: Array
    which: Array
    raws: Sequence[bytes]
    """The encoded contexts of `who`."""

    @classmethod
    def of(cls, rows: Rows, contexts: Contexts) -> HeldPart:
        """A copy of `rows`."""
        who, which = np.unique(rows.who, return_inverse=True)
        return cls(rows.compact(), who, which, [contexts.entry(one) for one in who.tolist()])

    def follow(self, contexts: Contexts) -> None:
        """Update `who` after the table of contexts was cleared."""
        self.who = np.array(contexts.intern_all(self.raws), np.uint32)
        self.rows.who = self.who[self.which]

    @property
    def bytes(self) -> int:
        """Approximate size of the rows."""
        return int(self.rows.cells.sum(dtype=np.int64)) * CELL_BYTES


class Hold:
    """Held rows of one output format of one worker."""

    def __init__(self, within_ms: int, describe: Describe, most: int = MAX_ROWS, named: Named = unasked) -> None:
        """`describe` returns the answer for the container of a context, `named` for an id and a runtime (texts)."""
        self._within_ns, self._describe, self._most = within_ms * 10**6, describe, most
        self._container_events = _ContainerEvents(catalogue().by_name[CONTAINER_EVENT], named)
        self._parts: list[HeldPart] = []
        self._generation = 0
        self._given_up: set[bytes] = set()
        self._unheard: dict[bytes, int] = {}
        """Containers that the enricher does not know of yet, with the watermark at which each was first seen."""
        self._gave_up = 0
        self._now_ns = 0
        self._verdicts: dict[bytes, HoldVerdict] = {}
        """Verdicts of the current turn by container."""

    def __len__(self) -> int:
        return sum(len(part.rows) for part in self._parts)

    def take_gave_up(self) -> int:
        """Returns the number of rows that left without an answer since the last call."""
        count, self._gave_up = self._gave_up, 0
        return count

    def take(self, rows: Rows, contexts: Contexts, now_ns: int) -> tuple[Rows, Rows]:
        """(held rows that leave now, those of `rows` that may leave at once). `now_ns`: the watermark."""
        self._begin(contexts, now_ns)
        waits = self._mask_of(rows, contexts, "waits")
        fresh = [HeldPart.of(rows.select(waits), contexts)] if waits.any() else []
        held_bytes = sum(part.bytes for part in (*self._parts, *fresh))
        if len(self) + int(waits.sum()) > self._most or held_bytes > MAX_BYTES:
            self._give_up([*self._parts, *fresh], contexts)
            waits, fresh = np.zeros(len(rows), bool), []
        left, stay = [], []
        for part in self._parts:
            stays = self._mask(part.rows, part.who, part.which, contexts, "waits")
            if stays.all():
                stay.append(part)
                continue
            left.append(part.rows.select(~stays))
            if stays.any():
                stay.append(HeldPart.of(part.rows.select(stays), contexts))
        stay += fresh
        if len(stay) > MAX_PARTS:
            stay = [HeldPart.of(concatenate([part.rows for part in stay]), contexts)]
        self._parts = stay
        return self._leaves(left, contexts), self._leaves([rows.select(~waits) if waits.any() else rows], contexts)

    def end(self, contexts: Contexts) -> Rows:
        """All held rows. There will be no more answers."""
        self._begin(contexts, self._now_ns)
        left, self._parts = [part.rows for part in self._parts], []
        return self._leaves(left, contexts)

    def _begin(self, contexts: Contexts, now_ns: int) -> None:
        self._now_ns = now_ns
        self._verdicts.clear()
        if self._generation != contexts.generation:
            self._generation = contexts.generation
            for part in self._parts:
                part.follow(contexts)

    def _give_up(self, parts: list[HeldPart], contexts: Contexts) -> None:
        """Stop waiting for every container that has rows in `parts`."""
        if len(self._given_up) > MAX_GIVEN_UP:
            self._given_up.clear()
        for part in parts:
            self._given_up |= {contexts.table[one]["container"].tobytes() for one in part.who.tolist()}
        self._verdicts.clear()

    def _leaves(self, parts: list[Rows], contexts: Contexts) -> Rows:
        """Merges rows that leave, sorts them by time, and counts those without an answer."""
        rows = concatenate(parts) if parts else empty_rows()
        self._gave_up += int(self._mask_of(rows, contexts, "nameless").sum())
        if (rows.time_ns[1:] < rows.time_ns[:-1]).any():
            # a late row comes after the other rows of its turn
            rows = rows.select(np.argsort(rows.time_ns, kind="stable"))
        return rows

    def _mask_of(self, rows: Rows, contexts: Contexts, of: str) -> Array:
        """One field of the verdict on each row."""
        who, which = np.unique(rows.who, return_inverse=True)
        return self._mask(rows, who, which, contexts, of)

    def _mask(self, rows: Rows, who: Array, which: Array, contexts: Contexts, of: str) -> Array:
        """Like _mask_of(), for known contexts: `rows.who` is `who[which]`."""
        found = np.array([getattr(self._verdict(contexts.table[one]), of) for one in who.tolist()], bool)[which]
        told = np.flatnonzero(rows.event == self._container_events.event.id)
        for row, name, answer in self._container_events.of(rows, told) if len(told) else ():
            found[row] = getattr(self._judge(answer, name), of)
        return found

    def _verdict(self, context: Any) -> HoldVerdict:
        container = context["container"].tobytes()
        found = self._verdicts.get(container)
        if found is None:
            answer = self._describe(context) if any(container) else None
            found = self._verdicts[container] = self._judge(answer, container)
        return found

    def _judge(self, answer: RuntimeAnswer | None, container: bytes) -> HoldVerdict:
        if answer is None:
            return HoldVerdict(False, False)
        nameless = answer.word == PENDING
        return HoldVerdict(container not in self._given_up and self._is_early(answer, nameless, container), nameless)

    def _is_early(self, answer: RuntimeAnswer, pending: bool, container: bytes) -> bool:
        if not pending:
            return answer.since_ns > self._now_ns
        if not answer.since_ns:
            # the enricher does not know of the container yet
            first_ns = self._unheard.setdefault(container, self._now_ns)
            if len(self._unheard) > MAX_GIVEN_UP:
                self._unheard.clear()
            return self._now_ns < first_ns + self._within_ns
        return self._now_ns < answer.since_ns + self._within_ns


class _ContainerEvents:
    """The containers that CONTAINER_EVENT events are about."""

    def __init__(self, event: Event, named: Named) -> None:
        self.event, self._named = event, named
        self._ids, self._runtimes = (Texts(event, event.index(name) or 0) for name in ("container_id", "runtime"))
        self._counts = argument_counts(catalogue())

    def of(self, rows: Rows, chosen: Array) -> list[tuple[int, bytes, RuntimeAnswer | None]]:
        """(row, id, answer) for each chosen row whose container id could be read."""
        found = blobs(rows, self._counts, chosen)
        ids, runtimes = (texts.known(rows, chosen, found) for texts in (self._ids, self._runtimes))
        told = zip(chosen.tolist(), ids, runtimes, strict=True)
        return [(row, name, self._named(name, runtime or b"")) for row, name, runtime in told if name]
