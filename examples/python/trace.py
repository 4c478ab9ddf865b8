"""Trace a command from Python: python examples/python/trace.py COMMAND [ARG]..."""

import sys

import headrace

with headrace.trace(sys.argv[1:], events="execve,openat") as run:
    for event in run:
        path = next((a["value"] for a in event["args"] if a["name"] == "pathname"), "")
        print(event["processName"], event["eventName"], path, event["returnValue"], file=sys.stderr)
assert run.ledger is not None
print("lost", run.ledger["lost"], "balanced", run.ledger["balanced"], file=sys.stderr)
sys.exit(run.status)
