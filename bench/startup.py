"""How long a start and the end of it take: `headrace run -- true`, with what was compiled before and without it.

    for each round: each start once, of the other checkout first, if one is given

A start without what was compiled has an empty folder as its --cache. CPU is that of all processes of the run.

    python -m bench.startup [--rounds 5] [--against CHECKOUT]
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from bench.rig import harness

STARTS = {"call": ("-e", "getppid", "-o", "none"), "signatures": ("-o", "none")}
"""One system call; what the signatures that ship need."""


def start(checkout: Path, options: tuple[str, ...], cache: str) -> tuple[float, float]:
    """(seconds, CPU seconds) of one run; Void if it fails."""
    line = [str(checkout / ".venv/bin/headrace"), "run", *options, "--cache", cache, "--", "true"]
    before, began = os.times(), time.monotonic()
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=checkout)
    took, after = time.monotonic() - began, os.times()
    if done.returncode:
        raise harness.Void(f"{' '.join(line)}: {done.stderr}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return took, cpu


def measure(checkout: Path) -> dict[str, float]:
    """The figures of one round."""
    found = {}
    for name, options in STARTS.items():
        with tempfile.TemporaryDirectory() as cache:
            for how in ("compiled", "kept"):
                found[f"{name}_{how}_s"], found[f"{name}_{how}_cpu_s"] = start(checkout, options, cache)
    return found


def main() -> None:
    """Measure, and write the result file."""
    parser = harness.options(__doc__ or "", 0)
    parser.add_argument("--against", type=Path, help="a checkout with a virtual environment of its own")
    chosen = parser.parse_args()
    rounds = []
    for _ in range(chosen.rounds):
        other = measure(chosen.against) if chosen.against else {}
        here = measure(harness.HERE.parent)
        here |= {f"other_{name}": value for name, value in other.items()}
        rounds.append(here | {f"ratio_{name}": here[name] / value for name, value in other.items()})
    about = {"other": harness.commit(chosen.against)} if chosen.against else {}
    harness.save("startup", about | {"figures": harness.spreads(rounds, list(rounds[0])), "rounds": rounds})


if __name__ == "__main__":
    main()
