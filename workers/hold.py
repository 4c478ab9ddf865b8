"""Events of containers that have no name yet, held back for outputs that want it (`enriched=MS`).

All events of a container wait together and leave together, in order: when its runtime has answered, whatever that is;
when that has been asked for as long as they may wait; or when more wait than may. Workers agree on when that is, since
the watermark tells: an answer is there from the first turn that ends after it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from config.runtimes import Answer
from workers.enrich.containers import Describe
from workers.rows import Contexts, Rows, concatenate, empty_rows

Array = np.ndarray[Any, Any]
MOST_ROWS = 65_536
MOST_GIVEN_UP = 4096
PENDING = "pending"


class Hold:
    """Of one output format of one worker."""

    def __init__(self, within_ms: int, describe: Describe, most: int = MOST_ROWS) -> None:
        self._within_ns, self._describe, self._most = within_ms * 10**6, describe, most
        self._held = empty_rows()
        self._contexts: dict[int, bytes] = {}
        """Of held rows, by number."""
        self._generation = 0
        self._given_up: set[bytes] = set()
        self._unheard: dict[bytes, int] = {}
        """Since which watermark."""
        self._gave_up = 0
        self._now_ns = 0

    def __len__(self) -> int:
        return len(self._held)

    def take_gave_up(self) -> int:
        """Rows that have waited in vain, since it was last asked for."""
        count, self._gave_up = self._gave_up, 0
        return count

    def take(self, rows: Rows, contexts: Contexts, now_ns: int) -> tuple[Rows, Rows]:
        """(rows that were held back and leave now, those of `rows` that may leave at once). `now_ns`: the watermark."""
        self._follow(contexts)
        self._now_ns = now_ns
        waits, stays = self._waits(rows, contexts), self._waits(self._held, contexts)
        if int(waits.sum()) + int(stays.sum()) > self._most:
            if len(self._given_up) > MOST_GIVEN_UP:
                self._given_up.clear()
            who = np.unique(np.concatenate([self._held.who[stays], rows.who[waits]]))
            self._given_up |= {contexts.table[one]["container"].tobytes() for one in who.tolist()}
            waits, stays = np.zeros(len(rows), bool), np.zeros(len(self._held), bool)
        left = self._held.select(~stays)
        self._gave_up += int(self._nameless(left, contexts).sum())
        if not stays.all() or waits.any():
            kept = concatenate([self._held.select(stays), rows.select(waits)]).compact()
            self._held = kept
            self._contexts = {who: contexts.table[who].tobytes() for who in np.unique(kept.who).tolist()}
        return left, rows.select(~waits) if waits.any() else rows

    def end(self, contexts: Contexts) -> Rows:
        """All that is held back: there will be no more answers."""
        self._follow(contexts)
        left, self._held = self._held, empty_rows()
        self._gave_up += int(self._nameless(left, contexts).sum())
        return left

    def _waits(self, rows: Rows, contexts: Contexts) -> Array:
        """Mask of rows that must wait."""
        return self._each(rows, contexts, self._is_waiting)

    def _nameless(self, rows: Rows, contexts: Contexts) -> Array:
        """Mask of rows of containers that nothing is known of yet."""
        return self._each(rows, contexts, lambda context: self._answer(context).word == PENDING)

    @staticmethod
    def _each(rows: Rows, contexts: Contexts, of: Callable[[Any], bool]) -> Array:
        who, which = np.unique(rows.who, return_inverse=True)
        return np.array([of(contexts.table[one]) for one in who.tolist()], bool)[which]

    def _answer(self, context: Any) -> Answer:
        found = self._describe(context)
        assert found is not None, "who waits for names has somebody to ask"
        return found

    def _is_waiting(self, context: Any) -> bool:
        container = context["container"].tobytes()
        if not any(container) or container in self._given_up:
            return False
        answer = self._answer(context)
        if answer.word != PENDING:
            return answer.since_ns > self._now_ns
        if not answer.since_ns:
            # the enricher has not even heard of it
            first_ns = self._unheard.setdefault(container, self._now_ns)
            if len(self._unheard) > MOST_GIVEN_UP:
                self._unheard.clear()
            return self._now_ns < first_ns + self._within_ns
        return self._now_ns < answer.since_ns + self._within_ns

    def _follow(self, contexts: Contexts) -> None:
        """The table of contexts may have been begun anew."""
        if self._generation != contexts.generation:
            self._generation = contexts.generation
            if len(self._held):
                raw = [self._contexts[who] for who in self._held.who.tolist()]
                self._held.who = np.array(contexts.intern_all(raw), np.uint32)
