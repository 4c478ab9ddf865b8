"""What signals ask a run for."""

from __future__ import annotations

import select
import signal
from collections.abc import Iterator

import pytest

from headrace.pipeline.process import signals
from headrace.pipeline.process.signals import ENDING, Stopper

Terminal = list[bool]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Whether there is one: changed by a test."""
    there = [True]
    monkeypatch.setattr(signals, "_has_terminal", lambda: there[0])
    return there


@pytest.fixture(autouse=True)
def hangup() -> Iterator[None]:
    """As for a process that was not started by nohup, even if the tests were."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def ignored(hangup: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def hung_up(stopper: Stopper) -> tuple[bool, list[int]]:
    """(whether the run goes on, signals that end the run) after SIGHUP."""
    try:
        signal.raise_signal(signal.SIGHUP)
        assert select.select([stopper.fd], [], [], 5)[0]
        return stopper.hung_up(), stopper.signals
    finally:
        stopper.close()


def test_sighup_is_no_end(terminal: Terminal) -> None:
    assert hung_up(Stopper()) == (True, [])


def test_a_terminal_that_goes_away_ends_the_run(terminal: Terminal) -> None:
    stopper = Stopper()
    terminal[0] = False
    assert hung_up(stopper) == (False, [signal.SIGHUP])


@pytest.mark.usefixtures("ignored")
def test_under_nohup_the_run_outlives_its_terminal(terminal: Terminal) -> None:
    stopper = Stopper()
    terminal[0] = False
    assert hung_up(stopper) == (True, [])


def test_each_request_is_answered_once(terminal: Terminal) -> None:
    stopper = Stopper()
    signal.raise_signal(signal.SIGHUP)
    assert stopper.hung_up()
    assert not stopper.hung_up()
    assert not select.select([stopper.fd], [], [], 0)[0]
    stopper.close()


@pytest.mark.parametrize("number", ENDING)
def test_other_signals_end_the_run(number: int) -> None:
    stopper = Stopper()
    try:
        signal.raise_signal(number)
        assert select.select([stopper.fd], [], [], 5)[0]
        assert (stopper.hung_up(), stopper.signals) == (False, [number])
    finally:
        stopper.close()
