"""What `explain` says of an event is what the engine says: on every example, and on events that are nearly those."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.rules import SHIPPED, Rule, load
from headrace.config.tree import conjunction
from headrace.workers.detect.offline.analysis import Analysis
from headrace.workers.detect.offline.flat import FlatEvent, FlatRules, of_example
from headrace.workers.detect.rules.compiled import IN_SCOPE

LOADED = load([SHIPPED])
EXAMPLES = [event for rule in LOADED.rules for example in LOADED.examples[rule.id] for event in example.events]
VALUES = [value for event in EXAMPLES for value in (event.get("args") or {}).values()]


def explained(rule: Rule, event: FlatEvent) -> bool:
    node = rule.events.get(event.event.name)
    return node is not None and FlatRules().verdict(conjunction(IN_SCOPE[rule.scope], node), event) is True


def found(rules: list[Rule], event: FlatEvent) -> set[str]:
    return set(Analysis(tuple(rules), catalogue(), pytest.fail).of_examples([event]))


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_of_every_example(number: int) -> None:
    event = of_example(EXAMPLES[number], catalogue())
    assert found(LOADED.rules, event) == {rule.id for rule in LOADED.rules if explained(rule, event)}


@settings(deadline=None)
@given(some.sampled_from(EXAMPLES), some.data())
def test_of_events_that_are_nearly_examples(example: dict[str, Any], data: Any) -> None:
    event = of_example(example, catalogue())
    args = dict(event.args)
    for name in sorted(args):
        what = data.draw(some.sampled_from(["as it is", "as it is", "gone", "another"]))
        if what == "gone":
            del args[name]
        elif what == "another":
            args[name] = data.draw(some.sampled_from(VALUES))
    values = {name: value for name, value in event.values.items() if data.draw(some.integers(0, 4))}
    changed = FlatEvent(event.event, args, event.retval, values)
    assert found(LOADED.rules, changed) == {rule.id for rule in LOADED.rules if explained(rule, changed)}
