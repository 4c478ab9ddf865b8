"""The input of columns: some rows and the state of their processes. And the output: keys, values and blocks of texts.

A key is cheap to extract from many rows at once: a raw number, the bytes of a blob, parts of a context. It is converted
to a value only when it first occurs (workers/detect/engine/memory.py). Texts that are in the rows are also available in
blocks (workers/records/blocks.py); they need keys only for the few rows that must be tested one by one.
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
    """Keys with few distinct values: the distinct ones, and for each row the index of its key."""

    distinct: list[Any]
    which: Array

    def tolist(self) -> list[Any]:
        """One key for each row."""
        return [self.distinct[i] for i in self.which.tolist()]


Keys = Array | list[Any] | Few


def listed(keys: Keys) -> list[Any]:
    """One key for each row."""
    return keys if isinstance(keys, list) else keys.tolist()


class Read(NamedTuple):
    """The blobs of one argument. `block`: the bytes read, empty if nothing was; `unread` and `cut`: masks, `cut` also
    for data that changed while it was read; `entry`: i64, the position of the blob, -1 if there is none.
    """

    block: Block
    unread: Array
    cut: Array
    entry: Array


class Bulk(NamedTuple):
    """Texts of many rows. `blocks`: their readings; each block has one text per row, "" if the row has no such reading.
    `unread`: mask of rows without a value. `single`: mask of rows whose values must be read one by one.
    """

    blocks: list[Block]
    unread: Array
    single: Array


class Walked(NamedTuple):
    """Paths of many rows, last component first.

    `unread`: mask of rows without a value. `inexact`: mask of rows whose path is not completely in `block`.
    """

    block: Block
    unread: Array
    inexact: Array


class View:
    """Some rows and what is known about their processes. Blobs are located only once."""

    def __init__(
        self, rows: Rows, contexts: Contexts, tree: ProcessTree, counts: Array, of: Array | None = None
    ) -> None:
        """`of`: positions of the rows that columns will read; None for all."""
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
        """The contexts of the chosen rows, and for each row the index of its context. Only consecutive rows of one
        context share an entry. The result is cached for the same array object.
        """
        if self._whose is None or self._whose[0] is not chosen:
            who = self.rows.who[chosen]
            changes = np.diff(who, prepend=-1) != 0
            self._whose = chosen, who[changes], np.cumsum(changes) - 1
        return self._whose[1:]

    def wholes(self, argument: int, chosen: Array) -> list[Any]:
        """(bytes, whether they were truncated) behind an argument of each chosen row, None if nothing was read. Cached,
        because each element of a vector has its own column.
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
        """The process of a context, and the image that it ran then."""
        known = self._running.get(who)
        if known is None:
            known = self._running[who] = self.tree.running(self.contexts.table[who])
        return known

    def parts(self, argument: int, chosen: Array) -> list[list[bytes] | None]:
        """The elements of a vector for each chosen row, None if nothing was read."""
        key = argument, chosen.tobytes()
        known = self._parts.get(key)
        if known is None:
            wholes = self.wholes(argument, chosen)
            known = self._parts[key] = [None if whole is None else elements(whole[0]) for whole in wholes]
        return known

    def read(self, argument: int, chosen: Array) -> Read:
        """The data behind an argument of all chosen rows."""
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
    """The elements of a vector. A NUL follows each element; a truncated vector may lack the final NUL."""
    return data.removesuffix(b"\0").split(b"\0") if data else []


class Column(Protocol):
    """Reads one field from rows."""

    def keys(self, view: View, chosen: Array) -> Keys:
        """A key for each chosen row; None if the field could not be read."""

    def value(self, key: Any) -> Value:
        """The value of a key."""

    def bulk(self, view: View, chosen: Array) -> Bulk | None:
        """The texts of the chosen rows in blocks; None if the column has only keys."""

    def walked(self, view: View, chosen: Array) -> Walked | None:
        """The texts of the chosen rows as walked paths, unchanged from the rows; None if they are not walked paths."""


class ValueColumn:
    """Defaults for columns that have only keys and values."""

    def bulk(self, view: View, chosen: Array) -> Bulk | None:
        return None

    def walked(self, view: View, chosen: Array) -> Walked | None:
        return None
