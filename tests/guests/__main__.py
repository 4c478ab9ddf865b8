"""`make test-kernels`: the kernel tests on Debian's kernels, and what came of them, as JSON.

    python -m tests.guests [--kernel 6.1]... [--smoke] [--folder DIR] [--job SCRIPT] [--timeout SECONDS]

`--smoke`: a start, `headrace check` and a run of all events, and no tests. `--job`: a script of your own, which runs as
root in the checkout; /mnt is shared, and shown at the end. The commit is tested, not what has not been committed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.guests.machine import Machine
from tests.guests.packages import GuestError, Kernel, fetch_kernel

ROOT = Path(__file__).parents[2]
KERNELS = (
    Kernel("5.10", "bullseye", r"5\.10\.0-[0-9]+-amd64"),
    Kernel("6.1", "bookworm", r"6\.1\.0-[0-9]+-amd64"),
    Kernel("6.12", "trixie", r"6\.12\.[0-9]+\+deb13-amd64"),
    Kernel("6.18", "trixie-backports", r"6\.18\.[0-9]+\+deb13-amd64"),
    Kernel("7", "sid", r"7\.[0-9.]+[+]deb[0-9]+-amd64", "preempt=full"),
)
MODULES = "calls contexts ignored limits objects signatures tracepoints tree uring ways".split()
"""Of tests/kernel: those of which most share a run."""
SMOKE = """
set -x
timeout 300 .venv/bin/headrace check >/mnt/check 2>&1; echo check $?
timeout 600 .venv/bin/headrace run -e '*' -o json:/mnt/events --ledger /mnt/ledger -- sh -c '
    ls / >/dev/null; cat /etc/passwd >/dev/null; /bin/echo "" a >/dev/null; mv /etc/hostname /etc/named'
echo run $?
"""
TESTS = f"""
timeout 5000 .venv/bin/python -m pytest -q -p no:cacheprovider --timeout 900 --junitxml /mnt/results.xml \\
    {" ".join(f"tests/kernel/test_{name}.py" for name in MODULES)}
"""


def shown(share: Path) -> dict[str, Any]:
    """What a guest's job has left."""
    found: dict[str, Any] = {"release": (share / "release").read_text().strip()}
    ledger, results = share / "ledger", share / "results.xml"
    if ledger.exists():
        books = json.loads(ledger.read_text())
        found["smoke"] = {name: books[name] for name in ("produced", "delivered", "lost", "balanced")}
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


def main() -> int:
    """Every kernel that was asked for; 1 if something did not pass, 69 if a guest could not be had."""
    parser = argparse.ArgumentParser(prog="python -m tests.guests", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kernel", action="append", choices=[kernel.name for kernel in KERNELS])
    parser.add_argument("--smoke", action="store_true")
    kept = os.environ.get("HEADRACE_GUESTS", "~/.cache/headrace-guests")
    parser.add_argument("--folder", type=Path, default=Path(kept), help=f"where guests are kept; default {kept}")
    parser.add_argument("--job", type=Path)
    parser.add_argument("--timeout", type=float, default=5400, help="seconds a guest may take")
    parser.add_argument("--results", type=Path, help="where the results go, as JSON")
    options = parser.parse_args()
    folder = options.folder.expanduser()
    status, results = 0, {}
    try:
        machine = Machine(folder)
        machine.prepare(ROOT)
        for kernel in KERNELS:
            if options.kernel and kernel.name not in options.kernel:
                continue
            share = folder / "runs" / kernel.name
            job = options.job.read_text() if options.job else SMOKE if options.smoke else SMOKE + TESTS
            made = fetch_kernel(folder, kernel)
            took = machine.boot(kernel, made, f"uname -r >/mnt/release\n{job}", share, options.timeout)
            results[kernel.name] = found = shown(share) | {"seconds": round(took)}
            print(f"{kernel.name}: {json.dumps(found)}", flush=True)
            if options.job:
                print((share / "out").read_text())
            elif found.get("failed") or not found.get("smoke", {}).get("balanced"):
                status = 1
    except (GuestError, subprocess.SubprocessError) as error:
        print(f"tests.guests: {error}", file=sys.stderr)
        status = 69
    if options.results:
        options.results.write_text(json.dumps(results, indent=1) + "\n")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
