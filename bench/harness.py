"""What the benchmarks share: a load on CPU 0, all of user space on the last CPU, results with their
environment, written to bench/results/NAME.json.

Every figure is a ratio of two sides measured alternately in one run; medians and ranges of the rounds.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
LOAD_CPU, USER_CPU = 0, (os.cpu_count() or 1) - 1


class Void(Exception):
    """A run whose result does not hold: counts that do not match."""


def pin() -> None:
    """This process and what it starts: on the last CPU."""
    os.sched_setaffinity(0, {USER_CPU})


def build(folder: Path) -> Path:
    """Compile the load program."""
    binary = folder / "load"
    subprocess.run(["cc", "-O2", "-pthread", str(HERE / "load.c"), "-o", str(binary)], check=True)
    return binary


@dataclass
class Load:
    """One process of the load program, waiting to be let go."""

    process: subprocess.Popen[str]
    pid: int

    @classmethod
    def start(cls, binary: Path, mode: str, count: int = 0, threads: int = 1, rate: int = 0, cpu: int = LOAD_CPU) -> Load:
        """Start it; it makes no call that counts until go()."""
        arguments = [str(binary), mode, str(count), str(cpu), str(threads), str(rate)]
        process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        return cls(process, int(process.stderr.readline()))

    def go(self) -> None:
        """Let it make its calls."""
        assert self.process.stdin is not None
        self.process.stdin.write("x")
        self.process.stdin.flush()

    def finish(self, seconds: float | None = None) -> tuple[int, float]:
        """(calls, seconds); after `seconds`, or when its count is reached."""
        if seconds is not None:
            time.sleep(seconds)
        out, _ = self.process.communicate()
        calls, took = out.split()
        return int(calls), float(took)


def untraced(binary: Path, mode: str, seconds: float) -> float:
    """Calls a second without any tracing."""
    load = Load.start(binary, mode)
    load.go()
    calls, took = load.finish(seconds)
    return calls / took


@dataclass
class Traced:
    """What one traced run gave."""

    rate: float
    calls: int
    ledger: dict[str, Any]
    report: dict[str, Any]

    @property
    def cpu_us_per_event(self) -> float:
        """CPU of reader, workers and publisher, in µs per delivered event."""
        return sum(self.ledger["cpu_seconds"].values()) * 1e6 / max(self.ledger["delivered"], 1)


def headrace(arguments: Sequence[str], ready_fd: int, **options: Any) -> subprocess.Popen[str]:
    """Start `headrace run`."""
    command = [str(Path(sys.executable).with_name("headrace")), "run", "--ready-fd", str(ready_fd), *arguments]
    return subprocess.Popen(command, pass_fds=(ready_fd,), text=True, **options)


def traced(
    binary: Path,
    mode: str,
    seconds: float,
    events: str,
    output: str,
    extra: Sequence[str] = (),
    subscriber: bool = False,
    threads: int = 1,
    rate: int = 0,
) -> Traced:
    """One run: load, headrace on it, and the counting subscriber if asked for. Void if counts differ."""
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"ipc://{folder}/bench.sock"
        load = Load.start(binary, mode, threads=threads, rate=rate)
        ledger_path = Path(folder, "ledger.json")
        read_end, write_end = os.pipe()
        arguments = ["-e", events, "-s", f"tree={load.pid}", "-o", output.replace("ENDPOINT", endpoint)]
        tracer = headrace([*arguments, "--ledger", str(ledger_path), *extra], write_end, stderr=subprocess.PIPE)
        os.close(write_end)
        if not os.read(read_end, 1):
            raise Void(f"headrace did not start: {tracer.communicate()[1]}")
        os.close(read_end)
        counter = _subscriber(endpoint, load.pid, events) if subscriber else None
        load.go()
        calls, took = load.finish(seconds)
        _, errors = tracer.communicate(timeout=120)
        report = json.loads(counter.communicate()[0]) if counter else {}
        if not ledger_path.exists():
            raise Void(f"headrace failed: {errors}")
        ledger = json.loads(ledger_path.read_text())
    result = Traced(calls / took, calls, ledger, report)
    _verify(result, events)
    return result


def _subscriber(endpoint: str, pid: int, events: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.counting", endpoint, str(pid), events]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE.parent
    )
    time.sleep(1.5)  # let it import and connect before the load begins
    return process


def _verify(result: Traced, events: str) -> None:
    ledger, report = result.ledger, result.report
    if not ledger["balanced"]:
        raise Void(f"the ledger does not balance: {ledger}")
    for name in events.split(","):
        if ledger["by_event"].get(name, {}).get("produced", 0) < result.calls:
            raise Void(f"{name}: produced less than the {result.calls} calls made")
    if report:
        missing = ledger["delivered"] - report["rows"]
        if report["wrong"] or report["backwards"]:
            raise Void(f"rows are wrong: {report}")
        if missing != sum(s["dropped"] + s["filtered"] for s in ledger["sinks"]):
            raise Void(f"the subscriber misses {missing} rows: {report} {ledger['sinks']}")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "least": min(values), "largest": max(values), "rounds": len(values)}


def environment() -> dict[str, Any]:
    """Where a result was measured."""
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    return {
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "model": model,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def save(name: str, figures: dict[str, Any]) -> None:
    """Write bench/results/NAME.json and say what stands in it."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"environment": environment(), **figures}, indent=2) + "\n")
    print(f"{name}: {json.dumps(figures.get('figures', figures))}")
