"""What an event from the kernel's objects costs: a flood of openat and close, with security_file_open beside them.

    load (CPU 0): openat + close of a file at depth 3, and at depth 12
      -> programs (the file's path is walked) -> reader -> 1 worker -> publisher -> counting subscriber  (last CPU)

Each round measures, for each depth, the load untraced, traced without the walk (openat, close) and with it.
`kept` is the rate with it over the untraced one; `walk_ns` the time that it adds to a pair of calls; of a component,
`component_ns` is the difference of both depths over the components between them.

    python -m bench.objects [--seconds 15] [--rounds 5]
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench.floods import OUTPUT, PERF_PAGES
from bench.rig import harness

DEPTHS = (3, 12)
CALLS, OBJECTS = "openat,close", "openat,close,security_file_open"
EXTRA = ("--workers", "1", "--perf-pages", str(PERF_PAGES))


def file_at(folder: Path, depth: int) -> Path:
    """A file whose path has that many components."""
    have = len(folder.parts) - 1
    if depth <= have:
        raise harness.Void(f"{folder} is too deep for a path of {depth} components")
    path = folder.joinpath(*(f"level-{i}" for i in range(depth - have - 1)), "a-file")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def one(binary: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """One round of both depths."""
    found: dict[str, Any] = {}
    for depth in DEPTHS:
        path = str(file_at(folder, depth))
        base = harness.untraced(binary, "openat", min(seconds, harness.LONGEST_BASELINE_S), path)
        plain = harness.traced(binary, "openat", seconds, CALLS, OUTPUT, EXTRA, subscriber=True, path=path)
        walked = harness.traced(binary, "openat", seconds, OBJECTS, OUTPUT, EXTRA, subscriber=True, path=path)
        found |= {
            f"untraced_{depth}_per_s": base,
            f"kept_{depth}_without": plain.rate / base,
            f"kept_{depth}": walked.rate / base,
            f"walk_{depth}_ns": 1e9 / walked.rate - 1e9 / plain.rate,
            f"lost_{depth}": harness.lost(walked.ledger),
            f"cpu_{depth}_us_per_event": walked.cpu_us_per_event,
            f"events_{depth}_per_s": 3 * walked.rate,
        }
    shallow, deep = DEPTHS
    found["component_ns"] = (found[f"walk_{deep}_ns"] - found[f"walk_{shallow}_ns"]) / (deep - shallow)
    return found


def main() -> None:
    """Measure and write the results."""
    options = harness.options(__doc__, seconds=15).parse_args()
    harness.pin()
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        binary = harness.build(folder)
        rounds = [one(binary, folder, options.seconds) for _ in range(options.rounds)]
    names = list(rounds[0])
    harness.save("objects", {"seconds": options.seconds, "figures": harness.spreads(rounds, names), "rounds": rounds})


if __name__ == "__main__":
    main()
