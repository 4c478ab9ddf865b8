"""multiprocessing's tracker of segments, without privilege. It is a program of its own, which imports little."""

from __future__ import annotations

import os
import sys
from multiprocessing import resource_tracker
from pathlib import Path

from headrace.pipeline.process import privilege, signals
from headrace.pipeline.process.confine import confine, library

START = (
    "import sys; sys.path[:] = sys.argv[2:]; from headrace.pipeline.process.tracker import run; run(int(sys.argv[1]))"
)


def arguments(reading: int) -> list[str]:
    """Of the interpreter, for the tracker to read this descriptor. It finds modules where this process does."""
    return [sys.executable, "-I", "-c", START, str(reading), *sys.path]


def run(reading: int) -> None:
    """The tracker, until all that write to it have ended."""
    signals.ignore_all()
    library()  # afterwards it may not be allowed to read it
    Path("/proc/self/comm").write_text("hr-tracker")
    privilege.close_all_but(reading)
    os.chdir("/")
    privilege.drop()
    confine("tracker")
    resource_tracker.main(reading)
