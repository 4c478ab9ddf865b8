"""Every benchmark in order, each a process of its own, then a table of figure, target, reached.

    python -m bench.all [--seconds S] [--rounds N] [--sigma DIR]    (passed on; each program has defaults of its own)

The table gives medians and ranges of the result files that this run wrote. Status 1 if a program
crashed or its run is void; a figure that is not reached is shown and does not change the status.
"""

from __future__ import annotations

import argparse
import json
import operator
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from bench.rig import harness

PROGRAMS = (
    "floods",
    "json_lines",
    "replay",
    "kernel_cost",
    "latency",
    "memory",
    "context_cost",
    "objects",
    "processes",
    "startup",
    "detect.detection",
    "detect.alarms",
    "detect.rules",
    "detect.hostile_rules",
    "containers",
)
WITH_SIGMA = ("detect.detection", "detect.alarms", "detect.rules")
"""Programs that look at Sigma rules, too, if a folder is given."""
ONLY_SIGMA = ("detect.rules",)
PROGRAM_DEADLINE_S = 1500
COMPARE = {">=": operator.ge, "<=": operator.le, "<": operator.lt, "=": operator.eq}


@dataclass(frozen=True)
class Figure:
    """One line of the table: a figure of a result file, and what its median is to reach ("": reported).

    "= 0" holds for the largest of the rounds.
    """

    text: str
    result: str
    name: str
    target: str = ""

    def row(self, figures: dict[str, Any] | None) -> tuple[str, str, str, str]:
        """(figure, measured, target, reached)."""
        if figures is None:
            return self.text, "no result", self.target, "NO" if self.target else ""
        if self.name not in figures:
            return self.text, "not measured", self.target or "reported", ""
        spread = figures[self.name]
        measured = f"{shown(spread['median'])} ({shown(spread['least'])} to {shown(spread['largest'])})"
        # of what must not happen at all, every round counts
        value = spread["largest"] if self.target.startswith("= ") else spread["median"]
        return self.text, measured, self.target or "reported", self._reached(value)

    def _reached(self, value: float) -> str:
        if not self.target:
            return ""
        compare, bound = self.target.split()
        return "yes" if COMPARE[compare](value, float(bound.replace(",", ""))) else "NO"


