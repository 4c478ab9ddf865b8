"""The enricher: the only process that talks to container runtimes, and the only one that waits for them.

    workers --ids--> pipe --> main loop --ids--> a thread for each runtime --answers--> main loop --> table
                                  ^------------- a thread for each runtime's events

The main loop never waits for a runtime; threads do. They are not joined when the run ends. All queues are bounded. When
a runtime does not answer, all questions in its queue fail at once. Failed and unknown containers are looked up again
with growing pauses. Known containers are looked up again in turn, one per second, because a runtime may not report
changes; all containers of a runtime are looked up again when its event stream is re-established. A container reported
as gone keeps its entry for GONE_S, for events still in the pipeline. A failed lookup never overwrites known data.
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
from headrace.pipeline.containers.enrichment import ACCOUNTS, CONTAINER, ENTRIES, ContainerTable, key_of, requests
from headrace.pipeline.containers.runtimes import Runtime, Unavailable
from headrace.pipeline.process import heap, privilege
from headrace.pipeline.process.logs import logger
from headrace.pipeline.process.plan import READY_WORKER, Plan, attach_control
from headrace.pipeline.transport.doorbell import InheritedFd
from headrace.pipeline.transport.shm import Segment

TICK_MS = 50
MAX_WAITING = 1024
"""Maximum length of the queue of ids per thread, and of the queue of answers to the main loop."""
FIRST_PAUSE_S, MAX_PAUSE_S = 0.25, 30.0
RECONNECT_S = 1.0
RECHECK_S, ATTEND_S = 1.0, 0.1
PAUSE_OF_ALL_S = 0.005
"""Interval between the entries of a predecessor that are looked up again."""
GONE_S = 60.0
OVERDUE_S = 10.0
"""Deadline for a whole answer. A runtime that sends it byte by byte never exceeds the timeout of a single read."""
SILENT = frozenset({"timeout", "no connection", "no socket"})
"""Reasons for which the next question would fail as well."""
STACK_BYTES = 256 << 10
MEMORY_BYTES = 1 << 30
"""Limit on address space beyond the size at startup. It bounds the memory that an endless answer can consume."""


@dataclass(slots=True)
class Lookup:
    """A container (or account) that was requested."""

    runtime: int
    since: float
    """When this enricher first knew of it (CLOCK_MONOTONIC)."""
    state: int = PENDING
    waiting: set[int] = field(default_factory=set)
    """Positions of the runtimes that have not answered yet."""
    reason: str = ""
    """Why one of them failed."""
    pause: float = FIRST_PAUSE_S
    due: float = 0.0
    """When to look it up again; 0: no lookup is scheduled."""
    gone: float = 0.0
    """When to remove it; 0: it is not gone."""


@dataclass(frozen=True, slots=True)
class Said:
    """A message of a thread about a container: an answer, a failure, or an event of the runtime."""

    position: int
    key: bytes
    """b"": the message concerns the runtime as a whole."""
    info: Info | None = None
    reason: str = ""
    happened: str = ""


class Mailbox:
    """Bounded queue of messages from threads. `bell` is readable when there are messages."""

    def __init__(self) -> None:
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._said: queue.Queue[Said] = queue.Queue(MAX_WAITING)

    def put(self, said: Said) -> None:
        """Add a message. Called by threads; blocks while the queue is full."""
        self._said.put(said)
        os.eventfd_write(self.bell, 1)

    def take(self) -> Iterator[Said]:
        """Yield the queued messages."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.bell)
        with contextlib.suppress(queue.Empty):
            for _ in range(MAX_WAITING):
                yield self._said.get_nowait()


class Asker(threading.Thread):
    """Thread that queries one runtime, one container at a time."""

    def __init__(self, position: int, runtime: Runtime, out: Mailbox) -> None:
        super().__init__(daemon=True, name=f"asker-{position}")
        self._position, self._runtime, self._out = position, runtime, out
        self.questions: queue.Queue[bytes] = queue.Queue(MAX_WAITING)
        self._since_s = 0.0
        """When the current query began; 0 if there is none."""

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
        """Whether the current query has taken longer than OVERDUE_S."""
        since_s = self._since_s
        return since_s > 0 and now_s - since_s >= OVERDUE_S

    def others(self) -> list[bytes]:
        """Remove and return all queued keys, so that they do not each wait for a timeout."""
        found: list[bytes] = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self.questions.get_nowait())
        return found


class Listener(threading.Thread):
    """Thread that receives the events of a runtime. Reconnects RECONNECT_S after the stream ends or fails."""

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
    """Name of the module with the client of an endpoint. It is imported only if it is used."""
    return DOCKER if endpoint.runtime in ("docker", "podman") else CRI


