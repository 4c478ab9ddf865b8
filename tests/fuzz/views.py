"""Every view of sound frames with hostile contents: what comes out parses, and is as many rows as went in.

An input is one record, with the names, ids and numbers of its process (tests/fuzz/worker.py).
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import numpy as np

from headrace.bpf.layout import BLOB_STATUS
from headrace.bpf.tables.catalogue import catalogue
from headrace.config.printable import quoted, unquoted
from headrace.pipeline.transport.wire import read_columns
from headrace.workers.records.rows import Rows
from headrace.workers.views.table import fitted
from tests.fuzz.mutation import children
from tests.fuzz.samples import seeds as samples
from tests.fuzz.worker import FINAL_NS, WIDTH, Options, Plain, Worker, records

FORM = ""
EACH = 64
TOKENS = (
    b"\n",
    b"\r",
    b"\x1b[2J",
    b"\xe2\x80\xa8",
    b"\xe2\x80\xae",
    b"\xc2\x85",
    b"\xed\xa0\x80",
    b"\xf3\xa0\x80\x81",
    b", envp=",
    b"]",
    b'"',
    b"\\x0a",
    b"...",
    b"\xff",
    b"\0",
)
TIME = re.compile(r"\d\d:\d\d:\d\d(\.\d{6})? ")
COLOUR = re.compile(r"\x1b\[[0-9]*m")


def seeds() -> list[bytes]:
    """Some of the samples: what differs between the others are decoders, which are another target's."""
    return list(samples())[::4]


@cache
def _worker() -> tuple[Worker, Worker]:
    """For files, and for a terminal."""
    plain = Worker(("json", "table", "columns", "arrow"), Plain, detects=False)
    terminal = Worker(("table",), Options, detects=False)
    return plain, terminal


def _lines(data: bytes, ends: Any) -> list[str]:
    """The lines that a view says there are, which are those that a reader sees."""
    begins = [0, *ends.tolist()][:-1]
    lines = [data[b:e].decode() for b, e in zip(begins, ends.tolist(), strict=True)]
    assert len(lines) == EACH, "as many lines as rows"
    assert all(line.endswith("\n") and "\n" not in line[:-1] for line in lines), "a line has one end"
    return [line[:-1] for line in lines]


def _table(data: bytes, ends: Any) -> None:
    for line in _lines(data, ends):
        plain = COLOUR.sub("", line)
        assert TIME.match(plain), "a line begins with our time"
        assert plain.isprintable(), "a line has nothing that moves the cursor or hides"


def _json(data: bytes, ends: Any, rows: Rows) -> None:
    names = catalogue().by_id
    for line, event in zip(_lines(data, ends), rows.event.tolist(), strict=True):
        found = json.loads(line)
        assert found["eventName"] == names[event].name, "a line is of its row"
        assert len(found["args"]) == found["argsNum"], "as many arguments as it says"


def _columns(parts: Any, rows: Rows) -> None:
    found = read_columns(b"".join(map(bytes, parts)))
    for name in ("timestamp", "event", "context", "cpu", "retval", "flags", "args_end"):
        assert len(found[name]) == len(rows), f"{name} has an item a row"
    assert (found["context"] < len(found["contexts"])).all(), "a row's context is there"
    assert int(found["args_end"][-1]) == len(found["args"]), "arguments end where they end"
    if "blob_row" in found:
        ends = found["blob_start"].astype(np.int64) + found["blob_bytes"]
        assert (ends <= len(found["arena"])).all(), "a blob is inside of the arena"
        _texts(found)


def _texts(found: dict[str, Any]) -> None:
    arena = found["arena"].tobytes()
    whole = (found["blob_status"] & BLOB_STATUS) == 0
    for begin, size in zip(found["blob_start"][whole].tolist(), found["blob_bytes"][whole].tolist(), strict=True):
        data = arena[begin : begin + size]
        assert unquoted(quoted(data)) == data, "what the table shows can be read back"


def _arrow(parts: Any, rows: Rows) -> None:
    import pyarrow as pa

    found = pa.ipc.open_stream(b"".join(map(bytes, parts))).read_all()
    found.validate(full=True)
    assert found.num_rows == len(rows), "as many rows as went in"
    names = catalogue().by_id
    assert found.column("eventName").to_pylist() == [names[e].name for e in rows.event.tolist()]


def target(data: bytes) -> None:
    plain, terminal = _worker()
    frames = records(children(data, EACH))
    for worker in (plain, terminal):
        worker.begin()
        worker.names = ()
        for frame in frames:
            worker.core.feed(frame)
    rows = plain.turn(FINAL_NS).rows
    assert len(rows) == EACH, "a sound frame's record is a row"
    _json(*plain.shown("json", rows), rows)
    _table(*plain.shown("table", rows))
    _columns(plain.shown("columns", rows), rows)
    _arrow(plain.shown("arrow", rows), rows)
    narrow = terminal.turn(FINAL_NS).rows
    _table(*fitted(*terminal.views["table"].render(narrow, terminal.core.contexts), WIDTH))
