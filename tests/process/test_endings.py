"""However a run ends, its ledger says what is in the files: with a stage that was stopped, killed, or stuck."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.pipeline.stages import recording
from tests.live import Running, headrace, let_go, start_load, wait_for

pytestmark = pytest.mark.kernel
EVENTS_READ = 1000


@pytest.fixture
def load(binaries: dict[str, Path]) -> Iterator[subprocess.Popen[str]]:
    """Calls without an end, once let go."""
    made = start_load(binaries["load"], "getppid", 0, rate=60_000)
    yield made
    made.communicate(timeout=30)


def started(load: subprocess.Popen[str], output: Path, *options: str) -> Running:
    running = Running("-s", f"tree={load.pid}", "-e", "getppid", "-o", f"json:{output}", "-o", "none", *options)
    assert running.ready, running.end()
    let_go(load)
    return running


def must_close(ledger: dict[str, Any]) -> None:
    """The identity and the outputs' lines, whatever was abandoned."""
    gone = sum(ledger[name] for name in ("filtered", "throttled", "lost", "dropped", "rejected", "delivered"))
    assert ledger["produced"] == gone, ledger
    for line in ledger["sinks"]:
        assert line["offered"] == line["written"] + line["uncertain"] + line["filtered"] + line["dropped"]
        assert line["offered"] >= line["written"]
        if not line["name"].startswith("record:"):
            assert line["offered"] == ledger["delivered"] + ledger["announced"]


@pytest.mark.parametrize("name", ["publisher", "worker-0", "reader"])
def test_a_run_that_ends_while_a_stage_is_stopped_counts_what_is_there(
    name: str, load: subprocess.Popen[str], tmp_path: Path
) -> None:
    output = tmp_path / "events"
    running = started(load, output, "--workers", "2" if name == "worker-0" else "1")
    wait_for(lambda: output.stat().st_size > 1 << 20, "events")
    os.kill(running.stage(name), signal.SIGSTOP)
    running.process.send_signal(signal.SIGTERM)
    status, ledger, errors = running.end(deadline_s=30)
    assert "drain_abandoned" in errors
    assert status == 128 + signal.SIGTERM or status == 70
    must_close(ledger)
    text = output.read_bytes()
    assert text.endswith(b"\n")
    assert text.count(b"\n") == ledger["sinks"][0]["written"] > EVENTS_READ
    assert ledger["sinks"][0]["bytes"] == len(text)
    assert ledger["balanced"] is True


@pytest.mark.parametrize("target", ["fifo", "-"])
def test_a_pipe_that_nobody_reads_has_the_lines_that_were_counted(
    target: str, load: subprocess.Popen[str], tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(fifo, os.O_WRONLY)
    output = target if target == "-" else str(fifo)
    running = Running(
        *("-s", f"tree={load.pid}", "-e", "getppid", "-o", f"json:{output}", "-o", f"json:{tmp_path}/beside"),
        stdout=writing if target == "-" else None,
    )
    assert running.ready, running.end()
    let_go(load)
    wait_for((tmp_path / "beside").exists, "the other file")
    wait_for(lambda: running.has_full_ring(1 << 25) or is_full(writing), "a full pipe")
    running.process.send_signal(signal.SIGTERM)
    _, ledger, errors = running.end(deadline_s=30)
    assert "drain_abandoned" in errors
    text = b"".join(iter(lambda: os.read(reading, 1 << 20) if not is_empty(reading) else b"", b""))
    must_close(ledger)
    stuck, beside = ledger["sinks"]
    assert (stuck["written"], stuck["uncertain"], ledger["balanced"]) == (text.count(b"\n"), 0, True)
    assert beside["written"] == (tmp_path / "beside").read_bytes().count(b"\n")
    os.close(reading)
    os.close(writing)


def is_full(fd: int) -> bool:
    """Whether a pipe takes nothing more."""
    return not select.select([], [fd], [], 0)[1]


def is_empty(fd: int) -> bool:
    return not select.select([fd], [], [], 0)[0]


def test_a_publisher_that_is_killed_leaves_whole_lines_and_says_what_may_be_twice(
    load: subprocess.Popen[str], tmp_path: Path
) -> None:
    output = tmp_path / "events"
    running = started(load, output)
    for size in (1 << 19, 1 << 20, 1 << 21):
        wait_for(lambda size=size: output.stat().st_size > size, "events")
        killed = running.stage("publisher")
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda killed=killed: running.stages().get("publisher", killed) != killed, "another one")
    running.process.send_signal(signal.SIGTERM)
    _, ledger, errors = running.end()
    must_be_whole = output.read_bytes().split(b"\n")
    assert must_be_whole.pop() == b""
    written = ledger["sinks"][0]["written"]
    assert all(line.startswith(b"{") and line.endswith(b"}") for line in must_be_whole)
    assert written <= len(must_be_whole) <= written + ledger["redelivered"], errors
    assert ledger["balanced"] is True
    assert ledger["unoffered"] == 0


