"""Recordings for the benchmarks that replay: made from a load of several processes, replayed with the
clock running.

    load: 8 children of one process (CPU 0) -> programs -> reader -> recorder -> FILE
                                                                  -> 2 workers, output none (last CPU)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.rig import harness

PROCESSES, WORKERS = 8, 2
ITERATIONS_PER_S = 50_000
"""Of all children together: three events each, a rate that reader and recorder take without loss."""
EVENTS = ("getppid", "openat", "close")
DEMO = harness.HERE.parent / "pipeline" / "command" / "demo.hrc"
MAX_UNEVEN = 0.52
TRIES = 10
DEADLINE_S = 120
ROOM = ("--perf-pages", "8192", "--ring-bytes", str(128 << 20))
"""Recording is not what is measured: it gets room to ride out another process's turn on the CPU."""


@dataclass(frozen=True)
class Recording:
    """A recording, and the number of events that the kernel counted while it was made."""

    path: Path
    events: int
    bytes: int
    largest_share: float
    """Of the two shards: 0.5 is even."""
    lost: int


def _one(binary: Path, folder: Path, events: int) -> Recording:
    path = folder / "bench.hrc"
    count = max(1, events // len(EVENTS) // PROCESSES)
    rate = ITERATIONS_PER_S // PROCESSES
    load = harness.Load.start(binary, "mixed", count=count, rate=rate, processes=PROCESSES)
    extra = ("--workers", str(WORKERS), "--record", str(path), *ROOM)
    tracer = harness.Tracer.start(folder, f"tree={load.pid}", ",".join(EVENTS), "none", extra)
    load.go()
    calls, _ = load.finish()
    ledger = tracer.finish()
    harness.require_produced(ledger, ",".join(EVENTS), calls)
    shares = [worker["delivered"] / ledger["delivered"] for worker in ledger["by_worker"].values()]
    return Recording(path, ledger["produced"], path.stat().st_size, max(shares), harness.lost(ledger))


def make(binary: Path, folder: Path, events: int) -> Recording:
    """A recording of `events` events, none lost, in two even shards.

    Thread groups are sharded by their number, odd or even: another process's fork may shift them.
    """
    for _ in range(TRIES):
        made = _one(binary, folder, events)
        if made.largest_share <= MAX_UNEVEN and not made.lost:
            return made
    raise harness.Void(f"no whole recording with even shards in {TRIES} tries: {made}")


@dataclass(frozen=True)
class Replayed:
    """What one replay gave. `cpu_s` is the CPU of the supervisor, start-up included, and of all stages."""

    wall_s: float
    cpu_s: float
    ledger: dict[str, Any]
    output_bytes: int = 0
    output_crc32: int = 0
    """Of standard output, if that was read."""


def replay(recording: Path, workers: int, output: str, folder: Path) -> Replayed:
    """Replay once. What goes to `json:-` is read and summed up. Void if it fails, loses or hangs."""
    ledger_path = folder / "replay.json"
    ledger_path.unlink(missing_ok=True)
    headrace = str(Path(sys.executable).with_name("headrace"))
    options = ["--workers", str(workers), "-o", output, "--ledger", str(ledger_path)]
    begin = time.monotonic()
    process = subprocess.Popen(
        [headrace, "replay", *options, str(recording)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    # SIGTERM is enough: it ends the supervisor, whatever the pipeline waits for
    deadline = threading.Timer(DEADLINE_S, os.kill, (process.pid, signal.SIGTERM))
    deadline.start()
    size, crc = _drain(process)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - begin
    deadline.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not ledger_path.exists():
        late = f", after {DEADLINE_S} s" if wall >= DEADLINE_S else ""
        raise harness.Void(f"replay with {workers} workers ended with status {process.returncode}{late}")
    ledger = json.loads(ledger_path.read_text())
    if not ledger["balanced"] or harness.lost(ledger):
        raise harness.Void(f"the replay's ledger does not balance: {ledger}")
    # the stages are children of the fork server, whom the supervisor does not wait for
    cpu_s = usage.ru_utime + usage.ru_stime + sum(ledger["cpu_seconds"].values())
    return Replayed(wall, cpu_s, ledger, size, crc)


def _drain(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Bytes and CRC-32 of what it writes, up to its end."""
    size = crc = 0
    assert process.stdout is not None
    with process.stdout as pipe:
        while piece := pipe.read(1 << 20):
            crc = zlib.crc32(piece, crc)
            size += len(piece)
    return size, crc
