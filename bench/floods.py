"""Floods: what a traced program keeps of its speed, what the pipeline loses, what an event costs.

load (CPU 0) -> programs -> reader -> 1 worker -> publisher -> counting subscriber   (all on the last CPU)
baseline: the same load untraced, alternating

python -m bench.floods [--seconds 30] [--rounds 5] [--only getppid|openat]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from bench import harness

MODES = {"getppid": ("getppid", 1), "openat": ("openat,close", 2)}


def one(binary: Path, mode: str, seconds: float) -> dict[str, Any]:
    """One round of one flood."""
    events, per_call = MODES[mode]
    base = harness.untraced(binary, mode, min(seconds, 5))
    run = harness.traced(binary, mode, seconds, events, "zmq:ENDPOINT,format=columns,queue=256", subscriber=True)
    ledger = run.ledger
    return {
        "untraced_per_s": base,
        "kept": run.rate / base,
        "events_per_s": run.rate * per_call,
        "produced": ledger["produced"],
        "delivered": ledger["delivered"],
        "lost": ledger["lost"],
        "dropped": ledger["dropped"],
        "sink_dropped": sum(s["dropped"] for s in ledger["sinks"]),
        "cpu_us_per_event": run.cpu_us_per_event,
        "cpu_seconds": ledger["cpu_seconds"],
        "subscriber": run.report,
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=MODES)
    options = parser.parse_args()
    harness.pin()
    with tempfile.TemporaryDirectory() as folder:
        binary = harness.build(Path(folder))
        for mode in [options.only] if options.only else MODES:
            rounds = [one(binary, mode, options.seconds) for _ in range(options.rounds)]
            figures = {
                key: harness.spread([r[key] for r in rounds])
                for key in ("kept", "events_per_s", "cpu_us_per_event", "lost", "dropped", "sink_dropped")
            }
            harness.save(f"flood-{mode}", {"seconds": options.seconds, "figures": figures, "rounds": rounds})


if __name__ == "__main__":
    main()
