"""What signals ask a run for."""

from __future__ import annotations

import select
import signal
from collections.abc import Iterator

import pytest

from pipeline import app
from pipeline.app import Stopper

Terminal = list[bool]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Whether there is one: changed by a test."""
    there = [True]
    monkeypatch.setattr(app, "_has_terminal", lambda: there[0])
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
    """(whether a reload is asked for, signals that end the run) after SIGHUP."""
    try:
        signal.raise_signal(signal.SIGHUP)
        assert select.select([stopper.fd], [], [], 5)[0]
        return stopper.reload_asked(), stopper.signals
    finally:
        stopper.close()


def test_sighup_asks_for_a_reload(terminal: Terminal) -> None:
    assert hung_up(Stopper(reloads=True)) == (True, [])


def test_a_terminal_that_goes_away_ends_the_run(terminal: Terminal) -> None:
    stopper = Stopper(reloads=True)
    terminal[0] = False
    assert hung_up(stopper) == (False, [signal.SIGHUP])


@pytest.mark.usefixtures("ignored")
def test_under_nohup_the_run_outlives_its_terminal(terminal: Terminal) -> None:
    stopper = Stopper(reloads=True)
    terminal[0] = False
    assert hung_up(stopper) == (True, [])


def test_each_request_is_answered_once(terminal: Terminal) -> None:
    stopper = Stopper(reloads=True)
    signal.raise_signal(signal.SIGHUP)
    assert stopper.reload_asked()
    assert not stopper.reload_asked()
    assert not select.select([stopper.fd], [], [], 0)[0]
    stopper.close()
