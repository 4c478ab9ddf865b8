"""Maps words back to numbers, by calling the parsers of flags.py with values that cover all names."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from headrace.bpf.tables import words
from headrace.workers.decode.numbers import Parser, table_of

PLAIN_VALUES = 0x9000
"""Numbers below this are tried. The largest named ones are requests of ioctl."""


def sample_values() -> Iterator[int]:
    """Values that cover all names: small ones, negative ones of both widths, and all with one or two bits set."""
    yield from range(PLAIN_VALUES)
    yield from (top - n for top in (1 << 32, 1 << 64) for n in range(1, 200))
    yield from (1 << one | 1 << other for one in range(64) for other in range(one + 1))


@cache
def numbers_of_words(parser: Parser) -> dict[str, int]:
    """The value of each word of a parser: the one with the fewest bits among the values that include the word."""
    table = table_of(parser)
    if table is not None:
        return words.numbers_of(table)
    if hasattr(parser, "numbers"):
        return dict(parser.numbers)
    found: dict[str, int] = {}
    for value in sample_values():
        for word in parser(value).split("|"):
            known = found.get(word)
            if known is None or value.bit_count() < known.bit_count():
                found[word] = value
    return found


def known_words(parser: Parser) -> set[str]:
    """All names that a parser can return."""
    return {word for word in numbers_of_words(parser) if not word.lstrip("-")[:1].isdigit()}
