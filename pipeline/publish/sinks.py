"""Sinks: the destinations of the publisher's batches. Each sink has a line in the ledger:
offered = written + filtered + dropped.

A sink never blocks the publisher's loop. A file or pipe has its own writer thread (writes release the GIL); a ZeroMQ
socket is written without blocking. The policy decides what happens when a sink cannot keep up. `block` keeps the batch:
the result ring fills, and the workers wait. `drop` drops the batch and counts it. A file sink with policy `drop` copies
the batches that it queues: they do not occupy the ring, and no other sink waits for them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from headrace.config.outputs import STANDARD, Output
from headrace.pipeline.process.books import LINE
from headrace.pipeline.process.plan import ALL
from headrace.pipeline.process.progress import Progress
from headrace.pipeline.publish.targets import PIPE_BYTES, open_file, own_standard, pipe_bytes
from headrace.pipeline.transport.gather import Gather, wait_room

BACKLOG_BATCHES, BACKLOG_BYTES = 64, 16 << 20
STUCK_MS, BREATH_S = 20, 0.001
WAKE_S = 0.5


class SinkError(Exception):
    """A sink cannot be opened."""


@dataclass
class Offer:
    """One batch for a sink. The sink calls `done` once, from any thread, when it no longer needs the views."""

    gather: Gather
    rows: int
    topic: int
    covered: int
    done: Callable[[], None]
    repeated: bool = False
    name: bytes = b""
    """Topic of findings."""


@dataclass
class Counts:
    """A sink's line of the ledger."""

    offered: int = 0
    written: int = 0
    filtered: int = 0
    dropped: int = 0
    repeated: int = 0
    bytes: int = 0
    refused: int = 0
    """Peers that were refused or disconnected."""

    def take_up(self) -> None:
        """Reset `offered`: batches that a predecessor accepted but did not finish are offered again."""
        self.offered = self.written + self.filtered + self.dropped

    def store(self, line: Any) -> None:
        """Store the counters into a line of the journal."""
        for name in LINE:
            line[name] = getattr(self, name)

    def load(self, line: Any) -> None:
        """Load the counters from a line of the journal."""
        for name in LINE:
            setattr(self, name, int(line[name]))


class Sink(Protocol):
    """Interface of a sink."""

    output: Output
    counts: Counts
    broken: str
    progress: Progress

    @property
    def has_enough(self) -> bool:
        """Whether it has written as many lines as were asked for (Output.count). It counts others as filtered."""

    def try_offer(self, offer: Offer) -> bool:
        """Accept a batch. Returns False if it must be offered again later (policy `block`)."""

    def take_up(self) -> None:
        """Continue after the death of a predecessor, whose counters are already loaded."""

    def close(self) -> None:
        """Write all accepted batches, then close."""


@dataclass
class NoneSink:
    """Counts rows without writing them."""

    output: Output
    counts: Counts = field(default_factory=Counts)
    broken: str = ""
    progress: Progress = field(default_factory=Progress)

    @property
    def has_enough(self) -> bool:
        return 0 < self.output.count <= self.counts.written

    def try_offer(self, offer: Offer) -> bool:
        if offer.topic == ALL:
            taken = offer.rows
            if self.output.count:
                taken = min(taken, self.output.count - self.counts.written)
            self.counts.offered += offer.rows
            self.counts.written += taken
            self.counts.filtered += offer.rows - taken
            self.progress.end(self.counts.written, self.counts.filtered)
        offer.done()
        return True

    def take_up(self) -> None:
        self.counts.take_up()
        self.progress.end(self.counts.written)

    def close(self) -> None:
        return


def open_target(target: str, what: str, truncate: bool = False) -> int:
    """Open a file for appending, or one of STANDARD. Raises SinkError, with `what` in the message."""
    if target in STANDARD:
        return own_standard(STANDARD[target])
    try:
        return open_file(target, truncate)
    except OSError as error:
        raise SinkError(f"{what}: {error.strerror}") from error


