"""Signatures in Python, within bounds: loads them from files, runs them on the events that the engine passes, and
switches them off if they fail too often. Their state is in workers/detect/code/states.py.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import msgspec
import numpy as np

from headrace.bpf.tables.catalogue import LIFECYCLE, Catalogue, Event
from headrace.config.conditions import ConditionError, Node, read
from headrace.config.located import Located
from headrace.config.rules import IDENTIFIER, SCOPES, SEVERITIES, Example, Mitre, Rule, RuleError, text_of
from headrace.config.thresholds import threshold_of
from headrace.workers.detect.code.old_name import can_be_imported
from headrace.workers.detect.code.signature import Batch, Result, Signature, State
from headrace.workers.detect.code.states import Caused, Given, Kept, States

MAX_FAILURES = 10
"""A signature that has failed this often is off in this worker."""
STATES = ("", "process", "fork", "container")
Report = Callable[[str], None]
Shown = Callable[[Sequence[int]], Sequence[Any]]
FORK = "sched_process_fork"


def load_code(path: Path, catalogue: Catalogue) -> Iterator[tuple[Rule, tuple[Example, ...]]]:
    """The signatures of a file with their examples: each class that derives from Signature and has an id. RuleError."""
    source = text_of(path)
    classes = defined(str(path), source)
    if not classes:
        raise RuleError(str(path), 0, "", "no signature is in it: a class derived from Signature that has an id")
    for name, kind in classes:
        try:
            yield msgspec.structs.replace(_rule(path, name, kind, catalogue), source=source), _examples(path, kind)
        except RuleError:
            raise
        except Exception as error:  # the author can set the attributes to anything
            raise RuleError(str(path), 0, str(kind.id), f"{type(error).__name__}: {error}") from error


def defined(path: str, source: str) -> list[tuple[str, type[Signature]]]:
    """The signatures that a file defines, as (class name, class). RuleError if the file raises.

    `source` is the text of the file when it was loaded, so all workers execute the same text.
    """
    module = ModuleType(f"headrace_signatures_{abs(hash(path))}")
    module.__file__ = path
    sys.modules[module.__name__] = module  # dataclasses and others look up the module there
    try:
        with can_be_imported():
            exec(compile(source, path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        line = _line(error, path) or getattr(error, "lineno", 0) or 0
        raise RuleError(path, line, "", f"{type(error).__name__}: {error}") from error
    return [
        (name, kind)
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, Signature) and kind.__module__ == module.__name__ and kind.id
    ]


def _line(error: BaseException, file: str) -> int:
    """The line of a file in which an error was raised; 0 if none."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return next((frame.lineno or 0 for frame in frames if frame.filename == file), 0)


def _located(value: Any) -> Located:
    if isinstance(value, Mapping):
        return Located({str(k): _located(v) for k, v in value.items()}, 0, {str(k): 0 for k in value})
    if isinstance(value, list | tuple):
        return Located([_located(v) for v in value], 0)
    return Located(value, 0)


def _rule(path: Path, name: str, kind: type[Signature], catalogue: Catalogue) -> Rule:
    def refuse(why: str) -> RuleError:
        return RuleError(str(path), 0, str(kind.id), why)

    if not IDENTIFIER.fullmatch(kind.id) or not kind.name or not kind.events:
        raise refuse("a signature has an id, a name and events")
    for key, known in (("severity", SEVERITIES), ("scope", SCOPES), ("state", STATES)):
        if getattr(kind, key) not in known:
            raise refuse(f"{key}: {' '.join(w or 'none' for w in known)}, not {getattr(kind, key)}")
    try:
        events: dict[str, Node] = {event: read(_located(c), {}) for event, c in kind.events.items()}
    except ConditionError as error:
        raise refuse(error.why) from error
    try:
        threshold = threshold_of(dict(kind.threshold)) if kind.threshold else None
    except ValueError as error:
        raise refuse(str(error)) from error
    shared = tuple(events) if kind.state == "fork" and not kind.shared else tuple(kind.shared)
    alone = {name for name in events if name in catalogue.by_name and not _goes_to_all(catalogue.by_name[name])}
    for each in shared:
        if each not in events:
            raise refuse(f"shared: {each} is none of its events")
        if each in alone:
            hint = "" if kind.shared else " (state fork shares all of its events, if shared does not name some)"
            why = "goes to one worker; those that go to all are processes' beginnings and ends and other urgent events"
            raise refuse(f"shared: {each} {why}{hint}")
    if kind.state == "fork" and kind.on_batch is not Signature.on_batch:
        raise refuse("on_batch: with state fork events are looked at one by one, by on_event")
    missed = sorted(alone - set(shared)) if kind.state == "fork" else []
    if kind.state == "fork":
        events.setdefault(FORK, read(_located(None), {}))
        shared = tuple(dict.fromkeys((*shared, FORK)))
    return Rule(
        id=kind.id,
        name=kind.name,
        title=kind.title,
        description=kind.description,
        severity=kind.severity,
        mitre=Mitre(**kind.mitre),
        tags=tuple(kind.tags),
        scope=kind.scope,
        events=events,
        threshold=threshold,
        data={field: field for field in kind.fields},
        code=name,
        state=kind.state,
        shared=shared,
        dead=tuple(
            f"{name}: with several workers, children do not have what it left in their creator" for name in missed
        ),
        file=str(path),
    )


