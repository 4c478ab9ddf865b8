"""Latency from the kernel to a subscriber: an event's own time to its receipt, on one host's clock.

    load (CPU 0): getppid at 10,000 and 100,000 a second; 100 lone calls on each CPU in turn, 100 ms apart
      -> programs -> reader -> 1 worker -> publisher -> ZeroMQ (columns) -> subscriber   (all on the last CPU)

The paced loads keep their CPU busy; between two lone calls the thread sleeps and its CPU goes idle (but
for what headrace does itself on the last CPU). An event's time is CLOCK_BOOTTIME at the call's exit,
published as epoch time; the subscriber takes CLOCK_BOOTTIME as soon as it has a message and turns it
into epoch time as headrace does, so that a clock being slewed does not count as latency.

    python -m bench.latency [--seconds 10] [--rounds 5]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from bench.rig import harness
from headrace.pipeline.transport.clock import boot_epoch_ns, boottime_ns
from headrace.pipeline.transport.wire import read_columns

RATES = {"10k": 10_000, "100k": 100_000}
LONE_CALLS, LONE_PER_S = 100, 10
NEAR = 0.9


def subscriber(endpoint: str) -> None:
    """A process of its own: reports what it received once standard input is closed and nothing comes."""
    socket = zmq.Context().socket(zmq.SUB)
    socket.connect(endpoint)
    socket.setsockopt(zmq.SUBSCRIBE, b"all/")
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    poller.register(sys.stdin.fileno(), zmq.POLLIN)
    epoch = boot_epoch_ns()
    latencies: list[np.ndarray[Any, Any]] = []
    cpus: list[np.ndarray[Any, Any]] = []
    ending = 0.0
    while not ending or time.monotonic() < ending:
        ready = dict(poller.poll(200))
        if sys.stdin.fileno() in ready:
            poller.unregister(sys.stdin.fileno())
            ending = time.monotonic() + 2
        if socket not in ready:
            continue
        payload = socket.recv_multipart(copy=False)[2]
        received = np.int64(boottime_ns() + epoch)
        columns = read_columns(payload.buffer)
        latencies.append(received - columns["timestamp"].astype(np.int64))
        cpus.append(columns["cpu"].copy())
    ns = np.concatenate([np.empty(0, np.int64), *latencies])
    cpu = np.concatenate([np.empty(0, np.uint16), *cpus])
    by_cpu = {str(i): summary(ns[cpu == i]) for i in np.unique(cpu).tolist()}
    print(json.dumps({**summary(ns), "messages": len(latencies), "by_cpu": by_cpu}), flush=True)


def summary(ns: np.ndarray[Any, Any]) -> dict[str, float]:
    """Rows and percentiles in ms."""
    if not len(ns):
        return {"rows": 0}
    p50, p99, most = (np.percentile(ns, [50, 99, 100]) / 1e6).tolist()
    return {"rows": len(ns), "p50_ms": p50, "p99_ms": p99, "largest_ms": most, "least_ms": float(ns.min() / 1e6)}


def measured(loads: list[harness.Load], folder: Path, seconds: float | None) -> tuple[dict[str, Any], float]:
    """One run, the loads one after the other: the subscriber's report and the calls a second."""
    endpoint = f"ipc://{folder}/bench.sock"
    scope = "tree=" + ",".join(str(load.pid) for load in loads)
    tracer = harness.Tracer.start(folder, scope, "getppid", f"zmq:{endpoint},format=columns", ("--workers", "1"))
    receiver = harness.subscribe("bench.latency", "--subscriber", endpoint)
    calls, took = 0, 0.0
    for load in loads:
        load.go()
        made, lasted = load.finish(seconds)
        calls, took = calls + made, took + lasted
    ledger = tracer.finish()
    report: dict[str, Any] = json.loads(receiver.communicate()[0])
    harness.require_produced(ledger, "getppid", calls)
    if harness.lost(ledger) or report["rows"] != ledger["delivered"]:
        raise harness.Void(f"not every event reached the subscriber: {report} {ledger}")
    return report, calls / took


def one(binary: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """One round: both rates, and lone events on each CPU."""
    found: dict[str, Any] = {}
    for name, rate in RATES.items():
        report, made = measured([harness.Load.start(binary, "getppid", rate=rate)], folder, seconds)
        if made < rate * NEAR:
            raise harness.Void(f"the load made {made:.0f} calls a second instead of {rate}")
        found |= {f"{name}_p50_ms": report["p50_ms"], f"{name}_p99_ms": report["p99_ms"], name: report}
    places = sorted({harness.LOAD_CPU, harness.USER_CPU})
    count = max(1, min(LONE_CALLS, int(seconds * LONE_PER_S)))
    loads = [harness.Load.start(binary, "lone", count=count, rate=LONE_PER_S, cpu=cpu) for cpu in places]
    report, _ = measured(loads, folder, None)
    if sorted(report["by_cpu"]) != [str(cpu) for cpu in places]:
        raise harness.Void(f"lone events are not from every CPU: {report}")
    return found | {"lone_p50_ms": report["p50_ms"], "lone_p99_ms": report["p99_ms"], "lone": report}


def main() -> None:
    """Measure and write the results."""
    options = harness.options(__doc__, seconds=10).parse_args()
    harness.pin()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        binary = harness.build(folder)
        rounds = [one(binary, folder, options.seconds) for _ in range(options.rounds)]
    names = [f"{kind}_{part}_ms" for kind in (*RATES, "lone") for part in ("p50", "p99")]
    figures = harness.spreads(rounds, names)
    harness.save("latency", {"seconds": options.seconds, "figures": figures, "rounds": rounds})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--subscriber"]:
        subscriber(sys.argv[2])
    else:
        main()
