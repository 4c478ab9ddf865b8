"""Detection in a worker: the engine finds matches, signatures in Python refine them, and findings become lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

import msgspec
import numpy as np

from headrace.bpf.tables.catalogue import Catalogue
from headrace.config.policies.claims import Claim
from headrace.config.rules import Rule
from headrace.workers.detect.code.bounds import FORK, CodeRule, Report, SignatureResult, code_rules
from headrace.workers.detect.code.states import Given
from headrace.workers.detect.columns.view import View
from headrace.workers.detect.engine.engine import Engine
from headrace.workers.detect.engine.matches import Matched, Matches
from headrace.workers.detect.findings.gaps import Gaps
from headrace.workers.detect.findings.history import History
from headrace.workers.detect.findings.lines import FindingLines, RenderedFindings
from headrace.workers.detect.findings.policies import PolicyMasks
from headrace.workers.detect.findings.undecided import UNDECIDED
from headrace.workers.detect.findings.undecided import what as undecided
from headrace.workers.enrich.containers import Describe, container_id, nobody
from headrace.workers.enrich.tree import ProcessTree
from headrace.workers.records.blobs import argument, argument_counts
from headrace.workers.records.rows import Contexts, Rows
from headrace.workers.views.style import HostFacts


def unplaced(rule: Rule) -> bytes:
    """The encoded rule without its line number. A rule that moved in its file compares equal."""
    return msgspec.msgpack.encode(msgspec.structs.replace(rule, line=0))


def _lives(tree: ProcessTree, key: Any) -> bool:
    process = tree.get(key)
    return process is not None and not process.ended_ns


@dataclass(frozen=True)
class FindingOptions:
    """How findings are rendered. `before_s`: seconds of process history that they include; `hidden`: arguments that are
    not shown; `secret`: key of the fingerprints by which repeats are folded.
    """

    secret: bytes = b""
    hidden: Sequence[str] = ()
    before_s: float = 0
    describe: Describe = nobody
    claims: Sequence[Claim] = ()
    """What policies ask for; () without policies."""


class SentRules(msgspec.Struct, frozen=True):
    """Checked rules, as the supervisor sends them to the workers."""

    rules: tuple[Rule, ...]
    generation: int = 1
    """Counts the loads of the rules, from 1."""
    numbers: dict[str, int] = {}
    """Id of each signature in Python -> its number, from 1. A signature keeps its number until it changes."""
    policies: dict[str, int] = {}
    """Id of each signature -> mask of the policies that name it. Empty without policies."""


class Detector:
    """The signatures of one generation."""

    def __init__(
        self, rules: Sequence[Rule], catalogue: Catalogue, report: Report = lambda text: None, generation: int = 1
    ) -> None:
        """`report` receives a message for each error in a signature in Python."""
        self.rules, self._catalogue, self._report = (*rules, UNDECIDED), catalogue, report
        self.generation = generation
        self._engine = Engine(self.rules, catalogue)
        self._code: dict[int, CodeRule] = code_rules(self.rules)
        self._numbers: dict[int, int] = {}
        self.guard: Callable[[int], None] = lambda number: None
        """Called with the number of a signature in Python, from 1, before it runs, and with 0 afterwards."""
        self._counts = argument_counts(catalogue)
        self.gaps = Gaps()
        self._history: History | None = None
        self._lines: FindingLines | None = None
        self._policies: PolicyMasks | None = None
        self._policy_masks: dict[str, int] = {}
        fork = catalogue.by_name[FORK]
        self._fork = fork.id
        self._child = [fork.index(name) or 0 for name in ("child_pid", "child_process_start_time")]

    @classmethod
    def of(cls, encoded: bytes, catalogue: Catalogue, report: Report) -> Detector:
        """A detector for an encoded SentRules."""
        given = msgspec.msgpack.decode(encoded, type=SentRules)
        found = cls(given.rules, catalogue, report, given.generation)
        found._policy_masks = given.policies
        found._numbers = {position: given.numbers[found.rules[position].id] for position in found._code}
        return found

    def adopt(self, before: Detector) -> None:
        """Take over from the previous generation: the state of unchanged signatures, the gaps and the history."""
        self.gaps, self._history = before.gaps, before._history
        kept = {unplaced(code.rule): code for code in before._code.values()}
        for position, code in self._code.items():
            self._code[position] = kept.get(unplaced(code.rule), code)

    @property
    def shared(self) -> list[int]:
        """Ids of the events that this worker must see for all processes, including those of other workers."""
        names = {name for rule in self.rules for name in rule.shared}
        return [self._catalogue.by_name[name].id for name in sorted(names)]

    def open(
        self,
        catalogue: Catalogue,
        facts: HostFacts,
        tree: ProcessTree,
        options: FindingOptions,
    ) -> None:
        """Prepare for rendering, and for policies."""
        if options.claims:
            self._policies = PolicyMasks(options.claims, self._policy_masks, self.rules)
        if self._history is None and options.before_s:
            self._history = History(options.before_s)
        self._lines = FindingLines(
            self.rules,
            catalogue,
            facts,
            tree,
            self.gaps,
            self.generation,
            secret=options.secret,
            hidden=options.hidden,
            history=self._history,
            describe=options.describe,
            policies=self._policies,
        )

    def forget_who(self) -> None:
        """Render processes again, because more is known about containers."""
        assert self._lines is not None
        self._lines.forget_who()

    def switch_off(self, numbers: Sequence[int]) -> None:
        """Switch off the signatures in Python with these numbers."""
        for position, code in self._code.items():
            if self._numbers.get(position) in numbers:
                code.switch_off()

    def write_counts(self, rules: Any, values: Any) -> None:
        """Write the cost of each rule since it was loaded, and the counters of values (TALLIES of the plan)."""
        self._engine.tally.write(rules)
        for name, count in self._engine.values().items():
            values[name] = count
        values["before_dropped"] = self._history.dropped if self._history else 0

    def keep(self, rows: Rows, contexts: Contexts) -> None:
        """Called at the end of a turn: adds its rows to the history, if findings show it."""
        if self._history:
            self._history.keep(rows.select(~rows.foreign) if rows.foreign.any() else rows, contexts)

    def match(self, rows: Rows, contexts: Contexts, tree: ProcessTree) -> Matches:
        """The rows of this worker that rules match."""
        found = self._with_undecided(self._matched(rows, contexts, tree), rows.foreign)
        if self._policies:
            found = self._policies.restrict(found, rows, contexts)
        self._engine.tally.add_matches(found.rules)
        return found

    def _with_undecided(self, found: Matches, foreign: Any) -> Matches:
        """Adds the finding UNDECIDED to each row that a limit of headrace left undecided for some rule."""
        own = {row: what for row, what in found.undecided.items() if not foreign[row]}
        if not own:
            return found
        rules, data, last = (
            dict(zip(found.rows.tolist(), found.rules, strict=True)),
            dict(found.data),
            len(self.rules) - 1,
        )
        self._engine.tally.add_undecided([positions for positions, _ in own.values()])
        for row, (positions, fields) in own.items():
            rules[row] = (*rules.get(row, ()), last)
            data[row, last] = undecided([self.rules[p].id for p in positions], list(fields))
        rows = sorted(rules)
        return Matches(np.array(rows, np.int64), [rules[row] for row in rows], data, found.caused)

    def _matched(self, rows: Rows, contexts: Contexts, tree: ProcessTree) -> Matches:
        found = self._engine.match(rows, contexts, tree)
        if not self._code and not rows.foreign.any():
            return found
        said = self._ask(found, View(rows, contexts, tree, self._counts)) if self._code else {}
        foreign = rows.foreign
        at: list[int] = []
        kept: list[Matched] = []
        for row, positions in zip(found.rows.tolist(), found.rules, strict=True):
            left = tuple(p for p in positions if p not in self._code or (row, p) in said)
            if left and not foreign[row]:
                at.append(row)
                kept.append(left)
        data: dict[tuple[int, int], Mapping[str, Any]] = {
            key: answer.result if isinstance(answer.result, Mapping) else {} for key, answer in said.items()
        }
        caused = {key: answer.caused for key, answer in said.items() if answer.caused}
        return Matches(np.array(at, np.int64), kept, data, caused, found.undecided)

    def _ask(self, found: Matches, view: View) -> dict[tuple[int, int], SignatureResult]:
        """The findings of signatures in Python on the rows that the engine matched, by (row, rule)."""
        lines = self._lines
        assert lines is not None
        rows_of: dict[int, list[int]] = {}
        for row, positions in zip(found.rows.tolist(), found.rules, strict=True):
            for position in positions:
                if position in self._code:
                    rows_of.setdefault(position, []).append(row)
        said: dict[tuple[int, int], SignatureResult] = {}

        def shown(at: Sequence[int]) -> list[bytes]:
            return lines.event_lines(view.rows.select(np.array(at, np.int64)), view.contexts)

        for position in self._code:
            if position not in rows_of:
                continue
            code = self._code[position]
            events = self._given(view, np.array(rows_of[position], np.int64), position)
            self.guard(self._numbers.get(position, 0))
            entered = perf_counter_ns()
            answers = code.look(events, self._report, shown)
            self._engine.tally.own_ns[position] += perf_counter_ns() - entered
            self.guard(0)
            said |= {(e.at, position): answer for e, answer in zip(events, answers, strict=True) if answer.result}
        self._forget(view)
        return said

    def _given(self, view: View, at: Any, position: int) -> list[Given]:
        assert self._lines is not None
        rows = view.rows
        found: list[Given] = []
        for event in np.unique(rows.event[at]).tolist():
            chosen = at[rows.event[at] == event]
            values = self._lines.values(view, chosen, position)
            table = view.contexts.table[rows.who[chosen]]
            processes = zip(table["tgid"].tolist(), table["process_start_ns"].tolist(), strict=True)
            containers = [container_id(context) for context in table]
            times, name = rows.time_ns[chosen].tolist(), self._catalogue.by_id[event].name
            children: list[Any] = [None] * len(chosen)
            if event == self._fork:
                pid, start = (argument(rows, index, chosen).tolist() for index in self._child)
                children = list(zip(pid, start, strict=True))
            columns = (chosen.tolist(), times, processes, containers, values, children)
            found += [Given(a, name, t, p, c, v, child) for a, t, p, c, v, child in zip(*columns, strict=True)]
        return sorted(found, key=lambda given: given.at)

    def _forget(self, view: View) -> None:
        """Drop the state of processes that have ended."""
        for code in self._code.values():
            if code.rule.state in ("process", "fork"):
                code.states.keep(lambda key: _lives(view.tree, key))

    def take_cut(self) -> int:
        """Returns the number of shortened findings since the last call."""
        if self._lines is None:
            return 0
        cut, self._lines.cut = self._lines.cut, 0
        return cut

    def render(self, rows: Rows, contexts: Contexts, matches: Matches, part: slice) -> RenderedFindings:
        """The findings of some of the matches, as lines."""
        assert self._lines is not None
        return self._lines.render(rows, contexts, matches, part)
