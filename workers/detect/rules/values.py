"""Values of fields. They have the same form whether they come from the cells of a record or from a line of JSON.

NUMBER   int, in the range of its C type
TEXT     TextValue: its readings, any of which can match (a path as seen by the host and by the process's own root, or
         the elements of an argument vector); no reading contains a NUL
BYTES    bytes
unread   None: every test of it is unknown, except `exists`
"""

from __future__ import annotations

from typing import NamedTuple

from headrace.bpf.tables.widths import number
from headrace.workers.decode.composed import BACK
from headrace.workers.decode.meaning import Commanded
from headrace.workers.decode.numbers import Parser
from headrace.workers.decode.words import numbers_of_words

NUMBER, TEXT, BYTES = "number", "text", "bytes"
Words = Parser
"""Converts a 64-bit number to its words."""


class TextValue(NamedTuple):
    """The readings of a text. `cut`: the text continues beyond them, or it changed while it was read. `passed`: this is
    the name that the caller passed; it was not resolved and may refer to something else.
    """

    parts: tuple[bytes, ...]
    cut: bool = False
    passed: bool = False


Value = int | TextValue | bytes | None


def text(value: str | bytes) -> TextValue:
    """A text with one reading. A NUL in it becomes U+FFFD."""
    data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    return TextValue((data.replace(b"\0", b"\xef\xbf\xbd"),))


def number_of(given: object, width: str, words: Words | None) -> int | None:
    """The number that is written as decimal, hex, octal, or words joined by `|`; None if it is not a number."""
    if isinstance(given, bool):
        return int(given)
    if isinstance(given, int):
        return number(given & 0xFFFFFFFFFFFFFFFF, width)
    if not isinstance(given, str):
        return None
    total = 0
    for word in given.strip().split("|"):
        value = _integer(word.strip())
        if value is None and words is not None:
            value = numbers_of_words(words).get(word.strip())
            value = BACK[words](word.strip()) if value is None and words in BACK else value
        if value is None:
            return None
        total |= value
    return number(total & 0xFFFFFFFFFFFFFFFF, width)


def _integer(word: str) -> int | None:
    try:
        return int(word, 8) if word[:1] == "0" and word[1:].isdigit() else int(word, 0)
    except ValueError:
        return None


def as_raw(value: int) -> int:
    """The number as the register holds it, with its command if it has one."""
    raw = value & 0xFFFFFFFFFFFFFFFF
    return Commanded.of(raw, value.command) if isinstance(value, Commanded) else raw


def shown_number(value: int, view: str, words: Words | None) -> TextValue:
    """A number as text. `hex`: the 64-bit register without 0x; `dec`: decimal; `word`: words, or else decimal."""
    if view == "word" and words is not None:
        return text(words(as_raw(value)))
    return text(format(value & 0xFFFFFFFFFFFFFFFF, "x") if view == "hex" else str(value))
