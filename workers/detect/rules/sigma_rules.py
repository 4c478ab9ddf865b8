"""Sigma rules to rules of headrace, by pySigma, which reads and parses them (an extra: headrace[sigma]).

A selection becomes a condition on each kind of row that its log source has (workers/detect/rules/taxonomy.py): all of
it must hold in one row. Selections are then put together as the rule's condition says. What can never hold is left out,
and said: a rule is covered in full, in part (`dead` names the selections), or lacks its source (`lacking`).

As Sigma has it, plain values are without case and may have wildcards, `re` is with case and not anchored. Keywords of
auditd rules are looked for in the arguments of what is run; those of other logs are only tried on command lines, and
only if that is asked for.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from headrace.bpf.tables.catalogue import Catalogue
from headrace.config.conditions import FALSE, TRUE, Either, Every, Negated, Node, Scalar, Surely, Test, every
from headrace.config.rules import Mitre, Rule, RuleError
from headrace.workers.detect.rules.compiled import check_rule
from headrace.workers.detect.rules.sigma_values import (
    Dead,
    Placeholders,
    Refused,
    encodes_placeholders,
    expanded,
    modifiers,
    reference_node,
    shown_name,
    value_node,
    written,
)
from headrace.workers.detect.rules.taxonomy import Constant, Plain, Row, audit_rows, looked_at, rows_of_category

MAX_SELECTIONS = 20_000
"""Times that one condition comes to a selection: `1 of s* and 1 of s* ...` grows faster than its text."""
SEVERITIES = {"informational": "info", "low": "low", "medium": "medium", "high": "high", "critical": "critical"}
TECHNIQUE = re.compile(r"attack\.(t[0-9]{4}(?:\.[0-9]{3})?)")
CALL_FIELDS = ("SYSCALL", "syscall")


def converted(rule: Any, file: str, catalogue: Catalogue, keywords: bool, values: Placeholders) -> Rule:
    """A rule of pySigma as one of headrace; RuleError."""
    name = str(rule.id or rule.title)
    try:
        found = _Converter(rule, file, catalogue, keywords, values).rule()
        check_rule(found, catalogue)
        # as workers get it: a lone surrogate in a title must not end them
        return msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Rule)
    except RuleError:
        raise
    except Exception as error:  # decision 37
        raise RuleError(file, 0, name, str(error) or type(error).__name__) from error


class _Converter:
    """One rule of pySigma."""

    def __init__(self, rule: Any, file: str, catalogue: Catalogue, keywords: bool, values: Placeholders) -> None:
        self._rule, self._file, self._catalogue, self._keywords = rule, file, catalogue, keywords
        self._values = values
        self.id = str(rule.id or rule.title or Path(file).stem)
        if not hasattr(rule, "detection"):
            raise RuleError(file, 0, self.id, "a correlation: headrace evaluates rules of single events")
        source = rule.logsource
        if source.product not in (None, "linux"):
            raise RuleError(file, 0, self.id, f"a rule for {source.product}: headrace is for linux")
        self._audit = source.service == "auditd"
        self._selections = 0
        self._reasons: dict[str, str] = {}
        """Of each selection that cannot hold in some row: why."""
        self._alive: set[str] = set()
        """Selections that can hold in some row."""
        self._unsourced: dict[tuple[str, int], str] = {}
        """Of each alternative (selection, identity) that cannot be decided in some row: why."""
        self._sourced: set[tuple[str, int]] = set()
        """Alternatives that can be decided in some row."""

    def rule(self) -> Rule:
        """The rule; RuleError if it cannot be used."""
        rows, lacking = self._rows()
        events: dict[str, Node] = {}
        for name in dict.fromkeys(row.event for row in rows):
            node = self._condition([row for row in rows if row.event == name])
            if node != FALSE:
                events[name] = node
        dead = {shown_name(name): why for name, why in self._reasons.items() if name not in self._alive}
        without = dict.fromkeys(
            f"{shown_name(name)}: {why}"
            for (name, each), why in self._unsourced.items()
            if name in self._alive and (name, each) not in self._sourced
        )
        if not events and not lacking:
            lacking = "; ".join(dict.fromkeys(dead.values())) or "its condition can never hold"
        return self._with_facts(events, (*(f"{name}: {why}" for name, why in dead.items()), *without), lacking)

    def _rows(self) -> tuple[list[Row], str]:
        source = self._rule.logsource
        if self._audit:
            return audit_rows(self._named_calls(), self._fields(), self._catalogue), ""
        rows = rows_of_category(source.category or "")
        if rows is not None and source.service is None:
            return rows, ""
        if self._keywords:
            return rows_of_category("process_creation") or [], ""
        what = source.service or source.category
        return [], f"needs the log of {what}" if what else "needs logs: it looks for words in them"

    def _fields(self) -> frozenset[str]:
        detections = self._rule.detection.detections.values()
        return frozenset(name for detection in detections for name in _fields(detection))

    def _named_calls(self) -> frozenset[str]:
        found = set()
        numbers = {c.number: c.event.name for c in self._catalogue.calls if not c.compat}
        for detection in self._rule.detection.detections.values():
            for item in _items(detection):
                if item.field in CALL_FIELDS:
                    for value in item.value:
                        word = str(value)
                        found.add(numbers.get(int(word), word) if word.isdecimal() else word)
        return frozenset(found)

    def _condition(self, rows: list[Row]) -> Node:
        parts = [self._tree(c.parse(False), rows) for c in self._rule.detection.parsed_condition]
        if not parts:
            raise RuleError(self._file, 0, self.id, "its condition is empty")
        return folded(parts[0] if len(parts) == 1 else Either(tuple(parts)))

    def _tree(self, node: Any, rows: list[Row]) -> Node:
        from sigma.conditions import (
            ConditionAND,
            ConditionIdentifier,
            ConditionNOT,
            ConditionOR,
            ConditionSelector,
        )

        detections = self._rule.detection
        if isinstance(node, ConditionIdentifier):
            return self._selection(node.identifier, rows)
        if isinstance(node, ConditionSelector):
            names = [each.identifier for each in node.resolve_referenced_detections(detections)]
            if not names:
                raise RuleError(self._file, 0, self.id, f"no selection is like {node.pattern}")
            parts = tuple(self._selection(name, rows) for name in names)
            return Every(parts) if node.cond_class is ConditionAND else Either(parts)
        if isinstance(node, ConditionNOT):
            # what could not be read excuses nothing
            return Negated(Surely(self._tree(node.args[0], rows)))
        parts = tuple(self._tree(part, rows) for part in node.args)
        assert isinstance(node, ConditionAND | ConditionOR)
        return Every(parts) if isinstance(node, ConditionAND) else Either(parts)

    def _selection(self, name: str, rows: list[Row]) -> Node:
        detection = self._rule.detection.detections.get(name)
        if detection is None:
            raise RuleError(self._file, 0, self.id, f"no selection is called {name}")
        self._selections += 1
        if self._selections > MAX_SELECTIONS:
            raise RuleError(self._file, 0, self.id, f"its condition refers to selections over {MAX_SELECTIONS} times")
        found = []
        absent = sorted(f for f in _fields(detection) if all(row.meaning(f) is None for row in rows))
        if absent and name not in self._reasons:
            self._reasons[name] = self._absent(absent[0])
        for row in rows:
            try:
                node = folded(every(row.when, self._detection(name, detection, row)))
            except Dead as why:
                self._reasons.setdefault(name, str(why))
                continue
            if node == FALSE:
                self._reasons.setdefault(name, "no such record")
            else:
                self._alive.add(name)
                found.append(node)
        node = folded(Either(tuple(found)))
        # there is such a record or there is none: what a record has not is no reason to doubt
        return Surely(node) if self._audit and node not in (TRUE, FALSE) else node

    def _detection(self, name: str, detection: Any, row: Row) -> Node:
        from sigma.conditions import ConditionAND

        if detection.item_linking is ConditionAND:
            return Every(tuple(self._part(name, item, row) for item in detection.detection_items))
        found: list[Node] = []
        dead: Dead | None = None
        for item in detection.detection_items:
            try:
                found.append(self._part(name, item, row))
                self._sourced.add((name, id(item)))
            except Dead as why:
                dead = why
                self._unsourced.setdefault((name, id(item)), str(why))
        if dead and not found:
            raise dead
        return Either(tuple(found))

    def _part(self, name: str, item: Any, row: Row) -> Node:
        from sigma.rule import SigmaDetection

        return self._detection(name, item, row) if isinstance(item, SigmaDetection) else self._item(item, row)

    def _item(self, item: Any, row: Row) -> Node:
        from sigma.conditions import ConditionAND

        name = item.field or ""
        meaning = row.meaning(name)
        if not name and not self._audit and self._keywords:
            meaning = Plain("process.command_line")
        if meaning is None:
            raise Dead(self._absent(name))
        values = item.value or [None]
        applied = modifiers(item)
        try:
            if "utf16" in applied and {"base64", "base64offset"} & set(applied):
                raise Refused("the modifier utf16 before base64: pySigma encodes its byte order mark wrongly; use wide")
            if encoding := encodes_placeholders(applied):
                raise Refused(f"the modifier {encoding} after expand encodes the placeholder, not its values")
            parts = tuple(self._value(value, item, meaning, row) for value in values)
        except Refused as error:
            raise RuleError(self._file, 0, self.id, f"{written(item)}: {error}") from error
        node: Node = Every(parts) if item.value_linking is ConditionAND else Either(parts)
        # unknown stays unknown: what could not be read is neither equal nor different
        return Negated(node) if "neq" in applied else node

    def _value(self, value: Any, item: Any, meaning: Plain | Constant, row: Row) -> Node:
        from sigma.types import SigmaFieldReference

        if not isinstance(value, SigmaFieldReference):
            each = expanded(value, self._values)
            return Either(tuple(value_node(one, meaning, keyword=not item.field) for one in each))
        other = row.meaning(value.field)
        if other is None:
            raise Dead(self._absent(value.field))
        return reference_node(value, meaning, other, nocase="cased" not in modifiers(item))

    def _absent(self, name: str) -> str:
        if not name:
            return "words in logs"
        return f"no record has {name}" if self._audit else f"headrace has no {name}"

    def _with_facts(self, events: dict[str, Node], dead: tuple[str, ...], lacking: str) -> Rule:
        rule = self._rule
        tags = tuple(str(tag) for tag in rule.tags)
        ids = [m[1].upper() for tag in tags if (m := TECHNIQUE.fullmatch(tag))]
        tactics = [t.removeprefix("attack.").replace("-", " ").title() for t in tags if t.startswith("attack.")]
        tactics = [t for t in tactics if not re.fullmatch(r"[TGS][0-9.]+", t)]
        level = str(rule.level.name).lower() if rule.level else ""
        known = [self._catalogue.by_name[name] for name in events]
        return Rule(
            id=self.id,
            name=Path(self._file).stem,
            title=rule.title or "",
            description=rule.description or "",
            severity=SEVERITIES.get(level, "medium"),
            mitre=Mitre(tactics[0] if tactics else "", "", ids[0] if ids else ""),
            tags=tags,
            events=events,
            data={name: name for event in known for name in looked_at(event, self._audit)},
            author=rule.author or "",
            references=tuple(map(str, rule.references or ())),
            level=level,
            status=str(rule.status.name).lower() if rule.status else "",
            dead=dead if events else (),
            lacking=lacking if not events else "",
            file=self._file,
        )


def _fields(detection: Any) -> frozenset[str]:
    return frozenset(item.field or "" for item in _items(detection))


def _items(detection: Any) -> list[Any]:
    from sigma.rule import SigmaDetection

    found: list[Any] = []
    for item in detection.detection_items:
        found += _items(item) if isinstance(item, SigmaDetection) else [item]
    return found


def folded(node: Node) -> Node:
    """The same condition without parts that are certain, and with alternatives of one test as one."""
    if isinstance(node, Negated):
        inner = folded(node.part)
        return FALSE if inner == TRUE else TRUE if inner == FALSE else Negated(inner)
    if isinstance(node, Surely):
        inner = folded(node.part)
        return inner if inner in (TRUE, FALSE) else Surely(inner)
    if not isinstance(node, Every | Either):
        return node
    is_every = isinstance(node, Every)
    neutral, decisive = (TRUE, FALSE) if is_every else (FALSE, TRUE)
    parts: list[Node] = []
    for part in node.parts:
        found = folded(part)
        if found == decisive:
            return decisive
        if found == neutral:
            continue
        parts += found.parts if isinstance(found, type(node)) else [found]
    if not is_every:
        parts = _joined(parts)
    parts = list(dict.fromkeys(parts))
    if len(parts) < 2:
        return parts[0] if parts else neutral
    return Every(tuple(parts)) if is_every else Either(tuple(parts))


def _joined(parts: list[Node]) -> list[Node]:
    """Tests of one field by one operator are one test of several values."""
    found: dict[tuple[Any, ...], Node] = {}
    values: dict[tuple[Any, ...], list[Scalar]] = {}
    for part in parts:
        if not isinstance(part, Test) or part.each or part.operator == "exists":
            found[("node", len(found))] = part
            continue
        key = (part.field, part.operator, part.nocase)
        found.setdefault(key, part)
        values.setdefault(key, []).extend(part.values)
    return [
        msgspec.structs.replace(part, values=tuple(values[key])) if isinstance(part, Test) and key in values else part
        for key, part in found.items()
    ]
