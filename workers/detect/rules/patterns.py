"""Values of tests as regular expressions for RE2, and sets that search for many of them at once.

    value  /a/b, /c          ->  \\0/a/b\\0/c\\0      every reading between NULs
    equals /c                ->  \\x00/c\\x00
    startswith /a            ->  \\x00/a
    endswith b               ->  b\\x00

One pass tests all readings of a value. Tests that ignore case get the value in lower case. Regular expressions have a
set of their own, which works on UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import re2

from headrace.config.conditions import Scalar

MAX_MEMORY = 64 << 20
"""Memory for the automaton of a set. When it is used up, RE2 drops the cached states and rebuilds them as needed."""
ONE_CHARACTER = r"(?:[\x01-\x7f]|[\xc0-\xff][\x80-\xbf]*|[\x80-\xbf])"
ANYTHING = r"[^\x00]*"
END = r"\x00"
WILD = re.compile("[*?]")


def options(latin: bool) -> re2.Options:
    """RE2 options for raw bytes (`latin`), or for UTF-8."""
    found = re2.Options()
    found.encoding = re2.Options.Encoding.LATIN1 if latin else re2.Options.Encoding.UTF8
    found.max_mem, found.log_errors, found.dot_nl = MAX_MEMORY, False, True
    return found


def as_bytes(value: Scalar) -> bytes:
    """The value of a rule, as the kernel would store it."""
    return str(value).encode("utf-8", "surrogateescape")


def lowered(data: bytes) -> bytes:
    """Lower case. Two texts are equal without case if they are equal in lower case."""
    if data.isascii():
        return data.lower()
    return data.decode("utf-8", "surrogateescape").lower().encode("utf-8", "surrogateescape")


def escaped(data: bytes) -> str:
    """A pattern that matches exactly these bytes."""
    return "".join(chr(b) if (chr(b).isalnum() and b < 128) or b in b"/ _" else f"\\x{b:02x}" for b in data)


def _globbed(data: bytes) -> Iterator[str]:
    """The parts of a pattern for a glob on bytes without NUL."""
    at = 0
    while at < len(data):
        one = data[at : at + 1]
        at += 1
        if one == b"*":
            yield ANYTHING
        elif one == b"?":
            yield ONE_CHARACTER
        elif one == b"[" and (end := data.find(b"]", at + 1)) > 0:
            inner = data[at:end]
            negated = inner[:1] in (b"!", b"^")
            body = "".join(chr(b) if b == 45 else f"\\x{b:02x}" for b in inner[negated:])
            yield f"[^\\x00{body}]" if negated else f"[{body}]"
            at = end + 1
        elif one == b"\\" and at < len(data):
            yield escaped(data[at : at + 1])
            at += 1
        else:
            yield escaped(one)


def _bounded(parts: list[str]) -> str:
    """A pattern anchored at both ends of a reading; the anchor is dropped at an end where the glob has `*`."""
    begin = end = END
    while parts and parts[0] == ANYTHING:
        parts, begin = parts[1:], ""
    while parts and parts[-1] == ANYTHING:
        parts, end = parts[:-1], ""
    return "".join((begin, *parts, end))


def pattern(operator: str, value: Scalar, nocase: bool) -> str:
    """The pattern that a test searches for in a value with NULs around its readings; for `re`, in one reading."""
    if operator == "re":
        return f"(?i){value}" if nocase else str(value)
    data = lowered(as_bytes(value)) if nocase else as_bytes(value)
    if operator == "glob":
        return _bounded(list(_globbed(data)))
    begin = END if operator in ("equals", "startswith") else ""
    end = END if operator in ("equals", "endswith") else ""
    return begin + escaped(data) + end


def wildness(pattern: str) -> int:
    """Number of wildcards in the pattern of a glob. They make it costly to search for it together with others."""
    return pattern.count(ANYTHING) + pattern.count(ONE_CHARACTER) + pattern.count("[")


def plain_part(glob: str) -> str | None:
    """An ASCII text that every match of a glob contains, ignoring case; None if none is known."""
    if "[" in glob or "\\" in glob:
        return None
    parts = [part for part in WILD.split(glob) if part.isascii()]
    return max(parts, key=len, default="") or None


class TooLarge(Exception):
    """A pattern that RE2 does not accept."""


class PatternSet:
    """Numbered patterns. Finds the ones that occur in a text."""

    def __init__(self, latin: bool) -> None:
        self._latin = latin
        self._patterns: list[str] = []
        self._sets: list[tuple[Any, list[tuple[int, int]]]] = []
        self.numbers: list[tuple[int, int]] = []
        """For each pattern: the test that it belongs to, and the position of its value in the test."""

    def add(self, pattern: str, owner: tuple[int, int]) -> None:
        """Add a pattern. Must be called before close()."""
        self._patterns.append(pattern)
        self.numbers.append(owner)

    def close(self) -> PatternSet | None:
        """Compile the set for hits(). None if it is empty; TooLarge if RE2 does not accept a pattern."""
        if not self.numbers:
            return None
        self._compile(0, len(self._patterns))
        self._patterns.clear()
        return self

    def _compile(self, first: int, last: int) -> None:
        """Compile the patterns from `first` to before `last`: as one set, or as several if they do not fit in one."""
        made = re2.Set.SearchSet(options(self._latin))
        try:
            for pattern in self._patterns[first:last]:
                made.Add(pattern)
            made.Compile()
        except re2.error as error:
            if last - first < 2:
                raise TooLarge from error
            middle = (first + last) // 2
            self._compile(first, middle)
            self._compile(middle, last)
        else:
            self._sets.append((made, self.numbers[first:last]))

    def hits(self, data: bytes | str) -> list[tuple[int, int]]:
        """(test, position of the value) of each pattern that occurs in `data`."""
        if len(self._sets) == 1:
            return [self.numbers[i] for i in self._sets[0][0].Match(data) or ()]
        return [numbers[i] for made, numbers in self._sets for i in made.Match(data) or ()]


def fits(operator: str, value: Scalar, nocase: bool) -> bool:
    """Whether RE2 has room for the pattern of a value."""
    alone = PatternSet(operator != "re")
    alone.add(pattern(operator, value, nocase), (0, 0))
    try:
        return alone.close() is not None
    except TooLarge:
        return False
