"""Figures of this checkout over those of another one, in turns: what a change has cost.

    for each round: BENCH of the other checkout, BENCH of this one   (each one round of so many seconds)

Each checkout runs its own programs with its own virtual environment; the result files that they write are put back as
they were. The ratio of a figure is taken within a round: that the machine is faster in one hour than in another does
not show.

    python -m bench.against CHECKOUT [--rounds 5] [--seconds 5] [--only flood-getppid,objects,...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

from bench.rig import harness

HERE = Path(__file__).parents[1]
BENCHES = {
    "flood-getppid": ("floods", ("--only", "getppid"), ("kept", "cpu_us_per_event")),
    "flood-getppid-2": ("floods", ("--only", "getppid-2"), ("kept", "cpu_us_per_event")),
    "flood-openat": ("floods", ("--only", "openat"), ("kept", "cpu_us_per_event")),
    "objects": ("objects", (), ()),
    "kernel_cost": ("kernel_cost", (), ()),
    "processes": ("processes", (), ()),
    "json_lines": ("json_lines", (), ()),
    "latency": ("latency", (), ()),
    "memory": ("memory", (), ()),
    "replay": ("replay", (), ()),
    "detection-mixed": ("detect.detection", (), ()),
    "detection-exec_storm": ("detect.detection", (), ()),
    "alarms-flood": ("detect.alarms", ("--only", "flood"), ()),
    "alarms-storm": ("detect.alarms", ("--only", "storm"), ()),
    "containers-loops": ("containers", ("--only", "loops"), ()),
    "containers-flood": ("containers", ("--only", "flood"), ()),
}
"""By result file: the module, its options, and the figures that are compared (none: all)."""


def measured(checkout: Path, name: str, seconds: float) -> dict[str, float]:
    """The figures of one round there."""
    module, options, _ = BENCHES[name]
    file = checkout / "bench" / "results" / f"{name}.json"
    before = file.read_bytes() if file.exists() else None
    if not checkout.joinpath("bench", *module.split(".")).with_suffix(".py").exists():
        module = module.rpartition(".")[2]  # an older checkout has all of them in one folder
    command = [str(checkout / ".venv" / "bin" / "python"), "-m", f"bench.{module}", *options]
    try:
        subprocess.run(
            [*command, "--rounds", "1", "--seconds", f"{seconds:g}"], cwd=checkout, check=True, capture_output=True
        )
        figures = json.loads(file.read_text())["figures"]
    finally:
        if before is not None:
            file.write_bytes(before)
    return {key: float(value["median"]) for key, value in figures.items()}


def compared(other: Path, name: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Ratios of each figure that both have, and the figures themselves."""
    pairs = [(measured(other, name, seconds), measured(HERE, name, seconds)) for _ in range(rounds)]
    wanted = BENCHES[name][2] or tuple(pairs[0][0])
    keys = [key for key in wanted if all(key in one and key in two and one[key] for one, two in pairs)]
    return {
        "ratios": {key: harness.spread([two[key] / one[key] for one, two in pairs]) for key in keys},
        "rounds": [{"other": one, "this": two} for one, two in pairs],
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--only", default=",".join(BENCHES))
    given = parser.parse_args()
    commit = harness.commit(given.checkout)
    for name in given.only.split(","):
        found = compared(given.checkout.resolve(), name, given.rounds, given.seconds)
        harness.save(f"against-{name}", {"other": commit, "seconds": given.seconds, **found})
        for key, ratio in found["ratios"].items():
            print(f"{name} {key}: {ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['largest']:.2f})")


if __name__ == "__main__":
    main()
