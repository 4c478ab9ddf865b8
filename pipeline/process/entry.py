"""Entry point of every pipeline process: setup, run, exit."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from headrace.pipeline.process import heap, logs, privilege, signals
from headrace.pipeline.process.confine import confine, library
from headrace.pipeline.process.plan import Plan
from headrace.pipeline.transport.shm import attach

PR_SET_NAME = 15


def call_it(name: str) -> None:
    """Set the process name that ps and top show, such as `hr-worker-0`. The kernel keeps 15 bytes."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, f"hr-{name}".encode(), 0, 0, 0)


def _failed(error: BaseException | None) -> None:
    traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(70)


def _segments(name: str, plan: Plan) -> tuple[str, ...]:
    """Names of the segments that a stage uses."""
    kind, _, number = name.partition("-")
    tables = plan.hashes, plan.enrichment, plan.captured
    of_kind: dict[str, tuple[str, ...]] = {
        "reader": plan.rings,
        "publisher": plan.results,
        "recorder": plan.rings[-1:],
        "worker": (*plan.rings[int(number or 0) :][:1], *plan.results[int(number or 0) :][:1], *tables),
    }
    return plan.control, *filter(None, of_kind.get(kind, tables))


def main(
    name: str,
    plan: Plan,
    run: Callable[..., None],
    *args: Any,
    kept: tuple[int, ...] = (),
    nice: int = 0,
    prepare: Callable[..., None] | None = None,
) -> None:
    """Run one stage process and exit. Drops all privileges except the capabilities `kept`.

    `prepare` is called with the arguments of `run` before privileges are dropped. The process ignores signals: the
    supervisor ends stages in flow order. An exception prints its traceback and exits with status 70; the supervisor
    then restarts the stage.
    """
    signals.ignore_all()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    privilege.die_with_parent()
    call_it(name)
    heap.keep()
    logs.configure(plan.log_level)
    if nice:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, nice)
    attach(_segments(name, plan))
    library()
    if prepare:
        prepare(plan, *args)
    privilege.drop(*kept)
    privilege.die_with_parent()
    confine(name.partition("-")[0])
    # if one thread dies, end the process: it would otherwise hang
    threading.excepthook = lambda args: _failed(args.exc_value)
    try:
        run(plan, *args)
    except Exception as error:
        _failed(error)
    # views into shared memory may still exist: skip the interpreter's teardown of mappings
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
