"""Every field that a rule can read is the same in headrace's own JSON as in the rows that it was made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bpf.catalogue import catalogue
from pipeline.recording import blocks, open_recording, read_facts
from pipeline.ring import FRAME, U64, WATERMARK
from tests.replay.conftest import RECORDING
from workers.blobs import argument_counts
from workers.core import Core
from workers.detect.analysis import Analysis, Indexed
from workers.detect.fields import FieldError, field_of, names
from workers.detect.reading import column_of
from workers.detect.view import View, listed
from workers.rows import Rows
from workers.views.json_lines import JsonStyle
from workers.views.lineage import Lineages
from workers.views.pieces import Lines
from workers.views.style import Facts

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
        style = JsonStyle(Facts(0), executable=core.tree.executable)
        self.lines = Lines(catalogue(), style, lineages=Lineages(core.tree))
        self.analysis = Analysis((), catalogue())
        self.counts = argument_counts(catalogue())

    def differences(self, rows: Rows) -> list[tuple[Any, ...]]:
        """(line, event, field, value in the row, value in the line)"""
        if not len(rows):
            return []
        view = View(rows, self.core.contexts, self.core.tree, self.counts)
        data, _ = self.lines.render(rows, self.core.contexts)
        lines = data.splitlines()
        assert len(lines) == len(rows)
        read = [self.analysis.read(i, line) for i, line in enumerate(lines)]
        found: list[tuple[Any, ...]] = []
        for number in np.unique(rows.event).tolist():
            chosen = np.flatnonzero(rows.event == number)
            for name in names(catalogue().by_id[number]):
                try:
                    field = field_of(catalogue().by_id[number], name)
                except FieldError:  # a struct is none
                    continue
                column = column_of(field)
                for at, key in zip(chosen.tolist(), listed(column.keys(view, chosen)), strict=True):
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
