"""The enricher: the only process that talks to container runtimes, and the only one that waits for them.

    workers --ids--> pipe --> main loop --ids--> a thread for each runtime --answers--> main loop --> table
                                  ^------------- a thread for each runtime's events

The main loop never waits for a runtime: threads do, and when the run ends they are left where they are. All that they
are given and give back is bounded. A runtime that does not answer fails all that waits for it, at once; what has failed
is asked for again with growing pauses, and so is what nobody knows. What is known is asked for again in turn, one a
second, since a runtime may not say what it changes, and all of a runtime when that says again what happens; what it
calls gone stays a while, for events under way. What is known is never overwritten by what is not.
"""

from __future__ import annotations

import contextlib
import os
import queue
import resource
import select
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from headrace.bpf.layout import RUNTIMES
from headrace.config.runtimes import FAILED, FREE, KNOWN, PENDING, UNKNOWN, Endpoint, Info
from headrace.pipeline.containers.accounts import Accounts
from headrace.pipeline.containers.enrichment import ACCOUNTS, CONTAINER, ENTRIES, Table, key_of, requests
from headrace.pipeline.containers.runtimes import Runtime, Unavailable
from headrace.pipeline.process import heap, privilege
from headrace.pipeline.process.logs import logger
from headrace.pipeline.process.plan import READY_WORKER, Plan, attach_control
from headrace.pipeline.transport.doorbell import InheritedFd
from headrace.pipeline.transport.shm import Segment

TICK_MS = 50
MAX_WAITING = 1024
"""Ids that wait for a thread, and answers that wait for the main loop."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 30.0
RECONNECT_S = 1.0
RECHECK_S, ATTEND_S = 1.0, 0.1
PAUSE_OF_ALL_S = 0.005
"""Between those of a predecessor's that are asked for again."""
GONE_S = 60.0
OVERDUE_S = 10.0
"""An answer that takes longer is none: who sends it byte by byte never exceeds the time limit of one read."""
SILENT = frozenset({"timeout", "no connection", "no socket"})
"""Why a runtime gave no answer, if it will give none to the next question either."""
STACK_BYTES = 256 << 10
MEMORY_BYTES = 1 << 30
"""Of address space, beyond what there is at the start: a runtime that talks without end does not take the host's."""


@dataclass(slots=True)
class Wanted:
    """A container that someone has asked for."""

    runtime: int
    since: float
    """When it was first asked for, or when it last changed."""
    state: int = PENDING
    waiting: set[int] = field(default_factory=set)
    """Runtimes that have not answered yet, by their position."""
    reason: str = ""
    """Why one of them gave none."""
    pause: float = FIRST_PAUSE_S
    due: float = 0.0
    """When to ask again; 0: not by itself."""
    gone: float = 0.0
    """When it may be forgotten; 0: it is there."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a thread has to say of a container."""

    position: int
    key: bytes
    """Of none: of all that the runtime has."""
    info: Info | None = None
    reason: str = ""
    happened: str = ""


class Mailbox:
    """What threads have to say, bounded; `bell` can be read when there is something."""

    def __init__(self) -> None:
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._said: queue.Queue[Said] = queue.Queue(MAX_WAITING)

    def put(self, said: Said) -> None:
        """From a thread, which waits while there is no room."""
        self._said.put(said)
        os.eventfd_write(self.bell, 1)

    def take(self) -> Iterator[Said]:
        """All that is there."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.bell)
        with contextlib.suppress(queue.Empty):
            for _ in range(MAX_WAITING):
                yield self._said.get_nowait()


class Asker(threading.Thread):
    """Asks one runtime, one container after the other."""

    def __init__(self, position: int, runtime: Runtime, out: Mailbox) -> None:
        super().__init__(daemon=True, name=f"asker-{position}")
        self._position, self._runtime, self._out = position, runtime, out
        self.questions: queue.Queue[bytes] = queue.Queue(MAX_WAITING)
        self._since_s = 0.0
        """Since when it has waited for an answer; 0 while it does not."""

    def run(self) -> None:
        while True:
            key = self.questions.get()
            self._since_s = time.monotonic()
            try:
                self._out.put(Said(self._position, key, self._runtime.look(key.removeprefix(CONTAINER).hex())))
            except Unavailable as error:
                for one in (key, *(self.others() if error.reason in SILENT else ())):
                    self._out.put(Said(self._position, one, reason=error.reason))
            self._since_s = 0.0

    def is_stuck(self, now_s: float) -> bool:
        """Whether an answer takes longer than any may."""
        since_s = self._since_s
        return since_s > 0 and now_s - since_s >= OVERDUE_S

    def others(self) -> list[bytes]:
        """All that waits, so that it does not wait for one time limit after the other."""
        found: list[bytes] = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self.questions.get_nowait())
        return found


class Listener(threading.Thread):
    """Hears what becomes of a runtime's containers; each time that it begins to hear, all is asked for again."""

    def __init__(self, position: int, runtime: Runtime, out: Mailbox) -> None:
        super().__init__(daemon=True, name=f"listener-{position}")
        self._position, self._runtime, self._out = position, runtime, out

    def run(self) -> None:
        while True:
            with contextlib.suppress(Unavailable):
                for one in self._runtime.events():
                    self._out.put(Said(self._position, key_of(one.id), happened=one.what))
            time.sleep(RECONNECT_S)


