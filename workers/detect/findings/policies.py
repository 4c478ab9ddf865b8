"""Which policies a finding belongs to: those that name its signature, and whose scope its process is in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from headrace.config.policies.claims import Claim, names_of
from headrace.config.rules import Rule
from headrace.workers.detect.engine.matches import Matched, Matches
from headrace.workers.detect.findings.undecided import UNDECIDED
from headrace.workers.records.rows import Contexts, Rows

Array = np.ndarray[Any, Any]
EVERY = (1 << 64) - 1


class PolicyMasks:
    """Masks of policies, by the position of a rule in its set."""

    def __init__(self, claims: Sequence[Claim], masks: Mapping[str, int], rules: Sequence[Rule]) -> None:
        """`masks`: the policies that name each signature, by its id."""
        self.claims = claims
        self._of_rule = [EVERY if rule is UNDECIDED else masks.get(rule.id, 0) for rule in rules]

    def mask(self, of_context: int, position: int) -> int:
        """The policies of a finding, given those whose scope its process is in."""
        return of_context & self._of_rule[position]

    def names(self, mask: int) -> tuple[str, ...]:
        """The names of policies."""
        return names_of(self.claims, mask)

    def restrict(self, found: Matches, rows: Rows, contexts: Contexts) -> Matches:
        """The matches that belong to at least one policy."""
        masks = contexts.policies[rows.who[found.rows]].tolist()
        at: list[int] = []
        rules: list[Matched] = []
        for row, of_context, positions in zip(found.rows.tolist(), masks, found.rules, strict=True):
            left = tuple(position for position in positions if self.mask(of_context, position))
            if left:
                at.append(row)
                rules.append(left)
        return replace(found, rows=np.array(at, np.int64), rules=rules)
