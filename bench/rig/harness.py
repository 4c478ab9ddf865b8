"""What the benchmarks share: a load on CPU 0, all of user space on the last CPU, results with their
environment, written to bench/results/NAME.json.

Every figure is a ratio of two sides measured alternately in one run; medians and ranges of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
RESULTS = Path(os.environ.get("HEADRACE_BENCH_RESULTS", HERE / "results"))
"""Results go elsewhere with HEADRACE_BENCH_RESULTS: short runs that try a program are no results."""
LOAD_CPU, USER_CPU = 0, (os.cpu_count() or 1) - 1
PATH = "/etc/passwd"
"""What the load opens if nothing else is asked for."""
LONGEST_BASELINE_S = 5


class Void(Exception):
    """A run whose result does not hold: counts that do not match."""


def options(text: str, seconds: float, rounds: int = 5) -> argparse.ArgumentParser:
    """What every program takes. `text` is the module's docstring."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=seconds, help=f"of a run; default {seconds:g}")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"default {rounds}")
    return parser


def pin() -> None:
    """This process and what it starts: on the last CPU."""
    os.sched_setaffinity(0, {USER_CPU})


def place_for(size: int) -> str:
    """A folder for a file of so many bytes: /dev/shm if it fits there with room to spare, else the usual place."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    shm = Path("/dev/shm")
    fits = shm.is_dir() and min(shutil.disk_usage(shm).free, available) > 1.2 * size
    return str(shm) if fits else tempfile.gettempdir()


def build(folder: Path, *flags: str) -> Path:
    """Compile the load program."""
    binary = folder / "load"
    subprocess.run(["cc", "-O2", "-pthread", *flags, str(HERE / "load.c"), "-o", str(binary)], check=True)
    return binary


@dataclass
class Load:
    """One process of the load program, waiting to be let go."""

    process: subprocess.Popen[str]
    pid: int

    @classmethod
    def start(
        cls,
        binary: Path,
        mode: str,
        count: int = 0,
        threads: int = 1,
        rate: int = 0,
        cpu: int = LOAD_CPU,
        processes: int = 0,
        path: str = PATH,
    ) -> Load:
        """Start it; it makes no call that counts until go(). It ends when this process does."""
        numbers = (count, cpu, threads, rate, processes)
        return cls.of([str(binary), mode, *map(str, numbers), path])

    @classmethod
    def of(cls, command: Sequence[str]) -> Load:
        """The same by a command line of one's own."""
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        return cls(process, int(process.stderr.readline()))

    def go(self) -> None:
        """Let it make its calls."""
        assert self.process.stdin is not None
        self.process.stdin.write("x")
        self.process.stdin.flush()

    def cancel(self) -> None:
        """End one that was never let go: it makes no call that counts."""
        self.process.communicate()

    def finish(self, seconds: float | None = None) -> tuple[int, float]:
        """(calls, seconds); after `seconds`, or when its count is reached."""
        if seconds is not None:
            time.sleep(seconds)
        out, _ = self.process.communicate()
        calls, took = out.split()
        return int(calls), float(took)


def untraced(binary: Path, mode: str, seconds: float, path: str = PATH) -> float:
    """Calls a second without any tracing."""
    load = Load.start(binary, mode, path=path)
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


def started(options: Sequence[str], **popen: Any) -> subprocess.Popen[str]:
    """A `headrace run` that traces by now; Void with what it says if it does not."""
    read_end, write_end = os.pipe()
    command = [str(Path(sys.executable).with_name("headrace")), "run", "--ready-fd", str(write_end), *options]
    process = subprocess.Popen(command, pass_fds=(write_end,), text=True, stderr=subprocess.PIPE, **popen)
    os.close(write_end)
    ready = os.read(read_end, 1)
    os.close(read_end)
    if not ready:
        raise Void(f"headrace did not start: {process.communicate()[1]}")
    return process


