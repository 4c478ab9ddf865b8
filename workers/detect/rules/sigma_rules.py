"""Converts Sigma rules, which pySigma parses, to rules of headrace. pySigma is optional (headrace[sigma]).

A selection becomes a condition on each kind of row of its log source (workers/detect/rules/taxonomy.py), and must hold
completely in one row. The condition of the rule then combines the selections. A part that can never hold is left out
and reported: a rule is covered in full, in part (`dead` names the parts), or lacks its source (`lacking`).

As Sigma defines it, plain values ignore case and may have wildcards; `re` is case-sensitive and not anchored. Keywords
of auditd rules are searched for in the arguments of executed programs. Keywords of other logs are searched for in
command lines, and only on request.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from headrace.bpf.tables.catalogue import Catalogue
from headrace.config.conditions import Node, Scalar, Test
from headrace.config.rules import Mitre, Rule, RuleError
from headrace.config.tree import FALSE, TRUE, And, Certain, Not, Or, conjunction, simplified
from headrace.workers.detect.rules.compiled import check_rule
from headrace.workers.detect.rules.sigma_values import (
    Dead,
    Placeholders,
    SigmaRefused,
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
"""References to selections in one condition. `1 of s* and 1 of s* ...` grows faster than its text."""
SEVERITIES = {"informational": "info", "low": "low", "medium": "medium", "high": "high", "critical": "critical"}
TECHNIQUE = re.compile(r"attack\.(t[0-9]{4}(?:\.[0-9]{3})?)")
CALL_FIELDS = ("SYSCALL", "syscall")


def converted(rule: Any, file: str, catalogue: Catalogue, keywords: bool, values: Placeholders) -> Rule:
    """A pySigma rule as a rule of headrace; RuleError if it cannot be used."""
    name = str(rule.id or rule.title)
    try:
        found = _Converter(rule, file, catalogue, keywords, values).rule()
        check_rule(found, catalogue)
        # As the workers decode it: a lone surrogate in a title must not end them.
        return msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Rule)
    except RuleError:
        raise
    except Exception as error:  # decision 37
        raise RuleError(file, 0, name, str(error) or type(error).__name__) from error


class _Converter:
    """Converts one rule."""

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
        """Selection -> why it cannot hold in some row."""
        self._alive: set[str] = set()
        """Selections that can hold in some row."""
        self._unsourced: dict[tuple[str, int], str] = {}
        """Alternative (selection, identity) -> why it cannot be decided in some row."""
        self._sourced: set[tuple[str, int]] = set()
        """Alternatives that can be decided in some row."""

    def rule(self) -> Rule:
        """The converted rule; RuleError if it cannot be used."""
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
        return folded(parts[0] if len(parts) == 1 else Or(tuple(parts)))

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
            return And(parts) if node.cond_class is ConditionAND else Or(parts)
        if isinstance(node, ConditionNOT):
            # A part that could not be read counts as false under `not`.
            return Not(Certain(self._tree(node.args[0], rows)))
        parts = tuple(self._tree(part, rows) for part in node.args)
        assert isinstance(node, ConditionAND | ConditionOR)
        return And(parts) if isinstance(node, ConditionAND) else Or(parts)

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
                node = folded(conjunction(row.when, self._detection(name, detection, row)))
            except Dead as why:
                self._reasons.setdefault(name, str(why))
                continue
            if node == FALSE:
                self._reasons.setdefault(name, "no such record")
            else:
                self._alive.add(name)
                found.append(node)
        node = folded(Or(tuple(found)))
        # A record exists or it does not. A field that a record lacks leaves nothing unknown.
        return Certain(node) if self._audit and node not in (TRUE, FALSE) else node

    def _detection(self, name: str, detection: Any, row: Row) -> Node:
        from sigma.conditions import ConditionAND

        if detection.item_linking is ConditionAND:
            return And(tuple(self._part(name, item, row) for item in detection.detection_items))
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
        return Or(tuple(found))

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
                raise SigmaRefused(
                    "the modifier utf16 before base64: pySigma encodes its byte order mark wrongly; use wide"
                )
            if encoding := encodes_placeholders(applied):
                raise SigmaRefused(f"the modifier {encoding} after expand encodes the placeholder, not its values")
            parts = tuple(self._value(value, item, meaning, row) for value in values)
        except SigmaRefused as error:
            raise RuleError(self._file, 0, self.id, f"{written(item)}: {error}") from error
        node: Node = And(parts) if item.value_linking is ConditionAND else Or(parts)
        # Unknown stays unknown: a value that could not be read is neither equal nor different.
        return Not(node) if "neq" in applied else node

    def _value(self, value: Any, item: Any, meaning: Plain | Constant, row: Row) -> Node:
        from sigma.types import SigmaFieldReference

        if not isinstance(value, SigmaFieldReference):
            each = expanded(value, self._values)
            return Or(tuple(value_node(one, meaning, keyword=not item.field) for one in each))
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
    """An equivalent condition without constant parts, with alternative tests of one field and operator merged."""
    return simplified(node, _joined)


def _joined(parts: list[Node]) -> list[Node]:
    """Alternatives in which tests of the same field and operator are merged into one test with several values."""
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
