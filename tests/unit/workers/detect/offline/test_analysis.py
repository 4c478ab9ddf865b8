"""Lines of JSON as events: what is none is refused by its line, and nothing else is lost by it."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.bpf.tables.catalogue import catalogue
from headrace.pipeline.stages.recording import blocks, open_recording, read_facts
from headrace.pipeline.transport.ring import FRAME
from headrace.workers.core import Core
from headrace.workers.detect.offline.analysis import MAX_DEPTH, MAX_LINE_BYTES, Analysis, LineError, _container
from headrace.workers.detect.offline.json_events import of_line
from headrace.workers.detect.rules.fields import field_of
from headrace.workers.detect.rules.rulesets import build
from headrace.workers.detect.rules.values import TextValue
from headrace.workers.views.json_lines import JsonStyle
from headrace.workers.views.pieces import Lines
from headrace.workers.views.style import HostFacts
from tests.replay.conftest import RECORDING


def recorded() -> list[dict[str, Any]]:
    """What headrace itself writes of the demo's recording."""
    core = Core(catalogue(), 0, 1)
    data = open_recording(RECORDING)
    facts, at = read_facts(data, "demo")
    for kind, payload in blocks(data, at, "demo"):
        if kind == FRAME:
            core.feed(np.frombuffer(payload, "u1"))
    rows = core.advance(2**63).rows
    lines, _ = Lines(catalogue(), JsonStyle(HostFacts(facts.boot_epoch_ns)), True).render(rows, core.contexts)
    return [json.loads(line) for line in lines.splitlines()]


EVENTS = recorded()
SIGNATURES = build(catalogue(), ()).rules
NUMBERS = st.sampled_from([-1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 1.5, True, None])
ANY = st.recursive(
    NUMBERS | st.text(max_size=5) | st.sampled_from(["0x", "O_RDONLY|", "{'sa_family':'AF_INET'", "9" * 5000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "value", "base64"]), inner),
    max_leaves=6,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container and key of a value."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [found for key in keys for found in ((value, key), *places(value[key]))]


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A real line with some values, keys or bytes changed."""
    event = copy.deepcopy(draw(st.sampled_from(EVENTS)))
    for _ in range(draw(st.integers(1, 4))):
        where, key = draw(st.sampled_from(places(event)))
        if draw(st.booleans()):
            where[key] = draw(ANY)
        elif isinstance(where, dict):
            where[draw(st.sampled_from(["pathBase64", "processNameBase64", "base64", "args", "value"]))] = draw(ANY)
    line = bytearray(json.dumps(event).encode())
    for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
        line[draw(st.integers(0, len(line) - 1))] = draw(st.integers(0, 255))
    return bytes(line)


@settings(max_examples=60, deadline=None)
@given(st.lists(lines(), min_size=1, max_size=4))
def test_any_line_is_an_event_or_refused(given_lines: list[bytes]) -> None:
    analysis = Analysis(SIGNATURES, catalogue(), pytest.fail)
    taken = []
    for index, line in enumerate(given_lines):
        with contextlib.suppress(LineError):
            event = analysis.read(index, line)
            taken += [event] if event else []
    msgspec.json.encode(list(analysis.findings(taken)))


def refusal(line: bytes) -> str:
    with pytest.raises(LineError) as found:
        Analysis((), catalogue()).read(0, line)
    return str(found.value)


@pytest.mark.parametrize("brackets", [b"[]", b"{}"])
@pytest.mark.parametrize("depth", [MAX_DEPTH, 500, 200_000])
def test_what_is_nested_deeply_is_refused(brackets: bytes, depth: int) -> None:
    begin, end = (b"[", b"]") if brackets == b"[]" else (b'{"a":', b"}")
    line = b'{"eventName":"close","x":' + begin * depth + b"1" + end * depth + b"}"
    assert refusal(line) == f"nested more than {MAX_DEPTH} deep"


def test_many_values_that_are_not_nested_are_an_event() -> None:
    line = b'{"eventName":"close","x":[' + b"[]," * 500 + b"[]]}"
    assert Analysis((), catalogue()).read(0, line) is not None


def test_a_line_that_is_too_long_is_refused() -> None:
    line = b'{"eventName":"close","x":"' + b"a" * MAX_LINE_BYTES + b'"}'
    assert refusal(line) == "longer than 16 MiB"


def seen(event: dict[str, Any], name: str) -> Any:
    found = of_line(event, catalogue())
    assert found is not None
    return found.value(field_of(found.event, name))


def executed(**argument: Any) -> dict[str, Any]:
    return {"eventName": "sched_process_exec", "args": [{"name": "argv", **argument}]}


@pytest.mark.parametrize(
    ("argv", "shown"), [(["x", ""], b"x "), (["x", "", ""], b"x  "), (["x"], b"x"), ([""], b""), (["a", "b"], b"a b")]
)
def test_empty_arguments_at_the_end_are_arguments(argv: list[str], shown: bytes) -> None:
    assert seen(executed(value=argv), "process.command_line") == TextValue((shown,))
    assert seen(executed(value=argv), "argv") == TextValue(tuple(a.encode() for a in argv))


def test_exact_bytes_are_taken_where_they_are_given() -> None:
    exact = base64.b64encode(b"x\0\xff\0").decode()
    argv = executed(value=["x", "\ufffd", ""], base64=exact)
    assert seen(argv, "argv") == TextValue((b"x", b"\xff", b""))
    path = base64.b64encode(b"/tmp/\xfe").decode()
    opened = {"eventName": "openat", "args": [{"name": "pathname", "value": "/tmp/\ufffd", "base64": path}]}
    assert seen(opened, "pathname") == TextValue((b"/tmp/\xfe",))
    who = {"processName": "\ufffd", "processNameBase64": "/w==", "executable": {"path": "\ufffd", "pathBase64": path}}
    assert seen(opened | who, "process.name") == TextValue((b"\xff",))
    assert seen(opened | who, "process.path") == TextValue((b"/tmp/\xfe",))


@pytest.mark.parametrize("encoded", ["/w=", "no base64!", 5, ["/w=="], "ÿ"])
def test_bytes_that_are_no_base64_are_refused(encoded: object) -> None:
    event = {"eventName": "openat", "args": [{"name": "pathname", "value": "x", "base64": encoded}]}
    assert refusal(json.dumps(event).encode()) == "pathname: not base64"


def test_a_container_without_a_pod_is_taken_as_it_is() -> None:
    """A line of headrace's own may lack what its views always write."""
    raw = {"containerId": "c1", "container": {"name": "box"}}
    assert _container(raw, own=True) == {"name": "box", "enrichment": "off"}
