"""A process of the pipeline: how it is started, and how it ended."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker, util
from typing import Any

from headrace.pipeline.process import entry as process
from headrace.pipeline.process import tracker
from headrace.pipeline.process.failure import EX_IOERR, SIGPIPE_STATUS
from headrace.pipeline.process.logs import logger
from headrace.pipeline.process.plan import Control, Plan
from headrace.pipeline.process.signals import held
from headrace.pipeline.publish.sinks import open_target
from headrace.pipeline.stages import recording
from headrace.pipeline.transport.doorbell import InheritedFd
from headrace.pipeline.transport.shm import stat_fields

START_TRIES = 100
START_S = 60.0
"""That the fork server has for one process, its own start and imports included."""
GUARD_S, STOPPED_LOOKS = 0.5, 3
KILL_S = 2.0
"""Until a process that was killed is given up."""
FORKED, SPAWNED = multiprocessing.get_context("forkserver"), multiprocessing.get_context("spawn")
MAX_DESCRIPTORS = 200
"""That a fork server takes for one process, with some left for its own (it refuses more than 253)."""
EX_SOFTWARE = 70


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Each process would import the command line again; the stages do not need it."""
    main = sys.modules["__main__"]
    kept: dict[str, Any] = {name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in main.__dict__}
    main.__dict__["__spec__"] = None
    try:
        yield
    finally:
        main.__dict__.update(kept)


def start_helpers(imports: Iterable[str] = ()) -> None:
    """The fork server and multiprocessing's tracker of segments, to which no signal of ours is one. `imports`: what
    stages will import beside what the nursery says, from folders that they may not be allowed to read.
    """
    forkserver.set_forkserver_preload([*imports, "headrace.pipeline.run.nursery"])
    with held():
        _start_tracker()
        forkserver.ensure_running()


def _start_tracker() -> None:
    """As multiprocessing would, but one that gives up privilege before it begins."""
    its = resource_tracker._resource_tracker
    if its._fd is not None:  # type: ignore[attr-defined]
        return
    reading, writing = os.pipe()
    its._pid = util.spawnv_passfds(os.fsencode(sys.executable), tracker.arguments(reading), [reading])  # type: ignore[attr-defined]
    its._fd = writing  # type: ignore[attr-defined]
    os.close(reading)


def nursery_pid() -> int:
    """Of the fork server; 0 if there is none."""
    return getattr(forkserver._forkserver, "_forkserver_pid", None) or 0


def end_nursery(reason: str) -> None:
    """Kill the fork server, and all stages with it: a stopped one neither forks nor says which stages have ended."""
    if pid := nursery_pid():
        logger("supervisor").error("supervisor.process_stalled", name="nursery", reason=reason)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def nursery_is_stopped() -> bool:
    """By a signal; who is held by a debugger is left alone."""
    pid = nursery_pid()
    return bool(pid) and stat_fields(pid)[:1] == ["T"]


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    """What waits for the fork server here does so until it is killed: soon if it is stopped, or else after START_S."""
    done = threading.Event()

    def guard() -> None:
        until, stopped = time.monotonic() + START_S, 0
        while not done.wait(GUARD_S):
            stopped = stopped + 1 if nursery_is_stopped() else 0
            if stopped >= STOPPED_LOOKS or time.monotonic() > until:
                end_nursery("it starts no process")
                until, stopped = time.monotonic() + START_S, 0

    thread = threading.Thread(target=guard, name="guard of a start")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _begin(process: Any) -> None:
    """Start a process; a fork server that has just died is started again, as soon as its end can be seen."""
    for _ in range(START_TRIES):
        # a stage begins where this process stands, which may be where it may not go
        with contextlib.suppress(ConnectionError, EOFError), held(), contextlib.chdir("/"), _in_time():
            process.start()
            return
        time.sleep(0.01)
    raise PipelineFailed(process.name, EX_SOFTWARE)


class PipelineFailed(Exception):
    """A process of the pipeline could not go on; `status` is its exit status."""

    def __init__(self, name: str, status: int) -> None:
        how = f"status {status}" if status >= 0 else f"signal {-status}"
        super().__init__(f"{name} ended with {how}")
        self.name, self.status = name, status if status > 0 else EX_SOFTWARE


@dataclass
class Stage:
    """One process and how to start it."""

    name: str
    target: Callable[..., None]
    args: tuple[Any, ...]
    descriptors: int = 0
    """How many descriptors its arguments hold, beyond a few."""
    running: Any = None
    kept: tuple[int, ...] = ()
    """Capabilities that it needs: who has some is not forked by the nursery, which has none."""
    prepare: Callable[..., None] | None = None
    """What it does before it gives up privilege."""
    nice: int = 0
    spare: bool = False
    """The run goes on without it, if it cannot be kept alive."""
    once: bool = False
    """Its work cannot be taken up again after a death (a file that was half written)."""
    aside: bool = False
    """No event passes through it: the run does not end later because of it."""
    restarts: int = 0
    futile: int = 0
    """Restarts since it has got on: of a worker, since it has committed a turn."""
    turns: int = 0
    """What it had committed when it died last."""
    lost: bool = False
    """It could not be ended: another one takes its place."""
    finished: bool = False
    status: int = 0

    def kill(self) -> bool:
        """End it; False if it cannot be ended now, and was left behind: a call holds it in the kernel. It will not
        run again.
        """
        if self.running is None or not self.running.is_alive():
            return True
        self.running.kill()
        self.running.join(KILL_S)
        if not self.running.is_alive():
            return True
        # else multiprocessing would wait for it at the end of this process
        multiprocessing.process._children.discard(self.running)  # type: ignore[attr-defined]
        logger("supervisor").error("supervisor.process_left_behind", name=self.name, pid=self.running.pid)
        return False

    def launch(self, plan: Plan, descriptors: int) -> None:
        """Start it; `descriptors`: how many the plan holds."""
        many = self.descriptors + descriptors > MAX_DESCRIPTORS
        context: Any = SPAWNED if many or self.kept else FORKED
        running = context.Process(
            target=process.main,
            name=f"headrace {self.name}",
            args=(self.name, plan, self.target, *self.args),
            kwargs={"kept": self.kept, "nice": self.nice, "prepare": self.prepare},
        )
        with _without_main():
            _begin(running)
        self.running = running


def reader_stage(target: Callable[..., None], *args: Any, descriptors: int = 0, kept: tuple[int, ...] = ()) -> Stage:
    """The stage that feeds the rings; `kept`: capabilities that it needs here."""
    return Stage("reader", target, args, descriptors, kept=kept)


def recorder_stage(path: str, facts: recording.Facts) -> Stage:
    """The stage that writes a recording; the file is opened here, with the supervisor's rights."""
    return Stage(
        "recorder",
        recording.record,
        (InheritedFd(open_target(path, f"record {path}", truncate=True)), facts, path),
        once=True,
    )


def sink_status(control: Control) -> int:
    """0, or the status that broken sinks call for: a closed pipe is a quiet SIGPIPE, the rest an I/O error."""
    if not control.closed_sinks:
        return 0
    return SIGPIPE_STATUS if control.closed_sinks == control.closed_pipes else EX_IOERR
