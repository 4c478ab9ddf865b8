"""Thresholds: when matches are a finding together."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bpf.tables.catalogue import catalogue
from headrace.config import thresholds
from headrace.config.thresholds import Thresholds
from headrace.workers.detect.offline.analysis import Analysis, Indexed
from headrace.workers.detect.offline.json_events import of_line
from headrace.workers.detect.rules.rulesets import build


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), max_size=60), st.integers(2, 4), st.integers(1, 40))
def test_it_is_reached_when_the_last_so_many_are_near_enough(
    steps: list[tuple[int, int]], count: int, within: int
) -> None:
    taken, now = Thresholds(), 0
    since: dict[int, list[int]] = {}
    for group, step in steps:
        now += step
        reached = taken.take(now, group, count, within)
        last = since.setdefault(group, [])
        last.append(now)
        expected = len(last) >= count and last[-1] - last[-count] <= within
        assert (reached is not None) == expected
        if reached:
            assert reached == (count, last[-count], now)
            last.clear()


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thresholds, "MAX_TIMES", 4)
    taken = Thresholds()
    for group in itertools.chain(range(5), [1]):
        taken.take(1, group, 2, 10)
    assert taken.take(1, 4, 2, 10), "the latest are still known"
    assert taken.take(1, 0, 2, 10) is None, "the first was forgotten"


RULE = "id: MANY\nname: many\nevents: [ptrace]\n"


def rules(folder: Path, text: str) -> tuple[list[str], Analysis]:
    (folder / "many.yaml").write_text(RULE + text)
    found = build(catalogue(), [str(folder)], shipped=False)
    return [str(error) for error in found.refused], Analysis(found.rules, catalogue())


def test_lines_are_counted_as_well(tmp_path: Path) -> None:
    _, analysis = rules(tmp_path, "threshold: {count: 3, within: 0.001, by: [request]}")
    found = []
    for index, (time_us, request) in enumerate([(0, 1), (1, 1), (5, 2), (999, 1), (1000, 1), (2500, 1), (2600, 1)]):
        raw = {"timestamp": time_us * 1000, "eventName": "ptrace", "args": [{"name": "request", "value": request}]}
        event = of_line(raw, catalogue())
        assert event
        found += list(analysis.findings([Indexed(index, event, raw)]))
    assert [(f["eventIndex"], f["threshold"]) for f in found] == [
        (3, {"count": 3, "firstTime": 0, "lastTime": 999_000})
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("threshold: 5", "threshold: Expected `object`"),
        ("threshold: {count: 1, within: 5}", "threshold: Expected `int` >= 2"),
        ("threshold: {count: 5}", "missing required field `within`"),
        ("threshold: {count: 5, within: 0}", "threshold: Expected `float` > 0"),
        (
            "threshold: {count: 5, whithin: 1}",
            "(seconds) and by (a list of fields), not whithin",
        ),
        ("threshold: {count: 5, within: 1, by: request}", "threshold: Expected `array`"),
        ("threshold: {count: 5, within: 1, by: [reqest]}", "did you mean request?"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(tmp_path: Path, text: str, why: str) -> None:
    refused, _ = rules(tmp_path, text)
    assert len(refused) == 1
    assert f"{tmp_path}/many.yaml:" in refused[0]
    assert why in refused[0]