FIGURES = (
    Figure("getppid flood, kept of the untraced rate", "flood-getppid", "kept", ">= 0.40"),
    Figure("getppid flood, events lost in the kernel", "flood-getppid", "lost", "= 0"),
    Figure("getppid flood, events dropped at the rings", "flood-getppid", "dropped", "= 0"),
    Figure("getppid flood, events dropped at the sink", "flood-getppid", "sink_dropped", "= 0"),
    Figure("getppid flood, CPU per event, µs", "flood-getppid", "cpu_us_per_event", "<= 0.35"),
    Figure("getppid flood, lag at the end, s", "flood-getppid", "lag_at_end_s", "<= 0.2"),
    Figure("getppid flood, of the rate without context", "context_cost", "ratio", ">= 0.9"),
    Figure("getppid flood, 2 workers, lost", "flood-getppid-2", "lost", "= 0"),
    Figure("getppid flood, 2 workers, dropped", "flood-getppid-2", "dropped", "= 0"),
    Figure("openat flood, kept of the untraced rate", "flood-openat", "kept", ">= 0.70"),
    Figure("openat flood, events lost in the kernel", "flood-openat", "lost", "= 0"),
    Figure("openat flood, events dropped at the rings", "flood-openat", "dropped", "= 0"),
    Figure("openat flood, events dropped at the sink", "flood-openat", "sink_dropped", "= 0"),
    Figure("openat flood, lag at the end, s", "flood-openat", "lag_at_end_s", "<= 0.2"),
    Figure("openat flood, CPU per event, µs", "flood-openat", "cpu_us_per_event", "<= 0.7"),
    Figure("JSON to a file, lines/s sustained, 1 worker", "json_lines", "sustained_lines_per_s", ">= 300,000"),
    Figure("JSON by replay, lines per s of worker CPU", "json_lines", "replay_lines_per_worker_cpu_s"),
    Figure("replay, 1 worker over 2, wall time", "replay", "ratio", ">= 1.7"),
    Figure("the same without start-up", "replay", "ratio_without_startup"),
    Figure("kernel side, numeric event, ns", "kernel_cost", "numeric_ns_per_event"),
    Figure("kernel side, path event, ns", "kernel_cost", "path_ns_per_event"),
    Figure("latency at 10 k events/s, p50, ms", "latency", "10k_p50_ms", "<= 10"),
    Figure("latency at 10 k events/s, p99, ms", "latency", "10k_p99_ms", "<= 50"),
    Figure("latency at 100 k events/s, p50, ms", "latency", "100k_p50_ms", "<= 10"),
    Figure("latency at 100 k events/s, p99, ms", "latency", "100k_p99_ms", "<= 50"),
    Figure("latency of a lone event, p50, ms", "latency", "lone_p50_ms", "<= 10"),
    Figure("latency of a lone event, p99, ms", "latency", "lone_p99_ms", "<= 50"),
    Figure("memory, all processes, 2 workers, MB PSS", "memory", "pss_mb", "<= 400"),
    Figure("CPU when the scope is idle, % of a core", "memory", "idle_cpu_percent", "< 1"),
    Figure("openat flood with security_file_open, depth 3, kept", "objects", "kept_3", ">= 0.60"),
    Figure("the same, lost or dropped", "objects", "lost_3", "= 0"),
    Figure("the same, depth 12, kept", "objects", "kept_12"),
    Figure("the same, lost or dropped", "objects", "lost_12", "= 0"),
    Figure("the walk of a path at depth 3, ns", "objects", "walk_3_ns"),
    Figure("the walk of a path at depth 12, ns", "objects", "walk_12_ns"),
    Figure("fork and exec storm, kept", "processes", "kept", ">= 0.90"),
    Figure("the same, lost or dropped", "processes", "lost", "= 0"),
    Figure("100,000 processes: a worker's growth after 20,000, MB", "processes", "growth_mb", "<= 2"),
    Figure("mixed replay, signatures that ship, of the rate with none", "detection-mixed", "shipped_ratio", ">= 0.70"),
    Figure("the same, events/s", "detection-mixed", "shipped_per_s", ">= 1,000,000"),
    Figure("mixed replay, 250 Sigma rules, of the rate with none", "detection-mixed", "sigma_250_ratio", ">= 0.50"),
    Figure("mixed replay, 1000 Sigma rules, of the rate with none", "detection-mixed", "sigma_1000_ratio", ">= 0.40"),
    Figure("exec storm replayed, 250 Sigma rules, execs/s", "detection-exec_storm", "sigma_250_per_s", ">= 50,000"),
    Figure("openat flood with signatures and 250 Sigma rules, kept", "alarms-flood", "kept", ">= 0.60"),
    Figure("the same, lost or dropped", "alarms-flood", "lost", "= 0"),
    Figure("the same, signatures that ship alone: user CPU, narrowed of not", "alarms-narrowed", "cpu_ratio"),
    Figure("the same, narrowed, lost or dropped", "alarms-narrowed", "narrowed_lost", "= 0"),
    Figure("250 Sigma rules loaded in a new process, s", "rules", "engine_s", "< 3"),
    Figure("eight containers that list /proc, events/s", "containers-loops", "events_per_second"),
    Figure("the same, lost", "containers-loops", "lost", "= 0"),
    Figure("the same, longest without a name, ms", "containers-loops", "longest_without_a_name_ms", "<= 200"),
    Figure("the engine frozen, killed and started again, lost", "containers-frozen", "lost", "= 0"),
    Figure(
        "containers started and removed: left in the kernel", "containers-churn", "left_in_the_kernels_table", "= 0"
    ),
    Figure("openat flood in a container, JSON events/s", "containers-flood", "json_events_per_second", ">= 60,000"),
    Figure(
        "the same at a rate at which nothing is lost",
        "containers-flood",
        "json_events_per_second_with_nothing_lost",
        ">= 60,000",
    ),
    Figure("the same, with enrichment of without", "containers-flood", "on_of_off", ">= 0.90"),
    Figure("a slow reader: events that another output missed", "containers-slow", "missed_by_the_other", "= 0"),
    Figure("finding storm, findings/s", "alarms-storm", "findings_per_s", ">= 100,000"),
)


def shown(value: float) -> str:
    """Three digits, or whole thousands."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def run(program: str, passed: list[str]) -> str:
    """Run one program; "" or why it failed."""
    print(f"--- {program}", flush=True)
    command = [sys.executable, "-m", f"bench.{program}", *passed]
    with subprocess.Popen(command, cwd=harness.HERE.parent, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, errors = process.communicate(timeout=PROGRAM_DEADLINE_S)
        except subprocess.TimeoutExpired:
            # what it started ends with it: loads at the end of their input, headrace with its scope
            process.terminate()
            return f"not ended after {PROGRAM_DEADLINE_S} s"
    if process.returncode == 0:
        return ""
    print(errors, file=sys.stderr, flush=True)
    lines = errors.strip().splitlines()
    return lines[-1][:300] if lines else f"status {process.returncode}"


def written_since(begin: float, result: str) -> dict[str, Any] | None:
    """The figures of a result file, if this run wrote it."""
    path = harness.RESULTS / f"{result}.json"
    if not path.exists() or path.stat().st_mtime < begin:
        return None
    figures: dict[str, Any] = json.loads(path.read_text())["figures"]
    return figures


def table(begin: float) -> str:
    """All figures, aligned."""
    head = ("figure", "measured: median (range)", "target", "reached")
    rows = [head, *(figure.row(written_since(begin, figure.result)) for figure in FIGURES)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def main() -> None:
    """Run them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds")
    parser.add_argument("--rounds")
    parser.add_argument("--sigma", help="a folder of Sigma rules, for what looks at some")
    options = vars(parser.parse_args())
    sigma = options.pop("sigma")
    passed = [part for name, value in options.items() if value for part in (f"--{name}", value)]
    # file times come from the kernel's coarse clock, which lags by up to a tick
    begin = time.time() - 0.1
    with_sigma = [*passed, "--sigma", sigma] if sigma else passed
    programs = [program for program in PROGRAMS if sigma or program not in ONLY_SIGMA]
    failed = {
        program: why for program in programs if (why := run(program, with_sigma if program in WITH_SIGMA else passed))
    }
    print(f"\n{table(begin)}\n")
    for program, why in failed.items():
        print(f"{program} FAILED: {why}")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