def _goes_to_all(event: Event) -> bool:
    return event.urgent or event.name in LIFECYCLE


def _examples(path: Path, kind: type[Signature]) -> tuple[Example, ...]:
    found = []
    for key, examples in kind.examples.items():
        if key not in ("match", "near_miss"):
            raise RuleError(str(path), 0, kind.id, f"examples: match and near_miss, not {key}")
        found += [Example(tuple(e if isinstance(e, list) else [e]), key == "match") for e in examples]
    return tuple(found)


class SignatureResult(NamedTuple):
    """The result of a signature for one event, and the history of its state."""

    result: Result
    caused: Caused | None = None
    """None if the signature keeps no state or returned no finding."""


NOTHING = SignatureResult(None)


class CodeRule:
    """One signature in one worker, with its state and its failures."""

    def __init__(self, rule: Rule, kind: type[Signature]) -> None:
        self.rule = rule
        self.signature = kind()
        self.states = States(rule.state)
        self.failures = 0

    @property
    def is_off(self) -> bool:
        """Whether the signature has failed too often, or was switched off."""
        return self.failures >= MAX_FAILURES

    def switch_off(self) -> None:
        """Switch the signature off permanently."""
        self.failures = MAX_FAILURES

    def look(self, events: Sequence[Given], report: Report, shown: Shown) -> list[SignatureResult]:
        """The answer of the signature for each event, in order of time.

        `shown` returns what findings show of events, given their numbers (Given.at). An exception in the signature goes
        to `report` and counts as a failure; the event, or with on_batch() all events, then have no finding.
        """
        if self.is_off:
            return [NOTHING] * len(events)
        if self.rule.state == "fork" or type(self.signature).on_batch is Signature.on_batch:
            found = [self._one(event, report) for event in events]
        else:
            found = self._all(events, report)
        self.states.show(shown)
        return found

    def _all(self, events: Sequence[Given], report: Report) -> list[SignatureResult]:
        states = [self.states.of(event) for event in events]
        try:
            results = self.signature.on_batch(_batch(events, self.rule.data, states))
            if len(results) != len(events):
                raise ValueError(f"on_batch gave {len(results)} results for {len(events)} events")
            return [self._answer(result, state) for result, state in zip(results, states, strict=True)]
        except (Exception, SystemExit) as error:
            self._failed(error, report)
            return [NOTHING] * len(events)

    def _one(self, event: Given, report: Report) -> SignatureResult:
        if self.is_off:
            return NOTHING
        if event.name == FORK and self.rule.state == "fork":
            self.states.forked(event)
            if FORK not in self.signature.events:
                return NOTHING
        state = self.states.of(event)
        try:
            return self._answer(Signature.on_batch(self.signature, _batch([event], self.rule.data, [state]))[0], state)
        except (Exception, SystemExit) as error:
            self._failed(error, report)
            return NOTHING
        finally:
            self.states.note(state, event)

    def _answer(self, result: Result, state: Kept) -> SignatureResult:
        """A copy of the result, as JSON: the code may change the mapping afterwards. TypeError for another type."""
        if result is None or (isinstance(result, bool | np.bool_) and not result):
            return NOTHING
        if not isinstance(result, Mapping | bool | np.bool_):
            raise TypeError(f"what is found is a mapping, True or None, not {type(result).__name__}")
        found = msgspec.json.decode(msgspec.json.encode(result)) if isinstance(result, Mapping) else True
        return SignatureResult(found, state.caused() if self.rule.state else None)

    def _failed(self, error: BaseException, report: Report) -> None:
        self.failures += 1
        line = _line(error, self.rule.file)
        place = f"{self.rule.file}:{line}" if line else self.rule.file
        state = "; it is off now" if self.is_off else ""
        report(f"{place}: {self.rule.id}: {type(error).__name__}: {error}{state}")


def _batch(events: Sequence[Given], fields: Mapping[str, str], states: Sequence[State]) -> Batch:
    columns = {field: [event.values.get(field) for event in events] for field in fields}
    return Batch([e.name for e in events], [e.time_ns for e in events], columns, states)


def code_rules(rules: Sequence[Rule]) -> dict[int, CodeRule]:
    """The signatures in Python of a set, by their positions."""
    code = {position: rule for position, rule in enumerate(rules) if rule.code}
    files = {(rule.file, rule.source) for rule in code.values()}
    kinds = {each: dict(defined(*each)) for each in files}
    return {position: CodeRule(rule, kinds[rule.file, rule.source][rule.code]) for position, rule in code.items()}
