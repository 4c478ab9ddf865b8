"""Recordings for the benchmarks that replay: made from a load of several processes, replayed with the
clock running.

    load: 8 children of one process (CPU 0) -> programs -> reader -> recorder -> FILE
                                                                  -> 2 workers, output none (last CPU)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import harness

PROCESSES, WORKERS = 8, 2
ITERATIONS_PER_S = 100_000
"""Of all children together: a third of it in events a second, which reader and recorder take without loss."""
EVENTS = ("getppid", "openat", "close")
DEMO = harness.HERE.parent / "examples" / "demo.hrc"
MOST_UNEVEN = 0.52
TRIES = 10


@dataclass(frozen=True)
class Recording:
    """A recording, and the number of events that the kernel counted while it was made."""

    path: Path
    events: int
    bytes: int
    largest_share: float
    """Of the two shards: 0.5 is even."""


def _one(binary: Path, folder: Path, events: int) -> Recording:
    path = folder / "bench.hrc"
    count = max(1, events // len(EVENTS) // PROCESSES)
    rate = ITERATIONS_PER_S // PROCESSES
    load = harness.Load.start(binary, "mixed", count=count, rate=rate, processes=PROCESSES)
    extra = ("--workers", str(WORKERS), "--record", str(path))
    tracer = harness.Tracer.start(folder, f"tree={load.pid}", ",".join(EVENTS), "none", extra)
    load.go()
    calls, _ = load.finish()
    ledger = tracer.finish()
    harness.require_produced(ledger, ",".join(EVENTS), calls)
    if harness.lost(ledger):
        raise harness.Void(f"events were lost while recording: {ledger}")
    shares = [worker["delivered"] / ledger["delivered"] for worker in ledger["by_worker"].values()]
    return Recording(path, ledger["produced"], path.stat().st_size, max(shares))


def make(binary: Path, folder: Path, events: int) -> Recording:
    """A recording of `events` events in two even shards: thread groups go by their number, odd or even."""
    for _ in range(TRIES):
        made = _one(binary, folder, events)
        if made.largest_share <= MOST_UNEVEN:
            return made
    raise harness.Void(f"no recording with even shards in {TRIES} tries: {made}")


@dataclass(frozen=True)
class Replayed:
    """What one replay gave. `cpu_s` is the CPU of all its processes, the replayer's and start-up included."""

    wall_s: float
    cpu_s: float
    ledger: dict[str, Any]


def replay(recording: Path, workers: int, output: str, folder: Path) -> Replayed:
    """Replay once; Void if it fails, loses or does not balance."""
    ledger_path = folder / "replay.json"
    ledger_path.unlink(missing_ok=True)
    process = subprocess.Popen(command(recording, workers, output, ledger_path), stderr=subprocess.DEVNULL)
    begin = time.monotonic()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not ledger_path.exists():
        raise harness.Void(f"replay of {recording} ended with status {process.returncode}")
    ledger = json.loads(ledger_path.read_text())
    if not ledger["balanced"] or harness.lost(ledger):
        raise harness.Void(f"the replay's ledger does not balance: {ledger}")
    return Replayed(wall, usage.ru_utime + usage.ru_stime, ledger)


def command(recording: Path, workers: int, output: str, ledger: Path) -> list[str]:
    """The command line of a replay."""
    headrace = str(Path(sys.executable).with_name("headrace"))
    options = ["--workers", str(workers), "-o", output, "--ledger", str(ledger)]
    return [headrace, "replay", *options, str(recording)]
