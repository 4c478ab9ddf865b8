"""`make test-kernels`: the kernel tests on Debian's kernels, and what came of them, as JSON.

    python -m tests.guests [--kernel 6.1]... [--smoke] [--folder DIR] [--job SCRIPT] [--append TEXT] [--timeout SECONDS]
        [--jobs N]

`--smoke`: `headrace check --live`, the demonstration, a flood of an exact count, the events of hooks, and no other
tests. `--job`: a script of your own, which runs as root in the checkout; /mnt is shared, and shown at the end. The
commit is tested, not what has not been committed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.guests import table
from tests.guests.machine import SUITES, Machine
from tests.guests.packages import GuestError, Kernel, StalledError, fetch_kernel
from tests.guests.table import FLOOD

ROOT = Path(__file__).parents[2]
KERNELS = (
    Kernel("5.10", "bullseye", r"5\.10\.0-[0-9]+-amd64"),
    Kernel("6.1", "bookworm", r"6\.1\.0-[0-9]+-amd64"),
    Kernel("6.1-rt", "bookworm", r"6\.1\.0-[0-9]+-rt-amd64"),
    Kernel("6.12", "trixie", r"6\.12\.[0-9]+\+deb13-amd64"),
    Kernel("6.18", "trixie-backports", r"6\.18\.[0-9]+\+deb13-amd64"),
    Kernel("7", "sid", r"7\.[0-9.]+[+]deb[0-9]+-amd64", "preempt=full"),
)
MODULES = """by_perf calls conditions contents contexts every_way fd_paths ignored limits objects policies refused
    scopes signatures stacks tracepoints tree uring ways""".split()
"""Of tests/kernel: all but those of containers, which need an engine, of hashes, which must be there in time, and
those of the smoke."""
SMOKE = f"""
set -x
export HEADRACE_TESTS_DEADLINE=600
timeout 1500 .venv/bin/headrace check --live -o json >/mnt/live; echo live $?
timeout 300 .venv/bin/headrace demo >/mnt/demo 2>&1; echo demo $? >>/mnt/statuses
timeout 600 .venv/bin/headrace run -e getppid -s comm=python3 -o none --ledger /mnt/flood -- sh -c '
    for i in 1 2 3 4; do
        python3 -S -c "import os; [os.getppid() for _ in range({FLOOD // 4})]" &
    done; wait'
echo flood $? >>/mnt/statuses
timeout 900 .venv/bin/python -m pytest -q -p no:cacheprovider tests/kernel/test_hooks.py \\
    tests/kernel/test_checks.py tests/kernel/test_integrity.py >/mnt/hooks 2>&1
echo hooks $? >>/mnt/statuses
"""
TESTS = f"""
timeout 5000 .venv/bin/python -m pytest -q -p no:cacheprovider --timeout 900 --junitxml /mnt/results.xml \\
    {" ".join(f"tests/kernel/test_{name}.py" for name in MODULES)}
"""


def shown(share: Path) -> dict[str, Any]:
    """What a guest's job has left."""
    found: dict[str, Any] = {"release": (share / "release").read_text().strip()}
    results = share / "results.xml"
    for name, read in (("live", _live), ("flood", _flood), ("statuses", _statuses)):
        with contextlib.suppress(OSError, ValueError):
            found[name] = read((share / name).read_text())
    if results.exists():
        cases = list(ElementTree.parse(results).getroot().iter("testcase"))
        kinds = [next((each.tag for each in case if each.tag in ("failure", "error", "skipped")), "") for case in cases]
        found["passed"] = kinds.count("")
        found["failed"] = [
            f"{case.get('classname')}::{case.get('name')}"
            for case, kind in zip(cases, kinds, strict=True)
            if kind in ("failure", "error")
        ]
        found["skipped"] = kinds.count("skipped")
    return found