def test_a_stopped_recorder_is_given_up_and_its_line_says_what_the_recording_holds(
    load: subprocess.Popen[str], tmp_path: Path
) -> None:
    file, ledger_path = tmp_path / "run.hrc", tmp_path / "replayed"
    running = started(load, tmp_path / "events", "--record", str(file))
    wait_for(lambda: file.stat().st_size > 1 << 20, "a recording")
    os.kill(running.stage("recorder"), signal.SIGSTOP)
    running.process.send_signal(signal.SIGTERM)
    _, ledger, errors = running.end(deadline_s=30)
    assert "drain_abandoned" in errors
    must_close(ledger)
    line = next(line for line in ledger["sinks"] if line["name"].startswith("record:"))
    assert headrace("replay", str(file), "-o", "none", "--ledger", str(ledger_path)).returncode == recording.EX_DAMAGED
    assert json.loads(ledger_path.read_text())["produced"] == line["written"] > EVENTS_READ
    assert ledger["sinks"][0]["written"] == ledger["delivered"], "other outputs have all"


CALLER = """
import ctypes, mmap, sys
file = open(sys.argv[1], "r+b")
counts = (ctypes.c_uint64 * 2).from_buffer(mmap.mmap(file.fileno(), 4096), 16 * int(sys.argv[2]))
call = ctypes.CDLL(None).pause if sys.argv[3] == "held" else ctypes.CDLL(None).getppid
while True:
    counts[0] += 1
    call()
    counts[1] += 1
"""
PARENT = """
import subprocess, sys, time
PAUSE = "34"
file, number, caller = sys.argv[1:]
made = [
    subprocess.Popen([sys.executable, "-c", caller, file, str(i), "held" if i % 2 else ""]) for i in range(int(number))
]
while any(open(f"/proc/{one.pid}/syscall").read().split()[0] != PAUSE for one in made[1::2]):
    time.sleep(0.01)
input()
for one in made:
    one.kill()
for one in made:
    one.wait()
"""


def test_a_call_that_a_kill_interrupts_is_produced_though_its_process_never_saw_it_return(tmp_path: Path) -> None:
    number, shared = 20, tmp_path / "counts"
    shared.write_bytes(bytes(4096))
    line = (sys.executable, "-c", PARENT, str(shared), str(number), CALLER)
    running = Running("-e", "getppid,pause", "-o", "none", "--", *line, stdin=subprocess.PIPE)

    def counts() -> Any:
        return np.frombuffer(shared.read_bytes(), "<u8", 2 * number).reshape(number, 2)

    wait_for(lambda: (counts()[::2, 1] > 100).all(), "calls")
    assert running.process.stdin is not None
    running.process.stdin.write("\n")
    running.process.stdin.flush()
    _, ledger, errors = running.end()
    assert ledger["balanced"] is True, errors
    begun, returned = counts().T
    # each of these was entered once, and ended by the kill: none returned
    assert (begun[1::2].sum(), returned[1::2].sum()) == (number // 2, 0)
    assert ledger["by_event"]["pause"]["produced"] == number // 2
    # each of the others was in at most one that it does not know of
    made = ledger["by_event"]["getppid"]["produced"]
    assert returned[::2].sum() <= made <= begun[::2].sum() <= returned[::2].sum() + number // 2
