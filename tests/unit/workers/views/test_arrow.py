"""Rows as Arrow record batches."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pyarrow as pa
import pytest

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.runtimes import KNOWN, Info, RuntimeAnswer
from headrace.workers.records.rows import Contexts, Rows, read_frames
from headrace.workers.views.arrow import CONTAINER, ArrowView, head
from headrace.workers.views.json_lines import JsonStyle
from headrace.workers.views.pieces import Lines
from headrace.workers.views.style import HostFacts
from tests.unit.frames import (
    CLOSE,
    EXECVE,
    FAULT,
    GETPPID,
    NOT_RUN,
    OPENAT,
    Blob,
    Record,
    Who,
    frame,
    view,
)

EPOCH = 1_700_000_000_000_000_000
RECORDS = (
    Record(OPENAT, args=(-100, 5, 0o102, 0o600), retval=3, blobs=(Blob(1, "/é".encode()),)),
    Record(CLOSE, args=(3,), retval=-9, who=Who(tgid=7, container=bytes(range(32)), runtime=1, container_state=2)),
    Record(OPENAT, args=(3, 5, 0, 0), retval=-14, blobs=(Blob(1, b"", FAULT),)),
    Record(OPENAT, args=(3, 5, 0, 0), blobs=(Blob(1, b"\0"),)),
    Record(OPENAT, args=(3, 5, 0, 0), blobs=(Blob(1, b"\xff\xfe"),)),
    Record(EXECVE, args=(1, 2, 3), blobs=(Blob(0, b"/bin/x"), Blob(1, b"x\0-a\0"))),
    Record(GETPPID, flags=NOT_RUN, retval=110),
)


def rows_of(*records: Record) -> tuple[Rows, Contexts]:
    contexts = Contexts()
    return read_frames([view(frame(records, cpu=1))], contexts).rows, contexts


def describe(context: Any) -> RuntimeAnswer:
    return RuntimeAnswer(KNOWN, Info(name="web", image="nginx:1", pod="p"))


def table(*records: Record, facts: HostFacts = HostFacts(EPOCH)) -> pa.Table:  # noqa: B008
    renderer = ArrowView(catalogue(), facts, executable=lambda c: b"/bin/sh", describe=describe)
    message = renderer.render(*rows_of(*records), whole=True)
    return pa.ipc.open_stream(b"".join(message)).read_all()


def test_it_says_what_the_json_lines_say() -> None:
    style = JsonStyle(HostFacts(EPOCH), executable=lambda c: b"/bin/sh", describe=describe)
    lines = Lines(catalogue(), style).render(*rows_of(*RECORDS))
    expected = [json.loads(line) for line in lines.data.splitlines()]
    found = table(*RECORDS).to_pylist()
    assert len(found) == len(expected)
    for row, event in zip(found, expected, strict=True):
        for name in set(row) & set(event) - {"timestamp", "args", "executable", "containerId", *CONTAINER}:
            assert row[name] == event[name], name
        assert [row[name] for name in CONTAINER] == [event.get(name) or None for name in CONTAINER]
        assert row["executable"] == event["executable"]["path"]
        assert row["containerId"] == (event["containerId"] or None)
        assert [a["name"] for a in row["args"]] == [a["name"] for a in event["args"]]
        for shown, told in zip(row["args"], event["args"], strict=True):
            value: Any = told["value"]
            plain = value if value is None or isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            assert shown["value"] == (plain or None if shown["value"] is None else plain), shown
            if isinstance(value, int):
                assert shown["raw"] == value % 2**64 or shown["raw"] == value % 2**32


def test_times_are_of_the_epoch_or_of_the_run() -> None:
    at = table(RECORDS[0]).column("timestamp")
    assert at.type == pa.timestamp("ns", "UTC")
    assert at.cast(pa.int64()).to_pylist() == [EPOCH + RECORDS[0].time_ns]
    relative = table(RECORDS[0], facts=HostFacts(EPOCH, RECORDS[0].time_ns - 5_000)).column("timestamp")
    assert relative.to_pylist() == [datetime.timedelta(microseconds=5)]


def test_what_has_no_value_is_null() -> None:
    found = table(*RECORDS).to_pylist()
    assert found[2]["args"][1] == {"name": "pathname", "value": None, "raw": 5}
    assert [row["returnValue"] for row in found] == [3, -9, -14, 0, 0, 0, None]
    assert found[6]["args"] == []


@pytest.mark.parametrize("relative", [False, True])
def test_messages_without_a_head_follow_one_that_was_written_before(relative: bool) -> None:
    facts = HostFacts(EPOCH, 0 if relative else None)
    renderer = ArrowView(catalogue(), facts)
    parts = [b"".join(renderer.render(*rows_of(record), whole=False)) for record in RECORDS]
    assert pa.ipc.open_stream(head(relative) + b"".join(parts)).read_all().num_rows == len(RECORDS)
    assert pa.ipc.open_stream(head(relative)).read_all().num_rows == 0


def test_contexts_may_begin_anew_between_batches() -> None:
    renderer = ArrowView(catalogue(), HostFacts(EPOCH))
    rows, contexts = rows_of(*RECORDS)
    first = renderer.batch(rows, contexts)
    contexts.clear()
    rows = read_frames([view(frame(RECORDS[:2], cpu=1))], contexts).rows
    assert renderer.batch(rows, contexts).to_pylist() == first.slice(0, 2).to_pylist()