def _live(text: str) -> dict[str, Any]:
    told = json.loads(text)
    found: dict[str, Any] = told["live"] or {"error": "the programs were refused"}
    found["refused"] = {f["name"]: f["detail"] for f in told["findings"] if f["name"].startswith("program ")}
    return found


def _flood(text: str) -> dict[str, Any]:
    books = json.loads(text)
    return {name: books[name] for name in ("produced", "delivered", "lost", "missed_by_program", "balanced")}


def _statuses(text: str) -> dict[str, int]:
    return {name: int(status) for name, status in map(str.split, text.splitlines())}


def is_well(found: dict[str, Any]) -> bool:
    """Whether everything that was tried came out as it should: events, counts, statuses, tests."""
    live, flood = found.get("live", {}), found.get("flood", {})
    came = (
        live.get("arrived")
        and not live.get("refused")
        and not live["missing"]
        and not live["error"]
        and live["ledger"]["balanced"]
    )
    missed = sum(flood.get("missed_by_program", {}).values())
    counted = flood.get("produced", -1) <= FLOOD <= flood.get("produced", -1) + missed
    return bool(came and counted) and not any(found["statuses"].values()) and not found.get("failed")


def _tried(machine: Machine, kernel: Kernel, made: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What came of one guest."""
    share = machine.folder / "runs" / kernel.name
    job = options.job.read_text() if options.job else SMOKE if options.smoke else SMOKE + TESTS
    kernel = replace(kernel, append=f"{kernel.append} {options.append}")
    took = machine.boot(kernel, made, f"uname -r >/mnt/release\n{job}", share, options.timeout)
    return shown(share) | {"seconds": round(took)}


def main() -> int:
    """Every kernel that was asked for; 1 if something did not pass, 69 if a guest could not be had."""
    parser = argparse.ArgumentParser(prog="python -m tests.guests", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kernel", action="append", choices=[kernel.name for kernel in KERNELS])
    parser.add_argument("--smoke", action="store_true")
    kept = os.environ.get("HEADRACE_GUESTS", "~/.cache/headrace-guests")
    parser.add_argument("--folder", type=Path, default=Path(kept), help=f"where guests are kept; default {kept}")
    parser.add_argument("--job", type=Path)
    parser.add_argument("--suite", choices=SUITES, default=SUITES[0], help="whose userland; default %(default)s")
    parser.add_argument("--append", default="", help="more of the kernel's command line, as lockdown=integrity")
    parser.add_argument("--timeout", type=float, default=5400, help="seconds a guest may take")
    parser.add_argument("--results", type=Path, help="where the results go, as JSON")
    parser.add_argument("--jobs", type=int, default=1, help="guests at a time; one takes about a CPU of this machine")
    options = parser.parse_args()
    folder = options.folder.expanduser()
    status, results = 0, {}
    try:
        machine = Machine(folder, options.suite)
        machine.prepare(ROOT)
        wanted = [kernel for kernel in KERNELS if not options.kernel or kernel.name in options.kernel]
        made = {kernel.name: fetch_kernel(folder, kernel) for kernel in wanted}
        with ThreadPoolExecutor(max_workers=options.jobs) as pool:
            tried = [pool.submit(_tried, machine, kernel, made[kernel.name], options) for kernel in wanted]
            for kernel, one in zip(wanted, tried, strict=True):
                try:
                    results[kernel.name] = found = one.result()
                except StalledError as error:
                    print(f"tests.guests: {error}", file=sys.stderr)
                    status = 1
                    continue
                if options.job:
                    print((folder / "runs" / kernel.name / "out").read_text())
                    continue
                found["well"] = is_well(found)
                print(f"{kernel.name}: {table.summary(found)}", flush=True)
                status = status or int(not found["well"])
    except (GuestError, subprocess.SubprocessError) as error:
        print(f"tests.guests: {error}", file=sys.stderr)
        status = status or 69
    if options.results:
        before = json.loads(options.results.read_text()) if options.results.exists() else {}
        options.results.write_text(json.dumps(before | results, indent=1) + "\n")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
