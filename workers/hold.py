"""Events of containers that have no name yet, held back for outputs that want it (`enriched=MS`).

All events of a container wait together and leave together, in order: when its runtime has answered, whatever that is;
when that has been asked for as long as they may wait; or when more wait than may. Workers agree on when that is, since
the watermark tells: an answer is there from the first turn that ends after it was given. Later answers change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from headrace.bpf.layout import CELL_BYTES
from headrace.bpf.tables.catalogue import Event, catalogue
from headrace.config.runtimes import Answer
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
TELLS = "existing_container"
"""An event of headrace itself, which is about a container: it waits for that one's name."""


class Verdict(NamedTuple):
    """Of a container: whether its events must wait, and whether nothing is known of it."""

    waits: bool
    nameless: bool


@dataclass
class Part:
    """Rows on `data` of their own, with what their contexts were: `rows.who` is `who[which]`."""

    rows: Rows
    who: Array
    which: Array
    raws: Sequence[bytes]
    """The contexts of `who`."""

    @classmethod
    def of(cls, rows: Rows, contexts: Contexts) -> Part:
        """A copy of these rows."""
        who, which = np.unique(rows.who, return_inverse=True)
        return cls(rows.compact(), who, which, [contexts.table[one].tobytes() for one in who.tolist()])

    def follow(self, contexts: Contexts) -> None:
        """The table of contexts was begun anew."""
        self.who = np.array(contexts.intern_all(self.raws), np.uint32)
        self.rows.who = self.who[self.which]

    @property
    def bytes(self) -> int:
        """What the rows take, about."""
        return int(self.rows.cells.sum(dtype=np.int64)) * CELL_BYTES


class Hold:
    """Of one output format of one worker."""

    def __init__(self, within_ms: int, describe: Describe, most: int = MAX_ROWS, named: Named = unasked) -> None:
        """`describe` has an answer for every container, `named` by the texts of id and runtime."""
        self._within_ns, self._describe, self._most = within_ms * 10**6, describe, most
        self._tells = _Told(catalogue().by_name[TELLS], named)
        self._parts: list[Part] = []
        self._generation = 0
        self._given_up: set[bytes] = set()
        self._unheard: dict[bytes, int] = {}
        """Since which watermark."""
        self._gave_up = 0
        self._now_ns = 0
        self._verdicts: dict[bytes, Verdict] = {}
        """Of this turn."""

    def __len__(self) -> int:
        return sum(len(part.rows) for part in self._parts)

    def take_gave_up(self) -> int:
        """Rows that have left without an answer, since it was last asked for."""
        count, self._gave_up = self._gave_up, 0
        return count

    def take(self, rows: Rows, contexts: Contexts, now_ns: int) -> tuple[Rows, Rows]:
        """(rows that were held back and leave now, those of `rows` that may leave at once). `now_ns`: the watermark."""
        self._begin(contexts, now_ns)
        waits = self._mask_of(rows, contexts, "waits")
        fresh = [Part.of(rows.select(waits), contexts)] if waits.any() else []
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
                stay.append(Part.of(part.rows.select(stays), contexts))
        stay += fresh
        if len(stay) > MAX_PARTS:
            stay = [Part.of(concatenate([part.rows for part in stay]), contexts)]
        self._parts = stay
        return self._leaves(left, contexts), self._leaves([rows.select(~waits) if waits.any() else rows], contexts)

    def end(self, contexts: Contexts) -> Rows:
        """All that is held back: there will be no more answers."""
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

    def _give_up(self, parts: list[Part], contexts: Contexts) -> None:
        """Nothing waits any more of all that does."""
        if len(self._given_up) > MAX_GIVEN_UP:
            self._given_up.clear()
        for part in parts:
            self._given_up |= {contexts.table[one]["container"].tobytes() for one in part.who.tolist()}
        self._verdicts.clear()

    def _leaves(self, parts: list[Rows], contexts: Contexts) -> Rows:
        """Rows that leave, in order, with those counted that have no name."""
        rows = concatenate(parts) if parts else empty_rows()
        self._gave_up += int(self._mask_of(rows, contexts, "nameless").sum())
        if (rows.time_ns[1:] < rows.time_ns[:-1]).any():
            # one that came late stands behind those of its turn
            rows = rows.select(np.argsort(rows.time_ns, kind="stable"))
        return rows

    def _mask_of(self, rows: Rows, contexts: Contexts, of: str) -> Array:
        """One side of the verdict on each row."""
        who, which = np.unique(rows.who, return_inverse=True)
        return self._mask(rows, who, which, contexts, of)

    def _mask(self, rows: Rows, who: Array, which: Array, contexts: Contexts, of: str) -> Array:
        """The same, where it is known which contexts the rows have: `rows.who` is `who[which]`."""
        found = np.array([getattr(self._verdict(contexts.table[one]), of) for one in who.tolist()], bool)[which]
        told = np.flatnonzero(rows.event == self._tells.event.id)
        for row, name, answer in self._tells.of(rows, told) if len(told) else ():
            found[row] = getattr(self._judge(answer, name), of)
        return found

    def _verdict(self, context: Any) -> Verdict:
        container = context["container"].tobytes()
        found = self._verdicts.get(container)
        if found is None:
            answer = self._describe(context) if any(container) else None
            found = self._verdicts[container] = self._judge(answer, container)
        return found

    def _judge(self, answer: Answer | None, container: bytes) -> Verdict:
        if answer is None:
            return Verdict(False, False)
        nameless = answer.word == PENDING
        return Verdict(container not in self._given_up and self._is_early(answer, nameless, container), nameless)

    def _is_early(self, answer: Answer, pending: bool, container: bytes) -> bool:
        if not pending:
            return answer.since_ns > self._now_ns
        if not answer.since_ns:
            # the enricher has not even heard of it
            first_ns = self._unheard.setdefault(container, self._now_ns)
            if len(self._unheard) > MAX_GIVEN_UP:
                self._unheard.clear()
            return self._now_ns < first_ns + self._within_ns
        return self._now_ns < answer.since_ns + self._within_ns


class _Told:
    """The containers that events are about."""

    def __init__(self, event: Event, named: Named) -> None:
        self.event, self._named = event, named
        self._ids, self._runtimes = (Texts(event, event.index(name) or 0) for name in ("container_id", "runtime"))
        self._counts = argument_counts(catalogue())

    def of(self, rows: Rows, chosen: Array) -> list[tuple[int, bytes, Answer | None]]:
        """(row, id, answer) of the chosen rows whose id was read."""
        found = blobs(rows, self._counts, chosen)
        ids, runtimes = (texts.known(rows, chosen, found) for texts in (self._ids, self._runtimes))
        told = zip(chosen.tolist(), ids, runtimes, strict=True)
        return [(row, name, self._named(name, runtime or b"")) for row, name, runtime in told if name]
