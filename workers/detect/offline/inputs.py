"""Coverage of an input: which signatures a recording or JSON lines cannot answer, completely or in part.

A signature finds nothing if its events were not recorded, or if fields that it uses were not read. The user must be
able to distinguish this from an input without matches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from headrace.bpf.tables.catalogue import Catalogue, Event
from headrace.config.conditions import Node, Test, asked
from headrace.config.rules import Rule
from headrace.config.tree import Fold
from headrace.workers.detect.offline.flat import FlatEvent
from headrace.workers.detect.offline.json_events import is_own
from headrace.workers.detect.offline.lineages import Told
from headrace.workers.detect.rules.fields import CONTEXT_FIELDS, EXEC, IMAGE_FIELDS, TARGET, Field, FieldError, field_of

NONE, PARTIAL = "none", "partial"
DUPLICATES = ("dup", "dup2", "dup3", "socket_dup")
EXISTS, UNREAD = "exists", "not read"
ENVIRONMENT, DESCRIPTORS = "exec_environment", "fd_paths"
"""Settings that certain fields need in order to be read."""


class CoverageGap(NamedTuple):
    """What is not covered of a signature. `word`: NONE if no part of it can match, PARTIAL if some part can."""

    rule: str
    word: str
    reasons: tuple[str, ...]


Lacks = Callable[[Field], bool]
"""Whether an input lacks a field in all events of that kind."""


def source_of(field: Field) -> str:
    """The name of the argument or field that an event must have for a field to be known."""
    if field.place == "argument":
        return field.event.arguments[field.argument].name
    if field.place == "image" and field.event.name == EXEC and field.name.startswith("process."):
        return {"process.command_line": "argv", "process.cwd": "pwd"}.get(field.name, "pathname")
    return field.name.partition("@")[0]


def gaps(
    rules: Sequence[Rule], catalogue: Catalogue, events: Collection[str], lacks: Lacks, narrowed: Mapping[str, str]
) -> list[CoverageGap]:
    """The gaps in the coverage of the rules. `events`: events that were recorded; `narrowed`: those recorded only in
    part -> under which condition.
    """
    found = []
    for rule in rules:
        reasons: list[str] = []
        can = False
        for name, node in rule.events.items():
            if name not in events:
                reasons.append(f"no event {name}")
                continue
            lacking = {asked for asked, field in _asked(rule, node, catalogue.by_name[name]) if lacks(field)}
            reasons += [f"{name} without {asked}" for asked in sorted(lacking)]
            reasons += [f"{name} only where {narrowed[name]}"] if name in narrowed else []
            can |= _outcomes(node, lacking)[0]
        if reasons:
            found.append(CoverageGap(rule.id, PARTIAL if can else NONE, tuple(reasons)))
    return found


def _asked(rule: Rule, node: Node, event: Event) -> Iterator[tuple[str, Field]]:
    """The fields that a rule uses on one of its events, with the names that it uses for them."""
    names = list(asked(node))
    names += rule.threshold.by if rule.threshold else ()
    # The code of a signature in Python reads the data fields.
    names += rule.data.values() if rule.code else ()
    for name in names:
        with contextlib.suppress(FieldError):  # a data field may belong to another event
            yield name, field_of(event, name)


def _outcomes(node: Node, lacking: Collection[str]) -> tuple[bool, bool]:
    """(whether a condition can be true, whether it can be false), if the fields in `lacking` are unknown."""

    def of_test(test: Test) -> tuple[bool, bool]:
        if not set(asked(test)).intersection(lacking):
            return True, True
        return (False, False) if test.operator != EXISTS else (not test.values[0], bool(test.values[0]))

    return Fold[Test, tuple[bool, bool]](
        of_test,
        all_of=lambda parts: (all(true for true, _ in parts), any(false for _, false in parts)),
        any_of=lambda parts: (any(true for true, _ in parts), all(false for _, false in parts)),
        negate=lambda part: (part[1], part[0]),
        certain=lambda part: (part[0], True),
    )(node)


class LinesRead:
    """Collects which of the events and fields that rules use occur in JSON lines."""

    def __init__(self, rules: Sequence[Rule], catalogue: Catalogue) -> None:
        self._rules, self._catalogue = rules, catalogue
        self._events: set[str] = set()
        self._missing: dict[str, set[str]] = {}
        for rule in rules:
            for name, node in rule.events.items():
                wanted = self._missing.setdefault(name, set())
                wanted |= {source_of(field) for _, field in _asked(rule, node, catalogue.by_name[name])}

    def take(self, event: FlatEvent, line: Mapping[str, Any], told: Told) -> None:
        """Add an event and its line."""
        wanted = self._missing.get(event.event.name)
        if event.event.name in DUPLICATES and "socket_dup" in self._missing:
            # The analysis adds this event if the lines lack it (workers/detect/offline/analysis.py).
            self._events.add("socket_dup")
            self._missing["socket_dup"].clear()
        if wanted is None:
            return
        self._events.add(event.event.name)
        if wanted:
            given = {each["name"]: each for each in line.get("args") or ()}
            own = is_own(line)
            wanted -= {name for name in wanted if _has(name, event, given, own, told)}

    def gaps(self) -> list[CoverageGap]:
        """The gaps in the coverage of the rules by these lines."""
        return gaps(
            self._rules,
            self._catalogue,
            self._events,
            lambda field: source_of(field) in self._missing[field.event.name],
            {},
        )


def _has(source: str, event: FlatEvent, given: Mapping[str, Mapping[str, Any]], own: bool, told: Told) -> bool:
    if event.event.index(source) is not None:
        argument = given.get(source)
        if argument is None:
            return own and source.startswith("root_")
        return argument.get("value") is not None or (own and argument.get("reason") != UNREAD)
    if source in event.values or source in ("retval", TARGET):
        return True
    if source in IMAGE_FIELDS:
        return told.known
    return source in CONTEXT_FIELDS and (own or source.startswith("container"))


class Recorded(NamedTuple):
    """What a recording says about itself. `events` is None if it was made by a version that did not record them."""

    events: Collection[str] | None
    reads: Collection[str]
    narrowed: Mapping[str, str]
    has_users: bool

    def gaps(self, rules: Sequence[Rule], catalogue: Catalogue, seen: Collection[str]) -> list[CoverageGap]:
        """The gaps in the coverage of the rules by the recording. `seen`: events that occur in it."""
        found = dict(self.narrowed)
        if self.events is not None:
            # Signatures that were loaded later added these events.
            found |= dict.fromkeys({*seen} - {*self.events}, "signatures read again asked for it")
        return gaps(rules, catalogue, {*(self.events or ()), *seen}, self._lacks, found)

    def _lacks(self, field: Field) -> bool:
        source = source_of(field)
        if source == "env" and field.event.name == EXEC:
            return ENVIRONMENT not in self.reads
        if field.place == "descriptor":
            return DESCRIPTORS not in self.reads
        return source == "process.user" and not self.has_users


def said(found: Sequence[CoverageGap], rules: int) -> list[str]:
    """Lines for people: what is missing, and for which signatures."""
    if not found:
        return []
    words = [gap.word for gap in found]
    head = f"not covered by this input: {words.count(NONE)} of {rules} signatures"
    head += f", and {words.count(PARTIAL)} in part" if PARTIAL in words else ""
    by_reason: dict[str, tuple[list[str], list[str]]] = {}
    for gap in found:
        for reason in gap.reasons:
            by_reason.setdefault(reason, ([], []))[gap.word == PARTIAL].append(gap.rule)
    lines = [head]
    for reason, (none, partial) in by_reason.items():
        shown = [*([", ".join(none)] if none else []), *(["in part " + ", ".join(partial)] if partial else [])]
        lines.append(f"  {reason}: {'; '.join(shown)}")
    return lines
