"""What columns read from: some rows, and what is known of their processes; and what a column gives.

A key is what is cheap to take out of many rows at once (a raw number, the bytes of a blob, parts of a context); it is
turned into a value only when it is met for the first time (workers/detect/engine/memory.py). Texts that stand in the
rows themselves are also given all at once, in blocks (workers/records/blocks.py), and no key of them is ever made but
for the few that must be looked at one by one.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from headrace.bpf.layout import BLOB_CUT, BLOB_FAULT, BLOB_OK, BLOB_RACED
from headrace.workers.detect.rules.values import Value
from headrace.workers.enrich.tree import Image, Process, ProcessTree
from headrace.workers.records.blobs import Blobs, blobs
from headrace.workers.records.blocks import Block
from headrace.workers.records.rows import Contexts, Rows

Array = np.ndarray[Any, Any]


class Few(NamedTuple):
    """Keys of which there are few: the distinct ones, and which of them each row has."""

    distinct: list[Any]
    which: Array

    def tolist(self) -> list[Any]:
        """One for each row."""
        return [self.distinct[i] for i in self.which.tolist()]


Keys = Array | list[Any] | Few


def listed(keys: Keys) -> list[Any]:
    """One for each row."""
    return keys if isinstance(keys, list) else keys.tolist()


class Read(NamedTuple):
    """What blobs of one argument hold. `block`: what was read, of others nothing; `unread` and `cut`: masks, `cut` also
    of what changed while it was read; `entry`: i64, the blobs, where there is one."""

    block: Block
    unread: Array
    cut: Array
    entry: Array


class Bulk(NamedTuple):
    """Texts of many rows. `blocks`: their readings, each block has one of every row, which is "" if there is none;
    `unread`: mask of rows without a value; `single`: mask of rows whose values must be read one by one."""

    blocks: list[Block]
    unread: Array
    single: Array


class Walked(NamedTuple):
    """Paths of many rows, last component first.

    `unread`: mask of rows without a value. `inexact`: mask of rows whose path is more than what stands in `block`.
    """

    block: Block
    unread: Array
    inexact: Array


class View:
    """Some rows, and what is known of their processes. Blobs are looked for once."""

    def __init__(
        self, rows: Rows, contexts: Contexts, tree: ProcessTree, counts: Array, of: Array | None = None
    ) -> None:
        """`of`: positions of the rows that will be asked for, if not all."""
        self.rows, self.contexts, self.tree = rows, contexts, tree
        self._counts, self._of = counts, of
        self._found: Blobs | None = None
        self._wholes: dict[tuple[int, bytes], list[Any]] = {}
        self._parts: dict[tuple[int, bytes], list[list[bytes] | None]] = {}
        self._reads: dict[tuple[int, bytes], Read] = {}
        self._whose: tuple[Array, Array, Array] | None = None
        self._running: dict[int, tuple[Process | None, Image | None]] = {}

    @property
    def found(self) -> Blobs:
        """All blobs of the rows."""
        if self._found is None:
            self._found = blobs(self.rows, self._counts, self._of)
        return self._found

    def whose(self, chosen: Array) -> tuple[Array, Array]:
        """Contexts in the order of the chosen rows, and which of them each row has: rows of one process stand together.
        Columns that are asked for the same rows, the same array, share it.
        """
        if self._whose is None or self._whose[0] is not chosen:
            who = self.rows.who[chosen]
            changes = np.diff(who, prepend=-1) != 0
            self._whose = chosen, who[changes], np.cumsum(changes) - 1
        return self._whose[1:]

    def wholes(self, argument: int, chosen: Array) -> list[Any]:
        """(bytes, whether they were cut) behind an argument of each chosen row, None if nothing was read. Elements of
        a vector are columns of their own, and all want the same.
        """
        key = argument, chosen.tobytes()
        known = self._wholes.get(key)
        if known is None:
            block, unread, cut, _ = self.read(argument, chosen)
            known = self._wholes[key] = [
                None if none else pair
                for none, pair in zip(unread.tolist(), zip(block.texts(), cut.tolist(), strict=True), strict=True)
            ]
        return known

    def running(self, who: int) -> tuple[Process | None, Image | None]:
        """The process of a context, and what it ran then."""
        known = self._running.get(who)
        if known is None:
            known = self._running[who] = self.tree.running(self.contexts.table[who])
        return known

    def parts(self, argument: int, chosen: Array) -> list[list[bytes] | None]:
        """The elements of a vector of each chosen row."""
        key = argument, chosen.tobytes()
        known = self._parts.get(key)
        if known is None:
            wholes = self.wholes(argument, chosen)
            known = self._parts[key] = [None if whole is None else elements(whole[0]) for whole in wholes]
        return known

    def read(self, argument: int, chosen: Array) -> Read:
        """What stands behind an argument of each chosen row, all at once."""
        key = argument, chosen.tobytes()
        known = self._reads.get(key)
        if known is None:
            found, rows = self.found, self.rows
            entry = found.entries(argument, len(rows), chosen)
            status = found.statuses(entry)
            in_part = (status == BLOB_FAULT) & (found.sizes(entry) > 0)
            whole, cut = status == BLOB_OK, (status == BLOB_CUT) | (status == BLOB_RACED) | in_part
            known = self._reads[key] = Read(
                found.texts(rows.data, np.where(whole | cut, entry, -1)), ~(whole | cut), cut, entry
            )
        return known


def elements(data: bytes) -> list[bytes]:
    """Of a vector: each has a NUL behind it, of one that was cut perhaps not the last."""
    return data.removesuffix(b"\0").split(b"\0") if data else []


class Column(Protocol):
    """One field, read from rows."""

    def keys(self, view: View, chosen: Array) -> Keys:
        """A key for each chosen row, None if the field could not be read."""

    def value(self, key: Any) -> Value:
        """What a key stands for."""

    def bulk(self, view: View, chosen: Array) -> Bulk | None:
        """The texts of the chosen rows at once; None if this column has only keys."""

    def walked(self, view: View, chosen: Array) -> Walked | None:
        """The texts as walked paths, as they stand in the rows; None if they are none."""


class ValueColumn:
    """What columns have in common: keys alone, if they say no more."""

    def bulk(self, view: View, chosen: Array) -> Bulk | None:
        return None

    def walked(self, view: View, chosen: Array) -> Walked | None:
        return None