def client(endpoint: Endpoint, labels: tuple[str, ...]) -> Runtime:
    """A client of an endpoint. `labels` are globs of the labels to include."""
    if client_module(endpoint) == DOCKER:
        from headrace.pipeline.containers.docker import DockerClient

        return DockerClient(endpoint.path, labels)
    from headrace.pipeline.containers.cri import CriClient

    return CriClient(endpoint.path, labels)


class Enricher:
    """State of the main loop."""

    def __init__(self, table: ContainerTable, endpoints: tuple[Endpoint, ...], labels: tuple[str, ...]) -> None:
        self._table, self._endpoints = table, endpoints
        self.said = Mailbox()
        self._wanted: dict[bytes, Lookup] = {}
        self._rechecked = self._attended = time.monotonic()
        runtimes = [*(client(endpoint, labels) for endpoint in endpoints), Accounts()]
        self._askers = [Asker(i, runtime, self.said) for i, runtime in enumerate(runtimes)]
        self._listeners = [Listener(i, runtime, self.said) for i, runtime in enumerate(runtimes)]
        now = time.monotonic()
        for entry in table.entries[table.entries["state"] != FREE]:
            # entries of a predecessor: look those up again that are not known, a few at a time
            state = int(entry["state"])
            due = 0.0 if state == KNOWN else now + len(self._wanted) * PAUSE_OF_ALL_S
            self._wanted[entry["key"].tobytes()] = Lookup(int(entry["runtime"]), now, state, due=due)
        table.change()

    def start(self) -> None:
        """Start the threads."""
        for thread in (*self._askers, *self._listeners):
            thread.start()

    def want(self, key: bytes, runtime: int) -> None:
        """Handle a request for a container. Does nothing if it is already being handled and is in the table."""
        is_there = self._table.get(key) is not None
        if key in self._wanted and is_there:
            return
        if len(self._wanted) >= ENTRIES:
            self._table.count("evicted")
            self._forget(next(iter(self._wanted)))
        self._wanted[key] = Lookup(runtime, time.monotonic())
        if not is_there:
            self._table.put(key, PENDING, Info(), runtime)
        self._ask(key)

    def _ask(self, key: bytes) -> None:
        """Query all runtimes that may know it."""
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

    def _has(self, position: int, wanted: Lookup) -> bool:
        """Whether the runtime at `position` may know it. The last position is that of the host's accounts."""
        of_accounts = wanted.runtime == ACCOUNTS
        if position == len(self._endpoints):
            return of_accounts
        name = RUNTIMES[wanted.runtime] if wanted.runtime < len(RUNTIMES) else ""
        return not of_accounts and name in ("", self._endpoints[position].runtime)

    def _fail(self, wanted: Lookup, position: int, reason: str) -> None:
        self._table.count("timeouts" if reason == "timeout" else "failures")
        wanted.waiting.discard(position)
        wanted.reason = reason

    def hear(self) -> None:
        """Process the messages of threads."""
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

    def _answered(self, key: bytes, wanted: Lookup, said: Said) -> None:
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

    def _settle(self, key: bytes, wanted: Lookup) -> None:
        """All runtimes have answered or failed, and none knows the container: schedule the next lookup."""
        now = time.monotonic()
        if wanted.state == KNOWN and not wanted.reason:
            wanted.gone = wanted.gone or now + GONE_S  # the known data stays in the table until then
            return
        wanted.due, wanted.pause = now + wanted.pause, min(2 * wanted.pause, MAX_PAUSE_S)
        if wanted.state != KNOWN:
            wanted.state = FAILED if wanted.reason else UNKNOWN
            self._table.put(key, wanted.state, Info(reason=wanted.reason), wanted.runtime)

    def attend(self) -> None:
        """Timed work: lookups that are due, overdue answers, removal of gone containers, and one recheck per second."""
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
"""Capability to open runtime sockets, which only root or a group can access."""


def prepare(plan: Plan, source: InheritedFd) -> None:
    """Setup before privileges are dropped: import the clients (their folders may be unreadable later), set limits."""
    for endpoint in plan.endpoints:
        client(endpoint, plan.container_labels)
    threading.stack_size(STACK_BYTES)
    _bound_memory()


def run(plan: Plan, source: InheritedFd) -> None:
    """Run the enricher until all workers have ended."""
    control = attach_control(plan)
    enricher = Enricher(ContainerTable(Segment(name=plan.enrichment)), plan.endpoints, plan.container_labels)
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
    os._exit(0)  # do not join threads: they may be waiting for a runtime
