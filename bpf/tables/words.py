"""Names of numbers from the kernel's headers, as stored in `tables/words.tsv`."""

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
    """(number, name) pairs of a table. Numbers are unsigned 64-bit. Raises KeyError if there is no such table."""
    return _all()[table]


@cache
def names_of(table: str) -> dict[int, str]:
    """Names of a table by number."""
    return dict(words_of(table))


@cache
def numbers_of(table: str) -> dict[str, int]:
    """Numbers of a table by name."""
    return {name: number for number, name in words_of(table)}


@cache
def bits_of(table: str) -> tuple[tuple[int, str], ...]:
    """(number, name) pairs in the order for matching flags: those with more bits come first."""
    return tuple(sorted(words_of(table), key=lambda word: -word[0].bit_count()))


def version() -> str:
    """Version of the kernel headers from which the table was generated."""
    return TABLE.read_text().split("\n", 1)[0].partition("Linux ")[2].partition(";")[0]
