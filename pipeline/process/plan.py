"""The plan of a run: what every process must know to find its ends of the pipeline. Made once by the
supervisor, handed to each process, never changed.

    control segment:  stop, closed sinks, closed pipes, -, latest rules (u64) | ready (u1[READY]) |
                      interest (u1[EVENTS + 1]) | running (RUNNING[N], each worker's own) | off (u1[MAX_CODE]) |
                      rules (RULES[MAX_GENERATIONS]) | tallies (TALLIES[N], each worker's own) |
                      progress (PROGRESS[sinks + 1], the last one the recorder's) |
                      attempts (ATTEMPT[N], each worker's own) |
                      journals: reader | worker 0..N-1 | publisher | gaps | offsets (pipeline/transport/)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headrace.bpf.layout import EVENTS
from headrace.bpf.tables.catalogue import Event
from headrace.config.filters import Condition
from headrace.config.outputs import Output
from headrace.config.rules import MAX_CODE
from headrace.config.runtimes import Endpoint
from headrace.pipeline.process import books
from headrace.pipeline.process.progress import PROGRESS
from headrace.pipeline.transport import offsets
from headrace.pipeline.transport.doorbell import Doorbell, InheritedFd
from headrace.pipeline.transport.gaps import TABLE
from headrace.pipeline.transport.ring import Consumer, Producer
from headrace.pipeline.transport.shm import Array, Journal, Segment, contents

FLAGS_BYTES = 64
READY_BYTES = 128
RUNNING = np.dtype([("signature", "<u8"), ("since_ns", "<u8"), ("refused", "<u8")])
"""Of a worker: which signature in Python it is in (from 1, 0: none), and since when (CLOCK_BOOTTIME); and the latest
generation that it could not load.
"""
RULES = np.dtype([("generation", "<u8"), ("bytes", "<u8"), ("name", "S64")])
"""Where the signatures of a generation are: a segment, and how much of it (pipeline/signatures/generations.py)."""
MAX_TALLIED = 4096
TALLY = np.dtype([(name, "<u8") for name in ("evaluated", "matched", "undecided", "time_ns")])
"""Of a rule. `undecided`: rows that a limit of ours left open; `time_ns`: what its events cost, shared by all rules
that look at them, and what its own code took.
"""
VALUES = np.dtype([(name, "<u8") for name in ("scanned", "looked_up", "worked_out", "evicted", "before_dropped")])
"""Values of fields: in blocks of texts, by a key, worked out since the key was new, forgotten; and events of what
processes did before that were forgotten before their time.
"""
TALLIES = np.dtype([("generation", "<u8"), ("values", VALUES), ("rules", TALLY, MAX_TALLIED)])
"""Of a worker: what the signatures of a generation have cost until now, for people (workers/detect/engine/tally.py)."""
ATTEMPT = np.dtype([(name, "<u8") for name in ("turns", "tries", "goal_ns", "fine_ns")])
"""Of a worker (workers/attempts.py): attempts that began after so many committed turns; up to where rows are taken in
slices, and up to where a slice is the rows of one moment.
"""
MAX_GENERATIONS = 8
"""That workers may be in at a time."""
READY_PUBLISHER, READY_READER, READY_WORKER = 0, 1, 2
"""Indices of `ready`; worker i is READY_WORKER + i, and behind the workers comes the enricher, if there is one."""
ALL = EVENTS
"""Index of `interest` that stands for the topic of all events."""
LINES = ("json", "table")
"""Formats whose lines of several workers can be merged."""


@dataclass
class Host:
    """What a plan needs to know of the traced host."""

    cpus: int
    boot_epoch_ns: int
    nodename: bytes
    slots: int
    started_ns: int = 0
    """CLOCK_BOOTTIME when the run began."""


@dataclass(frozen=True)
class Plan:
    """Sizes, names and doorbells. `only` narrows events in the workers (replay); None: all."""

    workers: int
    cpus: int
    slots: int
    boot_epoch_ns: int
    relative_to_ns: int | None
    nodename: bytes
    sinks: tuple[Output, ...]
    """Those of events, and behind them those of findings."""
    conditions: tuple[Condition, ...]
    only: tuple[Event, ...] | None
    parse_arguments: bool
    detect_syscall: bool
    stack_addresses: bool
    control: str
    rings: tuple[str, ...]
    """Worker rings, and the recorder's behind them if there is one."""
    results: tuple[str, ...]
    bells: tuple[Doorbell, ...]
    """One per ring."""
    publisher_bell: Doorbell
    interval_ms: int
    order_bound_ms: int
    log_level: str
    publisher: str = ""
    hashes_remote: bool = False
    hashes: str = ""
    """Segment of what is known of executables (pipeline/containers/hashes.py), and where to ask; "": not asked for."""
    hash_requests: InheritedFd | None = None
    enrichment: str = ""
    """Segment of what runtimes know of containers (containers/enrichment.py), and where to ask; "": not asked for."""
    enrichment_requests: InheritedFd | None = None
    endpoints: tuple[Endpoint, ...] = ()
    container_labels: tuple[str, ...] = ()
    detects: bool = False
    """Whether there are signatures: those of the latest generation (Control.rules)."""
    hidden: tuple[str, ...] = ()
    """Arguments that are read for signatures, and that nobody asked to see."""
    fold_s: int = 0
    """For so long repeats of a finding are folded; 0: they are not."""
    before_s: float = 0
    """Of so many seconds before a finding its process's events are kept."""
    secret: bytes = b""
    """What folding keys are made with."""
    colour: bool = False
    users: tuple[dict[int, str], bool] | None = None
    """Names of the recorded host's users, and whether there may be others; None: this host's are looked up."""
    columns: int = 0
    """Width of the terminal that the table goes to; 0: lines are whole."""

    @property
    def renders(self) -> list[tuple[str, bool, int]]:
        """What workers make of events: (format, whether by topics, for how many milliseconds they wait for names), by
        the number that a record carries.
        """
        return sorted({render_of(s) for s in self.sinks if not s.of_findings and s.render != "none"})

    @property
    def finding_render(self) -> int:
        """The number of findings; 0 stands for events even if nothing is made of them."""
        return max(1, len(self.renders))

    @property
    def keyed(self) -> bool:
        """Whether text lines of several workers must be merged by time."""
        return self.workers > 1