DOCKER, CRI = "headrace.pipeline.containers.docker", "headrace.pipeline.containers.cri"


def client_module(endpoint: Endpoint) -> str:
    """The module of an endpoint's client, which is loaded only if it is used."""
    return DOCKER if endpoint.runtime in ("docker", "podman") else CRI


def client(endpoint: Endpoint, labels: tuple[str, ...]) -> Runtime:
    """A client of an endpoint. `labels`: globs of those that are wanted."""
    if client_module(endpoint) == DOCKER:
        from headrace.pipeline.containers.docker import DockerClient

        return DockerClient(endpoint.path, labels)
    from headrace.pipeline.containers.cri import CriClient

    return CriClient(endpoint.path, labels)


class Enricher:
    """State of the main loop."""

    def __init__(self, table: Table, endpoints: tuple[Endpoint, ...], labels: tuple[str, ...]) -> None:
        self._table, self._endpoints = table, endpoints
        self.said = Mailbox()
        self._wanted: dict[bytes, Wanted] = {}
        self._rechecked = self._attended = time.monotonic()
        runtimes = [*(client(endpoint, labels) for endpoint in endpoints), Accounts()]
        self._askers = [Asker(i, runtime, self.said) for i, runtime in enumerate(runtimes)]
        self._listeners = [Listener(i, runtime, self.said) for i, runtime in enumerate(runtimes)]
        now = time.monotonic()
        for entry in table.entries[table.entries["state"] != FREE]:
            # of a predecessor's: what is not known is asked for again, a few at a time
            state = int(entry["state"])
            due = 0.0 if state == KNOWN else now + len(self._wanted) * PAUSE_OF_ALL_S
            self._wanted[entry["key"].tobytes()] = Wanted(int(entry["runtime"]), now, state, due=due)
        table.change()

    def start(self) -> None:
        """Start the threads."""
        for thread in (*self._askers, *self._listeners):
            thread.start()

    def want(self, key: bytes, runtime: int) -> None:
        """Someone has asked for a container that is not in the table."""
        is_there = self._table.get(key) is not None
        if key in self._wanted and is_there:
            return
        if len(self._wanted) >= ENTRIES:
            self._table.count("evicted")
            self._forget(next(iter(self._wanted)))
        self._wanted[key] = Wanted(runtime, time.monotonic())
        if not is_there:
            self._table.put(key, PENDING, Info(), runtime)
        self._ask(key)

    def _ask(self, key: bytes) -> None:
        """Ask all runtimes that may know it."""
        wanted, now = self._wanted[key], time.monotonic()
        mine = [i for i in range(len(self._askers)) if self._has(i, wanted)]
        wanted.due, wanted.reason, wanted.waiting = 0.0, "", set(mine)
        for i in mine:
            if self._askers[i].is_stuck(now):
                self._fail(wanted, i, "timeout")
                continue
            try:
                self._askers[i].questions.put_nowait(key)
                self._table.count("asked")
            except queue.Full:
                self._fail(wanted, i, "busy")
        if not wanted.waiting:
            self._settle(key, wanted)

    def _has(self, position: int, wanted: Wanted) -> bool:
        """Whether a runtime, by its position, may know it. Behind those of containers stand the host's accounts."""
        of_accounts = wanted.runtime == ACCOUNTS
        if position == len(self._endpoints):
            return of_accounts
        name = RUNTIMES[wanted.runtime] if wanted.runtime < len(RUNTIMES) else ""
        return not of_accounts and name in ("", self._endpoints[position].runtime)

    def _fail(self, wanted: Wanted, position: int, reason: str) -> None:
        self._table.count("timeouts" if reason == "timeout" else "failures")
        wanted.waiting.discard(position)
        wanted.reason = reason

    def hear(self) -> None:
        """Take what threads have said."""
        for said in self.said.take():
            self._take(said)

    def _take(self, said: Said) -> None:
        key = said.key
        if said.happened == "listening":
            for one in self._wanted.values():
                if not one.waiting and self._has(said.position, one):
                    one.due = time.monotonic()
        elif not key:
            return
        elif said.happened == "changed":
            if key in self._wanted:
                self._ask(key)
            else:
                self.want(key, RUNTIMES.index(self._endpoints[said.position].runtime))
        elif wanted := self._wanted.get(key):
            if said.happened == "gone":
                wanted.gone = time.monotonic() + GONE_S
            else:
                self._answered(key, wanted, said)

    def _answered(self, key: bytes, wanted: Wanted, said: Said) -> None:
        waited = said.position in wanted.waiting
        if waited:
            self._table.count("answered")
        if said.info is not None:
            wanted.waiting.clear()
            wanted.state, wanted.pause, wanted.due, wanted.gone = KNOWN, FIRST_PAUSE_S, 0.0, 0.0
            self._table.put(key, KNOWN, said.info, wanted.runtime)
            return
        if waited and said.reason:
            self._fail(wanted, said.position, said.reason)
        wanted.waiting.discard(said.position)
        if waited and not wanted.waiting:
            self._settle(key, wanted)

    def _settle(self, key: bytes, wanted: Wanted) -> None:
        """All have answered, and none knows it."""
        now = time.monotonic()
        if wanted.state == KNOWN and not wanted.reason:
            wanted.gone = wanted.gone or now + GONE_S  # what was known of it stays until then
            return
        wanted.due, wanted.pause = now + wanted.pause, min(2 * wanted.pause, LONGEST_PAUSE_S)
        if wanted.state != KNOWN:
            wanted.state = FAILED if wanted.reason else UNKNOWN
            self._table.put(key, wanted.state, Info(reason=wanted.reason), wanted.runtime)

    def attend(self) -> None:
        """What time brings: questions that are due, one that is asked again, containers that are long gone."""
        now = time.monotonic()
        if now - self._attended < ATTEND_S:
            return
        self._attended = pending = now
        stuck = {i for i, asker in enumerate(self._askers) if asker.is_stuck(now)}
        for i in stuck:
            self._askers[i].others()
        for key, wanted in list(self._wanted.items()):
            if wanted.gone and now >= wanted.gone:
                self._forget(key)
            elif overdue := wanted.waiting & stuck:
                for i in overdue:
                    self._fail(wanted, i, "timeout")
                if not wanted.waiting:
                    self._settle(key, wanted)
            elif wanted.due and now >= wanted.due:
                if wanted.state != KNOWN:
                    self._table.count("retries")
                self._ask(key)
            elif wanted.state == PENDING:
                pending = min(pending, wanted.since)
        self._table.head["oldest_pending_ns"] = int(pending * 1e9) if pending < now else 0
        if self._wanted and now - self._rechecked >= RECHECK_S:
            self._rechecked = now
            oldest = next(iter(self._wanted))
            self._wanted[oldest] = wanted = self._wanted.pop(oldest)
            if wanted.state == KNOWN and not wanted.waiting and not wanted.gone:
                self._ask(oldest)

    def _forget(self, key: bytes) -> None:
        del self._wanted[key]
        self._table.remove(key)


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


