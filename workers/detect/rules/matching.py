"""Tests of one field on one value: finds all tests that hold, at once.

Texts go through sets of patterns (workers/detect/rules/patterns.py) in one pass, whose time grows only with the text.
Numbers and bytes have few tests, which run one by one. On a truncated value, a test holds if the part that was read is
sufficient, and is unknown otherwise. On a name that could not be resolved, a test holds if it holds on the name that
was passed, and is unknown otherwise.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re as names
from collections.abc import Callable, Sequence
from typing import NamedTuple

import re2

from headrace.bpf.tables.catalogue import did_you_mean
from headrace.config.conditions import Scalar, Test
from headrace.workers.decode.words import numbers_of_words
from headrace.workers.detect.rules.fields import SOCKADDR_TYPE, Field
from headrace.workers.detect.rules.patterns import PatternSet, as_bytes, fits, lowered, options, pattern
from headrace.workers.detect.rules.values import BYTES, NUMBER, TEXT, TextValue, Value, as_raw, number_of

SIZES: dict[str, Callable[[int, int], bool]] = {
    "lt": lambda value, other: value < other,
    "lte": lambda value, other: value <= other,
    "gt": lambda value, other: value > other,
    "gte": lambda value, other: value >= other,
}
OF_NUMBERS = ("equals", "has", "exists", *SIZES)
OF_TEXTS = ("equals", "contains", "startswith", "endswith", "glob", "re", "cidr", "exists")
OF_BYTES = ("equals", "contains", "startswith", "endswith", "exists")
MAX_VALUE_BYTES, MAX_SHOWN = 64 << 10, 100
"""Bytes of a value; characters of it that a message shows."""
NUL = b"\0"
GROWING = ("contains", "startswith")
"""Operators that hold on a text if they hold on its beginning."""


COMPARES: dict[str, Callable[[bytes, bytes], bool]] = {
    "equals": lambda data, other: data == other,
    "contains": lambda data, other: other in data,
    "startswith": lambda data, other: data.startswith(other),
    "endswith": lambda data, other: data.endswith(other),
}
"""The operators on raw bytes."""


class TestError(Exception):
    """A test that does not apply to the type of its field."""


class Verdicts(NamedTuple):
    """The outcome of the tests of one field, by test number: `true` hold, `unknown` cannot be decided, and `limited` is
    the subset of `unknown` for which a limit of headrace is the reason. All others are false.
    """

    true: frozenset[int]
    unknown: frozenset[int]
    limited: frozenset[int] = frozenset()


def check(field: Field, test: Test) -> None:
    """TestError if the test can never be decided on a field of that type, or if a value is invalid."""
    known = {NUMBER: OF_NUMBERS, BYTES: OF_BYTES}.get(field.kind, OF_TEXTS)
    if test.operator not in known:
        raise TestError(
            f"{field.name} is a {field.kind}: {test.operator} does not apply (there are: {', '.join(known)})"
        )
    if test.operator == "exists" and not (len(test.values) == 1 and isinstance(test.values[0], bool)):
        raise TestError(f"{field.name}: exists is true or false")
    if test.hex and field.kind != BYTES:
        raise TestError(f"{field.name} is a {field.kind}: hex is for bytes")
    for value in test.values if test.operator != "exists" else ():
        _check_value(field, test, value)


def _check_value(field: Field, test: Test, value: Scalar) -> None:
    try:
        size = len(str(value).encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError as error:
        raise TestError(f"{field.name}: {_brief(value)} is no text: a lone surrogate") from error
    except ValueError as error:  # an integer with more digits than Python converts to text
        raise TestError(f"{field.name}: {error}") from error
    if size > MAX_VALUE_BYTES:
        raise TestError(f"{field.name}: {_brief(value)} is longer than {MAX_VALUE_BYTES} bytes, which no field is")
    if field.kind == NUMBER:
        _check_number(field, test, value)
    elif isinstance(value, bool):
        raise TestError(f"{field.name} is a {field.kind}, and {str(value).lower()} is none: put it in quotes")
    elif test.operator == "cidr":
        try:
            ipaddress.ip_network(str(value), strict=False)
        except ValueError as error:
            raise TestError(f"{field.name}: {error}") from error
    elif test.operator == "re":
        try:
            re2.compile(str(value), options(False))
        except re2.error as error:
            why = error.args[0].decode() if isinstance(error.args[0], bytes) else error.args[0]
            raise TestError(f"{field.name}: not a regular expression of RE2: {_brief(value)}: {why}") from error
    elif test.operator == "glob":
        try:
            re2.compile(pattern("glob", value, test.nocase).encode("latin-1"), options(True))
        except re2.error as error:
            if "too large" not in str(error):
                raise TestError(f"{field.name}: not a glob: {_brief(value)}") from error
    elif test.operator in ("contains", "startswith", "endswith") and value == "":
        raise TestError(f"{field.name}: {test.operator} nothing is always true")
    if test.operator in ("re", "glob") and field.kind == TEXT and not fits(test.operator, value, test.nocase):
        raise TestError(f"{field.name}: {_brief(value)} is larger than RE2 has room for")
    if test.hex and not names.fullmatch("(?:[0-9a-fA-F]{2})+", str(value)):
        raise TestError(f"{field.name}: not hex digits: {value!r}")


def _brief(value: Scalar) -> str:
    shown = repr(value)
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."


def _room(field: Field) -> tuple[int, int, str]:
    """The range of numbers that a field can be tested for, signed or unsigned: (least, most, description)."""
    if field.type == SOCKADDR_TYPE and field.column == "port":
        return 0, 65535, "a port (0 to 65535)"
    bits = 32 if field.width.endswith("32") else 64
    return -(1 << bits - 1), (1 << bits) - 1, f"a number of {bits} bits"


def _check_number(field: Field, test: Test, value: Scalar) -> None:
    if isinstance(value, bool) and not field.is_bool:
        raise TestError(f"{field.name} is a number, not {'true' if value else 'false'}")
    least, most, what = _room(field)
    with contextlib.suppress(ValueError):
        if not least <= (int(value, 0) if isinstance(value, str) else value) <= most:
            raise TestError(f"{field.name}: {value} is not {what}")
    if number_of(value, field.width, None) is not None:
        return
    known = numbers_of_words(field.words) if field.words else {}
    if not isinstance(value, str) or test.operator in SIZES or not set(value.split("|")) <= set(known):
        what = f"{field.name} has no {value}" if known else f"{field.name} is a number, not {value!r}"
        raise TestError(what + did_you_mean(str(value), known))


class Matcher:
    """All tests of one field, which must have passed check(). The number of a test is its position in `tests`."""

    def __init__(self, field: Field, tests: Sequence[Test]) -> None:
        self.field, self.tests = field, tests
        everything = frozenset(range(len(tests)))
        exists = frozenset(i for i, test in enumerate(tests) if test.operator == "exists")
        self.present = frozenset(i for i in exists if tests[i].values[0])
        self.unread = Verdicts(exists - self.present, everything - exists)
        """The verdicts on a value that could not be read."""
        self._growing = frozenset(i for i, test in enumerate(tests) if test.operator in GROWING)
        self._uncertain = everything - exists
        self._each = {i: len(test.values) for i, test in enumerate(tests) if test.each and len(test.values) > 1}
        self._simple: list[tuple[int, Callable[[Value], bool]]] = []
        exact, small, regular = PatternSet(True), PatternSet(True), PatternSet(False)
        for i, test in enumerate(tests):
            self._add(i, test, regular if test.operator == "re" else small if test.nocase else exact)
        closed = (exact.close(), False), (small.close(), True)
        self._sets = [(patterns, is_small) for patterns, is_small in closed if patterns]
        """Pattern sets for texts, and whether each needs lower case."""
        self._regular = regular.close()

    def _add(self, number: int, test: Test, patterns: PatternSet) -> None:
        if test.operator == "exists":
            return
        if self.field.kind == NUMBER:
            self._simple.append((number, _number_test(self.field, test)))
        elif self.field.kind == BYTES:
            self._simple.append((number, _bytes_test(test)))
        elif test.operator == "cidr":
            self._simple.append((number, _cidr_test(test)))
        else:
            for at, value in enumerate(test.values):
                patterns.add(pattern(test.operator, value, test.nocase), (number, at))

    def verdicts(self, value: Value) -> Verdicts:
        """The tests that hold on a value, and those that are unknown."""
        if value is None:
            return self.unread
        if self.field.pair is not None and isinstance(value, TextValue):
            return Verdicts(self.present, self._uncertain, self._uncertain)
        true = {number for number, test in self._simple if test(value)}
        if isinstance(value, TextValue):
            true |= self._texts(value)
            if value.cut or value.passed:
                sure = frozenset(true) & self._growing if value.cut else frozenset(true)
                return Verdicts(sure | self.present, self._uncertain - sure, self._uncertain - sure)
        return Verdicts(frozenset(true) | self.present, frozenset())

    def _texts(self, value: TextValue) -> set[int]:
        hits: list[tuple[int, int]] = []
        if self._sets:
            whole = NUL + NUL.join(value.parts) + NUL
            for one, small in self._sets:
                hits += one.hits(lowered(whole) if small else whole)
        if self._regular:
            for part in value.parts:
                hits += self._regular.hits(part.decode("utf-8", "replace"))
        true = {number for number, _ in hits}
        if self._each:
            for number, wanted in self._each.items():
                if number in true and len({at for n, at in hits if n == number}) < wanted:
                    true.discard(number)
        return true


def _number_test(field: Field, test: Test) -> Callable[[Value], bool]:
    plain = [number_of(value, field.width, None) for value in test.values]
    words = [str(value) for value, number in zip(test.values, plain, strict=True) if number is None]
    numbers = {number for number in plain if number is not None}
    if test.operator in SIZES:
        compare, how = SIZES[test.operator], all if test.each else any
        return lambda value: isinstance(value, int) and how(compare(value, number) for number in numbers)
    shown = field.words

    def holds(value: Value) -> bool:
        assert isinstance(value, int)
        text = shown(as_raw(value)) if shown and words else ""
        parts = text.split("|")
        if test.operator == "has":
            found = [all(w in parts for w in word.split("|")) for word in words]
            found += [value & number == number if number else value == 0 for number in numbers]
        else:
            found = [word == text for word in words] + [value == number for number in numbers]
        return all(found) if test.each else any(found)

    return holds


def _bytes_test(test: Test) -> Callable[[Value], bool]:
    wanted = [bytes.fromhex(str(v)) if test.hex else as_bytes(v) for v in test.values]
    how = all if test.each else any
    compare = COMPARES[test.operator]
    return lambda value: isinstance(value, bytes) and how(compare(value, other) for other in wanted)


def _cidr_test(test: Test) -> Callable[[Value], bool]:
    networks = [ipaddress.ip_network(str(v), strict=False) for v in test.values]
    how = all if test.each else any

    def holds(value: Value) -> bool:
        assert isinstance(value, TextValue)
        for part in value.parts:
            try:
                address = ipaddress.ip_address(part.decode("ascii", "replace"))
            except ValueError:
                continue
            if how(address.version == n.version and address in n for n in networks):
                return True
        return False

    return holds
