"""The demo: traces a small built-in workload, prints the events as a table, then the ledger.

If the host or the user's privileges do not allow BPF, it reports what is missing and replays the recording that ships
with headrace.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from headrace.bpf.load.loader import LoadError
from headrace.config import filters, outputs
from headrace.config.layers import resolve
from headrace.pipeline.host.features import findings
from headrace.pipeline.process import logs
from headrace.pipeline.process.failure import say
from headrace.pipeline.run import app
from headrace.pipeline.run.replay import replay
from headrace.pipeline.run.request import Outcome, Request

RECORDING = Path(__file__).with_name("demo.hrc")
EVENTS = "sched_process_fork,sched_process_exec,sched_process_exit,execve,openat,socket,connect,kill,unlinkat"
WORKLOAD = """
cat /etc/hostname >/dev/null
(exec ls /nonexistent) 2>/dev/null
touch /tmp/headrace-demo.$$ && rm /tmp/headrace-demo.$$
sh -c 'kill -TERM $$' 2>/dev/null
exit 0
"""
COMMAND = ("/bin/sh", "-c", WORKLOAD)
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


def _request(events: str, command: tuple[str, ...] = (), record: str = "") -> Request:
    settings = resolve(None, {"events": events, "workers": 1, "record": record}).settings
    from headrace.bpf.tables.catalogue import catalogue

    return Request(settings, filters.parse([events], catalogue()), outputs.parse(["table:-"]), command=command)


def run(record: str = "") -> Outcome:
    """Trace the workload if this host supports it, else replay the recording."""
    logs.configure("warning")
    missing = [f for f in findings() if not f.ok and not f.optional]
    if not missing:
        os.environ.clear()
        os.environ.update(ENVIRONMENT)
        os.chdir("/")
        try:
            return app.live(_request(EVENTS, COMMAND, record))
        except LoadError as error:
            say(f"headrace: this host does not let BPF programs run: {error}", err=True)
    for finding in missing:
        say(f"headrace: {finding.name}: {finding.detail}", f"  remedy: {finding.remedy}", err=True)
    say("headrace: showing a recording instead of this host", err=True)
    return replay(_request("*"), RECORDING)


def main() -> None:
    """Entry point of the module. `python -m headrace.pipeline.command.demo --record FILE` creates the recording."""
    record = sys.argv[2] if sys.argv[1:2] == ["--record"] else ""
    outcome = run(str(Path(record).absolute()) if record else "")
    say(*outcome.ledger.text(), err=True)
    raise SystemExit(outcome.status)


if __name__ == "__main__":
    main()
