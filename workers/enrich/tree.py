"""The process tree: who a process is, what it runs and who created it, as lifecycle records tell it.

Every worker keeps the whole of it, since a child usually belongs to another worker than its parent. The
kernel side sends fork, exec and the end of every traced process to all workers, asked for or not, and the
image of a process that it had not told of yet before that process's first event (bpf/c/told.h).

A process is known by its thread group and start time, so that a PID that is used again is another one. A
context has the executable's device and inode at its moment: with it the image is found that was running
then, also after an exec.

Bounded by processes and by bytes: processes that ended go first, in the order of their end, then the oldest.
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
"""Processes that are forgotten together, if there are too many."""
MAX_ANCESTORS = 64
EARLIER_IMAGES = 4
"""Of a process, for events of before its last exec."""
FORK, EXEC, EXIT = "sched_process_fork", "sched_process_exec", "sched_process_exit"


class Image(NamedTuple):
    """What a process runs. Texts are None where they could not be read or were cut."""

    dev: int
    inode: int
    ctime_ns: int
    path: bytes | None
    asked: bytes | None = None
    """As it was asked for (of a script, its interpreter), None if the exec was not seen."""
    argv: bytes = b""
    """Each with a NUL behind it."""
    cwd: bytes | None = None
    """When it was run."""
    bytes: int = 400
    """What keeping it costs, about."""


@dataclass(slots=True)
class Process:
    """One process. `creator` forked it, which is not who adopted it later; `creator_image` is what ran then."""

    key: Key
    image: Image | None = None
    earlier: tuple[Image, ...] = ()
    creator: Key | None = None
    creator_image: Image | None = None
    ended_ns: int = 0
    """CLOCK_BOOTTIME; 0 while it lives."""

    @property
    def bytes(self) -> int:
        """What keeping its images costs, about."""
        now = self.image.bytes if self.image else 0
        return now + sum(image.bytes for image in self.earlier) if self.earlier else now

    def image_of(self, dev: int, inode: int) -> Image | None:
        """The image with that executable; the last one if there is no executable (a task that is ending)."""
        if not inode:
            return self.image
        for image in (self.image, *self.earlier):
            if image is not None and (image.dev, image.inode) == (dev, inode):
                return image
        return None


class ProcessTree:
    """State of one worker."""

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
        """Moves on with every change."""
        self.followers: WeakSet[Follower] = WeakSet()
        """Who is told of processes that have ended and are forgotten."""

    def _reader(self, name: str) -> Texts:
        index = self._exec.index(name)
        assert index is not None
        return Texts(self._exec, index)

    def __len__(self) -> int:
        return len(self._processes)

    def take_evicted(self) -> int:
        """Processes that were forgotten while they lived, since it was last asked for."""
        count, self._evicted = self._evicted, 0
        return count

    def get(self, key: Key) -> Process | None:
        """A process, if it is known."""
        return self._processes.get(key)

    def running(self, context: Any) -> tuple[Process | None, Image | None]:
        """The process of a context (a CONTEXT scalar), and what it ran then; None for what is not known."""
        process = self._processes.get((int(context["tgid"]), int(context["process_start_ns"])))
        image = process.image_of(int(context["exe_dev"]), int(context["exe_inode"])) if process else None
        return process, image

    def executable(self, context: Any) -> bytes:
        """Path of what a context (a CONTEXT scalar) was running; b"" if that is not known."""
        _, image = self.running(context)
        return (image.path if image else None) or b""

    def lifecycle(self, rows: Rows) -> Array:
        """Which rows are for the tree, as positions. Every row of a turn is asked: one look-up each."""
        return np.flatnonzero(self._is_lifecycle[rows.event])

    def apply(self, rows: Rows, contexts: Contexts) -> None:
        """Take lifecycle records, of any shard, in the order of their time."""
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
            # its exec came by another CPU's buffer, a turn before
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
                dropped, process.earlier = images, ()  # told again, or run again: the same to every context
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
            # some at once: a dict whose first keys have gone is slow to find the first that is left
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
    """Remembers something of processes."""

    def gone(self, key: Key) -> None: ...


class Known(Protocol):
    """Processes by their keys."""

    def get(self, key: Key) -> Process | None: ...


def ancestors(tree: Known, process: Process) -> list[Process]:
    """Who created the process, who created that, and so on, as far as the tree knows them."""
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


def ancestor_images(tree: Known, process: Process) -> list[Image]:
    """What each ancestor ran when it created the next."""
    images = [process.creator_image, *(above.creator_image for above in ancestors(tree, process))]
    return [image for image in images if image is not None]
