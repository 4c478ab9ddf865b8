"""Proposes exceptions for findings that repeat: what a suggestion would remove, and what it would change.

Findings of one signature, program and parent form a group. Its condition names what all of them have in common: the
program, its parent, the container's image, the user, and the values of the finding's data. A value of the data counts
only if it repeats; one that occurred once or twice, as that of an attack among routine, is never covered. Where there
are many values in one folder, the folder is named, if it is deep enough.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import yaml

from headrace.bpf.tables.catalogue import Catalogue, Event, UnknownName
from headrace.config.conditions import Node, read
from headrace.config.filters import TEXTUAL
from headrace.config.located import documents
from headrace.config.rules import Example, Rule
from headrace.workers.detect.offline.flat import FlatRules, of_example
from headrace.workers.detect.rules.fields import FieldError, field_of

MIN_REPEATS = 5
"""Findings that a suggestion must remove, and that a value must occur in to be named."""
MIN_SHARE = 0.01
"""Share of the group in which a value must occur to be named."""
MAX_VALUES = 20
"""Values that a condition lists; beyond that, their folder is named."""
MIN_DEPTH, MAX_LEVELS, MOST = 3, 3, 0.5
"""Components that a folder must have to be named, how far above the files it may be, and the share that folders must
hold.
"""


@dataclass
class Seen:
    """One finding: what exceptions can be about. `count`: how often it was found."""

    id: str
    title: str
    count: int
    facts: dict[str, str]
    """Fields of the process, its parent and its container that conditions can name."""
    data: dict[str, str]
    """Texts of the finding's data, by the field that conditions name."""


@dataclass
class Suggestion:
    """An exception. `removes` of the signature's `of` findings."""

    id: str
    title: str
    unless: dict[str, Any]
    removes: int
    of: int
    hidden: list[int] = field(default_factory=list)
    """Numbers of the signature's own examples that it would hide: it is not proposed then."""

    def entry(self) -> str:
        """As a line of an exceptions file."""
        return str(yaml.safe_dump([{"id": self.id, "unless": self.unless}], sort_keys=False, allow_unicode=True))

    def changes(self) -> str:
        """For what nothing would be found any more."""
        return " and ".join(f"{name} {_said(value)}" for name, value in self.unless.items())


def _said(value: Any) -> str:
    if isinstance(value, list):
        return f"one of {', '.join(map(str, value[:3]))}" + (f" and {len(value) - 3} more" if len(value) > 3 else "")
    return f"= {value}"


def seen(line: bytes, rules: Mapping[str, Rule]) -> Seen:
    """A finding from its JSON line. Raises ValueError if it is none."""
    found = msgspec.json.decode(line)
    try:
        who, above, container = found["process"], found["ancestors"], found["container"]
        facts = {"process.path": who["path"], "process.user": who.get("user")}
        facts["parent.path"] = above[0]["path"] if above else None
        image = container.get("image")
        facts["container.image"] = image if isinstance(image, str) else None
        rule = rules.get(found["signatureID"])
        fields = rule.data if rule else {}
        data = {fields[name]: value for name, value in found["data"].items() if name in fields}
        count = int(found.get("count", 0)) or 1
        return Seen(found["signatureID"], found["title"], count, _texts(facts), _texts(data))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"not a finding: {error!r}") from error


def _texts(given: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in given.items() if isinstance(value, str) and value}


def suggestions(
    findings: Iterable[Seen], rules: Mapping[str, Rule], examples: Mapping[str, Sequence[Example]], catalogue: Catalogue
) -> list[Suggestion]:
    """The exceptions to propose, the most useful first. None of them hides an example of its signature."""
    totals: Counter[str] = Counter()
    groups: dict[tuple[str, str, str], list[Seen]] = defaultdict(list)
    for one in findings:
        totals[one.id] += one.count
        key = one.id, one.facts.get("process.path", ""), one.facts.get("parent.path", "")
        groups[key].append(one)
    found = []
    for (name, path, _), members in groups.items():
        if name not in rules or not path:
            continue
        for unless, chosen in _conditions(members, rules[name], catalogue):
            removes = sum(one.count for one in chosen)
            made = Suggestion(name, chosen[0].title, unless, removes, totals[name])
            made.hidden = _hides(unless, examples.get(name, ()), catalogue)
            if removes >= MIN_REPEATS and not made.hidden:
                found.append(made)
    return sorted(found, key=lambda each: (-each.removes, each.id, each.changes()))


