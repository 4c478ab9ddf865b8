"""Keeps artifacts (`--capture`): a process apart, which reads what workers tell it of and stores it (store.py).

    worker --request--> pipe --> collector --> store
                                     |
                                     `-- held: files that were opened for writing

Everything is read from the host, after the event: workers never wait, and a process that is faster can hide what it
had. Each request has one outcome, which is counted (requests.py).

- An executable or a module is opened through /proc/PID/exe or by its path, and believed only if device, inode and
  ctime are those of the event.
- A written file is opened when it is opened for writing, and held: deleting it does not hide it any more. It is stored
  when it has not changed for SETTLE_S, or after DIRTY_S of changes.
- A region is read from the memory of the process; a BPF program is fetched from its descriptor.
- Files that user space or another host serves are not touched: reading them may never return. Work is done by a thread
  that is abandoned after DEADLINE_S (pipeline/process/patient.py).
"""

from __future__ import annotations

import os
import select
import stat
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from headrace.config.capture import BPF, EXEC, MEM, MODULE, WRITE, Capture
from headrace.pipeline.capture import sources
from headrace.pipeline.capture.requests import ArtifactCounters, ArtifactRequest, requests
from headrace.pipeline.capture.store import ArtifactStore, NoRoomError, named
from headrace.pipeline.containers import hashes
from headrace.pipeline.process import privilege
from headrace.pipeline.process.patient import Patient
from headrace.pipeline.process.plan import Plan, attach_control
from headrace.pipeline.transport.clock import CpuClock
from headrace.pipeline.transport.doorbell import InheritedFd
from headrace.pipeline.transport.shm import Segment

KEPT = (privilege.CAP_DAC_READ_SEARCH, privilege.CAP_SYS_PTRACE, privilege.CAP_BPF)
"""Capabilities to read any file and the memory of any process, and to fetch BPF programs."""
POLL_MS, BUSY_S = 50, 0.02
DEADLINE_S = 30.0
MAX_WAITING, MAX_HELD, MAX_VERSIONS, MAX_KEPT = 4096, 512, 16, 1 << 16
SETTLE_S, DIRTY_S, HOLD_S = 0.3, 2.0, 5.0
CLOCK_NS = 20_000_000
"""Granularity of the kernel's file times, with a margin."""
MAX_FILE_BYTES = 256 << 20
HEAD_BYTES = 16


@dataclass(eq=False)
class Held:
    """A file that was opened for writing. Times are time.monotonic()."""

    request: ArtifactRequest
    fd: int
    until: float
    stamp: tuple[int, int] = (0, 0)
    """Size and ctime of the last look."""
    changed: float = 0.0
    dirty_since: float | None = None
    versions: int = 0


class CaptureTask(NamedTuple):
    """Work for the thread: store an artifact, or with `hold` only open a file. `fd`: of a held file."""

    request: ArtifactRequest
    hold: bool = False
    fd: int = -1
    first: bool = True


class Captured(NamedTuple):
    """Outcome of a task (requests.py). `fd`: the file to hold."""

    outcome: str
    fd: int = -1
    bytes: int = 0
    line: dict[str, Any] | None = None