@dataclass
class Tracer:
    """One `headrace run` with everything attached. It ends when the processes of its scope are gone."""

    process: subprocess.Popen[str]
    ledger_path: Path

    @classmethod
    def start(cls, folder: Path, scope: str, events: str, output: str, extra: Sequence[str] = ()) -> Tracer:
        """Start it and wait until it traces; Void with what it says if it does not. `events` "": policies name them."""
        ledger_path = folder / "ledger.json"
        ledger_path.unlink(missing_ok=True)
        asked = ["-e", events] if events else []
        options = [*asked, "-s", scope, "-o", output, "--ledger", str(ledger_path), *extra]
        return cls(started(options), ledger_path)

    def pids(self) -> list[int]:
        """The supervisor and all that descend from it."""
        return descendants(self.process.pid)

    def finish(self) -> dict[str, Any]:
        """Wait until it has drained; its ledger. Void if it failed or does not balance."""
        _, errors = self.process.communicate(timeout=120)
        if not self.ledger_path.exists():
            raise Void(f"headrace failed: {errors}")
        ledger: dict[str, Any] = json.loads(self.ledger_path.read_text())
        if not ledger["balanced"]:
            raise Void(f"the ledger does not balance: {ledger}")
        return ledger


def descendants(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").iterdir():
            found.extend(int(child) for child in (task / "children").read_text().split())
    return found


def lost(ledger: dict[str, Any]) -> int:
    """Events that did not come out at the other end, wherever they were lost."""
    return int(ledger["lost"] + ledger["dropped"] + ledger["rejected"] + sum(s["dropped"] for s in ledger["sinks"]))


def require_produced(ledger: dict[str, Any], events: str, calls: int) -> None:
    """Void if the kernel counted fewer than the calls that were made."""
    for name in events.split(","):
        if ledger["by_event"].get(name, {}).get("produced", 0) < calls:
            raise Void(f"{name}: produced less than the {calls} calls made")


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
    processes: int = 0,
    path: str = PATH,
) -> Traced:
    """One run: load, headrace on it, and the counting subscriber if asked for. Void if counts differ."""
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"ipc://{folder}/bench.sock"
        load = Load.start(binary, mode, threads=threads, rate=rate, processes=processes, path=path)
        tracer = Tracer.start(Path(folder), f"tree={load.pid}", events, output.replace("ENDPOINT", endpoint), extra)
        tgid = 0 if processes else load.pid
        counter = subscribe("bench.rig.counting", endpoint, str(tgid), events) if subscriber else None
        load.go()
        calls, took = load.finish(seconds)
        ledger = tracer.finish()
        report = json.loads(counter.communicate()[0]) if counter else {}
    result = Traced(calls / took, calls, ledger, report)
    _verify(result, events, processes)
    return result


def subscribe(module: str, *arguments: str) -> subprocess.Popen[str]:
    """A subscriber in a process of its own; it reports when its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE.parent,
    )
    time.sleep(1.5)  # let it import and connect before the load begins
    return process


def _verify(result: Traced, events: str, processes: int) -> None:
    ledger, report = result.ledger, result.report
    require_produced(ledger, events, result.calls)
    if report:
        # announced losses are rows too: of no thread group, and of an event that was not asked for
        announced = ledger["announced"]
        if events == "getppid" and not processes and report["checksum"] != ledger["delivered"] * os.getpid() % 2**64:
            raise Void(f"the results do not add up to what getppid gives: {report}")
        missing = ledger["delivered"] + announced - report["rows"]
        if report["wrong"] > 2 * announced or report["backwards"]:
            raise Void(f"rows are wrong: {report}")
        if missing != sum(s["dropped"] + s["filtered"] for s in ledger["sinks"]):
            raise Void(f"the subscriber misses {missing} rows: {report} {ledger['sinks']}")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "least": min(values), "largest": max(values), "rounds": len(values)}


def environment() -> dict[str, Any]:
    """Where a result was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "model": model,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def commit(checkout: Path) -> str:
    """What is checked out there."""
    line = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()


def spreads(rounds: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Median and range of each named figure of the rounds."""
    return {name: spread([one[name] for one in rounds]) for name in names}


def save(name: str, figures: dict[str, Any]) -> None:
    """Write bench/results/NAME.json and say what stands in it."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"environment": environment(), **figures}, indent=2) + "\n")
    print(f"{name}: {json.dumps(figures.get('figures', figures))}")
