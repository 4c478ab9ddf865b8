"""What a recording holds: python examples/python/recording.py FILE

Which files below /etc were opened, as a polars data frame, and the longest paths of it as numpy sees them.
"""

import sys

import polars

import headrace

with headrace.open(sys.argv[1]) as recording:
    opened = recording.read("openat.pathname=/etc/*", form="polars").get("openat", polars.DataFrame())
    if len(opened):
        paths = opened.group_by("processName", "args.pathname").len().sort("len", "args.pathname", descending=True)
        sys.stdout.write(paths.write_csv())
    for event, calls in recording.batches("openat", form="numpy"):
        print(event, "failed", int((calls["retval"] < 0).sum()), "of", len(calls))
