"""JSON lines for `headrace analyze`: a line is an event, no event that we know, or rejected; findings are JSON.

An input is one line. The signatures are those that ship and rules that have every operator.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec
import numpy as np

from headrace.bpf.tables.catalogue import catalogue
from headrace.workers.detect.offline.analysis import Analysis, LineError
from headrace.workers.detect.rules.rulesets import build
from tests.fuzz import reasoned
from tests.fuzz.mutation import siblings
from tests.fuzz.samples import seeds as samples
from tests.fuzz.seeds import EVERY_OPERATOR, LINES
from tests.fuzz.worker import FINAL_NS, Plain, Worker, records

FORM = "json"
EACH = 16
TOKENS = (
    b'"eventName":"openat"',
    b'"eventName":"sched_process_exec"',
    b'"eventName":"security_socket_connect"',
    b'"name":"',
    b'"value":',
    b'"args":[',
    b"null",
    b"true",
    b"-1",
    b"1e300",
    b"1.5",
    b"123456789012345678901234567890",
    b"[" * 70,
    b'{"a":' * 70,
    b'"\\u0000"',
    b'"0x1|O_CREAT"',
    b'"base64":"',
    b"\\udc80",
    b"\xff",
    b"\xe2\x80\xa8",
)


def seeds() -> Iterator[bytes]:
    """Lines of other programs, and our own of every event."""
    yield from LINES
    worker = Worker(("json",), Plain, detects=False)
    for sample in samples():
        worker.core.feed(records(np.frombuffer(sample, np.uint8)[None, :])[0])
    rows = worker.turn(FINAL_NS).rows
    yield from worker.shown("json", rows).data.splitlines()


@cache
def _analysis() -> Analysis:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rules.yaml")
        path.write_text(EVERY_OPERATOR)
        rules = build(catalogue(), (str(path),))
    assert not rules.refused, rules.refused
    return Analysis(rules.rules, catalogue())


def target(data: bytes) -> None:
    analysis, encoder, events = _analysis(), msgspec.json.Encoder(), []
    for index, line in enumerate(siblings(data.replace(b"\n", b" "), EACH, TOKENS)):
        try:
            event = analysis.read(index, line)
        except LineError as error:
            reasoned(str(error))
        else:
            events += [event] if event is not None else []
    known = {event.line for event in events}
    for finding in analysis.findings(events):
        line = encoder.encode(finding)
        assert b"\n" not in line, "a finding is a line"
        assert json.loads(line)["eventIndex"] in known, "a finding is of a line that was an event"
