"""Arguments and blobs by position, and records whose blobs run over."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bpf.tables.catalogue import catalogue
from headrace.workers.records.blobs import Blobs, argument, argument_cells, argument_counts, blobs
from headrace.workers.records.rows import Contexts, Rows, read_frames
from tests.unit.frames import (
    CLOSE,
    CONNECT,
    CONTEXT_BYTES,
    CUT,
    EXECVE,
    FAULT,
    GETPPID,
    MMAP,
    NULL,
    OPENAT,
    Blob,
    Record,
    frame,
    view,
)

COUNTS = argument_counts(catalogue())


def rows_of(*records: Record) -> Rows:
    return read_frames([view(frame(records))], Contexts()).rows


def entries(rows: Rows, found: Blobs) -> list[tuple[int, int, int, bytes, int]]:
    columns = (found.row, found.arg, found.status, found.start, found.bytes, found.whole)
    return [
        (row, arg, status, rows.data[start : start + size].tobytes(), whole)
        for row, arg, status, start, size, whole in zip(*(c.tolist() for c in columns), strict=True)
    ]


def test_an_event_has_as_many_arguments_as_its_call() -> None:
    assert [int(COUNTS[e]) for e in (GETPPID, CLOSE, CONNECT, OPENAT, MMAP)] == [0, 1, 3, 4, 6]


@pytest.mark.parametrize(("count", "cells"), [(0, 1), (1, 1), (2, 2), (5, 2), (6, 3), (15, 5)])
def test_arguments_stand_four_to_a_cell_after_the_first(count: int, cells: int) -> None:
    assert argument_cells(np.array([count])).tolist() == [cells]


def test_every_argument_of_every_row_is_found() -> None:
    values = tuple(2**64 - 1 - i for i in range(6))
    rows = rows_of(Record(CLOSE, args=(9,)), Record(MMAP, args=values), Record(MMAP, args=tuple(range(6))))
    mmaps = np.array([1, 2])
    assert [argument(rows, i, mmaps).tolist() for i in range(6)] == [[values[i], i] for i in range(6)]
    assert argument(rows, 0).tolist() == [9, values[0], 0]


def test_blobs_come_by_row_then_position() -> None:
    rows = rows_of(
        Record(EXECVE, blobs=(Blob(0, b"/bin/ls"), Blob(1, b"ls\0-l\0"), Blob(2, b"", NULL))),
        Record(GETPPID),
        Record(OPENAT, blobs=(Blob(1, b"x" * 100, CUT, 5000),)),
        Record(CONNECT, blobs=(Blob(1, b"", FAULT, 16),)),
    )
    found = blobs(rows, COUNTS)
    assert entries(rows, found) == [
        (0, 0, 0, b"/bin/ls", 0),
        (0, 1, 0, b"ls\0-l\0", 0),
        (0, 2, NULL, b"", 0),
        (2, 1, CUT, b"x" * 100, 5000),
        (3, 1, FAULT, b"", 16),
    ]
    assert found.broken == 0


def test_no_blobs_are_none() -> None:
    found = blobs(rows_of(Record(GETPPID)), COUNTS)
    assert (len(found), found.broken) == (0, 0)


def broken(record: Record, at: int, value: int) -> tuple[Rows, Blobs]:
    """The blobs of one record with two of its bytes changed; `at` counts from its head."""
    data = bytearray(frame([record, Record(OPENAT, blobs=(Blob(1, b"next"),))]))
    start = 184 + CONTEXT_BYTES + at
    data[start : start + 2] = value.to_bytes(2, "little")
    rows = read_frames([view(bytes(data))], Contexts()).rows
    return rows, blobs(rows, COUNTS)


@pytest.mark.parametrize("size", [25, 1000, 65534])
def test_a_blob_longer_than_its_record_is_left_out_and_counted(size: int) -> None:
    # head 32, arguments 32, then the blob's header; 24 bytes are left in its cell
    rows, found = broken(Record(OPENAT, blobs=(Blob(1, b"path"),)), 64, size)
    assert found.broken == 1
    assert entries(rows, found) == [(1, 1, 0, b"next", 0)]


def test_a_record_that_claims_more_blobs_than_it_holds_keeps_those_that_are_there() -> None:
    data = bytearray(frame([Record(OPENAT, blobs=(Blob(1, b"/a"),))]))
    data[184 + CONTEXT_BYTES + 23] = 200
    rows = read_frames([view(bytes(data))], Contexts()).rows
    found = blobs(rows, COUNTS)
    assert entries(rows, found)[0] == (0, 1, 0, b"/a", 0)
    assert found.broken == 1
    assert (found.start + found.bytes <= len(rows.data)).all()


DATA = st.binary(max_size=100)


@given(st.lists(st.lists(DATA, max_size=4), max_size=6))
def test_the_walk_is_the_naive_walk(records: list[list[bytes]]) -> None:
    made = [Record(OPENAT, blobs=tuple(Blob(i, d) for i, d in enumerate(r))) for r in records]
    rows = rows_of(*made)
    expected = [(row, i, 0, data, 0) for row, r in enumerate(records) for i, data in enumerate(r)]
    assert entries(rows, blobs(rows, COUNTS)) == expected
