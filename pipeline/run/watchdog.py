"""Detects stages that make no progress: stopped by a signal, blocked in a system call, or in an endless loop.

    stands   the process has not been scheduled for STANDS checks, although each main loop wakes at least once a second
    hangs    work is waiting for the stage, and it has not committed its journal for HANGS checks

The units are checks by the supervisor, one second apart, and not wall-clock time. If all of headrace is stopped for an
hour and then continues, the watchdog does not report anything.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from headrace.pipeline.process.plan import Control
from headrace.pipeline.run.stage import Stage, end_nursery, nursery_is_stopped
from headrace.pipeline.transport.shm import stat_fields

LOOK_S = 1.0
STANDS, HANGS = 10, 60
NURSERY_STANDS = 2
Work = Callable[[], tuple[int, bool]]
"""(number of commits of the stage, whether work is waiting for it)."""


class LastSeen(NamedTuple):
    """Observation of a stage, and the number of checks for which it has not changed."""

    pid: int
    ran: tuple[int, ...]
    stands: int
    commits: int
    hangs: int


STOPPED, TRACED = "T", "t"


def state(pid: int) -> tuple[str, tuple[int, ...]]:
    """The state letter of a process, and its activity: CPU time in ticks, voluntary and involuntary context switches of
    its main thread. ("", ()) if there is no such process.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = stat_fields(pid)
        switches = Path(f"/proc/{pid}/status").read_text().rsplit("voluntary_ctxt_switches:", 2)
        return fields[0], (int(fields[11]) + int(fields[12]), *(int(part.split()[0]) for part in switches[1:]))
    return "", ()


class Watchdog:
    """The watchdog of one pipeline."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._seen: dict[str, LastSeen] = {}
        self._looked = 0.0
        self._nursery = 0

    def look(self, stages: Sequence[Stage]) -> list[tuple[Stage, str]]:
        """Check the stages at most once every LOOK_S. Returns the stuck stages with the reason.

        Kills the fork server (the nursery) if it is stopped.
        """
        if time.monotonic() - self._looked < LOOK_S:
            return []
        self._looked = time.monotonic()
        self._nursery = self._nursery + 1 if nursery_is_stopped() else 0
        if self._nursery >= NURSERY_STANDS:
            # a stopped nursery does not report which stages have ended
            self._nursery = 0
            end_nursery(f"it has not run for {NURSERY_STANDS} s")
            return []
        found = []
        for stage in stages:
            if stage.finished or stage.running is None or not stage.running.is_alive():
                continue
            if why := self._look_at(stage):
                self._seen.pop(stage.name, None)
                found.append((stage, why))
        return found

    def _look_at(self, stage: Stage) -> str:
        pid, (commits, waits) = stage.running.pid, self._work(stage.name)
        before, (letter, now) = self._seen.get(stage.name), state(pid)
        if before is None or before.pid != pid:
            before = LastSeen(pid, (), 0, commits, 0)
        # a recorder may block on its disk, so only a stop counts; ignore processes that are being traced
        counts = letter == STOPPED if stage.once else letter != TRACED
        stands = before.stands + 1 if counts and now == before.ran else 0
        hangs = before.hangs + 1 if waits and commits == before.commits else 0
        self._seen[stage.name] = LastSeen(pid, now, stands, commits, hangs)
        if stands >= STANDS:
            return f"it has not run for {STANDS} s"
        return f"work has waited for it for {HANGS} s" if hangs >= HANGS else ""

    def _work(self, name: str) -> tuple[int, bool]:
        kind, _, number = name.partition("-")
        control = self._control
        if kind == "worker":
            return control.workers[int(number)].generation, control.waits_for_worker(int(number))
        if kind == "publisher":
            return control.publisher.generation, control.waits_for_publisher()
        return 0, False
