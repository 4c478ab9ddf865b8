"""Which policies each row belongs to: one mask per row, a bit for each claim (config/policies/claims.py).

    mask of the context    the claims whose scope the task is in, decided by the kernel
    & mask of the event    the claims that ask for it
    - conditions           a claim's bit is cleared if one of its conditions does not hold

A row without a bit is removed: it was recorded for a signature only, or no claim's conditions hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.bpf.tables.catalogue import LOSS, Catalogue
from headrace.config.policies.claims import Claim, event_masks
from headrace.workers.conditions.filters import Predicates
from headrace.workers.records.rows import Contexts, Rows

Array = np.ndarray[Any, Any]


class ClaimFilter:
    """The conditions of all policies. A call with rows and contexts writes `policies` of the rows, and returns the
    mask of the rows to keep.
    """

    def __init__(self, catalogue: Catalogue, claims: Sequence[Claim]) -> None:
        self._of_event = np.zeros(1 << 16, np.uint64)
        for name, mask in event_masks(claims).items():
            self._of_event[catalogue.by_name[name].id] = mask
        self._conditions = [
            (np.uint64(bit), Predicates(catalogue, claim.selection.conditions))
            for bit, claim in enumerate(claims)
            if claim.selection.conditions
        ]
        self._loss = catalogue.by_name[LOSS].id

    def __call__(self, rows: Rows, contexts: Contexts) -> Array:
        masks = contexts.policies[rows.who] & self._of_event[rows.event]
        one = np.uint64(1)
        for bit, holds in self._conditions:
            asked = np.flatnonzero(masks >> bit & one)
            if len(asked):
                refused = asked[~holds(rows.select(asked), contexts)]
                masks[refused] &= ~(one << bit)
        rows.policies = masks
        # loss events are always reported
        stays: Array = (masks != 0) | (rows.event == self._loss)
        return stays

    def take_unknown(self) -> int:
        """How often a condition was undecided since the last call."""
        return sum(holds.take_unknown() for _, holds in self._conditions)
