"""Generations of signatures: a reloaded set atomically replaces the previous one while events continue.

    supervisor   encodes the set into a segment, names it in the control segment, then stores its generation
    worker       checks for a newer generation before each turn. All rows of a turn are evaluated with one set. The
                 journal holds its generation: a turn that is repeated after a death uses the same set
    supervisor   removes a segment once every worker has committed a newer generation. If a worker cannot load the new
                 set, the previous set returns as another generation

A signature that did not change keeps its state, and stays disabled if it was disabled. The kernel is asked for the
events of a set before the set is announced. Events that no set needs are disabled once all workers use the new set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from headrace.config.rules import MAX_CODE, Rule
from headrace.pipeline.process.books import Ledger
from headrace.pipeline.process.plan import MAX_GENERATIONS, TALLY, VALUES, Control
from headrace.pipeline.process.privilege import stage_ids
from headrace.pipeline.transport.shm import Segment
from headrace.workers.detect.detector import SentRules, unplaced


class TooSoon(Exception):
    """There is no room for another set, because workers still use earlier ones."""


class Generations:
    """The supervisor's side of generations."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._segments: dict[int, Segment] = {}
        self._numbers: dict[bytes, int] = {}
        """Number of each Python signature, by its content. Includes signatures of earlier sets."""
        self._when_taken: Callable[[], None] | None = None
        self._when_refused: Callable[[int], None] = lambda worker: None
        self.latest = 0
        self._ids: list[str] = []

    def add_to(self, ledger: Ledger) -> None:
        """Add the counters of signatures to the ledger, from the workers that use the latest generation."""
        found = self._control.tallies
        found = found[found["generation"] == self.latest]
        rules, values = found["rules"], found["values"]
        for position, name in enumerate(self._ids[: rules.shape[1]]):
            counts = {key: int(rules[key][:, position].sum()) for key in TALLY.names or ()}
            if counts["evaluated"]:
                ledger.by_rule[name] = counts
        if undecided := sum(counts["undecided"] for counts in ledger.by_rule.values()):
            ledger.findings["undecided"] = undecided
        ledger.values = {key: int(values[key].sum()) for key in VALUES.names or ()}

    def make_room(self) -> None:
        """Make room for another set. Raises TooSoon if workers still use too many earlier ones."""
        self.attend()
        if len(self._segments) >= MAX_GENERATIONS - 1:  # keep room to restore the previous set
            raise TooSoon("workers have not come to the signatures before yet")

    @property
    def settled(self) -> bool:
        """Whether every worker uses the latest set, or one has refused it."""
        return self._when_taken is None

    def offer(
        self,
        rules: Sequence[Rule],
        policies: Mapping[str, int],
        when_taken: Callable[[], None] = lambda: None,
        when_refused: Callable[[int], None] = lambda worker: None,
    ) -> None:
        """Make these rules the latest set. Call make_room() before. `policies`: masks of those that name each rule.

        `when_taken` is called once every worker uses the set. `when_refused` is called instead with the number of a
        worker that could not load it.
        """
        numbers = self._numbered([rule for rule in rules if rule.code])
        generation = self.latest + 1
        data = msgspec.msgpack.encode(SentRules(tuple(rules), generation, numbers, dict(policies)))
        segment = Segment(len(data), ids=stage_ids())
        segment.array("u1", len(data))[:] = np.frombuffer(data, "u1")
        self._segments[generation] = segment
        self._when_taken, self._when_refused = when_taken, when_refused
        self.latest, self._ids = generation, [rule.id for rule in rules]
        self._control.offer_rules(generation, segment.name, len(data))

    def _numbered(self, code: Sequence[Rule]) -> dict[str, int]:
        wanted = {unplaced(rule): rule.id for rule in code}
        # reuse numbers of removed signatures only when there are no others
        free = [n for n in range(1, MAX_CODE + 1) if n not in self._numbers.values()]
        new = [what for what in wanted if what not in self._numbers]
        if len(new) > len(free):
            self._numbers = {what: n for what, n in self._numbers.items() if what in wanted}
            free = [n for n in range(1, MAX_CODE + 1) if n not in self._numbers.values()]
        for what, number in zip(new, free, strict=False):
            self._numbers[what] = number
            self._control.off[number - 1] = 0
        return {name: self._numbers[what] for what, name in wanted.items()}

    def attend(self) -> None:
        """Remove sets that no worker needs anymore, and call `when_taken` or `when_refused`."""
        if not self._when_taken and len(self._segments) < 2:
            return
        refused = np.flatnonzero(self._control.running["refused"] == self.latest)
        if len(refused) and self._when_taken:
            self._when_taken = None
            self._when_refused(int(refused[0]))
        oldest = min(int(journal.peek("generation")) for journal in self._control.workers)
        for generation in [n for n in self._segments if n < oldest]:
            self._segments.pop(generation).close()
        if oldest >= self.latest:
            taken, self._when_taken = self._when_taken, None
            if taken:
                taken()

    def close(self) -> None:
        """Remove all segments."""
        for segment in self._segments.values():
            segment.close()


def difference(before: Sequence[Rule], after: Sequence[Rule]) -> dict[str, list[str]]:
    """Ids of the signatures that a set adds, removes and changes."""
    old, new = ({rule.id: unplaced(rule) for rule in rules} for rules in (before, after))
    return {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "changed": [name for name in new if name in old and new[name] != old[name]],
    }
