"""The ledger: sums of journals filled by hand, and when they balance."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bpf.layout import EVENTS, MARK
from headrace.bpf.tables.catalogue import catalogue
from headrace.pipeline.process import books
from headrace.pipeline.process.books import Ledger, Line

OPENAT, CLOSE = 257, 3
LOSS = catalogue().by_name["loss"].id


def worker(delivered: dict[int, int], filtered: dict[int, int] | None = None, **fields: Any) -> Any:
    state = np.zeros(1, books.worker_journal(2, 1))
    for event, count in delivered.items():
        state["delivered"][0, event] = count
    for event, count in (filtered or {}).items():
        state["filtered"][0, event] = count
    for name, value in fields.items():
        state[name] = value
    return state


@given(st.lists(st.integers(0, 1000), min_size=7, max_size=7))
def test_in_flight_is_what_the_identity_leaves_over(numbers: list[int]) -> None:
    produced, filtered, throttled, lost, dropped, rejected, delivered = numbers
    ledger = Ledger(
        produced=produced,
        filtered=filtered,
        throttled=throttled,
        lost=lost,
        dropped=dropped,
        rejected=rejected,
        delivered=delivered,
    )
    ledger.close()
    assert produced == filtered + throttled + lost + dropped + rejected + delivered + ledger.in_flight
    assert ledger.balanced == (ledger.in_flight == 0)


def test_an_empty_run_balances() -> None:
    ledger = Ledger()
    ledger.close()
    assert ledger.balanced


@pytest.mark.parametrize(
    "wrong",
    [
        {"produced": 1},
        {"delivered": 1},
        {"missed_runs": 1},
        {"sinks": [Line(name="x", offered=3, written=1, filtered=1)]},
    ],
)
def test_books_that_do_not_close_say_so(wrong: dict[str, Any]) -> None:
    ledger = Ledger(**wrong)
    ledger.close()
    assert not ledger.balanced
    assert "NOT BALANCED" in ledger.text()[0]


def test_missed_runs_are_told_by_what_would_have_run() -> None:
    ledger = Ledger(missed_runs=3, missed_by_program={"sys_exit": 2, "task_rename": 1})
    ledger.close()
    assert ledger.text()[0].endswith("missed_runs 3  NOT BALANCED")
    assert ledger.text()[1] == "  missed runs: sys_exit 2  task_rename 1"


def test_a_sinks_line_closes_over_written_filtered_and_dropped() -> None:
    ledger = Ledger(sinks=[Line(name="x", offered=6, written=1, filtered=2, dropped=3)])
    ledger.close()
    assert ledger.balanced


def test_workers_are_summed_by_worker_event_and_cpu() -> None:
    ledger = Ledger()
    states = [
        worker({OPENAT: 5, CLOSE: 1}, {OPENAT: 2}, rejected=3, late=1, turns=9, delivered_cpu=[4, 2]),
        worker({OPENAT: 7}, redelivered=2, delivered_cpu=[0, 7]),
    ]
    books.add_workers(ledger, states, catalogue())
    assert (ledger.delivered, ledger.filtered, ledger.rejected, ledger.late, ledger.redelivered) == (13, 2, 3, 1, 2)
    assert ledger.by_event == {"openat": {"delivered": 12, "filtered": 2}, "close": {"delivered": 1}}
    assert ledger.by_worker["0"] == {"delivered": 6, "filtered": 2, "rejected": 3, "turns": 9}
    assert ledger.by_cpu == {"0": {"delivered": 4}, "1": {"delivered": 9}}


def test_by_event_sums_over_workers() -> None:
    ledger = Ledger()
    books.add_workers(ledger, [worker({OPENAT: 5}, {OPENAT: 1}), worker({OPENAT: 7}, {OPENAT: 1})], catalogue())
    assert ledger.by_event == {"openat": {"delivered": 12, "filtered": 2}}


def test_announced_losses_stand_outside_the_identity() -> None:
    ledger = Ledger()
    state = worker({OPENAT: 1, LOSS: 4}, {LOSS: 2})
    books.add_workers(ledger, [state], catalogue())
    assert (ledger.delivered, ledger.filtered, ledger.announced) == (1, 0, 6)
    assert int(state["delivered"][0, LOSS]) == 4, "the journal is left as it is"


def test_the_kernels_part_is_summed_by_cpu_event_and_reason() -> None:
    produced = np.zeros((2, EVENTS), np.uint64)
    produced[0, OPENAT], produced[1, OPENAT], produced[1, CLOSE] = 10, 20, 5
    marks = np.zeros((2, 4), MARK)
    marks["lost_full"][0, 1], marks["lost_nested"][1, 2], marks["lost_room"][1, 0] = 4, 2, 1
    marks["lost_other"][0, 0], marks["faults"][0, 0], marks["cut"][1, 1], marks["raced"][1, 0] = 3, 8, 9, 7
    # the last slot is that of facts: outside of the sum
    marks["facts"][:, 3], marks["lost_full"][0, 3], marks["cut"][0, 3] = (70, 7), 5, 6
    ledger = Ledger()
    books.add_kernel(ledger, produced, marks, catalogue())
    assert (ledger.produced, ledger.lost, ledger.faults, ledger.cut, ledger.raced) == (35, 10, 8, 9, 7)
    assert ledger.lost_by_reason == {"full": 4, "other": 3, "nested": 2, "room": 1}
    assert ledger.by_event == {"openat": {"produced": 30}, "close": {"produced": 5}}
    assert ledger.by_cpu == {"0": {"produced": 10, "lost": 7}, "1": {"produced": 25, "lost": 3}}
    assert ledger.facts == {"produced": 77, "lost": 5}


def test_the_readers_part_is_dropped_and_cross_checks() -> None:
    state = np.zeros(1, books.reader_journal(2, 4, 4))
    state["dropped"][0, 1, 2], state["dropped"][0, 0, 0] = 5, 1
    state["dropped"][0, 1, 3], state["received"][0, 1, 3] = 8, 9  # facts
    state["received"][0, 0, 0], state["gaps"][0, 1, 1], state["perf_lost"] = 100, 2, 7
    ledger = Ledger()
    books.add_reader(ledger, state)
    assert (ledger.dropped, ledger.facts) == (6, {"dropped": 8})
    checks = ledger.cross_checks
    assert (checks["events_received"], checks["sequence_gaps"], checks["perf_lost_records"]) == (100, 2, 7)
    assert ledger.by_cpu == {"0": {"dropped": 1}, "1": {"dropped": 5}}


def test_every_sink_has_a_line_and_redelivery_is_outside_the_identity() -> None:
    state = np.zeros(1, books.publisher_journal(1, 2))
    state["sinks"][0, 1] = (10, 4, 3, 3, 2, 999, 1)
    ledger = Ledger()
    books.add_sinks(ledger, state, ["table:-", "json:x"])
    ledger.close()
    assert ledger.sinks[0] == Line(name="table:-")
    assert ledger.sinks[1] == Line(name="json:x", offered=10, written=4, filtered=3, dropped=3, bytes=999, refused=1)
    assert (ledger.redelivered, ledger.balanced) == (2, True)


def test_a_whole_run_balances_and_one_event_less_does_not() -> None:
    def run(delivered: int) -> Ledger:
        ledger = Ledger()
        reader = np.zeros(1, books.reader_journal(1, 2, 1))
        reader["dropped"][0, 0, 0] = 4
        produced = np.zeros((1, EVENTS), np.uint64)
        produced[0, OPENAT] = 20
        marks = np.zeros((1, 2), MARK)
        marks["lost_full"][0, 0] = 3
        books.add_reader(ledger, reader)
        books.add_workers(ledger, [worker({OPENAT: delivered}, {OPENAT: 2}, rejected=1)], catalogue())
        books.add_kernel(ledger, produced, marks, catalogue())
        ledger.close()
        return ledger

    assert run(10).balanced
    assert (run(9).balanced, run(9).in_flight) == (False, 1)
    assert (run(11).balanced, run(11).in_flight) == (False, -1)


def test_the_text_names_every_term_and_every_sink() -> None:
    ledger = Ledger(produced=9, delivered=9, sinks=[Line(name="json:-", offered=9, written=9)], restarts={"reader": 2})
    ledger.close()
    text = "\n".join(ledger.text())
    for term in ("produced 9", "delivered 9", "filtered 0", "throttled 0", "lost 0", "dropped 0", "rejected 0"):
        assert term in text
    assert "json:-: offered 9  written 9  filtered 0  dropped 0" in text
    assert "restarted: reader 2" in text
    assert text.splitlines()[0].endswith("  balanced")


def test_a_ledger_is_json() -> None:
    ledger = Ledger(produced=1)
    ledger.close()
    assert msgspec.json.decode(msgspec.json.encode(ledger))["in_flight"] == 1
