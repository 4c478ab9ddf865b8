"""Compiles rules to formulas over numbered tests, for each event: the input of an engine.

Equal tests of several rules are one test. A formula is a boolean tree (config/tree.py) of numbers of tests. Verdicts
are numbers: -1 false, 0 unknown, 1 true. And is therefore the minimum of its parts, Or the maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from headrace.bpf.tables.catalogue import Catalogue, Event, UnknownName
from headrace.config.conditions import Node, Test
from headrace.config.rules import Rule, RuleError
from headrace.config.tree import TRUE, And, Certain, Not, Or, Tree, conjunction, mapped
from headrace.workers.detect.rules.fields import Field, FieldError, field_of
from headrace.workers.detect.rules.matching import TestError, check

MAX_DEPTH = 100
Formula = Tree[int]
IN_SCOPE: dict[str, Node] = {
    "any": TRUE,
    "host": Test("container.id", "equals", ("",)),
    "container": Test("container", "equals", (True,)),
}


@dataclass
class OfEvent:
    """All rules on one event: their formulas by position in the set, and the tests by number."""

    event: Event
    formulas: dict[int, Formula] = field(default_factory=dict)
    tests: list[tuple[Field, Test]] = field(default_factory=list)
    _known: dict[tuple[str, Test], int] = field(default_factory=dict)

    def add(self, position: int, node: Node) -> None:
        """Add the condition of one rule on this event. It must have passed check_rule()."""
        self.formulas[position] = mapped(node, self._number)

    def _number(self, test: Test) -> int:
        key = test.field, msgspec.structs.replace(test, line=0)
        number = self._known.get(key)
        if number is None:
            number = self._known[key] = len(self.tests)
            self.tests.append((field_of(self.event, test.field), test))
        return number


def check_rule(rule: Rule, catalogue: Catalogue) -> None:
    """RuleError if the rule names an event or a field that does not exist, if a test does not apply to the type of its
    field, if a condition is nested more than MAX_DEPTH deep, or if the rule cannot be encoded.
    """
    for name, node in rule.events.items():
        event = event_of(rule, name, catalogue)
        _check(rule, event, node, MAX_DEPTH)
    for name, source in rule.data.items():
        if not any(has_field(catalogue.by_name[each], source) for each in rule.events):
            raise RuleError(rule.file, rule.line, rule.id, f"data {name}: none of its events has a field {source}")
    try:
        msgspec.msgpack.encode(rule)
    except (UnicodeEncodeError, OverflowError, TypeError) as error:
        # Workers get the rule encoded. A reload must not end the run because of a rule that cannot be encoded.
        raise RuleError(rule.file, rule.line, rule.id, f"it has what cannot be encoded: {error}") from error
    for name in rule.events:
        for source in rule.threshold.by if rule.threshold else ():
            try:
                field_of(catalogue.by_name[name], source)
            except FieldError as error:
                raise RuleError(rule.file, rule.line, rule.id, f"threshold: {error}") from error


def event_of(rule: Rule, name: str, catalogue: Catalogue) -> Event:
    """The event of that name; RuleError if it does not exist."""
    try:
        return catalogue.event(name)
    except UnknownName as error:
        raise RuleError(rule.file, rule.line, rule.id, str(error)) from error


def has_field(event: Event, name: str) -> bool:
    """Whether an event has the field."""
    try:
        field_of(event, name)
    except FieldError:
        return False
    return True


def _check(rule: Rule, event: Event, node: Node, depth: int) -> None:
    if not depth:
        raise RuleError(rule.file, rule.line, rule.id, f"its condition is nested more than {MAX_DEPTH} deep")
    if isinstance(node, Not | Certain):
        _check(rule, event, node.part, depth - 1)
    elif isinstance(node, And | Or):
        for part in node.parts:
            _check(rule, event, part, depth - 1)
    else:
        try:
            check(field_of(event, node.field), node)
        except (FieldError, TestError) as error:
            raise RuleError(rule.file, node.line or rule.line, rule.id, str(error)) from error


def compile_rules(rules: Sequence[Rule], catalogue: Catalogue) -> dict[int, OfEvent]:
    """The rules of each event, by event id. All must have passed check_rule()."""
    found: dict[int, OfEvent] = {}
    for position, rule in enumerate(rules):
        for name, node in rule.events.items():
            event = catalogue.by_name[name]
            found.setdefault(event.id, OfEvent(event)).add(position, conjunction(IN_SCOPE[rule.scope], node))
    return found
