"""Compares two fields of one event: `pathname|endswith|process.name`."""

from __future__ import annotations

from typing import Any

from headrace.config.conditions import COMPARED
from headrace.workers.detect.columns.view import Array, Column, Keys, ValueColumn, View, listed
from headrace.workers.detect.rules.matching import COMPARES
from headrace.workers.detect.rules.patterns import lowered
from headrace.workers.detect.rules.values import TextValue, Value, text

UNDECIDED = TextValue((), True)
"""The result if a limit of headrace leaves the comparison open."""


def compared(how: str, left: Value, right: Value) -> Value:
    """1 if some reading of the left field matches some reading of the right one, else 0. None if a field was not read.
    UNDECIDED if a field was truncated or its name was not resolved, and the part that was read does not decide.
    """
    if left is None or right is None:
        return None
    operator, _, nocase = how.partition(COMPARED)
    left, right = _text(left), _text(right)
    pairs = [(lowered(a), lowered(b)) if nocase else (a, b) for a in left.parts for b in right.parts]
    fits = any(COMPARES[operator](*pair) for pair in pairs)
    if right.cut or right.passed or left.passed:
        return UNDECIDED
    if left.cut and not (fits and operator in ("contains", "startswith")):
        return UNDECIDED
    return int(fits)


def _text(value: Value) -> TextValue:
    if isinstance(value, TextValue):
        return value
    return text(value if isinstance(value, bytes) else str(value))


class ComparisonColumn(ValueColumn):
    """Whether two fields match. The key is the pair of their keys."""

    def __init__(self, how: str, left: Column, right: Column) -> None:
        self._how, self._left, self._right = how, left, right

    def keys(self, view: View, chosen: Array) -> Keys:
        pair: tuple[list[Any], ...] = tuple(listed(column.keys(view, chosen)) for column in (self._left, self._right))
        return list(zip(*pair, strict=True))

    def value(self, key: Any) -> Value:
        return compared(self._how, self._left.value(key[0]), self._right.value(key[1]))
