"""Memory of all headrace processes under a flood, and CPU while the scope is idle, with 2 workers.

    load: 8 children of one process, getppid (CPU 0)
      -> programs -> reader -> 2 workers -> publisher -> ZeroMQ (columns) -> counting subscriber  (last CPU)

PSS is summed over the supervisor and all that descend from it (smaps_rollup), at its largest of all
looks. It holds shared segments and perf buffers once, and not the kernel's maps. The idle scope is a
process that waits; CPU is the run time of every thread (schedstat) over the time, in percent of a
core. The subscriber counts in neither.

    python -m bench.memory [--seconds 10] [--rounds 5]    (of flood; twice that idle)
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.rig import harness

PROCESSES, WORKERS = 8, 2
LOOK_EVERY_S = 0.5
SETTLE_S = 2.0
OUTPUT = "zmq:{},format=columns,queue=256"


def rollup_mb(pid: int, field: str = "Pss") -> float:
    """A line of a process's smaps_rollup in MB (10^6 bytes); 0 if it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def name_of(pid: int) -> str:
    """What a process is, for the breakdown."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return f"{Path(f'/proc/{pid}/comm').read_text().strip()}-{pid}"
    return str(pid)


def cpu_ns(pids: list[int]) -> int:
    """Run time of all threads of these processes."""
    return sum(
        int((task / "schedstat").read_text().split()[0]) for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()
    )


def flood(binary: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """The largest PSS of the run, and of what it was made."""
    endpoint = f"ipc://{folder}/bench.sock"
    load = harness.Load.start(binary, "getppid", processes=PROCESSES)
    scope, output = f"tree={load.pid}", OUTPUT.format(endpoint)
    tracer = harness.Tracer.start(folder, scope, "getppid", output, ("--workers", str(WORKERS)))
    receiver = harness.subscribe("bench.rig.counting", endpoint, str(load.pid), "getppid")
    looks: list[dict[str, float]] = [{name_of(pid): rollup_mb(pid) for pid in tracer.pids()}]
    load.go()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(LOOK_EVERY_S)
        looks.append({name_of(pid): rollup_mb(pid) for pid in tracer.pids()})
    calls, took = load.finish()
    ledger = tracer.finish()
    report = json.loads(receiver.communicate()[0])
    harness.require_produced(ledger, "getppid", calls)
    dropped = sum(s["dropped"] + s["filtered"] for s in ledger["sinks"])
    # the subscriber looks for one thread group, and these are several: `wrong` means nothing here
    if ledger["delivered"] + ledger["announced"] - report["rows"] != dropped:
        raise harness.Void(f"the subscriber misses rows: {report} {ledger['sinks']}")
    largest = max(looks, key=lambda look: sum(look.values()))
    return {
        "pss_before_mb": sum(looks[0].values()),
        "pss_mb": sum(largest.values()),
        "by_process_mb": largest,
        "events_per_s": calls / took,
        "lost": harness.lost(ledger),
    }


def idle(binary: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """CPU of all processes while nothing happens in the scope."""
    endpoint = f"ipc://{folder}/bench.sock"
    load = harness.Load.start(binary, "getppid")
    scope, output = f"tree={load.pid}", OUTPUT.format(endpoint)
    tracer = harness.Tracer.start(folder, scope, "getppid", output, ("--workers", str(WORKERS)))
    receiver = harness.subscribe("bench.rig.counting", endpoint, str(load.pid), "getppid")
    time.sleep(SETTLE_S)
    pids = tracer.pids()
    before, begin = {pid: cpu_ns([pid]) for pid in pids}, time.monotonic()
    time.sleep(seconds)
    used = {pid: cpu_ns([pid]) - before[pid] for pid in pids}
    percent = {name_of(pid): ns / 1e7 / (time.monotonic() - begin) for pid, ns in used.items()}
    load.cancel()
    ledger = tracer.finish()
    receiver.communicate()
    if ledger["produced"]:
        raise harness.Void(f"the scope was not idle: {ledger}")
    return {"idle_cpu_percent": sum(percent.values()), "idle_by_process_percent": percent}


def main() -> None:
    """Measure and write the results."""
    options = harness.options(__doc__, seconds=10).parse_args()
    harness.pin()
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        binary = harness.build(folder)
        for _ in range(options.rounds):
            rounds.append(flood(binary, folder, options.seconds) | idle(binary, folder, 2 * options.seconds))
    names = ("pss_mb", "pss_before_mb", "idle_cpu_percent", "events_per_s", "lost")
    figures = harness.spreads(rounds, names)
    harness.save("memory", {"seconds": options.seconds, "figures": figures, "rounds": rounds})


if __name__ == "__main__":
    main()
