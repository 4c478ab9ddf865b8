"""The engine: decides which rules match which rows, at a cost that hardly depends on the number of rules.

Each field that the rules of an event test is a column. The tests of a column divide its values into classes: a class is
the set of tests that hold, and the set of tests that are unknown. There are few classes, and the class of each value is
cached. A row walks a table from column to column:

    state 0 --class of column 1--> state --class of column 2--> state ... --> verdict: a tuple of rules

A state is the set of all tests decided so far. It is computed when it first occurs, and only for the rules that its
tests affect. A state has a verdict as soon as no rule is open; the remaining columns are not read for its rows. Tables
are numpy arrays, so all rows of a turn take a step at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np

from headrace.bpf.tables.catalogue import Catalogue
from headrace.config.rules import Rule
from headrace.config.tree import And, Certain, Not, leaves
from headrace.workers.detect.columns.reading import column_of
from headrace.workers.detect.columns.view import Bulk, Column, Few, View
from headrace.workers.detect.engine.matches import Matched, Matches
from headrace.workers.detect.engine.memory import MemoCache
from headrace.workers.detect.engine.prefilter import Prefilter
from headrace.workers.detect.engine.scan import Scan, ScanResult
from headrace.workers.detect.engine.steps import OPEN, STATE_BYTES, UNKNOWN_STEP, State, Step, bits, numbers_in
from headrace.workers.detect.engine.tally import Tally
from headrace.workers.detect.rules.compiled import Formula, OfEvent, compile_rules
from headrace.workers.detect.rules.fields import Field
from headrace.workers.detect.rules.matching import Matcher, Verdicts
from headrace.workers.detect.rules.values import NUMBER
from headrace.workers.enrich.tree import ProcessTree
from headrace.workers.records.blobs import argument_counts
from headrace.workers.records.rows import Contexts, Rows

Array = np.ndarray[Any, Any]
ColumnOf = Callable[[Field], Column]
"""Returns the column that reads a field."""
MAX_TABLES = 32 << 20
"""Bytes that the tables of one event may take; also roughly the most that they grow between two checks."""
MAX_BYTES = 256 << 20
"""Bytes that the tables of all events and the cached values may take."""
MAX_ROWS, MIN_ROWS = 1 << 14, 16
"""Range of the rows that are evaluated between two checks: the more tests and columns, the fewer rows."""


class Verdict(NamedTuple):
    """The outcome for a row: rules that match, rules that a limit of headrace leaves undecided, and their fields."""

    matched: Matched = ()
    undecided: Matched = ()
    fields: tuple[str, ...] = ()


DEAR = ("image", "compared")
"""Places of fields that cost the most to read. Their columns come last."""


class Classes:
    """The classes of one column: a class is a distinct outcome of the tests on it."""

    def __init__(self, column: Column, tests: Sequence[int], matcher: Matcher) -> None:
        self.column = column
        self.matcher = matcher
        self.tests = tests
        """The event's number of each test, by the test's position in the matcher."""
        self.memory = MemoCache(self._classes)
        self.known: list[State] = []
        self._by_state: dict[State, int] = {}
        self._by_fingerprint: dict[int, int] = {}
        self.scan = Scan.of(matcher.field, matcher.tests)
        self.prefilter = Prefilter.of(matcher.tests) if self.scan else None
        self.scanned = 0
        self.held = 0
        """Bytes of all classes."""

    def _classes(self, keys: list[Any]) -> list[int]:
        return [self.class_of(self.matcher.verdicts(self.column.value(key))) for key in keys]

    def class_of(self, verdicts: Verdicts) -> int:
        """The number of the class with these verdicts. Adds the class if it is new."""
        state = State(*(bits(self.tests[i] for i in each) for each in verdicts))
        found = self._by_state.get(state)
        if found is None:
            found = self._by_state[state] = len(self.known)
            self.known.append(state)
            self.held += state.bytes
        return found

    def of(self, view: View, chosen: Array) -> Array:
        """The class of each chosen row, i64."""
        walked = self.column.walked(view, chosen) if self.prefilter else None
        if walked is None:
            return self._exact(view, chosen)
        assert self.prefilter is not None
        found = np.full(len(chosen), self.class_of(Verdicts(self.matcher.present, frozenset())))
        if walked.unread.any():
            found[walked.unread] = self.class_of(self.matcher.unread)
        maybe = self.prefilter.maybe(walked.block) & ~walked.unread | walked.inexact
        self.scanned += len(chosen) - int(np.count_nonzero(maybe))
        if maybe.any():
            found[maybe] = self._exact(view, chosen[maybe])
        return found

    def _exact(self, view: View, chosen: Array) -> Array:
        bulk = self.column.bulk(view, chosen) if self.scan else None
        return self._remembered(view, chosen) if bulk is None else self._scanned(view, chosen, bulk)

    def _remembered(self, view: View, chosen: Array) -> Array:
        keys = self.column.keys(view, chosen)
        return self.memory.numbers(keys.distinct)[keys.which] if isinstance(keys, Few) else self.memory.numbers(keys)

    def _scanned(self, view: View, chosen: Array, bulk: Bulk) -> Array:
        assert self.scan is not None
        self.scanned += len(chosen)
        seen = self.scan.look(bulk.blocks)
        distinct, firsts, which = np.unique(seen.fingerprint, return_index=True, return_inverse=True)
        classes = np.array(
            [self._class_of_fingerprint(*pair, seen) for pair in zip(distinct.tolist(), firsts.tolist(), strict=True)]
        )
        found = classes[which]
        if bulk.unread.any():
            found[bulk.unread] = self.class_of(self.matcher.unread)
        single = bulk.single | (seen.doubt & ~bulk.unread)
        if single.any():
            found[single] = self._remembered(view, chosen[single])
        return found

    def _class_of_fingerprint(self, fingerprint: int, row: int, seen: ScanResult) -> int:
        found = self._by_fingerprint.get(fingerprint)
        if found is None:
            true = frozenset(seen.tests(row)) | self.matcher.present
            found = self._by_fingerprint[fingerprint] = self.class_of(Verdicts(true, frozenset()))
        return found

    def forget(self) -> None:
        """Drop all classes and cached values, because they take too much memory."""
        self.memory.forget()
        self.known.clear()
        self._by_state.clear()
        self._by_fingerprint.clear()
        self.held = 0


class EventEngine:
    """All rules on one event."""

    def __init__(self, rules: OfEvent, column_of: ColumnOf, bound: Callable[[], None] = lambda: None) -> None:
        """`bound` is called after each part of the rows, when no number of a state, class or verdict is in use."""
        self.rules, self._bound = rules, bound
        self.columns = self._columns(rules, column_of)
        self._rules_of: dict[int, list[int]] = {n: [] for n in range(len(rules.tests))}
        for position, formula in rules.formulas.items():
            for number in set(leaves(formula)):
                self._rules_of[number].append(position)
        self._after: list[frozenset[int]] = []
        """For each column: the tests that only later columns decide."""
        later: set[int] = set(range(len(rules.tests)))
        for column in self.columns:
            later -= set(column.tests)
            self._after.append(frozenset(later))
        self.verdicts: list[Verdict] = []
        self._verdict_numbers: dict[Verdict, int] = {}
        self._begin()
        self._usual = [self._split(State(), after, rules.formulas) for after in self._after]
        """For each column, if none of the tests so far is true or unknown: (rules that match, rules that are open)."""
        self.evicted = self.held = 0
        """Number of states that were dropped; approximate bytes of tables and cached values."""
        grows = 2 * len(self.columns) * State(-1 << len(rules.tests), -1 << len(rules.tests)).bytes
        self._part = max(MIN_ROWS, min(MAX_ROWS, MAX_TABLES // max(grows, 1)))

    def _begin(self) -> None:
        self._steps = [Step() for _ in self.columns]
        self.verdicts.clear()
        self._verdict_numbers.clear()
        self._held_verdicts = 0
        self._verdict(Verdict())

    def begin_anew(self) -> None:
        """Drop all tables and cached values, because they take too much memory."""
        self.evicted += sum(len(s.states) for s in self._steps)
        for column in self.columns:
            column.forget()
        self._begin()
        self.held = 0

    @staticmethod
    def _columns(rules: OfEvent, column_of: ColumnOf) -> list[Classes]:
        """The columns, cheap ones first: numbers and contexts, then texts, then the places in DEAR."""
        by_field: dict[Field, list[int]] = {}
        for number, (asked, _) in enumerate(rules.tests):
            by_field.setdefault(asked, []).append(number)
        order = sorted(by_field, key=lambda f: (f.place in DEAR, f.place != "context" and f.kind != NUMBER))
        return [Classes(column_of(f), by_field[f], Matcher(f, [rules.tests[n][1] for n in by_field[f]])) for f in order]

    def _verdict(self, verdict: Verdict) -> int:
        found = self._verdict_numbers.get(verdict)
        if found is None:
            found = self._verdict_numbers[verdict] = len(self.verdicts)
            self.verdicts.append(verdict)
            self._held_verdicts += STATE_BYTES + 8 * (len(verdict.matched) + len(verdict.undecided))
        return found

    @staticmethod
    def _split(
        state: State, after: frozenset[int], formulas: dict[int, Formula]
    ) -> tuple[frozenset[int], frozenset[int]]:
        """Divides the rules of `formulas` by `state`: (rules that match whatever later columns hold, rules that are
        open). `after`: the tests of later columns.

        A rule is open if it can still match. If the state has a limited test, a rule that can still become undecided is
        open, too.
        """
        sure, open_ = set(), set()
        for position, formula in formulas.items():
            least, most = _bounds(formula, state, after)
            if least > 0:
                sure.add(position)
            elif most > 0 or (state.limited and least < most == 0):
                open_.add(position)
        return frozenset(sure), frozenset(open_)

    def matches(self, view: Any, chosen: Array) -> tuple[Array, list[Verdict]]:
        """The chosen rows that rules match or leave undecided, and the verdict of each.

        Evaluates the rows in parts and checks the memory bounds after each, so the bounds also hold within a turn.
        """
        rows: list[Array] = []
        matched: list[Verdict] = []
        for begin in range(0, len(chosen), self._part):
            part = chosen[begin : begin + self._part]
            verdicts = self.match(view, part)
            hit = np.flatnonzero(verdicts)
            rows.append(part[hit])
            # Numbers of verdicts are valid until the next call of _weigh().
            matched += [self.verdicts[v] for v in verdicts[hit].tolist()]
            self._weigh()
        return np.concatenate(rows), matched

    def _weigh(self) -> None:
        tables = sum(s.bytes for s in self._steps) + sum(c.held for c in self.columns) + self._held_verdicts
        self.held = tables + sum(column.memory.held for column in self.columns)
        if tables > MAX_TABLES:
            self.begin_anew()
        self._bound()

    def match(self, view: Any, chosen: Array) -> Array:
        """The verdict of each chosen row, as an index into `verdicts`, i32."""
        if not self.columns:
            sure, _ = self._split(State(), frozenset(), self.rules.formulas)
            return np.full(len(chosen), self._verdict(Verdict(tuple(sorted(sure)))), np.int32)
        out = np.zeros(len(chosen), np.int32)
        left, state = np.arange(len(chosen)), np.zeros(len(chosen), np.int64)
        for level, (column, step) in enumerate(zip(self.columns, self._steps, strict=True)):
            classes = column.of(view, chosen)
            state = self._advance(level, step, state, classes)
            found = step.verdicts[state]
            is_open = found == OPEN
            if not is_open.all():
                done, going = np.flatnonzero(~is_open), np.flatnonzero(is_open)
                out[left[done]] = found[done]
                chosen, left, state = chosen[going], left[going], state[going].astype(np.int64)
                if not len(left):
                    break
        return out

    def _advance(self, level: int, step: Step, state: Array, classes: Array) -> Array:
        rows = len(self._steps[level - 1].states) if level else 1
        columns = len(self.columns[level].known)
        found = step.find(state, classes, rows, columns)
        missing = found == UNKNOWN_STEP
        if missing.any():
            pairs = np.unique(np.stack([state[missing], classes[missing]]), axis=1)
            for before, kind in pairs.T.tolist():
                step.put(before, kind, self._make(level, step, before, kind))
            found = step.find(state, classes, rows, columns)
        return found

    def _make(self, level: int, step: Step, before: int, kind: int) -> int:
        earlier = self._steps[level - 1].states[before] if level else State()
        new = self.columns[level].known[kind]
        state = State(earlier.true | new.true, earlier.unknown | new.unknown, earlier.limited | new.limited)
        found = step.numbers.get(state)
        if found is not None:
            return found
        found = step.add(state)
        sure, open_ = self._decided(level, state)
        if not open_:
            undecided, fields = self._undecided(state, self._after[level]) if state.limited else ((), ())
            step.verdicts[found] = self._verdict(Verdict(tuple(sorted(sure)), undecided, fields))
        return found

    def _undecided(self, state: State, after: frozenset[int]) -> tuple[Matched, tuple[str, ...]]:
        """The rules that a limit of headrace leaves undecided, and the names of the fields concerned."""
        limited = set(numbers_in(state.limited))
        touched = {p for n in limited for p in self._rules_of[n]}
        found = {p for p in touched if _bounds(self.rules.formulas[p], state, after) == (0, 0)}
        about = {self.rules.tests[n][0].name for n in limited if found.intersection(self._rules_of[n])}
        return tuple(sorted(found)), tuple(sorted(about))

    def _decided(self, level: int, state: State) -> tuple[frozenset[int], frozenset[int]]:
        touched = {p for n in numbers_in(state.true | state.unknown) for p in self._rules_of[n]}
        sure, open_ = self._usual[level]
        if not touched:
            return sure, open_
        formulas = {p: self.rules.formulas[p] for p in touched}
        more_sure, more_open = self._split(state, self._after[level], formulas)
        return (sure - touched) | more_sure, (open_ - touched) | more_open


def _bounds(formula: Formula, state: State, after: frozenset[int]) -> tuple[int, int]:
    """The least and the greatest verdict that a formula can still have (-1 false, 0 unknown, 1 true). The tests in
    `after` are not decided yet.
    """
    if isinstance(formula, int):
        if formula in after:
            return -1, 1
        value = 1 if state.true >> formula & 1 else 0 if state.unknown >> formula & 1 else -1
        return value, value
    if isinstance(formula, Not | Certain):
        low, high = _bounds(formula.part, state, after)
        if isinstance(formula, Not):
            return -high, -low
        return 1 if low > 0 else -1, 1 if high > 0 else -1
    pairs = [_bounds(each, state, after) for each in formula.parts]
    how, empty = (min, 1) if isinstance(formula, And) else (max, -1)
    return how((low for low, _ in pairs), default=empty), how((high for _, high in pairs), default=empty)


class Engine:
    """A set of rules, compiled for rows."""

    def __init__(self, rules: Sequence[Rule], catalogue: Catalogue) -> None:
        self.rules = tuple(rules)
        compiled = compile_rules(rules, catalogue)
        self.events = {event: EventEngine(of, column_of, self._bound) for event, of in compiled.items()}
        self._counts = argument_counts(catalogue)
        self._looked_at = np.zeros(1 << 16, bool)
        self._looked_at[list(self.events)] = True
        self.tally = Tally(self.rules, {event: list(of.rules.formulas) for event, of in self.events.items()})

    def _bound(self) -> None:
        """If all events together exceed MAX_BYTES, drop the tables of the event that takes the most."""
        if sum(engine.held for engine in self.events.values()) > MAX_BYTES:
            max(self.events.values(), key=lambda engine: engine.held).begin_anew()

    def values(self) -> dict[str, int]:
        """Counters of the values tested so far: `scanned` in blocks of texts, `looked_up` in the caches, `worked_out`
        after a cache miss, and `evicted` from the caches and tables.
        """
        columns = [column for engine in self.events.values() for column in engine.columns]
        memories = [column.memory for column in columns]
        begun_anew = sum(engine.evicted for engine in self.events.values())
        return {
            "scanned": sum(column.scanned for column in columns),
            "looked_up": sum(memory.looked_up for memory in memories),
            "worked_out": sum(memory.misses for memory in memories),
            "evicted": sum(memory.evicted for memory in memories) + begun_anew,
        }

    def match(self, rows: Rows, contexts: Contexts, tree: ProcessTree) -> Matches:
        """All rows that at least one rule matches or leaves undecided."""
        looked_at = np.flatnonzero(self._looked_at[rows.event])
        if not len(looked_at):
            return Matches.none()
        view = View(rows, contexts, tree, self._counts, looked_at)
        events = rows.event[looked_at]
        found_rows: list[Array] = []
        found: list[Verdict] = []
        for event in np.flatnonzero(np.bincount(events)).tolist():
            chosen = looked_at[events == event]
            engine = self.events[event]
            began = perf_counter_ns()
            hits, verdicts = engine.matches(view, chosen)
            self.tally.add(event, len(chosen), perf_counter_ns() - began)
            if len(hits):
                found_rows.append(hits)
                found += verdicts
        if not found_rows:
            return Matches.none()
        at = np.concatenate(found_rows)
        order = np.argsort(at, kind="stable").tolist()
        matched = [i for i in order if found[i].matched]
        undecided = {int(at[i]): (found[i].undecided, found[i].fields) for i in order if found[i].undecided}
        return Matches(at[matched], [found[i].matched for i in matched], undecided=undecided)
