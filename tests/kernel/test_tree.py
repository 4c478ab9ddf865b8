"""The executable of every event, on the live kernel: exec, fork, vfork, threads, processes from before, deaths."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.live import Running, compile_c, trace, wait_for

pytestmark = pytest.mark.kernel
PYTHON = os.path.realpath(sys.executable)
FAMILY = """
import os, subprocess, sys, threading
os.getppid()
child = os.fork()                       # no exec: it runs what its creator runs
if not child:
    os.getppid()
    if not os.fork():
        os.getppid()
        os.execv("/bin/sh", ["sh", "-c", ": $PPID; exec true"])
    os.wait()
    os._exit(0)
os.waitpid(child, 0)
thread = threading.Thread(target=os.getppid)
thread.start(); thread.join()
subprocess.run(["true"], close_fds=False)   # vfork or posix_spawn
"""


@pytest.mark.parametrize("workers", [1, 3])
def test_every_event_names_its_executable_whatever_was_asked_for(workers: int) -> None:
    run = trace([sys.executable, "-S", "-c", FAMILY], "-e", "getppid,execve,exit_group", "--workers", str(workers))
    assert (run.status, run.ledger["balanced"]) == (0, True), run.errors
    shell = os.path.realpath("/bin/sh")
    expected = {"python": PYTHON, "python3": PYTHON, "sh": shell, "true": os.path.realpath("/bin/true")}
    for event in run.events:
        if event["eventName"] == "execve" and event["returnValue"]:
            continue  # its caller is still what it was
        path = event["executable"]["path"]
        assert path == expected.get(event["processName"], PYTHON), event
    assert {e["executable"]["path"] for e in run.events} == set(expected.values())
    facts = run.ledger["facts"]
    assert facts["produced"] == facts["taken"] > 0
    assert facts["lost"] == facts["dropped"] == 0
    assert run.ledger["by_event"].keys() == {"getppid", "execve", "exit_group"}, "facts are no events"


WAITS = "import os, sys; sys.stdin.readline(); [os.getppid() for _ in range(3)]; sys.stdin.readline(); os.getppid()"


def test_a_process_from_before_is_told_of_and_again_when_a_worker_has_died(tmp_path: Path) -> None:
    output = tmp_path / "events"
    old = subprocess.Popen([sys.executable, "-S", "-c", WAITS], stdin=subprocess.PIPE, text=True)
    assert old.stdin is not None
    running = Running("-s", f"tree={old.pid}", "-e", "getppid", "-o", f"json:{output}", "--workers", "1")
    assert running.ready, running.end()
    old.stdin.write("\n")
    old.stdin.flush()
    wait_for(lambda: output.read_bytes().count(b"\n") == 3, "three events")
    before = running.stage("worker-0")
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: running.stages().get("worker-0", before) != before, "a new worker")
    old.communicate("\n")
    status, ledger, errors = running.end()
    assert (status, ledger["balanced"], ledger["restarts"]) == (0, True, {"worker-0": 1}), errors
    paths = [json.loads(line)["executable"]["path"] for line in output.read_text().splitlines()]
    assert paths == [PYTHON] * 4


def test_an_exec_says_its_working_directory(tmp_path: Path) -> None:
    run = trace(["sh", "-c", f"cd {tmp_path}; exec /bin/true"], "-e", "sched_process_exec")
    pwd = [next(a for a in e["args"] if a["name"] == "pwd") for e in run.events]
    assert [a["value"] for a in pwd] == [os.getcwd(), str(tmp_path)]
    assert pwd[0]["source"] == "kernel"


def test_threads_that_end_at_the_same_time_are_all_told_of(tmp_path: Path) -> None:
    """Before 6.16 a thread passes the tracepoint some time after it has counted down who lives."""
    processes, threads = 300, 4
    program = compile_c(Path(__file__).with_name("exits.c"), tmp_path / "exits")
    traced = trace([str(program), str(processes)], "-e", "sched_process_exit")
    told = Counter(event["hostProcessId"] for event in traced.events)
    assert sorted(told.values()) == [1] + [threads] * processes
    assert traced.ledger["balanced"] is True
