"""Tests of a text field on many values at once: one Hyperscan pass over a block of texts, without an object per value.

    block       \\0 value \\0 value \\0 ...
    pass        (pattern, position of its end)...            every occurrence of every pattern
    rows        the tests that hold, as a fingerprint: the sum of a secret random number per test

Byte patterns cannot decide regular expressions, nor texts that are not ASCII: case and regular expressions are defined
on characters. Scan only marks such values as doubtful, and workers/detect/rules/matching.py tests them one by one. For
a regular expression, Scan searches for the longest literal that every match contains, so few values are doubtful.
"""

from __future__ import annotations

import itertools
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import hyperscan
import numpy as np

from headrace.config.conditions import Test
from headrace.workers.detect.rules.fields import Field
from headrace.workers.detect.rules.patterns import END, PatternSet, pattern, plain_part, wildness
from headrace.workers.detect.rules.values import TEXT
from headrace.workers.records.blocks import Block

Array = np.ndarray[Any, Any]
MAX_BYTES = 1000
"""Bytes of a pattern. Hyperscan limits them."""
MAX_WILD = 1000
"""Wildcards in all globs of a field that are compiled as they are; each takes milliseconds to compile. With more, Scan
searches for a plain part of each glob, and the values that contain it are tested one by one.
"""
IN_EMPTY = ("", END, END + END)
"""Patterns that match an empty text. In a block, an empty text and an absent one look the same."""


@dataclass(frozen=True)
class ScanResult:
    """The result of a scan.

    `fingerprint`: u64 of each text, equal for texts on which the same tests hold, 0 if none holds. `doubt`: mask of
    texts that must be tested one by one.
    """

    fingerprint: Array
    doubt: Array
    _row: Array
    _test: Array

    def tests(self, row: int) -> list[int]:
        """The tests that hold on the text of a row."""
        first, last = np.searchsorted(self._row, [row, row + 1]).tolist()
        return self._test[first:last].tolist()  # type: ignore[no-any-return]


def required(regular: str) -> str | None:
    """An ASCII text that every match of a regular expression contains, without case; None if none is known."""
    parsed = _parsed(regular)
    if parsed is None:
        return None
    runs, run = [], ""
    for kind, value in [*parsed, (None, None)]:
        if str(kind) == "LITERAL" and 0 < value < 0x80:
            run += chr(value)
        else:
            runs.append(run)
            run = ""
    longest = max(runs, key=len)
    return longest[:MAX_BYTES] or None


class Ends(NamedTuple):
    """Literal prefix and suffix shared by every match, "" if unknown. `whole`: every match equals `begin`."""

    begin: str = ""
    end: str = ""
    whole: bool = False


def ends(regular: str) -> Ends:
    """The case-sensitive ASCII prefix and suffix of every match of a regular expression."""
    parsed = _parsed(regular)
    if parsed is None or parsed.state.flags & (re.IGNORECASE | re.MULTILINE):
        return Ends()

    def literals(parts: Sequence[tuple[Any, Any]], edge: str) -> list[str]:
        if not parts or (str(parts[0][0]), str(parts[0][1])) != ("AT", edge):
            return []
        plain = itertools.takewhile(lambda part: str(part[0]) == "LITERAL" and 0 < part[1] < 0x80, parts[1:])
        return [chr(value) for _, value in plain]

    begin, end = literals(parsed, "AT_BEGINNING"), literals(parsed[::-1], "AT_END")
    whole = bool(begin and end) and len(begin) == len(end) == len(parsed) - 2
    return Ends("".join(begin), "".join(reversed(end)), whole)


def _parsed(regular: str) -> Any:
    """A regular expression as parsed by Python's `re`. None if Python cannot parse it, although RE2 can: then no
    literal is known, and more values are tested one by one.
    """
    parser = getattr(re, "_parser", None)
    if parser is None or "[:" in regular:
        return None  # a character class by name, which Python does not support
    try:
        with warnings.catch_warnings(action="ignore"):
            return parser.parse(regular)
    except (re.error, RecursionError, OverflowError):
        return None


def _byte(text: str) -> int | None:
    """The byte that a pattern matches if it matches exactly one, else None."""
    plain = text.encode("ascii").decode("unicode_escape")
    return ord(plain) if len(plain) == 1 else None


def database(patterns: Sequence[tuple[int, str, bool]]) -> Any:
    """A Hyperscan database that searches for all patterns at once; None if there are none. A pattern is (number, text,
    whether it ignores case). hyperscan.error if a pattern exceeds Hyperscan's limits.
    """
    if not patterns:
        return None
    numbers, texts, small = zip(*patterns, strict=True)
    found = hyperscan.Database()
    found.compile(
        expressions=[text.encode("ascii") for text in texts],
        ids=list(numbers),
        flags=[hyperscan.HS_FLAG_CASELESS if each else 0 for each in small],
    )
    return found


def too_wild(tests: Sequence[Test]) -> bool:
    """Whether the globs of these tests would take too long to compile."""
    globs = [pattern("glob", value, test.nocase) for test in tests if test.operator == "glob" for value in test.values]
    return sum(map(wildness, globs)) > MAX_WILD


