"""Arguments and blobs of rows, as columns.

`argument()` returns raw values; `blobs()` walks the data that pointers pointed to. Both address `Rows.data` by
position. `blobs()` checks every position first: a blob that runs past the cells of its record is skipped and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from headrace.bpf.layout import BLOB, BLOB_STATUS, CELL_BYTES, EVENTS, LONG_BLOB
from headrace.bpf.tables.catalogue import Catalogue, Event
from headrace.bpf.tables.widths import mask_of
from headrace.workers.records.blocks import Block, gather
from headrace.workers.records.rows import CELL_WORDS, Rows

Array = np.ndarray[Any, Any]
BLOB_BYTES = BLOB.itemsize
NOT_THERE = 0xFF
"""A status that no blob has."""


def argument_cells(counts: Any) -> Any:
    """Number of cells before the blobs of a record: the head, and one cell per four arguments after the first."""
    return 1 + (counts + 2) // 4


def argument(rows: Rows, index: int, chosen: Array | slice = slice(None)) -> Array:
    """Raw value of argument `index` of the chosen rows, u64. Their events must have that many arguments."""
    if index == 0:
        return rows.arg0[chosen]
    position = rows.at[chosen] * CELL_WORDS + (CELL_WORDS + index - 1)
    return rows.data.view(np.uint64).take(position, mode="clip")


def used(rows: Rows, event: Event, index: int, chosen: Array) -> Array:
    """Argument `index` of the chosen rows, all of `event`, masked to the bits that the kernel uses, u64."""
    return argument(rows, index, chosen) & np.uint64(mask_of(event.arguments[index].width))


@dataclass
class Blobs:
    """One entry per blob, ordered by row, then position. `start` and `bytes` index `Rows.data`.

    `arg` is the argument that the blob belongs to (or BLOB_BASE | argument). `status` also holds the source
    (bpf/c/layout.h). `broken` counts blobs that ran past their record.
    """

    row: Array
    arg: Array
    status: Array
    start: Array
    bytes: Array
    whole: Array
    broken: int = 0

    def __len__(self) -> int:
        return len(self.row)

    def entries(self, arg: int, rows: int, chosen: Array) -> Array:
        """Index of each chosen row's blob of argument `arg`, -1 if it has none. `rows` is the total number of rows."""
        of_row = np.full(rows, -1, np.int64)
        mine = np.flatnonzero(self.arg == arg)
        of_row[self.row[mine]] = mine
        return of_row[chosen]

    def statuses(self, entries: Array) -> Array:
        """BLOB_STATUS of each entry, NOT_THERE for -1."""
        return np.where(entries < 0, NOT_THERE, self._of(self.status, entries) & BLOB_STATUS)

    def texts(self, data: Array, entries: Array) -> Block:
        """Bytes of each entry in `Rows.data`, empty for -1."""
        return gather(data, self._of(self.start, entries), self._of(self.bytes, entries))

    def sizes(self, entries: Array) -> Array:
        """Number of bytes of each entry, 0 for -1, i64."""
        return self._of(self.bytes, entries).astype(np.int64)

    def wholes(self, entries: Array) -> Array:
        """`whole` of each entry, 0 for -1, i64."""
        return self._of(self.whole, entries).astype(np.int64)

    def _of(self, column: Array, entries: Array) -> Array:
        return np.where(entries < 0, 0, column[entries]) if len(self) else np.zeros(len(entries), column.dtype)


def bytes_of(rows: Rows, found: Blobs, entry: int) -> bytes:
    """Bytes of one blob."""
    start = int(found.start[entry])
    return rows.data[start : start + int(found.bytes[entry])].tobytes()


def blobs(rows: Rows, argument_counts: Array, of: Array | None = None) -> Blobs:
    """All blobs of `rows`, or only of the rows at positions `of`. `argument_counts`: arguments per event id,
    u8[EVENTS].
    """
    having = np.flatnonzero(rows.blobs) if of is None else of[np.flatnonzero(rows.blobs[of])]
    parts: list[tuple[Array, ...]] = []
    broken = 0
    if len(having):
        at = rows.at[having]
        cells = rows.cells[having].astype(np.int64)
        event = np.minimum(rows.event[having], EVENTS - 1)
        position = (at + argument_cells(argument_counts[event].astype(np.int64))) * CELL_BYTES
        end = (at + cells) * CELL_BYTES
        left = rows.blobs[having].astype(np.int64)
        row = having
        words = rows.data.view(np.uint64)
        while len(row):
            fits = position + BLOB_BYTES <= end
            if not fits.all():
                broken += int((~fits).sum())
                row, position, end, left = row[fits], position[fits], end[fits], left[fits]
            header = words.take(position // 8).view(BLOB)
            size = header["bytes"].astype(np.int64)
            if (size == LONG_BLOB).any():
                size = np.where(size == LONG_BLOB, header["whole"], size)
            start = position + BLOB_BYTES
            fits = start + size <= end
            if not fits.all():
                broken += int((~fits).sum())
                row, end, left, header, size, start = (
                    row[fits],
                    end[fits],
                    left[fits],
                    header[fits],
                    size[fits],
                    start[fits],
                )
            parts.append((row, header["arg"], header["status"], start, size, header["whole"]))
            more = np.flatnonzero(left > 1)
            position = (start + ((size + 7) & ~7))[more]
            row, end, left = row[more], end[more], left[more] - 1
    if not parts:
        none = np.zeros(0, np.int64)
        return Blobs(none, none.astype(np.uint8), none.astype(np.uint8), none, none, none.astype(np.uint32), broken)
    columns = [np.concatenate([part[i] for part in parts]) for i in range(6)]
    if len(parts) > 1:
        order = np.argsort(columns[0], kind="stable")
        columns = [column[order] for column in columns]
    return Blobs(columns[0], columns[1], columns[2], columns[3], columns[4], columns[5], broken)


@cache
def argument_counts(catalogue: Catalogue) -> Array:
    """Arguments that have cells in a record, per event id, u8[EVENTS]. The array is shared and read-only."""
    counts = np.zeros(EVENTS, np.uint8)
    for event in catalogue.by_id.values():
        counts[event.id] = event.cells
    counts.flags.writeable = False
    return counts
