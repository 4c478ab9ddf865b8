"""The process tree: each process, what it runs and who created it, built from lifecycle records.

Every worker keeps the whole tree, because a child usually belongs to another worker than its parent. The BPF programs
send fork, exec and exit of every traced process to all workers, requested or not. If they have not reported the
image of a process yet, they send it before the first event of that process (bpf/c/told.h).

The key of a process is its thread group and start time, so a reused PID is a different process. A context holds
the device and inode of the executable at its time. This identifies the image that was running then, even after an
exec.

The tree is bounded by processes and by bytes. Ended processes are evicted first, in the order of their end, then the
oldest.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet

import numpy as np

from headrace.bpf.tables.catalogue import Catalogue
from headrace.workers.decode.texts import Texts
from headrace.workers.records.blobs import Blobs, argument, blobs
from headrace.workers.records.rows import Contexts, Rows

Array = np.ndarray[Any, Any]
Key = tuple[int, int]
"""(thread group, start time in nanoseconds of CLOCK_BOOTTIME)"""
MAX_PROCESSES = 32768
MAX_ENDED = 8192
MAX_BYTES = 64 << 20
AT_ONCE = 64
"""Maximum live processes evicted in one step."""
MAX_ANCESTORS = 64
EARLIER_IMAGES = 4
"""Earlier images kept per process, for events from before its last exec."""
FORK, EXEC, EXIT = "sched_process_fork", "sched_process_exec", "sched_process_exit"


class Image(NamedTuple):
    """What a process runs. Texts are None if they could not be read or were truncated."""

    dev: int
    inode: int
    ctime_ns: int
    path: bytes | None
    asked: bytes | None = None
    """The path as requested (for a script, its interpreter); None if the exec was not seen."""
    argv: bytes = b""
    """Arguments, each followed by a NUL."""
    cwd: bytes | None = None
    """Working directory at the exec."""
    bytes: int = 400
    """Approximate memory size."""


@dataclass(slots=True)
class Process:
    """One process. `creator` forked it and may differ from a later adoptive parent; `creator_image` ran at the fork."""

    key: Key
    image: Image | None = None
    earlier: tuple[Image, ...] = ()
    creator: Key | None = None
    creator_image: Image | None = None
    ended_ns: int = 0
    """CLOCK_BOOTTIME; 0 while it lives."""

    @property
    def bytes(self) -> int:
        """Approximate memory size of its images."""
        now = self.image.bytes if self.image else 0
        return now + sum(image.bytes for image in self.earlier) if self.earlier else now

    def image_of(self, dev: int, inode: int) -> Image | None:
        """The image with that executable, None if unknown; the latest image if `inode` is 0 (a task that is ending)."""
        if not inode:
            return self.image
        for image in (self.image, *self.earlier):
            if image is not None and (image.dev, image.inode) == (dev, inode):
                return image
        return None


class ProcessTree:
    """Process tree of one worker."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._events = {catalogue.by_name[name].id: name for name in (FORK, EXEC, EXIT)}
        self._ids = list(self._events)
        self._is_lifecycle = np.zeros(1 << 16, bool)
        self._is_lifecycle[self._ids] = True
        self._fork = catalogue.by_name[FORK]
        self._exec = catalogue.by_name[EXEC]
        self._texts = {name: self._reader(name) for name in ("pathname", "interp", "argv", "pwd")}
        self._counts = np.zeros(1 << 16, np.uint8)
        for event in self._events:
            self._counts[event] = catalogue.by_id[event].cells
        self._processes: dict[Key, Process] = {}
        self._ended: deque[Key] = deque()
        self._bytes = 0
        self._evicted = 0
        self.version = 0
        """Incremented by every change."""
        self.followers: WeakSet[Follower] = WeakSet()
        """Notified of each ended process that is evicted."""

    def _reader(self, name: str) -> Texts:
        index = self._exec.index(name)
        assert index is not None
        return Texts(self._exec, index)

    def __len__(self) -> int:
        return len(self._processes)

    def take_evicted(self) -> int:
        """Returns the number of live processes evicted since the last call."""
        count, self._evicted = self._evicted, 0
        return count

    def get(self, key: Key) -> Process | None:
        """The process with that key, if it is known."""
        return self._processes.get(key)

    def running(self, context: Any) -> tuple[Process | None, Image | None]:
        """The process of a context (a CONTEXT scalar) and the image that it ran then; None for either if unknown."""
        process = self._processes.get((int(context["tgid"]), int(context["process_start_ns"])))
        image = process.image_of(int(context["exe_dev"]), int(context["exe_inode"])) if process else None
        return process, image

    def executable(self, context: Any) -> bytes:
        """Path of the executable of a context (a CONTEXT scalar); b"" if unknown."""
        _, image = self.running(context)
        return (image.path if image else None) or b""

    def lifecycle(self, rows: Rows) -> Array:
        """Positions of lifecycle rows. Costs one lookup per row of a turn."""
        return np.flatnonzero(self._is_lifecycle[rows.event])

    def apply(self, rows: Rows, contexts: Contexts) -> None:
        """Apply lifecycle records of any shard in order of their time."""
        self.version += 1
        rows = rows.select(np.argsort(rows.time_ns, kind="stable"))
        found = blobs(rows, self._counts)
        table = contexts.table[rows.who]
        keys = list(zip(table["tgid"].tolist(), table["process_start_ns"].tolist(), strict=True))
        images = iter(self._images(rows, found))
        children = iter(self._children(rows))
        last = iter(argument(rows, 1, np.flatnonzero(rows.event == self._ids[2])).tolist())
        for key, event, time_ns in zip(keys, rows.event.tolist(), rows.time_ns.tolist(), strict=True):
            name = self._events[event]
            if name == FORK:
                self._forked(key, next(children))
            elif name == EXEC:
                self._executed(key, next(images))
            elif next(last):
                self._ended_at(key, time_ns)
        self._bound()

    def _children(self, rows: Rows) -> list[Key]:
        chosen = np.flatnonzero(rows.event == self._ids[0])
        indices = [self._fork.index(name) for name in ("child_pid", "child_process_start_time")]
        pids, starts = (argument(rows, index or 0, chosen).tolist() for index in indices)
        return list(zip(pids, starts, strict=True))

    def _images(self, rows: Rows, found: Blobs) -> list[Image]:
        chosen = np.flatnonzero(rows.event == self._ids[1])
        numbers = [argument(rows, self._exec.index(n) or 0, chosen).tolist() for n in ("dev", "inode", "ctime")]
        path, asked, argv, cwd = (
            self._texts[name].known(rows, chosen, found) for name in ("pathname", "interp", "argv", "pwd")
        )
        lines = [a or b"" for a in argv]
        texts = zip(path, asked, lines, cwd, strict=True)
        sizes = [400 + len(p or b"") + len(a or b"") + len(line) + len(c or b"") for p, a, line, c in texts]
        return list(map(Image, *numbers, path, asked, lines, cwd, sizes))

    def _put(self, process: Process) -> None:
        self._processes[process.key] = process
        self._bytes += process.bytes

    def _forked(self, creator: Key, child: Key) -> None:
        if child[0] == creator[0]:
            return  # a thread
        parent = self._processes.get(creator)
        image = parent.image if parent else None
        known = self._processes.get(child)
        if known is None:
            self._put(Process(child, image, creator=creator, creator_image=image))
        else:
            # its exec came through another CPU's buffer, a turn earlier
            known.creator, known.creator_image = creator, image
            self._bytes -= known.bytes
            known.earlier = known.earlier or ((image,) if image else ())
            self._bytes += known.bytes

    def _executed(self, key: Key, image: Image) -> None:
        process = self._processes.get(key)
        if process is None:
            self._put(Process(key, image))
            return
        dropped: tuple[Image, ...] = ()
        if process.image is not None:
            images = (process.image, *process.earlier)
            if (process.image.dev, process.image.inode, process.image.path) == image[:2] + (image.path,):
                dropped, process.earlier = images, ()  # reported again or run again: equal for every context
            else:
                process.earlier, dropped = images[:EARLIER_IMAGES], images[EARLIER_IMAGES:]
        process.image = image
        self._bytes += image.bytes - sum(each.bytes for each in dropped)

    def _ended_at(self, key: Key, time_ns: int) -> None:
        process = self._processes.get(key)
        if process is not None and not process.ended_ns:
            process.ended_ns = time_ns
            self._ended.append(key)

    def _bound(self) -> None:
        while len(self._ended) > MAX_ENDED or (self._ended and self._over()):
            self._forget(self._ended.popleft())
        while self._processes and self._over():
            # evict in groups: a dict whose first keys were removed is slow to find its first remaining key
            for key in list(itertools.islice(self._processes, AT_ONCE)):
                if not self._over():
                    break
                self._forget(key)
                self._evicted += 1

    def _over(self) -> bool:
        return len(self._processes) > MAX_PROCESSES or self._bytes > MAX_BYTES

    def _forget(self, key: Key) -> None:
        process = self._processes.pop(key, None)
        if process is None:
            return
        self._bytes -= process.bytes
        if process.ended_ns:
            for follower in self.followers:
                follower.gone(key)


class Follower(Protocol):
    """Caches data of processes."""

    def gone(self, key: Key) -> None: ...


class KnownProcesses(Protocol):
    """Lookup of processes by key."""

    def get(self, key: Key) -> Process | None: ...


def ancestors(tree: KnownProcesses, process: Process) -> list[Process]:
    """The creator of the process, the creator's creator, and so on: at most MAX_ANCESTORS, as far as they are known."""
    found: list[Process] = []
    seen = {process.key}
    while process.creator is not None and process.creator not in seen and len(found) < MAX_ANCESTORS:
        seen.add(process.creator)
        above = tree.get(process.creator)
        if above is None:
            break
        found.append(above)
        process = above
    return found


def ancestor_images(tree: KnownProcesses, process: Process) -> list[Image]:
    """The image that each ancestor ran when it created the next process, without unknown ones."""
    images = [process.creator_image, *(above.creator_image for above in ancestors(tree, process))]
    return [image for image in images if image is not None]
