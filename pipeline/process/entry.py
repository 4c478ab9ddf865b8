"""What every process of the pipeline does first and last."""

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
    """What ps and top show: `hr-worker-0`. 15 bytes are shown."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, f"hr-{name}".encode(), 0, 0, 0)


def _failed(error: BaseException | None) -> None:
    traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(70)


def _segments(name: str, plan: Plan) -> tuple[str, ...]:
    """Those that a stage works with."""
    kind, _, number = name.partition("-")
    tables = plan.hashes, plan.enrichment
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
    """Run one process: no signals of its own, no privilege but the capabilities `kept`, and its death is the
    supervisor's business. `prepare` is called with what `run` is, before privilege is given up.

    Signals are the supervisor's: it ends the stages in flow order. A bug ends the process
    with its traceback; the supervisor starts it again.
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
    # a process with a thread less would stand still
    threading.excepthook = lambda args: _failed(args.exc_value)
    try:
        run(plan, *args)
    except Exception as error:
        _failed(error)
    # Views into shared memory may still be alive: skip the interpreter's teardown of mappings.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
