"""Conditions on events, to which every syntax for signatures is compiled: boolean trees (tree.py) of tests.

A Test has a field and its allowed values: `pathname|endswith: [/a, /b]`. A field that could not be read makes a test
unknown. An unknown condition does not match, and neither does its negation. A test with several values holds if one of
them matches; with the modifier `all`, if each does. Fields are only names here. They are resolved against an event in
workers/detect/rules/fields.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

import msgspec

from headrace.config.located import Located
from headrace.config.tree import TRUE, And, Not, Or, Tree, conjunction, leaves

OPERATORS = (
    "equals",
    "contains",
    "startswith",
    "endswith",
    "glob",
    "re",
    "cidr",
    "lt",
    "lte",
    "gt",
    "gte",
    "has",
    "exists",
)
"""`has`: a flag, or a word of the value. `glob`: `*`, `?` and `[...]`; a backslash escapes them."""
MODIFIERS = {
    "all": "each of the values",
    "nocase": "upper and lower case are the same",
    "hex": "values are hex digits",
    "field": "values are names of fields",
}
COMPARED = "|"
"""Separates the parts of a comparison of two fields, which is itself a field: `pathname|endswith|process.name`."""
COMPARISONS = ("equals", "contains", "startswith", "endswith")
MAX_VALUES = 100_000
"""Values of one test, including those of lists. Nested lists grow faster than their text."""
Scalar = str | int | bool


class ConditionError(Exception):
    """A malformed condition. `line` counts from 1."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line, self.why = line, why


class Test(msgspec.Struct, frozen=True, tag="test"):
    """One field, one operator, and one or more values."""

    field: str
    operator: str
    values: tuple[Scalar, ...]
    each: bool = False
    nocase: bool = False
    hex: bool = False
    line: int = 0

    @property
    def wanted(self) -> str:
        """The operator, modifiers and values as text."""
        how = "".join(f"|{word}" for word in ("each", "nocase", "hex") if getattr(self, word))
        return f"{self.operator}{how} {', '.join(map(str, self.values))}"


Node = Tree[Test]
Lists = Mapping[str, tuple[Scalar, ...]]


def asked(node: Node) -> Iterator[str]:
    """The names of all fields in a condition. A comparison has two."""
    for test in leaves(node):
        names = test.field.split(COMPARED)
        yield from (names[0], names[-1]) if len(names) > 1 else names


def comparison(left: str, operator: str, right: str, nocase: bool, line: int = 0) -> Test:
    """A test that compares one field with another."""
    how = f"{operator}{COMPARED}nocase" if nocase else operator
    return Test(COMPARED.join((left, how, right)), "equals", (True,), line=line)


def read(located: Located, lists: Lists) -> Node:
    """Parse a condition from YAML. ConditionError if it is malformed."""
    value = located.value
    if value is None:
        return TRUE
    if isinstance(value, list):
        if not value:
            raise ConditionError(located.line, "an empty list is no condition")
        return Or(tuple(read(part, lists) for part in value))
    if not isinstance(value, dict):
        raise ConditionError(located.line, f"a condition is a mapping or a list, not {value!r}")
    lines = located.keys or {}
    return conjunction(*(_entry(key, part, lines.get(key, part.line), lists) for key, part in value.items()))


def _entry(key: str, part: Located, line: int, lists: Lists) -> Node:
    if key == "not":
        return Not(read(part, lists))
    if key in ("all", "any"):
        if not isinstance(part.value, list) or not part.value:
            raise ConditionError(line, f"{key}: a list of conditions is wanted")
        parts = tuple(read(each, lists) for each in part.value)
        return And(parts) if key == "all" else Or(parts)
    field, *words = key.split("|")
    return _test(field, words, part, line, lists)


def _test(field: str, words: list[str], part: Located, line: int, lists: Lists) -> Node:
    if not field:
        raise ConditionError(line, "a field's name is missing")
    operators = [word for word in words if word in OPERATORS]
    for word in words:
        if word not in OPERATORS and word not in MODIFIERS:
            known = ", ".join((*OPERATORS, *MODIFIERS))
            raise ConditionError(line, f"{field}: no such operator or modifier: {word} (there are: {known})")
    if len(operators) > 1:
        raise ConditionError(line, f"{field}: {' and '.join(operators)} do not go together")
    values = tuple(islice(_values(part, lists, line), MAX_VALUES + 1))
    if len(values) > MAX_VALUES:
        raise ConditionError(line, f"{field}: more than {MAX_VALUES} values")
    if not values:
        raise ConditionError(line, f"{field}: a value is missing")
    operator = operators[0] if operators else "equals"
    if "field" in words:
        return _comparisons(field, operator, words, values, line)
    return Test(field, operator, values, "all" in words, "nocase" in words, "hex" in words, line)


def _comparisons(field: str, operator: str, words: list[str], values: tuple[Scalar, ...], line: int) -> Node:
    if operator not in COMPARISONS or "hex" in words:
        known = ", ".join(COMPARISONS)
        raise ConditionError(line, f"{field}: fields are compared by {known}, with or without nocase")
    if not all(isinstance(value, str) for value in values):
        raise ConditionError(line, f"{field}: the name of a field is wanted")
    parts = tuple(comparison(field, operator, str(value), "nocase" in words, line) for value in values)
    return parts[0] if len(parts) == 1 else And(parts) if "all" in words else Or(parts)


def _values(part: Located, lists: Lists, line: int) -> Iterator[Scalar]:
    value = part.value
    if isinstance(value, list):
        for each in value:
            yield from _values(each, lists, each.line)
    elif isinstance(value, dict):
        name = value["list"].value if set(value) == {"list"} else None
        if not isinstance(name, str) or name not in lists:
            what = f"no such list: {name}" if isinstance(name, str) else "a value is text, a number, or {list: NAME}"
            raise ConditionError(line, what)
        yield from lists[name]
    elif isinstance(value, str | int | bool):
        yield value
    else:
        raise ConditionError(line, f"not a value: {value!r}")