def render_of(sink: Output) -> tuple[str, bool, int]:
    """What workers make for a sink of events."""
    return sink.render, sink.format == "zmq", sink.enriched_ms


class Control:
    """The control segment, attached or created."""

    def __init__(self, segment: Segment, workers: int, cpus: int, slots: int, rings: int, sinks: int) -> None:
        self._segment = segment  # views do not keep it alive
        self._flags = segment.array("<u8", 5, 0)
        self.ready: Array = segment.array("u1", READY_BYTES, FLAGS_BYTES)
        self.interest: Array = segment.array("u1", EVENTS + 1, FLAGS_BYTES + READY_BYTES)
        at = (FLAGS_BYTES + READY_BYTES + EVENTS + 1 + 63) // 64 * 64
        self.running: Array = segment.array(RUNNING, workers, at)
        at += (RUNNING.itemsize * workers + 63) // 64 * 64
        self.off: Array = segment.array("u1", MAX_CODE, at)
        """Signatures in Python that are off; written by the supervisor."""
        at += MAX_CODE
        self.rules: Array = segment.array(RULES, MAX_GENERATIONS, at)
        """Written by the supervisor; generation n stands at n % MAX_GENERATIONS."""
        at += (RULES.itemsize * MAX_GENERATIONS + 63) // 64 * 64
        self.tallies: Array = segment.array(TALLIES, workers, at)
        at += (self.tallies.nbytes + 63) // 64 * 64
        self.progress: Array = segment.array(PROGRESS, sinks + 1, at)
        at += (self.progress.nbytes + 63) // 64 * 64
        self.attempts: Array = segment.array(ATTEMPT, workers, at)
        at += (self.attempts.nbytes + 63) // 64 * 64
        dtypes = [
            books.reader_journal(cpus, slots, rings),
            *[books.worker_journal(cpus, sinks)] * workers,
            books.publisher_journal(workers, sinks),
            TABLE,
            offsets.TABLE,
        ]
        journals = []
        for dtype in dtypes:
            journals.append(Journal(segment, dtype, at))
            at += Journal.bytes_for(dtype)
        self.reader, *self.workers, self.publisher, self.gaps, self.offsets = journals

    @staticmethod
    def bytes_for(workers: int, cpus: int, slots: int, rings: int, sinks: int) -> int:
        """Size of the segment."""
        total = FLAGS_BYTES + READY_BYTES + EVENTS + 1 + 192 + RUNNING.itemsize * workers + MAX_CODE
        total += RULES.itemsize * MAX_GENERATIONS + TALLIES.itemsize * workers + 64
        total += PROGRESS.itemsize * (sinks + 1) + 64
        total += ATTEMPT.itemsize * workers + 64
        total += Journal.bytes_for(books.reader_journal(cpus, slots, rings))
        total += Journal.bytes_for(books.worker_journal(cpus, sinks)) * workers
        total += Journal.bytes_for(offsets.TABLE) + Journal.bytes_for(TABLE)
        return total + Journal.bytes_for(books.publisher_journal(workers, sinks))

    def waits_for_worker(self, number: int) -> bool:
        """Whether the reader has written what that worker has not read."""
        return int(self.reader.peek("ring_head")[number]) > int(self.workers[number].peek("next"))

    def waits_for_publisher(self) -> bool:
        """Whether a worker has written what the publisher is not done with."""
        released = self.publisher.peek("release").tolist()
        heads = [int(journal.peek("result_head")) for journal in self.workers]
        return any(head > done for head, done in zip(heads, released, strict=True))

    @property
    def stopping(self) -> bool:
        """Whether the reader shall drain what is there and end."""
        return bool(self._flags[0])

    def stop(self) -> None:
        """Supervisor: programs are detached, drain and end."""
        self._flags[0] = 1

    @property
    def closed_sinks(self) -> int:
        """Bit per sink whose destination is gone (a closed pipe, a full disk)."""
        return int(self._flags[1])

    @property
    def closed_pipes(self) -> int:
        """Of those, the ones whose reader has gone away."""
        return int(self._flags[2])

    def close_sink(self, index: int, is_pipe: bool) -> None:
        """Publisher: this sink cannot be written any more."""
        self._flags[2] |= np.uint64(is_pipe << index)
        self._flags[1] |= np.uint64(1 << index)

    @property
    def latest_rules(self) -> int:
        """The generation of signatures that holds."""
        return int(self._flags[4])

    def offer_rules(self, generation: int, name: str, size: int) -> None:
        """Supervisor: these hold from now on."""
        self.rules[generation % MAX_GENERATIONS] = (generation, size, name.encode())
        self._flags[4] = generation

    def encoded_rules(self, generation: int) -> bytes:
        """The signatures of a generation, encoded (workers/detect/detector.py)."""
        where = self.rules[generation % MAX_GENERATIONS]
        return contents(where["name"].decode(), int(where["bytes"]))

    def close(self) -> None:
        """Drop the views."""
        for journal in (self.reader, *self.workers, self.publisher, self.gaps, self.offsets):
            journal.close()
        del self._flags, self.ready, self.interest, self.running, self.off, self.rules, self.tallies, self.progress
        del self.attempts


def attach_control(plan: Plan) -> Control:
    """The control segment of a running pipeline."""
    segment = Segment(name=plan.control)
    return Control(segment, plan.workers, plan.cpus, plan.slots, len(plan.rings), len(plan.sinks))


def attach_producer(name: str) -> Producer:
    """The writing end of a ring, by the name of its segment."""
    return Producer(Segment(name=name))


def attach_consumer(name: str) -> Consumer:
    """The reading end of one."""
    return Consumer(Segment(name=name))