def _conditions(members: list[Seen], rule: Rule, catalogue: Catalogue) -> Iterator[tuple[dict[str, Any], list[Seen]]]:
    """(condition, findings that it covers) for a group: one for each set of data fields that its findings have."""
    by_shape: dict[tuple[str, ...], list[Seen]] = defaultdict(list)
    for one in members:
        by_shape[tuple(sorted(one.data))].append(one)
    for shape, chosen in by_shape.items():
        event = next((each for each in rule.events if all(_has(each, name, catalogue) for name in shape)), None)
        if event is None:
            continue
        shape = tuple(name for name in shape if _is_text(catalogue.event(event), name))
        unless: dict[str, Any] = {}
        for name in chosen[0].facts:
            values = {one.facts.get(name) for one in chosen}
            if len(values) == 1 and _has(event, name, catalogue):
                unless[name] = values.pop()
        for name in shape:
            operator, value, covers = _values(chosen, name)
            chosen = [one for one in chosen if covers(one.data[name])]
            if value is not None:
                unless[name + operator] = value
        if chosen and "process.path" in unless:
            yield unless, chosen


def _values(chosen: list[Seen], name: str) -> tuple[str, Any, Callable[[str], bool]]:
    """(operator, value, whether a text is covered) for a field: the values that repeat, or their folder."""
    counts: Counter[str] = Counter()
    for one in chosen:
        counts[one.data[name]] += one.count
    whole = counts.total()
    often = [value for value, count in counts.most_common() if count >= max(MIN_REPEATS, MIN_SHARE * whole)]
    folders = _folders(counts) if len(counts) > MAX_VALUES else []
    if folders:
        whole_folders = tuple(folders)
        value = folders[0] if len(folders) == 1 else folders
        return "|startswith", value, lambda text: text.startswith(whole_folders)
    often = often[:MAX_VALUES]
    return "", often[0] if len(often) == 1 else often, lambda text: text in often


def _folders(counts: Counter[str]) -> list[str]:
    """The folders, with their slash, that hold most of these paths; empty if they are no paths, or not deep enough."""
    whole, at = counts.total(), {value: value for value in counts if value.startswith("/")}
    for _ in range(MAX_LEVELS):
        at = {value: os.path.dirname(folder) for value, folder in at.items()}
        held: Counter[str] = Counter()
        for value, folder in at.items():
            if folder.count("/") >= MIN_DEPTH:
                held[folder + "/"] += counts[value]
        often = [folder for folder, count in held.most_common() if count >= max(MIN_REPEATS, MIN_SHARE * whole)]
        if often and len(often) <= MAX_VALUES and sum(held[folder] for folder in often) >= MOST * whole:
            return often
    return []


def _has(event: str, name: str, catalogue: Catalogue) -> bool:
    """Whether an event has a field."""
    try:
        field_of(catalogue.event(event), name)
    except (FieldError, UnknownName):
        return False
    return True


def _is_text(event: Event, name: str) -> bool:
    """Whether an argument is a text, and not the words for a number, of which conditions know one at a time."""
    index = event.index(name)
    return index is not None and event.arguments[index].type in TEXTUAL


def _node(unless: Mapping[str, Any]) -> Node:
    document = next(iter(documents(yaml.safe_dump(dict(unless)))))
    return read(document, {})


def _hides(unless: Mapping[str, Any], examples: Sequence[Example], catalogue: Catalogue) -> list[int]:
    """Numbers of the examples that must match and for which the exception certainly holds."""
    node, judge, found = _node(unless), FlatRules(), []
    for number, example in enumerate(examples, 1):
        if not example.matches:
            continue
        try:
            event = of_example(example.events[-1], catalogue)
            if judge.verdict(node, event):
                found.append(number)
        except (FieldError, UnknownName, ValueError):
            continue
    return found
