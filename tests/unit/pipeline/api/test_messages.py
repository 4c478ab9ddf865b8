"""A message as `headrace subscribe` reads it: what no publisher of headrace sends is refused, and ends nothing else."""

from __future__ import annotations

import json
import struct

import pyarrow as pa
import pytest

from headrace.pipeline.api.messages import Message
from headrace.pipeline.api.messages import read_message as read
from headrace.pipeline.transport.wire import WireError
from headrace.workers.views.arrow import schema

DEEP = 100_000


def read_message(header_part: bytes, payload: bytes) -> tuple[Message, str]:
    """The message, and the lines that are printed of it."""
    message = read([b"all/", header_part, payload])
    return message, message.lines()


def header(kind: str = "json", **more: object) -> bytes:
    return json.dumps({"publisher": "a-1", "sequence": 0, "count": 1, "format": kind} | more).encode()


def columns(text: bytes, body: bytes = b"") -> bytes:
    lead = struct.pack("<II", len(text), 0) + text
    return lead + bytes(-len(lead) % 8) + body


def test_lines_of_json_are_given_as_they_came() -> None:
    assert read_message(header(), b'{"a":1}\n{"b":"\xc3\xa4"}\n')[1] == '{"a":1}\n{"b":"ä"}\n'


@pytest.mark.parametrize(
    "payload",
    [b"no\n", b'{"a":1}\r{"b":2}x\n', b'"\xff"\n', b'"\x1b[2J"\n', b"[" * DEEP + b"\n"],
    ids=["words", "two", "bytes", "escape", "deep"],
)
def test_what_is_no_line_of_json_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError):
        read_message(header(), payload)


@pytest.mark.parametrize(
    "part",
    [b"", b"{}", b'{"z":' + b"[" * DEEP, header("table"), header(sequence="1"), b"\xff"],
    ids=["empty", "bare", "deep", "format", "type", "bytes"],
)
def test_a_header_that_is_none_is_refused(part: bytes) -> None:
    with pytest.raises(WireError):
        read_message(part, b"")


@pytest.mark.parametrize(
    "text",
    [
        b'{"sections":' + b"[" * DEEP,
        b'{"sections":[{"name":"timestamp","dtype":"<u8","offset":0,"count":1},'
        b'{"name":"cpu","dtype":"<u2","offset":0,"count":2}]}',
        b'{"sections":[{"name":"timestamp","dtype":"context","offset":0,"count":1}]}',
    ],
    ids=["deep", "lengths", "records"],
)
def test_columns_that_are_none_are_refused(text: bytes) -> None:
    with pytest.raises(WireError):
        read_message(header("columns"), columns(text, bytes(224)))


def stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def events() -> pa.Table:
    """Two rows of nothing but a time and names."""
    known = schema(False)
    columns = [pa.nulls(2, field.type) for field in known]
    columns[0] = pa.array([1, 2], known.field(0).type)
    columns[1] = pa.array(["openat", "close"])
    return pa.table(columns, schema=known)


def test_an_arrow_stream_of_events_is_a_line_a_row() -> None:
    lines = read_message(header("arrow"), stream(events()))[1].splitlines()
    assert [json.loads(line)["eventName"] for line in lines] == ["openat", "close"]


def test_an_arrow_stream_of_something_else_is_refused() -> None:
    with pytest.raises(WireError, match="other columns"):
        read_message(header("arrow"), stream(pa.table({"timestamp": [1]})))


def test_offsets_that_lead_out_of_an_arrow_stream_are_refused_and_not_followed() -> None:
    whole = stream(events())
    offsets = struct.pack("<3i", 0, 6, 11)
    assert whole.count(offsets) == 1
    with pytest.raises(WireError, match="not an Arrow stream"):
        read_message(header("arrow"), whole.replace(offsets, struct.pack("<3i", 0, 6, 1 << 30)))