@dataclass
class Collector:
    """Handles requests, one at a time."""

    store: ArtifactStore
    counters: ArtifactCounters
    capture: Capture
    clock: Callable[[], float] = time.monotonic
    waiting: deque[CaptureTask] = field(default_factory=deque)
    kept: set[hashes.Key] = field(default_factory=set)
    """Files that are stored, by device, inode and ctime: a program that runs again is not read again."""
    held: dict[tuple[int, int], Held] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._patient = Patient(self._work, DEADLINE_S)

    @property
    def is_idle(self) -> bool:
        """Whether everything has its outcome, except held files."""
        return not self.waiting and not self._patient.is_busy

    def ask(self, request: ArtifactRequest) -> None:
        """Take a request."""
        self.counters.add("requested")
        key = request.device, request.inode
        if request.kind == WRITE and key in self.held:
            self.held[key].until = self.clock() + HOLD_S
            self.counters.add("known")
        elif request.kind in (EXEC, MODULE) and request.key in self.kept:
            self.counters.add("known")
        elif len(self.waiting) >= MAX_WAITING:
            self.counters.add("overrun")
        elif request.kind == WRITE and not self.capture.has_path(request.path):
            self.counters.add("unwanted")
        else:
            self.waiting.append(CaptureTask(request, hold=request.kind == WRITE))

    def attend(self, wait_s: float = 0.0, ending: bool = False) -> None:
        """Finish and begin work. `ending`: store held files now."""
        if ended := self._patient.ended(wait_s):
            self._finish(*ended)
        self._look_at_held(ending)
        while self.waiting and not self._patient.is_busy:
            task = self.waiting.popleft()
            if not self._patient.begin(task):
                self._finish(task, None)

    def _finish(self, task: CaptureTask, result: Captured | None) -> None:
        found = result or Captured("too_slow")
        request = task.request
        if found.fd >= 0:
            self._hold(request, found.fd)
            return
        if task.fd >= 0:
            os.close(task.fd)
        if not task.first:
            self.counters.add("versions")
        line = {"timestamp": request.time_ns, "kind": request.kind, "pid": request.pid, **named(request.path)}
        outcome = found.outcome
        if request.kind in (EXEC, MODULE) and request.inode and outcome in ("stored", "known"):
            if len(self.kept) >= MAX_KEPT:
                self.kept.clear()
            self.kept.add(request.key)
        if outcome == "stored" and not self.store.note(line | (found.line or {})):
            outcome = "no_room"
        elif outcome not in ("stored", "known", "unwanted", "untouched"):
            self.store.note(line | {"reason": outcome}, is_stored=False)
        self.counters.add(outcome)
        self.counters.add("bytes", found.bytes if outcome == "stored" else 0)

    def _hold(self, request: ArtifactRequest, fd: int) -> None:
        key, now = (request.device, request.inode), self.clock()
        if key in self.held:
            os.close(fd)
            self.counters.add("known")
            return
        if len(self.held) >= MAX_HELD:
            self._release(next(iter(self.held)))
        self.held[key] = Held(request, fd, now + HOLD_S)

    def _look_at_held(self, ending: bool) -> None:
        now = self.clock()
        for key, held in list(self.held.items()):
            found = os.fstat(held.fd)
            stamp = found.st_size, found.st_ctime_ns
            if found.st_size and stamp != held.stamp and found.st_ctime_ns >= held.request.time_ns - CLOCK_NS:
                held.stamp, held.changed = stamp, now
                held.dirty_since = now if held.dirty_since is None else held.dirty_since
                held.until = now + HOLD_S
            if ending or held.versions >= MAX_VERSIONS:
                self._release(key)
            elif held.dirty_since is not None and (now - held.changed > SETTLE_S or now - held.dirty_since > DIRTY_S):
                self._store_version(held, os.dup(held.fd))
            elif now > held.until:
                self._release(key)

    def _store_version(self, held: Held, fd: int) -> None:
        self.waiting.append(CaptureTask(held.request, fd=fd, first=not held.versions))
        held.versions += 1
        held.dirty_since = None

    def _release(self, key: tuple[int, int]) -> None:
        """Stop holding a file. Changes that are not stored yet are stored."""
        held = self.held.pop(key)
        if held.dirty_since is not None:
            self._store_version(held, held.fd)
            return
        os.close(held.fd)
        if not held.versions:
            self.counters.add("untouched")

    # the rest runs in the thread

    def _work(self, task: CaptureTask) -> Captured:
        try:
            if task.fd >= 0:
                return self._keep_file(task.request, task.fd, is_still=lambda: True)
            return self._on_host(task)
        except NoRoomError:
            return Captured("no_room")
        except ValueError:
            return Captured("changed")
        except (ProcessLookupError, FileNotFoundError):
            return Captured("gone")
        except OSError:
            return Captured("not_read")

    def _on_host(self, task: CaptureTask) -> Captured:
        request = task.request
        if request.kind == MEM:
            return self._keep(request, sources.memory(request.pid, request.start_ns, request.place, request.extent))
        if request.kind == BPF:
            data, about = sources.bpf_program(request.pid, request.start_ns, request.extent)
            return self._keep(request, sources.pieces(data), {"program": about})
        if request.kind == MODULE and request.inode:
            return self._by_path(task)
        if request.kind == MODULE and request.place:
            return self._keep(request, sources.memory(request.pid, request.start_ns, request.place, request.extent))
        if request.kind == MODULE and request.extent >= 0:
            return self._by_descriptor(request)
        return self._by_path(task)

    def _by_descriptor(self, request: ArtifactRequest) -> Captured:
        fd = sources.descriptor(request.pid, request.start_ns, request.extent)
        try:
            return self._keep_file(request, fd, is_still=lambda: True)
        finally:
            os.close(fd)

    def _by_path(self, task: CaptureTask) -> Captured:
        request = task.request
        if hashes.is_served(request.device, request.pid):
            return Captured("file_system")
        ways = hashes.candidates(request.pid, request.path, remote=False)
        if task.hold:
            ways = sources.with_descriptors(ways, request.pid)
        for fd in hashes.on_device(ways, request.pid, request.device):
            if task.hold and sources.is_inode(fd, request.inode):
                return Captured("", fd=sources.reopened(fd))
            if not task.hold and hashes.is_file(fd, request.key):
                return self._keep_file(request, fd, partial(hashes.is_file, fd, request.key))
        return Captured("gone")

    def _keep_file(self, request: ArtifactRequest, fd: int, is_still: Callable[[], bool]) -> Captured:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return Captured("gone")
        if found.st_size > MAX_FILE_BYTES:
            return Captured("too_large")
        own = sources.reopened(fd)
        try:
            if request.kind == WRITE and not self.capture.has_type(os.pread(own, HEAD_BYTES, 0)):
                return Captured("unwanted")
            about = {"device": request.device, "inode": found.st_ino, "mode": found.st_mode, "uid": found.st_uid}
            return self._keep(request, sources.contents(own, MAX_FILE_BYTES), about, is_still)
        finally:
            os.close(own)

    def _keep(
        self,
        request: ArtifactRequest,
        read: Callable[[int], bytes],
        about: dict[str, Any] | None = None,
        is_still: Callable[[], bool] = lambda: True,
    ) -> Captured:
        digest, size, is_new = self.store.keep(request.kind, read, is_still)
        line = {"sha256": digest, "bytes": size, **(about or {})}
        if request.kind == MEM:
            line |= {"address": request.place}
        return Captured("stored" if is_new else "known", bytes=size, line=line)


def prepare(plan: Plan, source: InheritedFd, directory: InheritedFd) -> None:
    """Setup before privileges are dropped."""
    hashes.prepare(plan, source)


def run(plan: Plan, source: InheritedFd, directory: InheritedFd) -> None:
    """Run the collector until all workers have ended and everything is stored."""
    assert plan.capture is not None
    control = attach_control(plan)
    counters = ArtifactCounters(Segment(name=plan.captured), plan.workers)
    store = ArtifactStore(directory.fd, plan.capture_quota)
    collector = Collector(store, counters, plan.capture)
    clock = CpuClock(int(counters.of_collector["cpu_ns"][0]))
    poll = select.poll()
    poll.register(source.fd, select.POLLIN)
    while True:
        ending = all(worker.peek("ended").all() for worker in control.workers)
        poll.poll(0 if not collector.is_idle or ending else POLL_MS)
        for request in requests(source.fd):
            collector.ask(request)
        collector.attend(BUSY_S, ending and collector.is_idle)
        counters.of_collector["cpu_ns"] = clock.now_ns()
        if ending and collector.is_idle and not collector.held:
            return
