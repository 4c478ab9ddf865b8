"""What a field's value is once it is read, whatever it was read from: a recording's cells or a line of JSON.

NUMBER   int, as the C type has it
TEXT     Text: its readings, any of which may fit (a path as the host and as the process's own root has it,
         the elements of an argument vector); no reading has a NUL in it
BYTES    bytes
unread   None: every test of it is unknown
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
"""A number of 64 bits to its words."""


class Text(NamedTuple):
    """The readings of a text. `cut`: there was more behind them, or it changed while it was read. `passed`: it is what
    was passed, and may stand for something else.
    """

    parts: tuple[bytes, ...]
    cut: bool = False
    passed: bool = False


Value = int | Text | bytes | None


def text(value: str | bytes) -> Text:
    """A text of one reading."""
    data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    return Text((data.replace(b"\0", b"\xef\xbf\xbd"),))


def number_of(given: object, width: str, words: Words | None) -> int | None:
    """A number as people and other programs write it: decimal, hex, or words joined by `|`. None if it is none."""
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
    """A number as a register has it, with its command if it has one."""
    raw = value & 0xFFFFFFFFFFFFFFFF
    return Commanded.of(raw, value.command) if isinstance(value, Commanded) else raw


def shown_number(value: int, view: str, words: Words | None) -> Text:
    """`hex`: as the register had it, without 0x; `dec`: as it is; `word`: in words, if it has any."""
    if view == "word" and words is not None:
        return text(words(as_raw(value)))
    return text(format(value & 0xFFFFFFFFFFFFFFFF, "x") if view == "hex" else str(value))
