"""Numbers as words of one table of `bpf/tables/words.tsv`. Unnamed bits are shown in hex; nothing is dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial

from headrace.bpf.tables import words

Parser = Callable[[int], str]
"""Renders an unsigned raw value, without the bits that the kernel does not use (bpf/tables/widths.py)."""
Bits = Iterable[tuple[int, str]]
LOW = 0xFFFFFFFF


def signed32(raw: int) -> int:
    """The low 32 bits as a C int."""
    value = raw & LOW
    return value - (1 << 32) if value >> 31 else value


def bits(value: int, names: Bits, none: str = "0") -> str:
    """Names of the set bits, joined by `|`, then unnamed bits in hex; `none` if no bit is set. `names` must list names
    of several bits before their parts.
    """
    found = []
    left = value
    for mask, name in names:
        if mask and left & mask == mask:
            found.append(name)
            left &= ~mask
    if left:
        found.append(hex(left))
    return "|".join(found) or none


SMALL = 0x10000


def _plain(raw: int) -> str:
    """A number without a name: decimal if it is small or a small negative number, else hexadecimal."""
    return str(signed32(raw)) if raw < SMALL or (1 << 32) - SMALL < raw < 1 << 32 else hex(raw)


def word(table: str, raw: int) -> str:
    return words.names_of(table).get(raw) or _plain(raw)


def _signed_word(table: str, raw: int) -> str:
    return words.names_of(table).get(signed32(raw) & 0xFFFFFFFFFFFFFFFF) or str(signed32(raw))


def _flags(table: str, raw: int) -> str:
    return bits(raw, words.bits_of(table), words.names_of(table).get(0, "0"))


@cache
def named(table: str) -> Parser:
    """Parser that looks a value up in a table of bpf/tables/words.tsv."""
    negative = any(number >> 63 for number, _ in words.words_of(table))
    return partial(_signed_word if negative else word, table)


@cache
def flagged(table: str) -> Parser:
    """Parser for flags of a table of bpf/tables/words.tsv."""
    return partial(_flags, table)


def table_of(parser: Parser) -> str | None:
    """The table of a parser that only looks up words of one table; None for other parsers."""
    plain = isinstance(parser, partial) and parser.func in (word, _signed_word, _flags)
    return parser.args[0] if plain else None  # type: ignore[attr-defined]


def both(first: str, rest: str) -> str:
    """Joins the words of two parts of a number. Either part may be empty."""
    return "|".join(part for part in (first, rest) if part) or "0"
