"""Replay of one recording with 1 worker and with 2 workers on 2 cores, alternating.

    FILE -> replayer -> rings -> 1 or 2 workers -> result rings -> publisher -> json:/dev/null

Nothing is pinned: with one worker the replayer and the publisher may use the other core. `ratio` is
wall time of 1 worker over wall time of 2. Start-up is measured apart (the replay of
pipeline/command/demo.hrc, some dozens of events) and `ratio_without_startup` has it subtracted on both sides.
That both give the same bytes is checked once, by a checksum of standard output, outside the clock;
bytes and events of every round are compared with it.

    python -m bench.replay [--rounds 5] [--seconds 30]    (of recording, at 150,000 events a second)
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench.rig import harness
from bench.rig.recordings import DEMO, EVENTS, ITERATIONS_PER_S, Recording, make, replay

SINK = "json:/dev/null"
EVENTS_PER_S = ITERATIONS_PER_S * len(EVENTS)


def one(recording: Recording, sent: int, folder: Path) -> dict[str, Any]:
    """One round: start-up and replay, with one worker and with two."""
    startup = {n: replay(DEMO, n, SINK, folder) for n in (1, 2)}
    runs = {n: replay(recording.path, n, SINK, folder) for n in (1, 2)}
    for n, run in runs.items():
        if run.ledger["produced"] != recording.events or run.ledger["sinks"][0]["bytes"] != sent:
            raise harness.Void(f"{n} workers: not the events and bytes that were expected: {run.ledger}")
    return {
        "ratio": runs[1].wall_s / runs[2].wall_s,
        "ratio_without_startup": (runs[1].wall_s - startup[1].wall_s) / (runs[2].wall_s - startup[2].wall_s),
        "startup_1_s": startup[1].wall_s,
        "startup_2_s": startup[2].wall_s,
        "wall_1_s": runs[1].wall_s,
        "wall_2_s": runs[2].wall_s,
        "cpu_1_us_per_event": runs[1].cpu_s * 1e6 / recording.events,
        "cpu_2_us_per_event": runs[2].cpu_s * 1e6 / recording.events,
        "cpu_seconds": {str(n): run.ledger["cpu_seconds"] | {"all_processes": run.cpu_s} for n, run in runs.items()},
    }


def main() -> None:
    """Measure and write the results."""
    options = harness.options(__doc__, seconds=30).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recording = make(harness.build(folder), folder, int(options.seconds * EVENTS_PER_S))
        alone, both = (replay(recording.path, workers, "json:-", folder) for workers in (1, 2))
        if (alone.output_bytes, alone.output_crc32) != (both.output_bytes, both.output_crc32):
            raise harness.Void(f"1 and 2 workers do not give the same bytes: {alone} {both}")
        rounds = [one(recording, alone.output_bytes, folder) for _ in range(options.rounds)]
    names = [key for key in rounds[0] if key != "cpu_seconds"]
    facts = {
        "events": recording.events,
        "bytes": recording.bytes,
        "largest_shard": recording.largest_share,
        "output_bytes": alone.output_bytes,
        "output_crc32": alone.output_crc32,
    }
    harness.save("replay", {"recording": facts, "figures": harness.spreads(rounds, names), "rounds": rounds})


if __name__ == "__main__":
    main()
