"""Selects the enabled rules: by id, tag and severity, by the rule's own `enabled`, and with a file of exceptions.

    - {id: TRC-1027, unless: {process.name: dpkg}}
    - {id: "*", unless: {container.runtime: podman}}

An exception is a condition under which the rule, or every rule whose events have its fields, does not match. If it is
unknown, the exception does not apply.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from headrace.bpf.tables.catalogue import did_you_mean
from headrace.config.conditions import ConditionError, Node, asked, read
from headrace.config.files import FileError, text
from headrace.config.located import LocatedError, documents
from headrace.config.rules import SEVERITIES, Rule, RuleError
from headrace.config.tree import And, Certain, Not


class TuningError(Exception):
    """A pattern that matches no rule."""


@dataclass(frozen=True)
class Unless:
    """One exception."""

    id: str
    condition: Node
    file: str
    line: int


def read_exceptions(path: Path) -> tuple[Unless, ...]:
    """The exceptions in a file. RuleError if it cannot be read or is malformed."""
    found: list[Unless] = []
    try:
        for document in documents(text(path)):
            parts = document.value if isinstance(document.value, list) else None
            if parts is None:
                raise LocatedError(document.line, "a list of exceptions is wanted")
            for part in parts:
                keys = part.value if isinstance(part.value, dict) else {}
                if set(keys) != {"id", "unless"} or not isinstance(keys["id"].value, str):
                    raise LocatedError(part.line, "an exception is {id: ID or *, unless: CONDITION}")
                found.append(Unless(keys["id"].value, read(keys["unless"], {}), str(path), part.line))
    except (LocatedError, ConditionError) as error:
        raise RuleError(str(path), error.line, "", error.why) from error
    except FileError as error:
        raise RuleError(str(path), 0, "", str(error)) from error
    return tuple(found)


def chosen(
    rules: Sequence[Rule], only: Sequence[str], exclude: Sequence[str], least: str, also_off: bool = False
) -> tuple[Rule, ...]:
    """The rules selected by patterns and severity. A pattern is an id, a name, a tag (`tag=NAME`) or a level
    (`level=high`); globs and lists with commas are allowed. TuningError if a pattern matches no rule.

    Without `only`, all enabled rules are selected; `also_off` adds those that are not enabled.
    """
    only, exclude = ([one for each in given for one in each.split(",")] for given in (only, exclude))
    for pattern in (*only, *exclude):
        if not any(_fits(rule, pattern) for rule in rules):
            raise TuningError(f"no signature is {pattern}" + did_you_mean(pattern, [rule.id for rule in rules]))
    order = SEVERITIES.index(least)
    return tuple(
        rule
        for rule in rules
        if (any(_fits(rule, p) for p in only) if only else rule.enabled or also_off)
        and not any(_fits(rule, p) for p in exclude)
        and SEVERITIES.index(rule.severity) >= order
    )


def _fits(rule: Rule, pattern: str) -> bool:
    kind, equals, value = pattern.partition("=")
    if equals and kind == "tag":
        return any(fnmatch.fnmatchcase(tag, value) for tag in rule.tags)
    if equals and kind == "level":
        return rule.severity == value
    return fnmatch.fnmatchcase(rule.id, pattern) or fnmatch.fnmatchcase(rule.name, pattern)


def with_exceptions(
    rules: Sequence[Rule], exceptions: Sequence[Unless], has: Callable[[str, str], bool], known: Sequence[Rule]
) -> tuple[Rule, ...]:
    """The rules with their exceptions. `has`: whether an event has a field. RuleError for an exception that cannot
    affect any rule in `known`, selected or not.
    """
    found = list(rules)
    for unless in exceptions:
        fields = set(asked(unless.condition))
        for i, rule in enumerate(found):
            if unless.id not in ("*", rule.id):
                continue
            events = {
                event: _but(node, unless.condition) if all(has(event, f) for f in fields) else node
                for event, node in rule.events.items()
            }
            found[i] = msgspec.structs.replace(rule, events=events)
        meant = [rule for rule in known if unless.id in ("*", rule.id)]
        if not meant:
            hint = did_you_mean(unless.id, [rule.id for rule in known])
            raise RuleError(unless.file, unless.line, unless.id, f"no signature has the id {unless.id}{hint}")
        if not any(all(has(event, f) for f in fields) for rule in meant for event in rule.events):
            absent = sorted(f for f in fields if not any(has(event, f) for rule in meant for event in rule.events))
            why = f"no event of it has {' and '.join(absent or sorted(fields))}"
            raise RuleError(unless.file, unless.line, unless.id, why)
    return tuple(found)


def _but(node: Node, unless: Node) -> Node:
    return And((node, Not(Certain(unless))))
