"""What the kernel side costs an event: run time of the program at sys_exit by kernel.bpf_stats_enabled.

    load (CPU 0): getppid (numeric event), or openat of a path that is not there (path event)
      -> on_sys_exit -> perf ring -> reader -> 1 worker, output none   (last CPU)

run_time_ns and run_cnt stand in the fdinfo of the supervisor's descriptors of that program. It runs
for every call of the host and leaves early where nothing is wanted: what an unwanted call costs is
measured with a load outside of the scope, and taken off for every run that was no event
(`runs_per_event` is 1 on a host with nothing else to do).
Beside it: the same load untraced and traced, without the counting of run time, as ns per call.

    python -m bench.kernel_cost [--seconds 5] [--rounds 5]
"""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.rig import harness

LOADS = {"numeric": ("getppid", "getppid"), "path": ("absent", "openat")}
"""Kind of event -> (load's mode, event). An openat that fails has no close behind it."""
SWITCH = Path("/proc/sys/kernel/bpf_stats_enabled")
STRANGER_S = 1.0
MAX_OTHERS = 1.0
"""Void above: as many calls of others as events."""


@contextlib.contextmanager
def stats() -> Iterator[None]:
    """Run times are counted inside; the switch is put back afterwards, after SIGTERM too."""
    before = SWITCH.read_text()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    SWITCH.write_text("1")
    try:
        yield
    finally:
        SWITCH.write_text(before)


def _info(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:  # closed since the folder was listed
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def at_sys_exit(pid: int) -> tuple[int, int]:
    """(run_time_ns, run_cnt) of the program that process `pid` has attached to sys_exit."""
    found = [_info(path) for path in Path(f"/proc/{pid}/fdinfo").iterdir()]
    ids = {info["prog_id"] for info in found if info.get("tp_name") == "sys_exit"}
    for info in found:
        if "run_cnt" in info and info["prog_id"] in ids:
            return int(info["run_time_ns"]), int(info["run_cnt"])
    raise harness.Void(f"process {pid} has no program at sys_exit")


def running(pid: int, load: harness.Load, seconds: float) -> tuple[int, int]:
    """(run_time_ns, run_cnt) that pass at sys_exit while the load runs for `seconds`. It runs on."""
    time_before, runs_before = at_sys_exit(pid)
    load.go()
    time.sleep(seconds)
    time_after, runs_after = at_sys_exit(pid)
    return time_after - time_before, runs_after - runs_before


def counted(binary: Path, kind: str, seconds: float) -> dict[str, Any]:
    """One run with run times counted. First a stranger makes calls that are not wanted."""
    mode, event = LOADS[kind]
    stranger = harness.Load.start(binary, next(m for m, e in LOADS.values() if e != event))
    with tempfile.TemporaryDirectory() as folder, stats():
        load = harness.Load.start(binary, mode)
        tracer = harness.Tracer.start(Path(folder), f"tree={load.pid}", event, "none", ("--workers", "1"))
        unwanted_ns, unwanted_runs = running(tracer.process.pid, stranger, min(seconds, STRANGER_S))
        stranger.finish()
        begin = time.monotonic()
        run_time_ns, runs = running(tracer.process.pid, load, seconds)
        share = time.monotonic() - begin
        calls, took = load.finish()
        ledger = tracer.finish()
    harness.require_produced(ledger, event, calls)
    # the run time was read while the load still ran: its last moments are not in it
    events = ledger["by_event"][event]["produced"] * min(1.0, share / took)
    others = max(0.0, runs - events)
    if others > events * MAX_OTHERS:
        raise harness.Void(f"{kind}: {others:.0f} calls of others beside {events:.0f} events")
    unwanted = unwanted_ns / unwanted_runs
    return {
        "ns_per_event": (run_time_ns - others * unwanted) / events,
        "ns_per_unwanted_call": unwanted,
        "ns_per_run": run_time_ns / runs,
        "runs_per_event": runs / events,
        "lost": harness.lost(ledger),
    }


def one(binary: Path, seconds: float) -> dict[str, Any]:
    """One round: each kind of event untraced, traced, and traced with run times counted."""
    found: dict[str, Any] = {}
    for kind, (mode, event) in LOADS.items():
        base = harness.untraced(binary, mode, seconds)
        plain = harness.traced(binary, mode, seconds, event, "none", ("--workers", "1"))
        found |= {f"{kind}_{name}": value for name, value in counted(binary, kind, seconds).items()}
        found |= {f"{kind}_untraced_ns_per_call": 1e9 / base, f"{kind}_traced_ns_per_call": 1e9 / plain.rate}
    return found


def main() -> None:
    """Measure and write the results."""
    options = harness.options(__doc__, seconds=5).parse_args()
    harness.pin()
    with tempfile.TemporaryDirectory() as folder:
        binary = harness.build(Path(folder))
        rounds = [one(binary, options.seconds) for _ in range(options.rounds)]
    figures = harness.spreads(rounds, list(rounds[0]))
    harness.save("kernel_cost", {"seconds": options.seconds, "figures": figures, "rounds": rounds})


if __name__ == "__main__":
    main()
