"""The wire as a subscriber reads it: the header of a message and its payload, JSON lines, columns or Arrow.

An input is `u16 bytes of the header | header | payload`.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator

import numpy as np

from headrace.pipeline.api.messages import read_message
from headrace.pipeline.transport.wire import WireError, read_columns, read_header
from tests.fuzz.mutation import siblings
from tests.fuzz.samples import seeds as samples
from tests.fuzz.worker import FINAL_NS, Plain, Worker, records

FORM = ""
EACH = 4
TOKENS = (
    b'"format":"json"',
    b'"format":"columns"',
    b'"format":"arrow"',
    b'"count":18446744073709551616',
    b'"offset":',
    b'"dtype":"context"',
    b'"dtype":"<u8"',
    b'"name":"timestamp"',
    b"[" * 40,
    b'{"z":' * 20,
    b"\xff\xff\xff\xff",
    b"\\ud800",
)
LENGTH = struct.Struct("<H")


def _message(kind: str, payload: bytes) -> bytes:
    header = json.dumps({"publisher": "a1-7", "sequence": 3, "count": 2, "format": kind}).encode()
    return LENGTH.pack(len(header)) + header + payload


def seeds() -> Iterator[bytes]:
    """What our own views render of some records, and messages of a line."""
    worker = Worker(("json",), Plain, detects=False)
    several = [sample for i, sample in enumerate(samples()) if i % 40 == 0]
    for sample in several:
        for frame in records(np.frombuffer(sample, np.uint8)[None, :]):
            worker.core.feed(frame)
    rows = worker.turn(FINAL_NS).rows
    contexts = worker.core.contexts
    for kind in ("json", "columns", "arrow"):
        view = Worker((kind,), Plain, detects=False).views[kind]
        for part in (rows.select(slice(0, 1)), rows.select(slice(0, 3)), rows):
            if kind == "json":
                yield _message(kind, view.render(part, contexts).data)
            else:
                out = view.render(part.compact(), contexts, *([True] if kind == "arrow" else []))
                yield _message(kind, b"".join(map(bytes, out)))
    yield _message("json", b'{"a":1}\n')
    yield _message("table", b"")


def target(data: bytes) -> None:
    for one in siblings(data, EACH, TOKENS):
        _read(one)


def _read(data: bytes) -> None:
    size = LENGTH.unpack_from(data.ljust(2, b"\0"))[0]
    header, payload = data[2 : 2 + size], data[2 + size :]
    try:
        found = read_message([b"all/", header, payload])
        text = found.lines()
    except WireError:
        pass
    else:
        with contextlib.suppress(WireError):
            found.rows()
        with contextlib.suppress(WireError):
            len(found.data)
        lines = text.splitlines() if found.format == "json" else text.split("\n")[:-1]
        for line in lines[:8]:
            json.loads(line)
    try:
        read_header(payload)
        for name, column in read_columns(payload).items():
            assert column.nbytes <= len(payload), f"{name} is a view of the payload"
    except WireError:
        pass
