"""A stage, which is a process of the pipeline: how it starts, ends, and is killed."""

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
"""Time that the fork server has to start one process, including its own start and imports."""
GUARD_S, STOPPED_LOOKS = 0.5, 3
KILL_S = 2.0
"""Time that a killed process has to end before it is left behind."""
FORKED, SPAWNED = multiprocessing.get_context("forkserver"), multiprocessing.get_context("spawn")
MAX_DESCRIPTORS = 200
"""Maximum number of descriptors to pass for one process. The fork server accepts 253 and needs some for itself."""
EX_SOFTWARE = 70


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide `__main__` while a process starts. Otherwise each stage would import the command line again."""
    main = sys.modules["__main__"]
    kept: dict[str, Any] = {name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in main.__dict__}
    main.__dict__["__spec__"] = None
    try:
        yield
    finally:
        main.__dict__.update(kept)


def start_helpers(imports: Iterable[str] = ()) -> None:
    """Start the fork server and multiprocessing's resource tracker with HANDLED signals blocked.

    `imports` are modules that stages of this run need in addition to those that the nursery imports.
    """
    forkserver.set_forkserver_preload([*imports, "headrace.pipeline.run.nursery"])
    with held():
        _start_tracker()
        forkserver.ensure_running()


def _start_tracker() -> None:
    """Start the resource tracker like multiprocessing does, but as a process that drops privileges first."""
    its = resource_tracker._resource_tracker
    if its._fd is not None:  # type: ignore[attr-defined]
        return
    reading, writing = os.pipe()
    its._pid = util.spawnv_passfds(os.fsencode(sys.executable), tracker.arguments(reading), [reading])  # type: ignore[attr-defined]
    its._fd = writing  # type: ignore[attr-defined]
    os.close(reading)


def nursery_pid() -> int:
    """Process id of the fork server; 0 if there is none."""
    return getattr(forkserver._forkserver, "_forkserver_pid", None) or 0


def end_nursery(reason: str) -> None:
    """Kill the fork server and all stages with it.

    A stopped fork server neither forks nor reports which stages have ended.
    """
    if pid := nursery_pid():
        logger("supervisor").error("supervisor.process_stalled", name="nursery", reason=reason)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def nursery_is_stopped() -> bool:
    """Whether the fork server is stopped by a signal. A debugger that stops it does not count."""
    pid = nursery_pid()
    return bool(pid) and stat_fields(pid)[:1] == ["T"]


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    """Bound the time that this process waits for the fork server.

    Kills the fork server if it has been stopped for STOPPED_LOOKS checks of GUARD_S, or after START_S.
    """
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
    """Start a process. If the fork server has just died, retry until multiprocessing notices and restarts it.

    Raises PipelineFailed after START_TRIES attempts.
    """
    for _ in range(START_TRIES):
        # a stage inherits the working directory, which it may not be able to access
        with contextlib.suppress(ConnectionError, EOFError), held(), contextlib.chdir("/"), _in_time():
            process.start()
            return
        time.sleep(0.01)
    raise PipelineFailed(process.name, EX_SOFTWARE)


class PipelineFailed(Exception):
    """A stage failed for good. `status` is its exit status, EX_SOFTWARE if a signal ended it."""

    def __init__(self, name: str, status: int) -> None:
        how = f"status {status}" if status >= 0 else f"signal {-status}"
        super().__init__(f"{name} ended with {how}")
        self.name, self.status = name, status if status > 0 else EX_SOFTWARE


@dataclass
class Stage:
    """One stage and how to start it."""

    name: str
    target: Callable[..., None]
    args: tuple[Any, ...]
    descriptors: int = 0
    """Number of descriptors in its arguments, if there are many."""
    running: Any = None
    kept: tuple[int, ...] = ()
    """Capabilities that it keeps. A stage with capabilities is spawned, because the nursery has none."""
    prepare: Callable[..., None] | None = None
    """Setup before privileges are dropped."""
    nice: int = 0
    spare: bool = False
    """The run continues without it if it cannot be kept alive."""
    once: bool = False
    """It cannot be restarted after a death (a file that was half written)."""
    aside: bool = False
    """No event passes through it, and the end of the run does not wait for it."""
    restarts: int = 0
    futile: int = 0
    """Restarts without progress. A worker makes progress when it commits a turn."""
    turns: int = 0
    """Number of turns that it had committed at its last death."""
    lost: bool = False
    """It could not be killed, and is replaced by a new process."""
    finished: bool = False
    status: int = 0

    def kill(self) -> bool:
        """Kill the process. Returns False if it does not end within KILL_S, because it is blocked in the kernel.

        Such a process is left behind. It never returns to user space.
        """
        if self.running is None or not self.running.is_alive():
            return True
        self.running.kill()
        self.running.join(KILL_S)
        if not self.running.is_alive():
            return True
        # otherwise multiprocessing would wait for it when this process exits
        multiprocessing.process._children.discard(self.running)  # type: ignore[attr-defined]
        logger("supervisor").error("supervisor.process_left_behind", name=self.name, pid=self.running.pid)
        return False

    def launch(self, plan: Plan, descriptors: int) -> None:
        """Start the process. `descriptors` is the number of descriptors in the plan and the outputs."""
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
    """The stage that feeds the rings. `kept` are the capabilities that it keeps."""
    return Stage("reader", target, args, descriptors, kept=kept)


def recorder_stage(path: str, facts: recording.RecordingFacts) -> Stage:
    """The stage that writes a recording. Opens the file with the supervisor's privileges; SinkError if that fails."""
    return Stage(
        "recorder",
        recording.record,
        (InheritedFd(open_target(path, f"record {path}", truncate=True)), facts, path),
        once=True,
    )


def sink_status(control: Control) -> int:
    """Exit status for closed sinks: 0 if there are none, SIGPIPE's if all are closed pipes, else EX_IOERR."""
    if not control.closed_sinks:
        return 0
    return SIGPIPE_STATUS if control.closed_sinks == control.closed_pipes else EX_IOERR
