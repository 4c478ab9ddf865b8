"""A file with some bytes, for loaders that take a path: in memory where that is to be had."""

from __future__ import annotations

import difflib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    shm = Path("/dev/shm")
    return tempfile.TemporaryDirectory(prefix="headrace-fuzz-", dir=shm if os.access(shm, os.W_OK) else None)


@contextmanager
def written(data: bytes, suffix: str) -> Iterator[str]:
    """The path of a file that has `data` meanwhile."""
    path = Path(_folder().name, f"one{suffix}")
    path.write_bytes(data)
    yield str(path)


NUMBER = re.compile(r"\b(0x[0-9a-f]+|[0-9]+)U?L*\b")


def sound(source: str) -> None:
    """Generated C has nothing that a compiler would refuse for its value alone."""
    assert all(int(number, 0) < 2**64 for number in NUMBER.findall(source)), "a number is one of C"
    assert source.isascii(), "C is ASCII"


@contextmanager
def unhinted() -> Iterator[None]:
    """What was meant in place of an unknown name is looked for among few: it takes ten times as long as all else."""
    whole = difflib.get_close_matches

    def few(word: str, possibilities: Iterable[str], n: int = 3, cutoff: float = 0.6) -> list[str]:
        return whole(word, list(islice(possibilities, 2)), n, cutoff)

    difflib.get_close_matches = few  # type: ignore[assignment]
    try:
        yield
    finally:
        difflib.get_close_matches = whole