KEPT = (privilege.CAP_DAC_OVERRIDE,)
"""Sockets of runtimes are for root alone, or for a group."""


def prepare(plan: Plan, source: InheritedFd) -> None:
    """Before it gives up privilege: import what it needs, from folders that it may not be allowed to read later."""
    for endpoint in plan.endpoints:
        client(endpoint, plan.container_labels)
    threading.stack_size(STACK_BYTES)
    _bound_memory()


def run(plan: Plan, source: InheritedFd) -> None:
    """The enricher, until all workers have ended."""
    control = attach_control(plan)
    enricher = Enricher(Table(Segment(name=plan.enrichment)), plan.endpoints, plan.container_labels)
    heap.share()
    enricher.start()
    logger("enricher").debug("enricher.started", runtimes=[str(endpoint) for endpoint in plan.endpoints])
    control.ready[READY_WORKER + plan.workers] = 1
    poll = select.poll()
    for fd in (source.fd, enricher.said.bell):
        poll.register(fd, select.POLLIN)
    while not all(worker.peek("ended").all() for worker in control.workers):
        poll.poll(TICK_MS)
        for key, runtime in requests(source.fd):
            enricher.want(key, runtime)
        enricher.hear()
        enricher.attend()
    os._exit(0)  # threads may be waiting for a runtime