class FileSink:
    """A file, a pipe or a terminal, written by a thread."""

    def __init__(self, output: Output, fd: int) -> None:
        self.output, self.counts, self.broken = output, Counts(), ""
        self._fd, self._drops, self.progress = fd, output.policy == "drop", Progress()
        self._breath_s = BREATH_S if pipe_bytes(fd) >= PIPE_BYTES else 0
        self._bytes = 0
        """Total bytes of copies ever queued. Minus `_out`, the bytes that are waiting."""
        self._out = 0
        self._queue: queue.Queue[Offer | int | None] = queue.Queue()
        """An int is a descriptor: the batches after it are written to that file."""
        self._accepted = 0
        """Lines that were accepted, if they are limited."""
        self._thread = threading.Thread(target=self._write_all, name=f"sink {output.name}")
        self._thread.start()

    @property
    def has_enough(self) -> bool:
        return 0 < self.output.count <= self.counts.written

    def _limited(self, offer: Offer) -> Offer:
        """The lines of a batch that are still wanted. The others are counted as filtered."""
        wanted = min(offer.rows, self.output.count - self._accepted)
        self._accepted += wanted
        if wanted == offer.rows:
            return offer
        self.counts.offered += offer.rows - wanted
        self.counts.filtered += offer.rows - wanted
        data = bytes(offer.gather.joined())
        lines = data.split(b"\n", wanted)[:wanted]
        kept = Gather.of(np.frombuffer(b"".join(line + b"\n" for line in lines), "u1"))
        return replace(offer, gather=kept, rows=wanted)

    def try_offer(self, offer: Offer) -> bool:
        waiting = self._queue.qsize() >= BACKLOG_BATCHES
        if waiting and not self._drops and not self.broken:
            return False
        if self.output.count:
            offer = self._limited(offer)
        self.counts.offered += offer.rows
        size = offer.gather.size if self._drops else 0
        # a single batch may exceed BACKLOG_BYTES
        waiting = waiting or (self._bytes > self._out and self._bytes - self._out + size > BACKLOG_BYTES)
        if self.broken or waiting:
            self.counts.dropped += offer.rows
            offer.done()
        elif self._drops:
            self._bytes += size
            copy = Gather.of(np.frombuffer(bytes(offer.gather.joined()), "u1"))
            offer.done()
            self._queue.put(Offer(copy, offer.rows, offer.topic, offer.covered, nothing))
        else:
            self._queue.put(offer)
        return True

    def _write_all(self) -> None:
        while (offer := self._queue.get()) is not None:
            if isinstance(offer, int):
                os.close(self._fd)
                self._fd = offer
                continue
            sent = 0
            try:
                if not self.broken:
                    for portion in self._write(offer):
                        sent += portion
                        self.counts.bytes += portion
                    self.counts.written += offer.rows
                    self._tell()
                else:
                    self.counts.dropped += offer.rows
            except OSError as error:
                self._end_whole(offer, sent)
                self._tell()
                self.broken = errno.errorcode.get(error.errno or 0, str(error))
            if self._drops:
                self._out += offer.gather.size
            offer.done()

    def _write(self, offer: Offer) -> Iterator[int]:
        """Write a batch; yields the bytes of each portion.

        When a pipe has no room for STUCK_MS, the lines written so far are added to the progress: the run may end before
        the pipe has room again.
        """
        before, sent = self.counts.written, 0
        self.progress.begin(before + offer.rows, self._fd, offer.gather.size)

        def wait(fd: int) -> None:
            if wait_room(fd, STUCK_MS):
                time.sleep(self._breath_s)  # perhaps one page is free: let the reader of a large pipe free more
                return
            if self.output.render != "arrow":
                self.progress.add(before + offer.gather.joined()[:sent].tobytes().count(b"\n"))
            with self.progress.paused():
                wait_room(fd)

        for portion in offer.gather.write(self._fd, wait):
            sent += portion
            yield portion

    def _tell(self) -> None:
        self.progress.end(self.counts.written, self.counts.filtered, self.counts.bytes)

    def _end_whole(self, offer: Offer, sent: int) -> None:
        """After a failed write: count the whole lines that were written, and truncate a partial line after them."""
        there = bytes(offer.gather.joined()[:sent])
        whole = 0 if self.output.render == "arrow" else there.rfind(b"\n") + 1
        rows = min(there.count(b"\n", 0, whole), offer.rows)
        self.counts.written += rows
        self.counts.dropped += offer.rows - rows
        with contextlib.suppress(OSError):
            found = os.fstat(self._fd)
            if stat.S_ISREG(found.st_mode) and found.st_size >= sent - whole:
                os.ftruncate(self._fd, found.st_size - (sent - whole))
                self.counts.bytes -= sent - whole

    def reopen(self, fd: int) -> None:
        """Write all batches offered from now on to descriptor `fd`."""
        self._queue.put(fd)

    def take_up(self) -> None:
        """Continue after a predecessor's death. Batches that it had copied are lost and count as dropped; all others
        are offered again.
        """
        counts = self.counts
        if self._drops:
            counts.dropped = counts.offered - counts.written - counts.filtered
        else:
            counts.take_up()
        self._accepted = counts.written
        self.progress.restart(self._fd)
        self._tell()

    def close(self) -> None:
        self._queue.put(None)
        while self._thread.is_alive():
            # wake up regularly: the watchdog treats a process that never wakes as stuck (pipeline/run/watchdog.py)
            self._thread.join(WAKE_S)
        with contextlib.suppress(OSError):
            os.close(self._fd)


def nothing() -> None:
    """Do nothing. The `done` of copied batches."""
