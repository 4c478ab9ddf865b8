"""Notices stages that do not get on: stopped by a signal, held in a call, or busy for ever.

    stands   it has neither run nor slept anew in STANDS looks, though each loop wakes once a second at least
    hangs    work waits for it, and in HANGS looks it has not committed its journal

Counted in looks of the supervisor, a second apart, and not in time: where all of headrace was stopped for an hour, and
goes on, nothing is wrong.
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
"""(how often the stage has committed, whether work waits for it)."""


class Seen(NamedTuple):
    """What a look at a stage saw, and in how many looks that was the same."""

    pid: int
    ran: tuple[int, ...]
    stands: int
    commits: int
    hangs: int


STOPPED, TRACED = "T", "t"


def state(pid: int) -> tuple[str, tuple[int, ...]]:
    """The letter of its state; CPU time in ticks, and switches of the first thread, by will and against it. Nothing of
    both if there is no such process.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = stat_fields(pid)
        switches = Path(f"/proc/{pid}/status").read_text().rsplit("voluntary_ctxt_switches:", 2)
        return fields[0], (int(fields[11]) + int(fields[12]), *(int(part.split()[0]) for part in switches[1:]))
    return "", ()


class Watchdog:
    """Of one pipeline."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._seen: dict[str, Seen] = {}
        self._looked = 0.0
        self._nursery = 0

    def look(self, stages: Sequence[Stage]) -> list[tuple[Stage, str]]:
        """Those that do not get on, and why; at most once in LOOK_S."""
        if time.monotonic() - self._looked < LOOK_S:
            return []
        self._looked = time.monotonic()
        self._nursery = self._nursery + 1 if nursery_is_stopped() else 0
        if self._nursery >= NURSERY_STANDS:
            # without it nobody can say which stages have ended
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
            before = Seen(pid, (), 0, commits, 0)
        # a recorder may wait for its disk; who is looked at by a debugger is left alone
        counts = letter == STOPPED if stage.once else letter != TRACED
        stands = before.stands + 1 if counts and now == before.ran else 0
        hangs = before.hangs + 1 if waits and commits == before.commits else 0
        self._seen[stage.name] = Seen(pid, now, stands, commits, hangs)
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
