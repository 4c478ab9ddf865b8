"""`headrace stat`: the ledger of a run while it goes on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live import Running, headrace, let_go, start_load, wait_for

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory of the test's own: other runs of this user are not seen."""
    monkeypatch.setenv("HEADRACE_RUNTIME_DIR", str(tmp_path / "headrace"))
    return tmp_path / "headrace"


@pytest.fixture
def running(binaries: dict[str, Path]) -> Iterator[Running]:
    """A run on a flood."""
    load = start_load(binaries["load"], "getppid", 0)
    found = Running("-s", f"tree={load.pid}", "-e", "getppid", "-o", "none")
    assert found.ready, found.end()
    let_go(load)
    yield found
    load.kill()
    load.communicate()
    if found.process.poll() is None:
        found.end()


def test_the_ledger_of_a_run_is_shown_whole_as_json(running: Running) -> None:
    wait_for(lambda: json.loads(headrace("stat", "-n", "1", "-o", "json").stdout)["delivered"], "events")
    done = headrace("stat", str(running.process.pid), "-n", "3", "-i", "0.1", "-o", "json")
    assert done.returncode == 0, done.stderr
    ledgers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(ledgers) == 3
    for ledger in ledgers:
        parts = ("delivered", "filtered", "throttled", "lost", "dropped", "rejected", "in_flight")
        assert ledger["produced"] == sum(ledger[name] for name in parts)
        assert ledger["in_flight"] >= 0
        assert list(ledger["by_event"]) == ["getppid"]
    produced = [ledger["produced"] for ledger in ledgers]
    assert produced == sorted(set(produced))


def test_rates_are_shown_as_a_table_until_the_run_ends(running: Running, runtime: Path) -> None:
    done = headrace("stat", "-n", "2", "-i", "0.2")
    head, *rows = done.stdout.splitlines()
    assert head.split()[:3] == ["produced/s", "delivered/s", "filtered/s"]
    assert len(rows) == 2
    assert all(float(row.split()[0]) > 0 for row in rows)
    running.process.terminate()
    running.end()
    assert list(runtime.iterdir()) == []
    assert headrace("stat").returncode == 69


def test_who_asks_and_does_not_read_holds_nobody_up(running: Running, runtime: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(runtime / f"{running.process.pid}.sock"))
        done = headrace("stat", "-n", "1", "-o", "json")
        assert (done.returncode, json.loads(done.stdout)["missed_runs"]) == (0, 0)
    running.process.terminate()
    status, ledger, errors = running.end()
    assert (status, ledger["balanced"]) == (0, True), errors


def test_a_run_that_drains_still_answers(binaries: dict[str, Path], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    command = [str(binaries["load"]), "getppid", "100000"]
    draining = Running("-e", "getppid", "-o", f"json:{pipe}", "--", *command, stdin=subprocess.PIPE)
    assert draining.process.stdin is not None
    draining.process.stdin.write("x")
    draining.process.stdin.flush()
    wait_for(lambda: _ledger(draining)["produced"] == 100_000, "the end of the load")
    assert _ledger(draining)["sinks"][0]["written"] < 100_000
    os.set_blocking(reading, True)
    with open(reading, "rb") as lines:
        assert sum(1 for _ in lines) == 100_000
    assert draining.end()[0] == 0


def _ledger(running: Running) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(headrace("stat", str(running.process.pid), "-n", "1", "-o", "json").stdout)
    return found


def test_who_answers_something_else_is_no_run(runtime: Path) -> None:
    runtime.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(runtime / f"{os.getpid()}.sock"))
        other.listen()

        def answer() -> None:
            asking, _ = other.accept()
            with asking:
                asking.sendall(b'{"produced": "many"')

        answering = threading.Thread(target=answer)
        answering.start()
        assert headrace("stat", str(os.getpid())).returncode == 69
        answering.join()


def test_without_a_run_it_says_so() -> None:
    for arguments, message in (
        ((), "no headrace is running"),
        ((str(os.getpid()),), f"no headrace run with process id {os.getpid()} answers"),
    ):
        done = headrace("stat", *arguments)
        assert (done.returncode, done.stderr) == (69, f"headrace: {message}\n")


def test_of_two_runs_one_must_be_named(running: Running) -> None:
    other = Running("-s", f"tree={os.getpid()}", "-e", "getppid", "-o", "none")
    assert other.ready, other.end()
    done = headrace("stat")
    assert done.returncode == 69
    assert all(str(run.process.pid) in done.stderr for run in (running, other))
    assert headrace("stat", str(other.process.pid), "-n", "1").returncode == 0
    other.process.terminate()
    other.end()


def test_a_socket_that_is_left_of_a_killed_run_is_no_run(running: Running, runtime: Path) -> None:
    stages = list(running.stages().values())
    running.kill()
    assert list(runtime.iterdir())
    assert headrace("stat").stderr == "headrace: no headrace is running\n"
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in stages), "the end of its processes")


def test_a_directory_that_others_can_write_to_is_not_used(runtime: Path) -> None:
    runtime.mkdir()
    runtime.chmod(0o777)
    found = Running("-s", f"tree={os.getpid()}", "-e", "getppid", "-o", "none")
    assert found.ready, found.end()
    assert list(runtime.iterdir()) == []
    found.process.terminate()
    assert found.end()[0] == 0
