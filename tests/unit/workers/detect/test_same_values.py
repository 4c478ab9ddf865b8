"""Every field that a rule can read is the same in headrace's own JSON as in the rows that it was made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.bpf.tables.catalogue import Event, catalogue
from headrace.pipeline.stages.recording import blocks, open_recording, read_facts
from headrace.pipeline.transport.ring import FRAME, U64, WATERMARK
from headrace.workers.core import Core
from headrace.workers.detect.columns.reading import column_of
from headrace.workers.detect.columns.view import View, listed
from headrace.workers.detect.findings.data import DataField
from headrace.workers.detect.offline.analysis import Analysis, Indexed
from headrace.workers.detect.rules.fields import FieldError, field_of, names
from headrace.workers.detect.rules.values import TextValue
from headrace.workers.records.blobs import argument_counts
from headrace.workers.records.rows import Rows
from headrace.workers.views.json_lines import JsonStyle
from headrace.workers.views.lineage import Lineages
from headrace.workers.views.pieces import VECTOR_TYPE, Lines
from headrace.workers.views.style import HostFacts
from tests.replay.conftest import RECORDING
from tests.unit.frames import CONNECT, CUT, EXECVE, FAULT, OK, OPENAT, Blob, Record, Who, frame, view

FINAL_NS = 2**63


def turns(path: Path, core: Core) -> Iterator[Rows]:
    """What each watermark of a recording lets go."""
    data = open_recording(path)
    _, at = read_facts(data, path.name)
    for kind, payload in blocks(data, at, path.name):
        if kind == FRAME:
            core.feed(np.frombuffer(payload, "u1"))
        elif kind == WATERMARK:
            yield core.advance(U64.unpack(payload)[0]).rows
    yield core.advance(FINAL_NS).rows


class Both:
    """Rows and the lines that are made of them, read by the same names."""

    def __init__(self, core: Core) -> None:
        self.core = core
        style = JsonStyle(HostFacts(0), executable=core.tree.executable)
        self.lines = Lines(catalogue(), style, lineages=Lineages(core.tree))
        self.analysis = Analysis((), catalogue())
        self.counts = argument_counts(catalogue())

    def differences(self, rows: Rows) -> list[tuple[Any, ...]]:
        """(line, event, field, value in the row, value in the line)"""
        if not len(rows):
            return []
        seen = View(rows, self.core.contexts, self.core.tree, self.counts)
        data, _ = self.lines.render(rows, self.core.contexts)
        lines = data.splitlines()
        assert len(lines) == len(rows)
        read = [self.analysis.read(i, line) for i, line in enumerate(lines)]
        found: list[tuple[Any, ...]] = []
        for number in np.unique(rows.event).tolist():
            chosen = np.flatnonzero(rows.event == number)
            plain = names(catalogue().by_id[number])
            for name in (*plain, *(f"{name}|equals|process.path" for name in plain)):
                try:
                    field = field_of(catalogue().by_id[number], name)
                except FieldError:  # a struct is none
                    continue
                column = column_of(field)
                for at, key in zip(chosen.tolist(), listed(column.keys(seen, chosen)), strict=True):
                    one = read[at]
                    assert isinstance(one, Indexed)
                    if (wanted := column.value(key)) != (got := one.event.value(field)):
                        found.append((json.loads(lines[at])["timestamp"], field.event.name, name, wanted, got))
        return found


def test_a_recording_and_its_lines_have_the_same_values() -> None:
    core = Core(catalogue(), 0, 1)
    both = Both(core)
    found = [difference for rows in turns(RECORDING, core) for difference in both.differences(rows)]
    assert found == []


BYTES = st.binary(max_size=12) | st.sampled_from(
    [b"\xff", b"\xfe", "\ufffd".encode(), b"a\0", b"a", b"\\xff", b"a\0\0b"]
)
EXEC = catalogue().by_name["sched_process_exec"]
FORK = catalogue().by_name["sched_process_fork"]
STATUSES = st.sampled_from([OK, OK, OK, CUT, FAULT])


TEXTS = BYTES.map(lambda data: data.replace(b"\0", b""))
"""The kernel's strings end at a NUL."""


def blobs_of(draw: st.DrawFn, event: Event, *names: str) -> tuple[Blob, ...]:
    found = []
    for name in names:
        index = event.index(name) or 0
        of = BYTES if event.arguments[index].type == VECTOR_TYPE else TEXTS
        if draw(st.integers(0, 3)):
            found.append(Blob(index, draw(of), draw(STATUSES)))
    return tuple(found)


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Some event of some process, with any bytes in each of its texts."""
    comm, node = (draw(TEXTS) for _ in range(2))
    tgid = draw(st.sampled_from([100, 200]))
    who = Who(tgid=tgid, tid=tgid, comm=comm, nodename=node, process_start_ns=tgid, uid=draw(st.sampled_from([0, 1])))
    time_ns = draw(st.integers(1, 10**12))
    what = draw(st.sampled_from([OPENAT, EXECVE, CONNECT, EXEC.id, FORK.id]))
    if what == CONNECT:
        family = draw(st.sampled_from([b"\x01\0", b"\x02\0", b"\x0a\0", b"\x10\0", b"\x63\0", b"\x01"]))
        address = family + draw(BYTES | st.binary(max_size=30))
        return Record(CONNECT, time_ns, (3, 1, len(address)), blobs=(Blob(1, address),), who=who)
    if what == EXEC.id:
        blobs = blobs_of(draw, EXEC, "pathname", "argv", "interp", "pwd", "env", "cmdpath")
        return Record(EXEC.id, time_ns, (0,) * EXEC.cells, blobs=blobs, who=who)
    if what == FORK.id:
        args = [0] * FORK.cells
        args[FORK.index("child_pid") or 0] = args[FORK.index("child_process_start_time") or 0] = 300 - tgid
        return Record(FORK.id, time_ns, tuple(args), who=who)
    blobs = blobs_of(draw, catalogue().by_id[what], *(["pathname"] if what == OPENAT else ["pathname", "argv", "envp"]))
    return Record(what, time_ns, (0, 1, 2, 3), blobs=blobs, who=who)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(records(), min_size=1, max_size=6), min_size=1, max_size=3))
def test_any_bytes_come_back_from_a_line_as_they_were(turns_of: list[list[Record]]) -> None:
    core = Core(catalogue(), 0, 1)
    both = Both(core)
    for number, given_records in enumerate(turns_of, 1):
        moved = [replace(record, time_ns=record.time_ns + number * 10**12) for record in given_records]
        core.feed(view(frame(moved)))
        assert both.differences(core.advance((number + 1) * 10**12).rows) == []


def test_data_of_findings_tell_different_bytes_apart() -> None:
    one, other = TextValue((b"/tmp/\xff",)), TextValue((b"/tmp/\xfe",))
    path = DataField("path", field_of(catalogue().by_name["openat"], "pathname"), None)
    assert path.said(one) == {"path": "/tmp/\ufffd", "pathBase64": "L3RtcC//"}
    assert path.said(one) != path.said(other)
    argv = DataField("argv", field_of(EXEC, "argv"), None)
    assert argv.said(TextValue((b"a", b"\xff"))) == {"argv": ["a", "\ufffd"], "argvBase64": "YQD/"}
    assert argv.said(TextValue((b"a", b"b"))) == {"argv": ["a", "b"]}
