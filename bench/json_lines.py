"""A JSON line for every event, to a file: the rate that one worker sustains with nothing lost.

    load (CPU 0): getppid + openat + close, RATE a second
      -> programs -> reader -> 1 worker -> publisher -> json:FILE   (all on the last CPU)

A ladder of rates finds the highest that is sustained; each round then runs there, and a step lower
as long as it is not. Sustained: nothing lost or dropped anywhere, and the file complete within
LAG_S of the load's end (what waits in buffers was not kept up with). The lines of the file are counted
against the ledger, the first and the last are parsed. Events are getppid and openat; close is filtered
out in the kernel. The file is in memory (/dev/shm) where there is room: the disk is not measured.

Beside it the rate by CPU alone: a recording of the same load is replayed to a file, and the lines are
divided by the CPU that the worker used (`replay_lines_per_worker_cpu_s`; with publisher and
replayer: `replay_us_per_line_all`). Start-up, the replay of pipeline/command/demo.hrc, is subtracted.

    python -m bench.json_lines [--seconds 30] [--rounds 5] [--folder DIR]
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.rig import harness
from bench.rig.recordings import DEMO, Recording, make, replay

RATES = (50_000, 100_000, 150_000, 200_000, 250_000, 310_000, 350_000, 400_000, 450_000, 500_000)
"""Lines a second, two for each round of calls of the load."""
EVENTS = "getppid,openat"
LINES_PER_CALL = 2
LAG_S = 0.2
NEAR = 0.98
"""A load that makes less of its rate than this is its own limit."""
PROBE_S = 5.0
LINE_BYTES = 1000
RECORDED_EVENTS = 1_500_000
POLL_S = 0.005


def _file_complete(path: Path, tracer: harness.Tracer) -> float:
    """When the file last grew; watched until headrace has ended."""
    size, last = path.stat().st_size, time.monotonic()
    while tracer.process.poll() is None:
        time.sleep(POLL_S)
        if (now := path.stat().st_size) != size:
            size, last = now, time.monotonic()
    return last


def count_lines(path: Path) -> int:
    """Lines of the file; Void if the first or the last does not parse, or is cut off."""
    lines = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            lines += piece.count(b"\n")
        file.seek(0)
        first = file.readline()
        file.seek(max(0, path.stat().st_size - 65536))
        tail = file.read()
    for line in (first, tail[tail.rfind(b"\n", 0, -1) + 1 :]):
        event = json.loads(line)
        if not line.endswith(b"\n") or not {"timestamp", "eventName", "processName", "args"} <= event.keys():
            raise harness.Void(f"not an event: {line!r}")
    return lines


def at_rate(binary: Path, folder: Path, rate: int, seconds: float) -> dict[str, Any]:
    """One run at `rate` lines a second."""
    path = folder / "lines.json"
    load = harness.Load.start(binary, "mixed", rate=rate // LINES_PER_CALL)
    tracer = harness.Tracer.start(folder, f"tree={load.pid}", EVENTS, f"json:{path}", ("--workers", "1"))
    load.go()
    calls, took = load.finish(seconds)
    ended = time.monotonic()
    lag = _file_complete(path, tracer) - ended
    ledger = tracer.finish()
    harness.require_produced(ledger, EVENTS, calls)
    lines = count_lines(path)
    written = sum(sink["written"] for sink in ledger["sinks"])
    size = path.stat().st_size
    path.unlink()
    if lines != written:
        raise harness.Void(f"{lines} lines in the file, {written} written by the ledger")
    lost = harness.lost(ledger)
    return {
        "asked_lines_per_s": rate,
        "lines_per_s": calls * LINES_PER_CALL / took,
        "lines": lines,
        "bytes_per_line": size / lines,
        "lost": lost,
        "lag_at_end_s": lag,
        "load_kept_its_rate": calls * LINES_PER_CALL / took >= rate * NEAR,
        "sustained": lost == 0 and lag <= LAG_S,
        "cpu_seconds": ledger["cpu_seconds"],
    }


def probe(binary: Path, folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Up the ladder until a rate is not sustained, or is more than the load can make."""
    tried = []
    for rate in RATES:
        tried.append(at_rate(binary, folder, rate, seconds))
        if not (tried[-1]["sustained"] and tried[-1]["load_kept_its_rate"]):
            break
    return tried


def one(binary: Path, folder: Path, start: int, seconds: float) -> dict[str, Any]:
    """One round: at RATES[start], and a step lower as long as that is not sustained."""
    tried = []
    for rate in reversed(RATES[: start + 1]):
        tried.append(at_rate(binary, folder, rate, seconds))
        if tried[-1]["sustained"]:
            break
    best = tried[-1]
    return {"sustained_lines_per_s": best["lines_per_s"] if best["sustained"] else 0, "runs": tried}


def by_cpu(recording: Recording, folder: Path) -> dict[str, Any]:
    """The replay of the recording: what a line costs."""
    path = folder / "replayed.json"
    run = replay(recording.path, 1, f"json:{path}", folder)
    lines = count_lines(path)
    path.unlink()
    if lines != recording.events:
        raise harness.Void(f"{recording.events} recorded, {lines} lines")
    startup = replay(DEMO, 1, f"json:{path}", folder)
    used, idle = run.ledger["cpu_seconds"], startup.ledger["cpu_seconds"]
    return {
        "replay_lines_per_worker_cpu_s": lines / (used["worker-0"] - idle["worker-0"]),
        "replay_us_per_line_all": (run.cpu_s - startup.cpu_s) * 1e6 / lines,
        "replay_cpu_seconds": used | {"all_processes": run.cpu_s},
        "startup_cpu_seconds": idle | {"all_processes": startup.cpu_s},
    }


def main() -> None:
    """Measure and write the results."""
    parser = harness.options(__doc__, seconds=30)
    parser.add_argument("--folder", help="for the file; default /dev/shm if there is room")
    options = parser.parse_args()
    place = options.folder or harness.place_for(int(options.seconds * RATES[-1] * LINE_BYTES))
    every_cpu = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        binary = harness.build(folder)
        recording = make(binary, folder, min(RECORDED_EVENTS, int(options.seconds * 150_000)))
        harness.pin()
        probed = probe(binary, folder, min(PROBE_S, options.seconds))
        start = len(probed) - 1
        rounds = []
        for _ in range(options.rounds):
            harness.pin()
            live = one(binary, folder, start, options.seconds)
            os.sched_setaffinity(0, every_cpu)
            rounds.append(live | by_cpu(recording, folder))
    names = ("sustained_lines_per_s", "replay_lines_per_worker_cpu_s", "replay_us_per_line_all")
    facts = {"seconds": options.seconds, "folder": place, "probe": probed}
    harness.save("json_lines", {**facts, "figures": harness.spreads(rounds, names), "rounds": rounds})


if __name__ == "__main__":
    main()
