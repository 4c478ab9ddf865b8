"""Frames to rows: hand-made frames, and frames that lie."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bpf.tables.catalogue import catalogue
from headrace.workers.records import rows as rows_module
from headrace.workers.records.blobs import argument, argument_cells, argument_counts, blobs
from headrace.workers.records.rows import COLUMNS, Contexts, Decoded, Rows, concatenate, empty_rows, read_frames
from tests.unit.frames import (
    CLOSE,
    COMPAT,
    CONTEXT_BYTES,
    CUT,
    FAULT,
    GETPPID,
    HEAD,
    HEADER,
    NULL,
    OK,
    OPENAT,
    Blob,
    Record,
    Who,
    claimed,
    frame,
    view,
)

COUNTS = argument_counts(catalogue())
PATH = Blob(1, b"/etc/passwd")
OPENED = Record(OPENAT, 50, (2**64 - 100, 0x7FFF0000, 0, 0), -2, blobs=(PATH,))
SOUND = frame([OPENED, Record(GETPPID, 51), Record(CLOSE, 52, (7,), who=Who(tgid=7, tid=8))], cpu=1)


def decode(*payloads: bytes, contexts: Contexts | None = None) -> Decoded:
    return read_frames([view(p) for p in payloads], contexts or Contexts())


def test_every_column_is_what_was_packed() -> None:
    contexts = Contexts()
    first = Record(CLOSE, 10, (7,), -9, COMPAT, who=Who(tgid=1))
    second = Record(OPENAT, 11, (3, 4, 5, 6), 8, blobs=(PATH,), who=Who(tgid=2))
    rows = decode(frame([first, second], cpu=5), contexts=contexts).rows
    assert rows.time_ns.tolist() == [10, 11]
    assert rows.event.tolist() == [CLOSE, OPENAT]
    assert rows.retval.tolist() == [-9, 8]
    assert rows.flags.tolist() == [COMPAT, 0]
    assert rows.cpu.tolist() == [5, 5]
    assert rows.arg0.tolist() == [7, 3]
    assert rows.blobs.tolist() == [0, 1]
    assert rows.late.tolist() == [False, False]
    # a head and a cell for arguments 1 to 4 and a cell of blob
    assert rows.cells.tolist() == [1, 3]
    # context 7 cells, record, context, record
    assert rows.at.tolist() == [7, 15]
    assert contexts.table["tgid"][rows.who].tolist() == [1, 2]


def test_extreme_numbers_survive() -> None:
    record = Record(CLOSE, 2**63 - 1, (2**64 - 1,), -(2**63))
    rows = decode(frame([record])).rows
    assert (rows.time_ns[0], rows.retval[0], rows.arg0[0]) == (2**63 - 1, -(2**63), 2**64 - 1)


def test_frames_follow_each_other_in_their_order() -> None:
    one, two = frame([Record(time_ns=9)], cpu=1), frame([Record(time_ns=3), Record(time_ns=4)], cpu=0)
    rows = decode(one, two).rows
    assert (rows.time_ns.tolist(), rows.cpu.tolist()) == ([9, 3, 4], [1, 0, 0])


def test_no_frames_are_no_rows() -> None:
    assert len(decode().rows) == 0
    assert len(decode(frame([])).rows) == 0


def test_a_context_seen_before_keeps_its_row() -> None:
    contexts = Contexts()
    a, b = Who(tgid=1), Who(tgid=2)
    first = decode(frame([Record(who=a), Record(who=b)]), contexts=contexts).rows.who.tolist()
    second = decode(frame([Record(who=b), Record(who=a), Record(who=a)]), contexts=contexts).rows.who.tolist()
    assert (first, second) == ([0, 1], [1, 0, 0])
    assert len(contexts.table) == 2


def test_contexts_that_differ_in_one_field_are_two() -> None:
    for field in dataclasses.fields(Who):
        contexts = Contexts()
        other = dataclasses.replace(Who(), **{field.name: b"x" if isinstance(field.default, bytes) else 99})
        rows = decode(frame([Record(who=Who()), Record(who=other)]), contexts=contexts).rows
        assert len(set(rows.who.tolist())) == 2, field.name


def test_the_table_of_contexts_grows() -> None:
    contexts = Contexts()
    for tgid in range(3000):
        assert contexts.intern(Who(tgid=tgid).packed()) == tgid
    assert contexts.table["tgid"].tolist() == list(range(3000))


def test_a_cleared_table_begins_a_new_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "MAX_CONTEXTS", 4)
    contexts = Contexts()
    for tgid in range(5):
        assert not contexts.full
        contexts.intern(Who(tgid=tgid).packed())
    assert contexts.full
    contexts.clear()
    assert (contexts.generation, len(contexts.table), contexts.full) == (1, 0, False)
    assert contexts.intern(Who(tgid=77).packed()) == 0


# -- frames that lie


def patched(data: bytes, offset: int, fmt: str, value: Any) -> bytes:
    bad = bytearray(data)
    struct.pack_into(fmt, bad, offset, value)
    return bytes(bad)


FIRST_HEAD = HEADER.size + CONTEXT_BYTES
LIES = {
    "another version": (patched(SOUND, 35, "<B", 1), "version"),
    "used is not whole cells": (patched(SOUND, 40, "<I", 33), "length"),
    "used is more than there is": (patched(SOUND, 40, "<I", len(SOUND)), "length"),
    "used is nothing": (patched(SOUND, 40, "<I", 0), "length"),
    "more heads than bits": (patched(SOUND, 36, "<H", 4), "bitmap"),
    "heads and no cells": (patched(SOUND[: HEADER.size], 40, "<I", 0), "bitmap"),
    "a bit too many": (patched(SOUND, 48, "<Q", 1 << 7 | 1 << 10 | 1 << 18 | 1), "bitmap"),
    "a bit beyond the end": (frame([Record()], bitmap=(1 << 900).to_bytes(128, "little")), "record"),
    "a record of no cells": (patched(SOUND, FIRST_HEAD + 20, "<H", 0), "record"),
    "a record that runs into the next": (patched(SOUND, FIRST_HEAD + 20, "<H", 4), "record"),
    "a record beyond the end": (patched(SOUND, FIRST_HEAD + 20, "<H", 60000), "record"),
    "a context beyond the end": (patched(SOUND, FIRST_HEAD + 18, "<H", 60000), "record"),
    "a context that ends beyond the end": (patched(SOUND, FIRST_HEAD + 18, "<H", 13), "record"),
    "a time behind the last watermark": (patched(SOUND, FIRST_HEAD, "<Q", 1 << 63), "record"),
    "cut off": (SOUND[:-32], "length"),
    "longer than it says": (SOUND + bytes(32), "length"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_frame_that_contradicts_itself_is_rejected_whole(lie: str) -> None:
    data, reason = LIES[lie]
    found = decode(data)
    assert (len(found.rows), found.rejected, found.reasons) == (0, claimed(data), {reason: 1})
    assert found.rejected_by_cpu == {int.from_bytes(data[4:8], "little"): claimed(data)}


@pytest.mark.parametrize("lie", LIES)
def test_a_frame_that_lies_does_not_harm_its_neighbours(lie: str) -> None:
    data, _ = LIES[lie]
    found = decode(SOUND, data, SOUND)
    assert found.rows.time_ns.tolist() == [50, 51, 52] * 2
    assert found.rejected == claimed(data)


def test_a_frame_cut_off_in_its_bitmap_is_rejected_with_the_events_that_its_header_claims() -> None:
    # the reader has counted them as received
    for length in range(48, HEADER.size):
        assert decode(SOUND[:length]).rejected == 3


def test_what_is_shorter_than_a_header_is_counted_with_its_reason() -> None:
    found = decode(b"", SOUND[:20], SOUND)
    assert len(found.rows) == 3
    assert found.reasons == {"short": 2}


# -- rows


def test_selecting_rows_keeps_their_data() -> None:
    rows = decode(SOUND).rows
    chosen = rows.select(np.array([False, True, True]))
    assert (chosen.time_ns.tolist(), len(chosen), chosen.data is rows.data) == ([51, 52], 2, True)
    assert rows.select(slice(0, 1)).event.tolist() == [OPENAT]
    assert rows.select(np.array([2, 0])).time_ns.tolist() == [52, 50]


def same(first: Rows, second: Rows) -> None:
    """Rows that say the same, wherever their cells stand."""
    for name in COLUMNS:
        if name != "at":
            assert getattr(first, name).tolist() == getattr(second, name).tolist(), name
    counts = COUNTS[np.minimum(first.event, len(COUNTS) - 1)]
    # a record that lies about its length has no arguments of its own
    counts = np.where(first.cells >= argument_cells(counts.astype(int)), counts, 0)
    for i in range(int(counts.max(initial=0))):
        having = np.flatnonzero(counts > i)
        assert argument(first, i, having).tolist() == argument(second, i, having).tolist()
    one, two = blobs(first, COUNTS), blobs(second, COUNTS)
    assert texts(first, one) == texts(second, two)


def texts(rows: Rows, found: Any) -> list[tuple[int, int, int, bytes]]:
    entries = zip(found.row.tolist(), found.arg.tolist(), found.status.tolist(), strict=True)
    ranges = zip(found.start.tolist(), found.bytes.tolist(), strict=True)
    return [(*e, rows.data[s : s + n].tobytes()) for e, (s, n) in zip(entries, ranges, strict=True)]


def test_compacted_rows_say_the_same_from_a_data_of_their_own() -> None:
    rows = decode(SOUND, SOUND).rows.select(slice(2, 4))
    compact = rows.compact()
    same(rows, compact)
    assert len(compact.data) == 32 * int(compact.cells.sum())
    assert not np.shares_memory(compact.data, rows.data)


def test_compacting_nothing_is_nothing() -> None:
    assert len(empty_rows().compact()) == 0


def test_concatenated_rows_say_what_their_parts_say() -> None:
    contexts = Contexts()
    parts = [decode(f, contexts=contexts).rows for f in (SOUND, frame([OPENED]), SOUND)]
    same(concatenate(parts), decode(SOUND, frame([OPENED]), SOUND, contexts=contexts).rows)


# -- anything


WHO = st.builds(Who, tgid=st.integers(0, 2**32 - 1), tid=st.integers(0, 5), comm=st.binary(max_size=16))
RECORD = st.builds(
    Record,
    event=st.sampled_from([OPENAT, CLOSE, GETPPID]) | st.integers(0, 65535),
    time_ns=st.integers(0, 2**63 - 1),
    args=st.lists(st.integers(0, 2**64 - 1), max_size=4).map(tuple),
    retval=st.integers(-(2**63), 2**63 - 1),
    flags=st.integers(0, 255),
    blobs=st.lists(
        st.builds(Blob, st.integers(0, 5), st.binary(max_size=70), st.sampled_from([OK, CUT, FAULT, NULL, 9])),
        max_size=3,
    ).map(tuple),
    who=WHO,
)
FRAME = st.builds(frame, st.lists(RECORD, max_size=5), cpu=st.integers(0, 2**32 - 1))
MUTATION = st.tuples(st.integers(0, 4000), st.integers(0, 255))


def mutated(data: bytes, mutations: list[tuple[int, int]], length: int | None) -> bytes:
    bad = bytearray(data)
    for at, value in mutations:
        bad[at % len(bad)] = value
    return bytes(bad if length is None else bad[: length % (len(bad) + 1)])


ANY_FRAME = st.binary(max_size=400) | st.builds(
    mutated, FRAME, st.lists(MUTATION, max_size=6), st.none() | st.integers(0, 10_000)
)


@given(st.lists(ANY_FRAME, max_size=4))
def test_any_bytes_are_rows_or_rejected_and_none_goes_uncounted(payloads: list[bytes]) -> None:
    contexts = Contexts()
    found = decode(*payloads, contexts=contexts)
    rows = found.rows
    assert len(rows) + found.rejected == sum(claimed(p) for p in payloads)
    assert sum(found.rejected_by_cpu.values()) == found.rejected
    cells = len(rows.data) // 32
    assert ((rows.at >= 0) & (rows.at + rows.cells <= cells)).all()
    assert (rows.who < len(contexts.table)).all()
    walked = blobs(rows, np.full(len(COUNTS), 6, np.uint8))
    assert (walked.start + walked.bytes <= len(rows.data)).all()
    same(rows, rows.compact())


@given(st.lists(RECORD.filter(lambda r: r.event in (OPENAT, CLOSE, GETPPID)), max_size=6), st.integers(0, 4))
def test_sound_frames_lose_nothing(records: list[Record], split: int) -> None:
    found = decode(frame(records[:split]), frame(records[split:]))
    assert found.rejected == 0
    rows = found.rows
    assert rows.time_ns.tolist() == [r.time_ns for r in records]
    assert rows.retval.tolist() == [r.retval for r in records]
    expected = [(i, b.arg, b.status, b.data) for i, r in enumerate(records) for b in r.blobs]
    assert texts(rows, blobs(rows, COUNTS)) == expected


def test_the_smallest_frames_head_is_where_the_layout_says() -> None:
    assert HEAD.unpack_from(frame([Record(CLOSE, 5, (6,), 7)]), FIRST_HEAD) == (5, 7, CLOSE, 0, 1, 0, 0, 6)
