"""Floods: what a traced program keeps of its speed, what the pipeline loses, what an event costs.

load (CPU 0) -> programs -> reader -> 1 worker -> publisher -> counting subscriber   (all on the last CPU)
baseline: the same load untraced, alternating

`getppid-2` is a load of 4 processes and 2 workers, on the same CPUs: there, what is lost is looked at.

python -m bench.floods [--seconds 30] [--rounds 5] [--only getppid|getppid-2|openat]
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.rig import harness

OUTPUT = "zmq:ENDPOINT,format=columns,queue=256"
PERF_PAGES = 16384
"""64 MiB a CPU: what the rules of these figures allow. At 7 million events a second it holds 0.3 s."""


@dataclass(frozen=True)
class Flood:
    """What the load does, which events that gives, and how many a call."""

    mode: str
    events: str
    per_call: int
    workers: int = 1
    processes: int = 0


FLOODS = {
    "getppid": Flood("getppid", "getppid", 1),
    "getppid-2": Flood("getppid", "getppid", 1, workers=2, processes=4),
    "openat": Flood("openat", "openat,close", 2),
}


FIGURES = ("kept", "events_per_s", "cpu_us_per_event", "lag_at_end_s", "lost", "dropped", "sink_dropped")


def one(binary: Path, flood: Flood, seconds: float) -> dict[str, Any]:
    """One round of one flood."""
    base = harness.untraced(binary, flood.mode, min(seconds, harness.LONGEST_BASELINE_S))
    extra = ("--workers", str(flood.workers), "--perf-pages", str(PERF_PAGES))
    run = harness.traced(
        binary, flood.mode, seconds, flood.events, OUTPUT, extra, subscriber=True, processes=flood.processes
    )
    ledger = run.ledger
    return {
        "untraced_per_s": base,
        "kept": run.rate / base,
        "events_per_s": run.rate * flood.per_call,
        "produced": ledger["produced"],
        "delivered": ledger["delivered"],
        "lost": ledger["lost"],
        "dropped": ledger["dropped"],
        "sink_dropped": sum(s["dropped"] for s in ledger["sinks"]),
        "lag_at_end_s": run.report["lag_at_end_s"],
        "cpu_us_per_event": run.cpu_us_per_event,
        "cpu_seconds": ledger["cpu_seconds"],
        "subscriber": run.report,
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=FLOODS)
    options = parser.parse_args()
    harness.pin()
    with tempfile.TemporaryDirectory() as folder:
        binary = harness.build(Path(folder))
        for name in [options.only] if options.only else FLOODS:
            rounds = [one(binary, FLOODS[name], options.seconds) for _ in range(options.rounds)]
            figures = harness.spreads(rounds, FIGURES)
            harness.save(f"flood-{name}", {"seconds": options.seconds, "figures": figures, "rounds": rounds})


if __name__ == "__main__":
    main()
