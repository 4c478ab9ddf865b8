"""Sigma rules to rules of headrace, by pySigma, which reads and parses them (an extra: headrace[sigma]).

A selection becomes a condition on each kind of row that its log source has (workers/detect/taxonomy.py): all of it
must hold in one row. Selections are then put together as the rule's condition says. What can never hold is left out,
and said: a rule is covered in full, in part (`dead` names the selections), or lacks its source (`lacking`).

As Sigma has it, plain values are without case and may have wildcards, `re` is with case and not anchored. Keywords of
auditd rules are looked for in the arguments of what is run; those of other logs are only tried on command lines, and
only if that is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bpf.catalogue import Catalogue
from config.conditions import FALSE, TRUE, Either, Every, Negated, Node, Scalar, Surely, Test, every
from config.rules import Mitre, Rule, RuleError, files_of, taken
from workers.detect.compiled import check_rule
from workers.detect.fields import field_of
from workers.detect.matching import Matcher
from workers.detect.taxonomy import Constant, Meaning, Plain, Row, audit_rows, rows_of_category
from workers.detect.values import text

LONGEST_FILE = 1 << 20
SEVERITIES = {"informational": "info", "low": "low", "medium": "medium", "high": "high", "critical": "critical"}
TECHNIQUE = re.compile(r"attack\.(t[0-9]{4}(?:\.[0-9]{3})?)")
NO_HEX = re.compile(r"[^0-9a-f*?]")
CALL_FIELDS = ("SYSCALL", "syscall")


class _Dead(Exception):
    """A part that can never be decided here."""


def load_sigma(
    folders: Sequence[Path], catalogue: Catalogue, keywords: bool = False
) -> tuple[list[Rule], list[RuleError]]:
    """Rules of files and folders, and what is refused. ImportError without pySigma."""
    from sigma.collection import SigmaCollection
    from sigma.exceptions import SigmaError
    from yaml import YAMLError

    rules: list[Rule] = []
    refused: list[RuleError] = []
    for folder in folders:
        try:
            files = files_of(folder)
        except OSError as error:
            refused.append(RuleError(str(folder), 0, "", error.strerror or str(error)))
            continue
        for path in files:
            try:
                data = path.read_text("utf-8-sig")
                if len(data) > LONGEST_FILE:
                    raise ValueError(f"larger than {LONGEST_FILE >> 20} MiB")
                parsed = SigmaCollection.from_yaml(data).rules
            except OSError as error:
                refused.append(RuleError(str(path), 0, "", error.strerror or str(error)))
                continue
            except (SigmaError, YAMLError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
                mark = getattr(error, "problem_mark", None)
                why = getattr(error, "problem", None) or str(error)
                refused.append(RuleError(str(path), mark.line + 1 if mark else 0, "", f"not a Sigma rule: {why}"))
                continue
            for rule in parsed:
                try:
                    found = _Converter(rule, str(path), catalogue, keywords).rule()
                    for other in rules:
                        if found.id == other.id:
                            raise RuleError(str(path), 0, found.id, taken(other))
                    check_rule(found, catalogue)
                except RuleError as error:
                    refused.append(error)
                except (SigmaError, RecursionError) as error:
                    refused.append(RuleError(str(path), 0, str(rule.id or rule.title), str(error)))
                else:
                    rules.append(found)
    return rules, refused


class _Converter:
    """One rule of pySigma."""

    def __init__(self, rule: Any, file: str, catalogue: Catalogue, keywords: bool) -> None:
        self._rule, self._file, self._catalogue, self._keywords = rule, file, catalogue, keywords
        self.id = str(rule.id or rule.title or Path(file).stem)
        if not hasattr(rule, "detection"):
            raise RuleError(file, 0, self.id, "a correlation: headrace evaluates rules of single events")
        source = rule.logsource
        if source.product not in (None, "linux"):
            raise RuleError(file, 0, self.id, f"a rule for {source.product}: headrace is for linux")
        self._audit = source.service == "auditd"
        self._reasons: dict[str, str] = {}
        """Of each selection that cannot hold in some row: why."""
        self._alive: set[str] = set()
        """Selections that can hold in some row."""

    def rule(self) -> Rule:
        """The rule; RuleError if it cannot be used."""
        rows, lacking = self._rows()
        events: dict[str, Node] = {}
        for name in dict.fromkeys(row.event for row in rows):
            node = self._condition([row for row in rows if row.event == name])
            if node != FALSE:
                events[name] = node
        dead = {name: why for name, why in self._reasons.items() if name not in self._alive}
        if not events and not lacking:
            lacking = "; ".join(dict.fromkeys(dead.values())) or "its condition can never hold"
        return self._with_facts(events, tuple(f"{name}: {why}" for name, why in dead.items()), lacking)

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
        found = []
        absent = sorted(f for f in _fields(detection) if all(row.meaning(f) is None for row in rows))
        if absent and name not in self._reasons:
            self._reasons[name] = self._absent(absent[0])
        for row in rows:
            try:
                node = folded(every(row.when, self._detection(detection, row)))
            except _Dead as why:
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

    def _detection(self, detection: Any, row: Row) -> Node:
        from sigma.conditions import ConditionAND
        from sigma.rule import SigmaDetection

        parts = tuple(
            self._detection(item, row) if isinstance(item, SigmaDetection) else self._item(item, row)
            for item in detection.detection_items
        )
        return Every(parts) if detection.item_linking is ConditionAND else Either(parts)

    def _item(self, item: Any, row: Row) -> Node:
        from sigma.conditions import ConditionAND

        name = item.field or ""
        meaning = row.meaning(name)
        if not name and not self._audit and self._keywords:
            meaning = Plain("process.command_line")
        if meaning is None:
            raise _Dead(self._absent(name))
        values = item.value or [None]
        parts = tuple(_value_node(value, meaning, not name) for value in values)
        return Every(parts) if item.value_linking is ConditionAND else Either(parts)

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
        return Rule(
            id=self.id,
            name=Path(self._file).stem,
            title=rule.title or "",
            description=rule.description or "",
            severity=SEVERITIES.get(level, "medium"),
            mitre=Mitre(tactics[0] if tactics else "", "", ids[0] if ids else ""),
            tags=tags,
            events=events,
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


def _value_node(value: Any, meaning: Meaning, keyword: bool) -> Node:
    if isinstance(meaning, Constant):
        test = _test("constant", value, keyword, False)
        return _constant(test, meaning.value)
    assert isinstance(meaning, Plain)
    test = _test(meaning.name, value, keyword, meaning.number)
    if meaning.words and not any(_constant(test, word) == TRUE for word in meaning.words):
        return FALSE
    if meaning.name.endswith("@hex") and any(NO_HEX.search(str(v).lower()) for v in test.values):
        return FALSE
    return test


def _constant(test: Test, value: str) -> Node:
    from bpf.catalogue import catalogue

    if test.operator == "exists":
        return TRUE if test.values[0] else FALSE
    text_field = field_of(catalogue().by_name["sched_process_exec"], "process.name")
    return TRUE if Matcher(text_field, [test]).verdicts(text(value)).true else FALSE


def _test(name: str, value: Any, keyword: bool, number: bool) -> Test:
    """One value as a test. _Dead for what has no meaning here."""
    from sigma import types

    if value is None or isinstance(value, types.SigmaNull):
        return Test(name, "exists", (False,))
    if isinstance(value, types.SigmaExists):
        return Test(name, "exists", (bool(value.exists),))
    if isinstance(value, types.SigmaCIDRExpression):
        return Test(name, "cidr", (str(value.cidr),))
    if isinstance(value, types.SigmaRegularExpression):
        return Test(name, "re", (_flagged(value),))
    if isinstance(value, types.SigmaCompareExpression):
        number_, operator = value.number, value.op.name.lower()
        return Test(name.partition("@")[0], operator, (int(str(number_)),))
    if isinstance(value, types.SigmaBool):
        return Test(name, "equals", (str(value).lower(),), nocase=True)
    if isinstance(value, types.SigmaNumber):
        plain: Scalar = int(str(value)) if number else str(value)
        return Test(name, "equals", (plain,))
    if not isinstance(value, types.SigmaString):
        raise _Dead(f"values of the kind {type(value).__name__}")
    cased = isinstance(value, types.SigmaCasedString)
    if number:
        return Test(name, "equals", (str(value),))
    return _string(name, value, keyword, cased)


def _flagged(value: Any) -> str:
    flags = "".join(sorted(flag.value if isinstance(flag.value, str) else flag.name[0].lower() for flag in value.flags))
    pattern = str(value.regexp)
    return f"(?{flags}){pattern}" if flags else pattern


def _string(name: str, value: Any, keyword: bool, cased: bool) -> Test:
    from sigma.types import SpecialChars

    parts = list(value.s)
    many = SpecialChars.WILDCARD_MULTI
    begins, ends = parts[:1] == [many] or keyword, parts[-1:] == [many] or keyword
    inner = [p for i, p in enumerate(parts) if not (p is many and i in (0, len(parts) - 1))]
    if all(isinstance(p, str) for p in inner) and (literal := "".join(inner)):
        how = {(0, 0): "equals", (1, 1): "contains", (0, 1): "startswith", (1, 0): "endswith"}[int(begins), int(ends)]
        return Test(name, how, (literal,), nocase=not cased)
    if not parts:
        return Test(name, "equals", ("",), nocase=not cased)
    if not inner:
        return Test(name, "exists", (True,))
    glob = "".join(
        re.sub(r"([*?\[\]\\])", r"\\\1", p) if isinstance(p, str) else "*" if p is many else "?" for p in parts
    )
    if keyword:
        glob = f"*{glob}*"
    return Test(name, "glob", (glob,), nocase=not cased)


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
    for part in parts:
        if not isinstance(part, Test) or part.each or part.operator == "exists":
            found[("node", len(found))] = part
            continue
        key = (part.field, part.operator, part.nocase)
        known = found.get(key)
        if isinstance(known, Test):
            part = msgspec.structs.replace(known, values=(*known.values, *part.values))
        found[key] = part
    return list(found.values())
