"""What policies cost an event in the kernel: run time of the program at sys_exit with 0, 1, 8 and 64 of them.

    load (CPU 0): getppid -> on_sys_exit -> perf ring -> reader -> 1 worker, output none   (last CPU)

Each policy asks for getppid of one user, and the load is of the first. `globs`: 8 policies that also have a glob on the
task's name. Run times are counted as in bench/kernel_cost.py; the sizes are measured in turn.

    python -m bench.policies [--seconds 3] [--rounds 5]
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from bench.kernel_cost import running, stats
from bench.rig import harness

SIZES = {"none": 0, "one": 1, "eight": 8, "sixty_four": 64, "globs": 8}


def policies(kind: str) -> list[dict[str, Any]]:
    """Policies as a file has them."""
    globs = ["comm=l*a*d"] if kind == "globs" else []
    return [{"name": f"p{i}", "scope": [f"uid={i}", *globs], "events": "getppid"} for i in range(SIZES[kind])]


def one(binary: Path, kind: str, seconds: float) -> float:
    """Nanoseconds per event of one run."""
    with tempfile.TemporaryDirectory() as folder, stats():
        file = Path(folder, "policies.yaml")
        file.write_text(yaml.safe_dump(policies(kind)))
        extra = ("--policy", str(file)) if SIZES[kind] else ()
        load = harness.Load.start(binary, "getppid")
        events = "" if extra else "getppid"
        tracer = harness.Tracer.start(Path(folder), f"pid={load.pid}", events, "none", (*extra, "--workers", "1"))
        run_time_ns, runs = running(tracer.process.pid, load, seconds)
        calls, _ = load.finish()
        harness.require_produced(tracer.finish(), "getppid", calls)
    return run_time_ns / runs


def main() -> None:
    """Measure and write the results."""
    options = harness.options(__doc__, seconds=3).parse_args()
    harness.pin()
    with tempfile.TemporaryDirectory() as folder:
        binary = harness.build(Path(folder))
        rounds = [
            {f"{kind}_ns_per_run": one(binary, kind, options.seconds) for kind in SIZES} for _ in range(options.rounds)
        ]
    figures = harness.spreads(rounds, list(rounds[0]))
    harness.save("policies", {"seconds": options.seconds, "figures": figures, "rounds": rounds})


if __name__ == "__main__":
    main()
