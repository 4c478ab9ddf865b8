"""A finding is never longer than its bound, and keeps what tells what it is; what is kept of findings is bounded."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from headrace.pipeline.publish.folding import PID, topic
from headrace.workers.detect.findings.bounded import MAX_BYTES, bounded
from headrace.workers.detect.findings.pieces import FindingPieces

EVENT = {"eventName": "execve", "args": [{"name": "argv", "type": "x", "value": ["x" * 1000] * 64}]}


def line(**parts: Any) -> bytes:
    base: dict[str, Any] = {
        "timestamp": 1,
        "signatureID": "X-1",
        "title": 'a "title"',
        "severity": "high",
        "process": {"pid": 7, "commandLine": "c"},
        "data": {},
        "events": [EVENT],
        "complete": True,
        "gaps": [],
    }
    return msgspec.json.encode(base | parts) + b"\n"


def test_a_finding_within_the_bound_is_left_alone() -> None:
    found = line()
    assert bounded(found) is found


def test_the_latest_of_what_was_before_and_the_completing_event_stay() -> None:
    before = [EVENT | {"eventName": f"number {i}"} for i in range(64)]
    long = line(before=before, beforeOmitted=3, events=[EVENT] * 16 + [EVENT | {"eventName": "last"}])
    found = bounded(long)
    finding = msgspec.json.decode(found)
    assert len(found) <= MAX_BYTES
    assert (finding["cut"], finding["bytes"]) == (True, len(long))
    assert finding["events"][-1]["eventName"] == "last"
    assert finding["before"][-1]["eventName"] == "number 63"
    assert finding["beforeOmitted"] + len(finding["before"]) == 67


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=3000),
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(max_size=300), inner, max_size=100),
    max_leaves=60,
)


@given(JSON, st.integers(4000, 20_000))
def test_whatever_a_signature_says_the_finding_is_short_enough(data: Any, most: int) -> None:
    found = bounded(line(data={"said": data}), most)
    assert len(found) <= most
    assert found.endswith(b"\n")
    assert topic(found) == b"finding/high/X-1/"
    assert PID.search(found)


def test_a_long_result_is_shortened() -> None:
    many = {str(i): i for i in range(10**5)}
    for data in ({"x": "y" * (9 << 20)}, {"x": ["y"] * 500_000}, {"k" * (9 << 20): 1}, many):
        assert len(bounded(line(data=data))) <= MAX_BYTES


def test_pieces_are_bounded_in_bytes_and_made_again() -> None:
    pieces = FindingPieces(10_000)
    for i in range(200):
        pieces.put(i, b"x" * i * 10, i * 10)
        assert pieces[i] == b"x" * i * 10
        assert sum(map(len, pieces.values())) <= 10_000
    pieces.put("long", b"x" * 20_000, 20_000)
    assert not pieces
