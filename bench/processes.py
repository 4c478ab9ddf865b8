"""Processes that come and go: what a storm of fork and exec keeps of its speed, and whether workers' memory stays flat.

    load (CPU 0): fork, exec of /bin/true, its end, one after the other
      -> programs (argv, paths, interpreter, directory) -> reader -> workers -> publisher -> subscriber  (last CPU)

Storm: `kept` is the rate over the untraced one, alternating. Memory: 100,000 processes live and go under 2 workers,
with lines of JSON beside the columns;
the private memory of each worker is looked at as they are delivered. `growth_mb` is the largest look after 20,000
processes less the one at 20,000, of the worker that grew most.

    python -m bench.processes [--seconds 15] [--rounds 5]
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.floods import OUTPUT
from bench.memory import rollup_mb
from bench.rig import harness
from headrace.pipeline.run import live

EVENTS = "sched_process_fork,sched_process_exec,sched_process_exit"
PROCESSES, SETTLED, WORKERS = 100_000, 20_000, 2
LOOK_EVERY_S = 0.25
EVENTS_PER_PROCESS = 3


def storm(binary: Path, seconds: float) -> dict[str, Any]:
    """One round: untraced, then traced with all facts of each process."""
    base = harness.untraced(binary, "spawn", min(seconds, harness.LONGEST_BASELINE_S))
    with tempfile.TemporaryDirectory() as name:
        run = traced(binary, Path(name), seconds=seconds)
    return {
        "untraced_per_s": base,
        "kept": run["calls"] / run["took_s"] / base,
        "lost": run["lost"],
        "cpu_us_per_event": run["cpu_s"] * 1e6 / run["delivered"],
    }


def traced(
    binary: Path, folder: Path, seconds: float | None = None, count: int = 0, workers: int = 1, more: Sequence[str] = ()
) -> dict[str, Any]:
    """A storm under a run; `looks` has (processes gone by, private MB by worker)."""
    endpoint = f"ipc://{folder}/bench.sock"
    load = harness.Load.start(binary, "spawn", count=count)
    output, extra = OUTPUT.replace("ENDPOINT", endpoint), ("--workers", str(workers), *more)
    tracer = harness.Tracer.start(folder, f"tree={load.pid}", EVENTS, output, extra)
    receiver = harness.subscribe("bench.rig.counting", endpoint, "0", EVENTS)
    stages = {Path(f"/proc/{pid}/comm").read_text().strip(): pid for pid in tracer.pids()}
    socket = live.directory() / f"{tracer.process.pid}.sock"
    looks: list[tuple[int, dict[str, float]]] = []
    load.go()
    while count and load.process.poll() is None:
        time.sleep(LOOK_EVERY_S)
        ledger = live.ask(socket)
        if ledger is not None:
            memory = {
                name: rollup_mb(pid, "Private_Dirty") for name, pid in stages.items() if name.startswith("hr-worker")
            }
            looks.append((ledger.delivered // EVENTS_PER_PROCESS, memory))
    calls, took = load.finish(seconds)
    done = tracer.finish()
    report = json.loads(receiver.communicate()[0])
    harness.require_produced(done, EVENTS, calls)
    if report["rows"] != done["delivered"] + done["announced"]:
        raise harness.Void(f"the subscriber misses rows: {report} {done}")
    cpu_s = sum(done["cpu_seconds"].values())
    return {
        "calls": calls,
        "took_s": took,
        "lost": harness.lost(done),
        "delivered": done["delivered"],
        "cpu_s": cpu_s,
        "looks": looks,
    }


def growth_mb(looks: list[tuple[int, dict[str, float]]]) -> float:
    """Of the worker that grew most, between SETTLED processes and the end."""
    later = [memory for gone, memory in looks if gone >= SETTLED]
    if len(later) < 2:
        raise harness.Void(f"only {len(later)} looks after {SETTLED} processes")
    return max(max(memory[name] for memory in later) - later[0][name] for name in later[0])


def main() -> None:
    """Measure and write the results."""
    options = harness.options(__doc__, seconds=15).parse_args()
    harness.pin()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        binary = harness.build(folder)
        rounds = [storm(binary, options.seconds) for _ in range(options.rounds)]
        long = traced(binary, folder, count=PROCESSES, workers=WORKERS, more=("-o", "json:/dev/null"))
    figures = harness.spreads(rounds, list(rounds[0]))
    figures |= {"growth_mb": harness.spread([growth_mb(long["looks"])]), "long_lost": harness.spread([long["lost"]])}
    harness.save("processes", {"seconds": options.seconds, "figures": figures, "rounds": rounds, "long": long})


if __name__ == "__main__":
    main()