class Scan:
    """All tests of one field, compiled."""

    def __init__(self, tests: Sequence[Test]) -> None:
        """hyperscan.error if a pattern exceeds Hyperscan's limits."""
        wild = too_wild(tests)
        owners: dict[tuple[str, bool], list[tuple[int, int]]] = {}
        loose = PatternSet(False)
        for i, test in enumerate(tests):
            for at, value in enumerate(test.values if test.operator != "exists" else ()):
                if test.operator != "re" and not (wild and test.operator == "glob"):
                    owners.setdefault((pattern(test.operator, value, test.nocase), test.nocase), []).append((i, at))
                elif text := plain_part(str(value)) if test.operator == "glob" else required(str(value)):
                    owners.setdefault((pattern("contains", text, True), True), []).append((-1, 0))
                else:
                    loose.add(pattern("re", value, test.nocase), (i, at))
        self._loose = loose.close()
        """Regular expressions without a known literal."""
        self._wanted = np.array([len(t.values) if t.each else 1 for t in tests], np.int64)
        self._secret = np.frombuffer(os.urandom(8 * len(tests)), np.uint64) >> np.uint64(1) | np.uint64(1)
        each = [len(owner) for owner in owners.values()]
        self._first = np.concatenate([[0], np.cumsum(each)]).astype(np.int64)
        self._test = np.array([test for owner in owners.values() for test, _ in owner], np.int64)
        self._bytes = [(i, byte, small) for i, (text, small) in enumerate(owners) if (byte := _byte(text)) is not None]
        """Patterns of one byte. They occur everywhere, and numpy finds all positions at once."""
        alone = {i for i, _, _ in self._bytes}
        self._database = database([(i, *each) for i, each in enumerate(owners) if i not in alone])

    @classmethod
    def of(cls, field: Field, tests: Sequence[Test]) -> Scan | None:
        """The scan of these tests; None if they must be tested value by value."""
        wild = too_wild(tests)
        for test in tests:
            if field.kind != TEXT or test.operator == "cidr":
                return None
            if wild and test.operator == "glob" and not all(plain_part(str(value)) for value in test.values):
                return None
            for value in test.values:
                text = pattern(test.operator, value, test.nocase) if test.operator not in ("re", "exists") else "?"
                if text in IN_EMPTY or len(text) > MAX_BYTES:
                    return None
        try:
            return cls(tests)
        except hyperscan.error:
            return None

    def look(self, blocks: Sequence[Block]) -> ScanResult:
        """Which tests hold on each row. The readings of a row are its texts in all blocks; "" means no reading."""
        rows: list[Array] = []
        patterns: list[Array] = []
        doubt = np.zeros(len(blocks[0]), bool)
        for block in blocks:
            at, which = self._occurrences(block)
            rows.append(block.rows(at))
            patterns.append(which)
            doubt |= ~block.is_ascii()
            if self._loose:
                hits = self._loose.hits
                for i, text in enumerate(block.texts()):
                    # texts that are not ASCII are doubtful already
                    if text.isascii() and any(map(hits, text.split(b"\0"))):
                        doubt[i] = True
        return self._seen(np.concatenate(rows), np.concatenate(patterns), doubt)

    def _occurrences(self, block: Block) -> tuple[Array, Array]:
        """(positions of last bytes, patterns) of all occurrences."""
        found: list[int] = []
        add = found.append

        def on_match(number: int, _: int, end: int, flags: int, context: object) -> None:
            add(end - 1)
            add(number)

        if self._database is not None:
            self._database.scan(block.data, match_event_handler=on_match)
        pairs = np.array(found, np.int64).reshape(-1, 2)
        positions, patterns = [pairs[:, 0]], [pairs[:, 1]]
        for number, byte, small in self._bytes:
            same = block.data == byte
            if small and chr(byte).isalpha():
                same |= block.data == ord(chr(byte).upper())
            positions.append(np.flatnonzero(same))
            patterns.append(np.full(len(positions[-1]), number))
        return np.concatenate(positions), np.concatenate(patterns)

    @staticmethod
    def _none(doubt: Array) -> ScanResult:
        nothing = np.zeros(0, np.int64)
        return ScanResult(np.zeros(len(doubt), np.uint64), doubt, nothing, nothing)

    def _seen(self, row: Array, which: Array, doubt: Array) -> ScanResult:
        if not len(row):
            return self._none(doubt)
        count = len(self._first) - 1
        row, which = np.divmod(np.unique(row * count + which), count)
        owners = self._first[which + 1] - self._first[which]
        ends = np.cumsum(owners)
        test = self._test[np.repeat(self._first[which] - ends + owners, owners) + np.arange(ends[-1])]
        row = np.repeat(row, owners)
        doubt[row[test < 0]] = True
        pairs, times = np.unique((row * len(self._wanted) + test)[test >= 0], return_counts=True)
        row, test = np.divmod(pairs, len(self._wanted))
        holds = times >= self._wanted[test]
        row, test = row[holds], test[holds]
        if not len(row):
            return self._none(doubt)
        heads = np.flatnonzero(np.diff(row, prepend=-1))
        fingerprint = np.zeros(len(doubt), np.uint64)
        fingerprint[row[heads]] = np.add.reduceat(self._secret[test], heads)
        return ScanResult(fingerprint, doubt, row, test)
