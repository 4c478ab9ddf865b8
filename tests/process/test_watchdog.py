"""Stages that are stopped, or do not get on: each is replaced, and nothing is lost or outlives the run."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.pipeline.run import watchdog
from headrace.pipeline.run.stage import Stage
from headrace.pipeline.run.watchdog import HANGS, STANDS, Watchdog, state
from tests.live import Running, let_go, start_load, wait_for

SOON = (
    sys.executable,
    "-c",
    "from headrace.pipeline.run import watchdog; watchdog.STANDS = 2; "
    "from headrace.pipeline.command.cli import main; main()",
)


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["worker-0", "publisher", "reader"])
def test_a_stopped_stage_is_replaced(name: str, binaries: dict[str, Path], tmp_path: Path) -> None:
    load = start_load(binaries["load"], "getppid", 0, rate=2000)
    output = tmp_path / "events"
    options = ("--workers", "2", "-s", f"tree={load.pid}", "-e", "getppid", "-o", f"json:{output}")
    running = Running(*options, program=SOON)
    let_go(load)
    wait_for(lambda: output.stat().st_size > 1 << 16, "events")
    stopped = running.stage(name)
    os.kill(stopped, signal.SIGSTOP)
    wait_for(lambda: running.stages().get(name, stopped) != stopped, "another one")
    size = output.stat().st_size
    wait_for(lambda: output.stat().st_size > size, "events after that")
    calls = int(load.communicate()[0].split()[0])
    status, ledger, errors = running.end()
    assert (status, ledger["balanced"], ledger["restarts"]) == (0, True, {name: 1}), errors
    assert ledger["by_event"]["getppid"]["produced"] == calls
    assert f"name={name}" in errors
    assert "supervisor.process_stalled" in errors


@pytest.mark.kernel
@pytest.mark.parametrize(("name", "option"), [("hasher", "--exec-hash"), ("enricher", "--containers")])
def test_a_stopped_helper_does_not_outlive_the_run(name: str, option: str) -> None:
    extra = ("--crs", "docker:/nonexistent.sock") if name == "enricher" else ()
    running = Running("-e", "getppid", "-o", "none", option, *extra, "--", "sh", "-c", "read x", stdin=-1)
    stopped = running.stage(name)
    os.kill(stopped, signal.SIGSTOP)
    status, ledger, errors = running.end(15)
    assert (status, ledger["balanced"]) == (1, True), errors
    assert not Path(f"/proc/{stopped}").exists()


@pytest.mark.kernel
def test_a_stopped_nursery_holds_up_no_start_and_no_end(binaries: dict[str, Path], tmp_path: Path) -> None:
    load = start_load(binaries["load"], "getppid", 0, rate=2000)
    output = tmp_path / "events"
    running = Running("-s", f"tree={load.pid}", "-e", "getppid", "-o", f"json:{output}")
    let_go(load)
    wait_for(lambda: output.stat().st_size > 1 << 16, "events")
    before = running.stages()
    os.kill(before["nursery"], signal.SIGSTOP)
    os.kill(before["worker-0"], signal.SIGKILL)
    wait_for(lambda: len({*running.stages().values()} - {*before.values()}) == 4, "all new")
    size = output.stat().st_size
    wait_for(lambda: output.stat().st_size > size, "events after that")
    calls = int(load.communicate()[0].split()[0])
    status, ledger, errors = running.end()
    assert (status, ledger["balanced"]) == (0, True), errors
    assert ledger["by_event"]["getppid"]["produced"] == calls
    assert "name=nursery" in errors


@pytest.mark.kernel
def test_a_run_with_a_stopped_nursery_ends_with_true_books(binaries: dict[str, Path], tmp_path: Path) -> None:
    load = start_load(binaries["load"], "getppid", 0, rate=2000)
    output = tmp_path / "events"
    running = Running("-s", f"tree={load.pid}", "-e", "getppid", "-o", f"json:{output}")
    let_go(load)
    wait_for(lambda: output.stat().st_size > 1 << 16, "events")
    os.kill(running.stage("nursery"), signal.SIGSTOP)
    running.process.send_signal(signal.SIGTERM)
    _, ledger, errors = running.end(30)
    load.communicate()
    assert ledger["balanced"] is True, errors
    lines, line = output.read_bytes().count(b"\n"), ledger["sinks"][0]
    assert line["written"] <= lines <= line["written"] + ledger["redelivered"]


@pytest.mark.kernel
def test_a_stopped_recorder_ends_the_run_and_is_counted(binaries: dict[str, Path], tmp_path: Path) -> None:
    load = start_load(binaries["load"], "getppid", 0, rate=2000)
    file = tmp_path / "run.hrc"
    options = ("-s", f"tree={load.pid}", "-e", "getppid", "-o", "none", "--record", str(file))
    running = Running(*options, program=SOON)
    let_go(load)
    wait_for(lambda: file.stat().st_size > 1 << 16, "a recording")
    os.kill(running.stage("recorder"), signal.SIGSTOP)
    status, ledger, errors = running.end(60)
    load.communicate()
    assert status == 70, errors
    line = next(line for line in ledger["sinks"] if line["name"].startswith("record:"))
    assert line["offered"] == line["written"] + line["dropped"]
    assert line["dropped"] > 0
    assert ledger["sinks"][0]["written"] == ledger["delivered"], "other outputs have all"
    assert "name=recorder" in errors


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A watchdog with one worker, of which a test says what it does."""
    monkeypatch.setattr(watchdog, "time", Clock())
    monkeypatch.setattr(watchdog, "nursery_is_stopped", lambda: False)
    seen = SimpleNamespace(letter="S", ran=(0,), generation=0, waits=False)
    monkeypatch.setattr(watchdog, "state", lambda pid: (seen.letter, seen.ran))
    control: Any = SimpleNamespace(workers=[seen], waits_for_worker=lambda number: seen.waits)
    stage = Stage("worker-0", lambda: None, ())
    stage.running = SimpleNamespace(pid=7, is_alive=lambda: True)
    dog = Watchdog(control)
    seen.look = lambda: bool(dog.look([stage]))
    seen.stage = stage
    return seen


def looks_until_bite(pipeline: SimpleNamespace, step: Any = lambda: None) -> int:
    for count in range(1, 200):
        step()
        if pipeline.look():
            return count
    return 0


def test_who_has_not_run_for_some_looks_stands(pipeline: SimpleNamespace) -> None:
    assert looks_until_bite(pipeline) == STANDS + 1


def test_who_sleeps_and_wakes_does_not(pipeline: SimpleNamespace) -> None:
    def wake() -> None:
        pipeline.ran = (pipeline.ran[0] + 1,)

    assert looks_until_bite(pipeline, wake) == 0


def test_who_is_busy_and_commits_nothing_hangs_if_work_waits(pipeline: SimpleNamespace) -> None:
    def spin() -> None:
        pipeline.ran = (pipeline.ran[0] + 100,)

    assert looks_until_bite(pipeline, spin) == 0
    pipeline.waits = True
    assert looks_until_bite(pipeline, spin) == HANGS


def test_a_debugger_and_a_recorders_disk_may_take_their_time(pipeline: SimpleNamespace) -> None:
    pipeline.letter = "t"
    assert looks_until_bite(pipeline) == 0
    pipeline.letter, pipeline.stage.once = "D", True
    assert looks_until_bite(pipeline) == 0
    pipeline.letter = "T"
    assert looks_until_bite(pipeline)


def test_a_process_is_described_by_what_it_ran() -> None:
    letter, ran = state(os.getpid())
    assert letter == "R"
    assert len(ran) == 3
    assert state(2**22 - 1) == ("", ())
