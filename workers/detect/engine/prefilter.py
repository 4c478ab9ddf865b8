"""A prefilter for walked paths: finds the rows on which a test can hold, without reversing the paths.

    value   /etc/cron.d/   (startswith)      path    /etc/cron.d/job
    sought  \\0cron.d\\0etc\\0/\\0               walked  \\0job\\0cron.d\\0etc\\0/\\0

A walked path has its last component first (workers/records/blocks.py, `walked`). No test holds on most paths. For each
value, the prefilter searches for the longest piece that every matching path contains: whole components, or the
beginning or end of one. Only rows that contain a piece, and inexact rows, are tested exactly
(workers/detect/engine/scan.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import hyperscan
import numpy as np

from headrace.config.conditions import Scalar, Test
from headrace.workers.detect.engine.scan import MAX_BYTES, database, required
from headrace.workers.detect.rules.patterns import as_bytes, escaped, lowered
from headrace.workers.records.blocks import NUL, SLASH, Block

Array = np.ndarray[Any, Any]
LEAST = 2
"""Minimum bytes of a piece, including the NULs around it. One byte within a name would occur everywhere."""
WILD = re.compile(rb"[*?\[\\]")


class Piece(NamedTuple):
    """A text that a path contains. `first`: the path begins with it; `last`: the path ends with it."""

    data: bytes
    first: bool
    last: bool


def pieces(operator: str, value: Scalar, nocase: bool) -> Iterator[Piece]:
    """The pieces that a path contains if the test holds on it: all of them."""
    if operator == "re":
        text = required(str(value))
        if text is not None:
            yield Piece(text.lower().encode(), False, False)
        return
    data = lowered(as_bytes(value)) if nocase else as_bytes(value)
    if operator != "glob":
        yield Piece(data, operator in ("equals", "startswith"), operator in ("equals", "endswith"))
    elif b"[" not in data and b"\\" not in data:
        parts = WILD.split(data)
        for i, part in enumerate(parts):
            yield Piece(part, i == 0, i == len(parts) - 1)


def sought(piece: Piece) -> Iterator[bytes]:
    """The forms of a piece in a walked path. If a path contains the piece, its walked form contains each of these."""
    names = piece.data.split(b"/")
    if b"\0" in piece.data:
        return
    if len(names) == 1:
        yield (b"\0" if piece.first else b"") + piece.data + (b"\0" if piece.last else b"")
        return
    first, last = (0 if piece.first else 1), (len(names) if piece.last else len(names) - 1)
    whole, end = names[first:last], b"\0"
    if piece.first and not names[0]:
        whole, end = whole[1:], b"\0/\0"
    if whole and all(whole):
        yield b"\0" + b"\0".join(reversed(whole)) + end
    if not piece.first and names[0]:
        yield names[0] + b"\0"
    if not piece.last and names[-1]:
        yield b"\0" + names[-1]


def best(test: Test, value: Scalar) -> bytes | None:
    """The longest text worth searching for; None if there is none."""
    found = [each for piece in pieces(test.operator, value, test.nocase) for each in sought(piece)]
    longest = max(found, key=_letters, default=b"")
    return longest if _letters(longest) and LEAST <= len(longest) <= MAX_BYTES // 4 else None


def _letters(data: bytes) -> int:
    return len(data) - data.count(b"\0") - data.count(b"/")


class Prefilter:
    """The prefilter of all tests of one field."""

    def __init__(self, wanted: set[tuple[bytes, bool]]) -> None:
        """`wanted`: (text, whether case is ignored). hyperscan.error if one exceeds Hyperscan's limits."""
        # Each pattern has its own number: with one number for all, Hyperscan takes a hundred times as long.
        self._database = database([(i, escaped(data), small) for i, (data, small) in enumerate(sorted(wanted))])

    @classmethod
    def of(cls, tests: Sequence[Test]) -> Prefilter | None:
        """The prefilter of these tests; None if a test can hold on a path without a text worth searching for."""
        wanted: set[tuple[bytes, bool]] = set()
        for test in tests:
            for value in test.values if test.operator != "exists" else ():
                found = best(test, value)
                if found is None:
                    return None
                wanted.add((found, test.nocase or test.operator == "re"))
        try:
            return cls(wanted) if wanted else None
        except hyperscan.error:
            return None

    def maybe(self, block: Block) -> Array:
        """Mask of the walked paths on which a test can hold. It includes all paths that are not ASCII, or that have a
        slash which is not the root.
        """
        block = block.stripped
        found = np.zeros(len(block), bool)
        ends: list[int] = []

        def on_match(number: int, start: int, end: int, flags: int, context: object) -> None:
            ends.append(end - 1)

        self._database.scan(block.data, match_event_handler=on_match)
        if ends:
            found[block.rows(np.array(ends, np.int64))] = True
        return found | ~block.is_ascii() | _slashed(block)


def _slashed(block: Block) -> Array:
    """Mask of the paths with a slash that is not the root: names of memfds can contain slashes."""
    last = block.begin + block.size - 1
    root = (block.size > 0) & (block.data[last] == SLASH) & ((block.size == 1) | (block.data[last - 1] == NUL))
    slashes = np.flatnonzero(block.data == SLASH)
    found = np.zeros(len(block), bool)
    if len(slashes) != np.count_nonzero(root):
        others = np.bincount(block.rows(slashes), minlength=len(block)) > root
        found[others] = True
    return found
