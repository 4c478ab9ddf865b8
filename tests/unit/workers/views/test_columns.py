"""Columns: what is rendered reads back through pipeline.transport.wire, whatever the rows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.bpf.tables.catalogue import catalogue
from headrace.pipeline.transport.wire import read_columns
from headrace.workers.core import Core
from headrace.workers.records.blobs import argument_counts
from headrace.workers.records.rows import Contexts, Rows, read_frames
from headrace.workers.views.columns import DISTINCT, ColumnsView
from headrace.workers.views.style import HostFacts
from tests.unit.frames import (
    CLOSE,
    CONNECT,
    CUT,
    EXECVE,
    FAULT,
    GETPPID,
    MMAP,
    OPENAT,
    Blob,
    Record,
    Who,
    frame,
    view,
)
from tests.unit.workers.records.test_rows import ANY_FRAME

EPOCH = 1_700_000_000_000_000_000
COUNTS = argument_counts(catalogue())


def rows_of(*records: Record, cpu: int = 0) -> tuple[Rows, Contexts]:
    contexts = Contexts()
    return read_frames([view(frame(records, cpu=cpu))], contexts).rows, contexts


def message(rows: Rows, contexts: Contexts, parse: bool = True) -> bytes:
    return b"".join(ColumnsView(catalogue(), HostFacts(EPOCH), parse).render(rows, contexts))


def header_of(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:4], "little")])
    return found


def words(data: bytes) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = header_of(data)["words"]
    return found


def arguments(found: dict[str, Any]) -> list[list[int]]:
    ends = found["args_end"].tolist()
    flat = found["args"].tolist()
    return [flat[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def blobs(found: dict[str, Any]) -> list[tuple[int, int, int, bytes]]:
    if "blob_row" not in found:
        return []
    names = ("blob_row", "blob_arg", "blob_status", "blob_start", "blob_bytes")
    arena = found["arena"].tobytes()
    columns = (found[name].tolist() for name in names)
    return [(row, arg, status, arena[at : at + n]) for row, arg, status, at, n in zip(*columns, strict=True)]


def test_every_row_is_there_with_its_own_time() -> None:
    first = Record(OPENAT, 5, (1, 2, 3, 4), -2, blobs=(Blob(1, b"/x"),), who=Who(tgid=1))
    second = Record(GETPPID, 6, who=Who(tgid=2, comm=b"sh"))
    third = Record(MMAP, 7, (9, 8, 7, 6, 5, 2**64 - 1), 2**47, who=Who(tgid=1))
    found = read_columns(message(*rows_of(first, second, third, cpu=3)))
    assert found["timestamp"].tolist() == [EPOCH + 5, EPOCH + 6, EPOCH + 7]
    assert found["event"].tolist() == [OPENAT, GETPPID, MMAP]
    assert found["retval"].tolist() == [-2, 0, 2**47]
    assert found["cpu"].tolist() == [3, 3, 3]
    assert found["contexts"]["tgid"][found["context"]].tolist() == [1, 2, 1]
    assert found["contexts"]["comm"][found["context"]].tolist() == [b"task", b"sh", b"task"]
    assert arguments(found) == [[1, 2, 3, 4], [], [9, 8, 7, 6, 5, 2**64 - 1]]
    assert blobs(found) == [(0, 1, 0, b"/x")]


def test_the_header_is_json_and_sections_are_aligned() -> None:
    data = message(*rows_of(Record(CLOSE)))
    size = int.from_bytes(data[:4], "little")
    header = header_of(data)
    assert header["count"] == 1
    assert all(section["offset"] % 8 == 0 for section in header["sections"])
    base = (8 + size + 7) // 8 * 8
    last = header["sections"][-1]
    assert base + last["offset"] < len(data)
    assert len(data) % 8 == 0


def test_rows_without_arguments_or_blobs_read_back() -> None:
    found = read_columns(message(*rows_of(Record(GETPPID), Record(GETPPID))))
    assert (found["args"].tolist(), found["args_end"].tolist(), blobs(found)) == ([], [0, 0], [])


def test_no_rows_read_back_as_none() -> None:
    found = read_columns(message(*rows_of()))
    assert len(found["timestamp"]) == len(found["contexts"]) == 0


def test_only_contexts_of_the_batch_are_sent() -> None:
    contexts = Contexts()
    for tgid in range(100, 150):
        contexts.intern(Who(tgid=tgid).packed())
    rows = read_frames([view(frame([Record(who=Who(tgid=149)), Record(who=Who(tgid=110))]))], contexts).rows
    found = read_columns(message(rows, contexts))
    assert len(found["contexts"]) == 2
    assert found["contexts"]["tgid"][found["context"]].tolist() == [149, 110]


def test_a_late_row_has_a_flag_beyond_those_of_the_record() -> None:
    rows, contexts = rows_of(Record(CLOSE, flags=0x81), Record(CLOSE, flags=0x80))
    rows.late[:] = [True, False]
    assert read_columns(message(rows, contexts))["flags"].tolist() == [0x181, 0x80]


def test_status_tells_what_was_not_read_whole() -> None:
    cut, fault = Record(OPENAT, blobs=(Blob(1, b"x", CUT),)), Record(CONNECT, blobs=(Blob(1, b"", FAULT),))
    found = read_columns(message(*rows_of(cut, fault)))
    assert blobs(found) == [(0, 1, CUT, b"x"), (1, 1, FAULT, b"")]


def test_words_of_this_batchs_values_stand_in_the_header() -> None:
    rows = rows_of(Record(OPENAT, args=(2**64 - 100, 0, 0o101, 0)), Record(OPENAT, args=(3, 0, 0, 0o600)))
    found = words(message(*rows))
    assert found["openat.flags"] == {"65": "O_WRONLY|O_CREAT", "0": "O_RDONLY"}
    assert found["openat.dirfd"] == {str(2**64 - 100): "AT_FDCWD", "3": "3"}
    assert words(message(*rows, parse=False)) == {}


def test_words_are_bounded() -> None:
    contexts = Contexts()
    frames = [view(frame([Record(OPENAT, args=(0, 0, 900 * i + n)) for n in range(300)])) for i in range(20)]
    rows = read_frames(frames, contexts).rows
    assert len(rows) > DISTINCT
    assert len(words(message(rows, contexts))["openat.flags"]) == DISTINCT


@given(st.lists(ANY_FRAME, max_size=4))
def test_any_rows_read_back(payloads: list[bytes]) -> None:
    core = Core(catalogue(), 0, 1)
    for payload in payloads:
        core.feed(view(payload))
    rows = core.advance(2**64 - 1).rows
    found = read_columns(message(rows, core.contexts))
    assert found["event"].tolist() == rows.event.tolist()
    assert found["retval"].tolist() == rows.retval.tolist()
    assert found["timestamp"].tolist() == [(t + EPOCH) % 2**64 for t in rows.time_ns.tolist()]
    assert [len(a) for a in arguments(found)] == COUNTS[rows.event].tolist()
    contexts = found["contexts"][found["context"]]
    assert contexts.tobytes() == core.contexts.table[rows.who].tobytes()
    assert all(0 <= row < len(rows) for row, *_ in blobs(found))


RECORDS = st.lists(
    st.builds(
        Record,
        event=st.sampled_from([OPENAT, CLOSE, EXECVE, GETPPID]),
        time_ns=st.integers(0, 2**62),
        args=st.lists(st.integers(0, 2**64 - 1), max_size=4).map(tuple),
        blobs=st.lists(st.builds(Blob, st.integers(0, 3), st.binary(max_size=40)), max_size=2).map(tuple),
        who=st.builds(Who, tgid=st.integers(0, 3)),
    ),
    min_size=1,
    max_size=8,
)


@given(RECORDS)
def test_sound_rows_read_back_whole(records: list[Record]) -> None:
    found = read_columns(message(*rows_of(*records)))
    assert arguments(found) == [[*r.args, 0, 0, 0, 0][: int(COUNTS[r.event])] for r in records]
    assert blobs(found) == [(i, b.arg, b.status, b.data) for i, r in enumerate(records) for b in r.blobs]
    assert np.array_equal(found["contexts"]["tgid"][found["context"]], [r.who.tgid for r in records])
