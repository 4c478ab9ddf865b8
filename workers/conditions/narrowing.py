"""Tests with which the BPF programs discard records that no signature, or no policy, can want (bpf/programs/early.py,
AnyOf).

A test covers the parts of a condition that the programs can decide on a finished record: numbers, flags, and texts
that are exact or have a literal prefix or suffix. Undecidable and negated parts count as true, so a record is
discarded only if no signature of its event can match it. The programs evaluate the test where they walk paths
(bpf/c/path.h). It therefore applies only to events with paths, which are frequent and large.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from headrace.bpf.programs.early import (
    MAX_LEAVES,
    AnyOf,
    Leaf,
    NumberTest,
    Pattern,
    TextTest,
    is_early,
)
from headrace.bpf.tables.catalogue import Catalogue
from headrace.bpf.tables.reads import PATH
from headrace.config.conditions import Scalar, Test
from headrace.config.policies.claims import Claim
from headrace.config.rules import Rule
from headrace.config.tree import And, Certain, Not, Or, Tree
from headrace.workers.conditions.early import RANGES, common_bits, early_tests, text_test
from headrace.workers.decode.flags import parser_of
from headrace.workers.decode.texts import TEXT_TYPES
from headrace.workers.detect.engine.scan import ends
from headrace.workers.detect.rules.compiled import Formula, OfEvent, compile_rules
from headrace.workers.detect.rules.fields import Field
from headrace.workers.detect.rules.values import NUMBER, number_of

COMPARED = {"equals": "=", "has": "=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
MAX_PATTERNS = 128
"""Maximum patterns for one event. The programs try them in sequence, at about 40 instructions each."""
MAX_MEASURED = 32
"""Maximum of those patterns whose prefix ends inside a path component. For these, the program finds the length of a
name byte by byte, and the verifier follows every step. It rejects a program somewhere between 32 and 128 of them,
after several seconds.
"""
MEANING = re.compile(r"[*?\[\\]")
"""Characters that a glob does not match literally."""


def narrowed(rules: Sequence[Rule], catalogue: Catalogue, shown: Collection[str]) -> tuple[AnyOf, ...]:
    """One test for each event of which some records certainly match no rule, sorted by event id. Events in `shown` get
    none.
    """
    found = []
    for of in compile_rules(rules, catalogue).values():
        walks = any(argument.form == PATH for argument in of.event.arguments)
        if walks and is_early(of.event) and of.event.name not in shown:
            test = _Narrowing(of).test()
            found += [test] if test else []
    return tuple(sorted(found, key=lambda test: test.event.id))


def of_claims(claims: Sequence[Claim], whole: Collection[str]) -> tuple[AnyOf, ...]:
    """One test for each event of which some records certainly fail the conditions of every policy that asks for it.
    Events in `whole` get none.
    """
    found = []
    for event in {event.id: event for claim in claims for event in claim.selection.events}.values():
        if event.name in whole or not is_early(event):
            continue
        asking = [claim for claim in claims if event in claim.selection.events]
        leaves: list[Leaf] = []
        wanted: list[And[int]] = []
        for claim in asking:
            own = [c for c in claim.selection.conditions if c.event == event]
            tests = [test for test in early_tests(own) if _is_hit(test)]
            wanted.append(And(tuple(range(len(leaves), len(leaves) + len(tests)))))
            leaves += tests
        if all(each.parts for each in wanted) and _fits(leaves):
            found.append(AnyOf(event, tuple(leaves), Or(tuple(wanted)), of_policies=True))
    return tuple(found)


def _is_hit(test: Leaf) -> bool:
    """Whether the test can be one of several, of which one must hold."""
    return isinstance(test, NumberTest) or not test.negated


def _fits(leaves: Sequence[Leaf]) -> bool:
    """Whether the programs can evaluate these tests of one event."""
    patterns = [pattern for leaf in leaves if isinstance(leaf, TextTest) for pattern in leaf.patterns]
    measured = sum(map(_is_measured, patterns))
    return len(leaves) <= MAX_LEAVES and len(patterns) <= MAX_PATTERNS and measured <= MAX_MEASURED


class _Narrowing:
    """The rules of one event."""

    def __init__(self, of: OfEvent) -> None:
        self._of = of
        self._leaves: list[Leaf] = []
        self._numbers: dict[int, int | None] = {}

    def test(self) -> AnyOf | None:
        """The test; None if some rule can match any record of the event, or if there are too many patterns."""
        parts = [self._necessary(formula) for formula in self._of.formulas.values()]
        wanted = tuple(part for part in parts if part is not None)
        if not _fits(self._leaves):
            return None
        return AnyOf(self._of.event, tuple(self._leaves), Or(wanted)) if len(wanted) == len(parts) else None

    def _necessary(self, formula: Formula) -> Tree[int] | None:
        """A condition that holds whenever the formula is true; None if there is none that the programs can test."""
        if isinstance(formula, int):
            return self._number(formula)
        if isinstance(formula, Not):
            return None
        if isinstance(formula, Certain):
            return self._necessary(formula.part)
        parts = [self._necessary(part) for part in formula.parts]
        wanted = tuple(part for part in parts if part is not None)
        if isinstance(formula, And):
            return And(wanted) if wanted else None
        return Or(wanted) if len(wanted) == len(parts) else None

    def _number(self, test: int) -> int | None:
        if test not in self._numbers:
            leaf = leaf_of(*self._of.tests[test]) if len(self._leaves) < MAX_LEAVES else None
            self._numbers[test] = None if leaf is None else len(self._leaves)
            self._leaves += [leaf] if leaf else []
        return self._numbers[test]


def _is_measured(pattern: Pattern) -> bool:
    return bool(pattern.start) and not pattern.exact and not pattern.start.endswith("/")


def leaf_of(field: Field, test: Test) -> Leaf | None:
    """The test that the BPF programs can evaluate in place of `test`; None if there is none."""
    if field.place not in ("argument", "result") or field.view or field.element is not None or field.is_bool:
        return None
    if field.type in TEXT_TYPES:
        globs = [_glob(test, value) for value in test.values]
        known = [glob for glob in globs if glob is not None]
        return text_test(field.event, field.argument, known) if known and len(known) == len(globs) else None
    return _number_leaf(field, test) if field.kind == NUMBER and not field.column else None


def _glob(test: Test, value: Scalar) -> str | None:
    """A glob that matches at least the texts that `value` matches; None if no useful glob is known."""
    text = str(value)
    if test.nocase:
        return None
    if test.operator == "re":
        begin, end, whole = ends(text)
        if MEANING.search(begin + end) or not (begin or end):
            return None
        return begin if whole else f"{begin}*{end}"
    if test.operator == "glob":
        return None if "\\" in text or "[" in text else text
    if MEANING.search(text):
        return None
    return {"equals": text, "startswith": f"{text}*", "endswith": f"*{text}"}.get(test.operator)


def _number_leaf(field: Field, test: Test) -> NumberTest | None:
    operator = COMPARED.get(test.operator)
    if operator is None or (operator != "=" and len(test.values) > 1):
        return None
    result = field.place == "result"
    cast = "s64" if result else field.width
    parser = None if result else parser_of(field.event.name, field.name, field.type)
    values: list[int] = []
    masks: list[int] = []
    for given in test.values:
        number = number_of(given, field.width, None)
        if number is None:
            mask = common_bits(parser, str(given)) if parser else 0
            if not mask:
                return None
            masks.append(mask)
        elif test.operator == "has" and number:
            masks.append(number)
        else:
            values.append(number)
    least, most = RANGES[cast]
    if not all(least <= value <= most for value in values) or not all(0 < mask <= RANGES["u64"][1] for mask in masks):
        return None
    return NumberTest(field.event, None if result else field.argument, cast, operator, tuple(values), tuple(masks))
