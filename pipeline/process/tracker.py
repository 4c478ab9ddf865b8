"""multiprocessing's resource tracker without privileges. It runs in a separate interpreter and imports little."""

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
    """Command line of the tracker, which reads from descriptor `reading`. It uses the module path of this process."""
    return [sys.executable, "-I", "-c", START, str(reading), *sys.path]


def run(reading: int) -> None:
    """Run the tracker until all processes that write to it have ended."""
    signals.ignore_all()
    library()  # may be unreadable once privileges are dropped
    Path("/proc/self/comm").write_text("hr-tracker")
    privilege.close_all_but(reading)
    os.chdir("/")
    privilege.drop()
    confine("tracker")
    resource_tracker.main(reading)
