"""A message of columns from hand-made bytes, and what is said about one that is none."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.pipeline.transport.wire import WireError, read_columns, read_header
from tests.unit import frames


def message(header: Any, body: bytes = b"") -> bytes:
    """u32 header bytes | u32 zero | header | padding to 8 | sections."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    lead = struct.pack("<II", len(text), 0) + text
    return lead + bytes(-len(lead) % 8) + body


def test_sections_are_found_by_name() -> None:
    sections = [
        {"name": "timestamp", "dtype": "<u8", "offset": 0, "count": 2},
        {"name": "cpu", "dtype": "<u2", "offset": 16, "count": 3},
    ]
    data = message({"count": 2, "sections": sections, "words": {}}, struct.pack("<QQ3H", 5, 6, 1, 2, 3) + bytes(2))
    found = read_columns(data)
    assert {name: column.tolist() for name, column in found.items()} == {"timestamp": [5, 6], "cpu": [1, 2, 3]}


def test_contexts_are_read_as_such() -> None:
    section = {"name": "contexts", "dtype": "context", "offset": 0, "count": 1}
    data = message({"sections": [section]}, frames.Who(tgid=9, comm=b"sh").packed())
    context = read_columns(data)["contexts"][0]
    assert (context["tgid"], context["comm"]) == (9, b"sh")


@pytest.mark.parametrize("pad", range(8))
def test_sections_begin_at_the_next_eight_bytes(pad: int) -> None:
    header = json.dumps({"sections": [{"name": "x", "dtype": "|u1", "offset": 0, "count": 1}]}).encode() + b" " * pad
    assert read_columns(message(header, b"\x07"))["x"].tolist() == [7]


def test_the_columns_are_views() -> None:
    section = {"name": "x", "dtype": "<u8", "offset": 0, "count": 1}
    data = bytearray(message({"sections": [section]}, struct.pack("<Q", 1)))
    column = read_columns(data)["x"]
    data[-8:] = struct.pack("<Q", 9)
    assert column.tolist() == [9]


@pytest.mark.parametrize("data", [b"", b"1234567", struct.pack("<II", 100, 0) + b"{}"])
def test_what_is_too_short_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        read_header(data)


@pytest.mark.parametrize("text", [b"nonsense", b'{"a": "\xff"}'])
def test_a_header_that_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(WireError, match="not JSON"):
        read_header(message(text))


GOOD = {"name": "x", "dtype": "<u8", "offset": 0, "count": 1}


@pytest.mark.parametrize(
    "header",
    [
        {},
        [],
        {"sections": 5},
        {"sections": [5]},
        {"sections": [{}]},
        {"sections": [GOOD | {"dtype": "zz"}]},
        {"sections": [GOOD | {"dtype": "O"}]},
        {"sections": [GOOD | {"offset": -800}]},
        {"sections": [GOOD | {"offset": 800}]},
        {"sections": [GOOD | {"count": 800}]},
        {"sections": [GOOD | {"count": -1}]},
        {"sections": [GOOD | {"count": "x"}]},
    ],
    ids=json.dumps,
)
def test_sections_that_cannot_be_are_refused(header: Any) -> None:
    with pytest.raises(WireError):
        read_columns(message(header, bytes(8)))


@given(st.binary(max_size=64) | st.binary(max_size=40).map(message))
@example(message(b"{}"))
def test_any_bytes_are_columns_or_a_wire_error(data: bytes) -> None:
    try:
        found = read_columns(data)
    except WireError:
        return
    assert all(isinstance(column, np.ndarray) for column in found.values())
