"""Names of numbers, as `tables/words.tsv` has them from the kernel's headers."""

from __future__ import annotations

from functools import cache
from pathlib import Path

TABLE = Path(__file__).parent / "words.tsv"


@cache
def _all() -> dict[str, tuple[tuple[int, str], ...]]:
    found: dict[str, list[tuple[int, str]]] = {}
    for line in TABLE.read_text().splitlines():
        if not line.startswith("#"):
            table, value, name = line.split("\t")
            found.setdefault(table, []).append((int(value, 16), name))
    return {name: tuple(words) for name, words in found.items()}


def words_of(table: str) -> tuple[tuple[int, str], ...]:
    """(number, name) of a table; numbers are unsigned, of 64 bits. KeyError if there is none."""
    return _all()[table]


@cache
def names_of(table: str) -> dict[int, str]:
    """The same by number."""
    return dict(words_of(table))


@cache
def numbers_of(table: str) -> dict[str, int]:
    """The same by name."""
    return {name: number for number, name in words_of(table)}


@cache
def bits_of(table: str) -> tuple[tuple[int, str], ...]:
    """The same in the order in which flags are taken from a number: what has more bits comes first."""
    return tuple(sorted(words_of(table), key=lambda word: -word[0].bit_count()))


def version() -> str:
    """Of the kernel whose headers the table was made from."""
    return TABLE.read_text().split("\n", 1)[0].partition("Linux ")[2].partition(";")[0]
