"""The plan of a run: everything a process needs to attach to the pipeline. The supervisor creates it once and passes it
to each process. It never changes.

    control segment:  stop, closed sinks, closed pipes, -, latest rules (u64) | ready (u1[READY_BYTES]) |
                      interest (u1[EVENTS + 1]) | running (RUNNING[N], each worker's own) | off (u1[MAX_CODE]) |
                      rules (RULES[MAX_GENERATIONS]) | tallies (TALLIES[N], each worker's own) |
                      progress (PROGRESS[sinks + 1], the last one the recorder's) |
                      attempts (ATTEMPT[N], each worker's own) |
                      journals: reader | worker 0..N-1 | publisher | gaps | offsets (pipeline/transport/)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from headrace.bpf.layout import EVENTS
from headrace.bpf.tables.catalogue import Event
from headrace.config.capture import Capture
from headrace.config.filters import Condition
from headrace.config.outputs import TEMPLATE, Output
from headrace.config.policies.claims import Claim
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
"""State of a worker: the number of the Python signature that it is executing (from 1; 0: none), since when
(CLOCK_BOOTTIME), and the latest generation that it failed to load."""
RULES = np.dtype([("generation", "<u8"), ("bytes", "<u8"), ("name", "S64")])
"""Location of the signatures of a generation: the name of a segment and the number of bytes used in it
(pipeline/signatures/generations.py)."""
MAX_TALLIED = 4096
TALLY = np.dtype([(name, "<u8") for name in ("evaluated", "matched", "undecided", "time_ns")])
"""Counters of a rule. `undecided`: rows that could not be decided because headrace reached a limit. `time_ns`: its
share of the evaluation time of its events (split evenly among the rules for an event) plus the time of its code."""
VALUES = np.dtype([(name, "<u8") for name in ("scanned", "looked_up", "worked_out", "evicted", "before_dropped")])
"""Counters of field values: `scanned` in blocks of text, `looked_up` in a cache by key, `worked_out` (cache misses),
and `evicted` from the cache. `before_dropped`: events of a process's history that were evicted early."""
TALLIES = np.dtype([("generation", "<u8"), ("values", VALUES), ("rules", TALLY, MAX_TALLIED)])
"""Per worker: the cost of the signatures of a generation so far, for display (workers/detect/engine/tally.py)."""
ATTEMPT = np.dtype([(name, "<u8") for name in ("turns", "tries", "goal_ns", "fine_ns")])
"""Per worker (workers/attempts.py): number of attempts (`tries`) that began after `turns` committed turns; the time up
to which rows are taken in slices, and the time up to which each slice holds the rows of one timestamp."""
MAX_GENERATIONS = 8
"""Maximum number of generations in use at the same time."""
READY_PUBLISHER, READY_READER, READY_WORKER = 0, 1, 2
"""Indices of `ready`. Worker i is READY_WORKER + i. The enricher, if there is one, follows the workers."""
ALL = EVENTS
"""Index in `interest` of the topic for all events."""
LINES = ("json", "table", "story")


def is_lines(render: str) -> bool:
    """Whether a render produces lines of text."""
    return render in LINES or render.startswith(TEMPLATE)


"""Formats whose lines from several workers can be merged."""


@dataclass
class Host:
    """Facts about the traced host that the plan needs."""

    cpus: int
    boot_epoch_ns: int
    nodename: bytes
    slots: int
    started_ns: int = 0
    """CLOCK_BOOTTIME in ns when the run began."""


class Render(NamedTuple):
    """What workers make of rows, for the sinks that want the same."""

    format: str
    has_topics: bool
    held_ms: int
    """Milliseconds for which rows of containers wait for a name."""
    policies: tuple[str, ...] = ()
    """Only rows of these policies; (): all."""


@dataclass(frozen=True)
class Plan:
    """Sizes, segment names and doorbells. `only` restricts the events in the workers (replay); None: all events."""

    workers: int
    cpus: int
    slots: int
    boot_epoch_ns: int
    relative_to_ns: int | None
    nodename: bytes
    sinks: tuple[Output, ...]
    """The sinks of events, followed by those of findings."""
    conditions: tuple[Condition, ...]
    only: tuple[Event, ...] | None
    claims: tuple[Claim, ...]
    """What policies ask for; () without policies. They have conditions of their own."""
    parse_arguments: bool
    detect_syscall: bool
    stack_addresses: bool
    control: str
    rings: tuple[str, ...]
    """Segments of the worker rings, followed by that of the recorder if there is one."""
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
    """`hashes`: segment of the hash table of executables (pipeline/containers/hashes.py), "" if disabled.
    `hash_requests`: the pipe for requests."""
    hash_requests: InheritedFd | None = None
    enrichment: str = ""
    """`enrichment`: segment of the container table (pipeline/containers/enrichment.py), "" if disabled.
    `enrichment_requests`: the pipe for requests."""
    enrichment_requests: InheritedFd | None = None
    capture: Capture | None = None
    """Artifacts to keep. `captured`: segment of the counters; `capture_requests`: the pipe for requests;
    `capture_quota`: bytes that the directory may hold."""
    captured: str = ""
    capture_requests: InheritedFd | None = None
    capture_quota: int = 0
    endpoints: tuple[Endpoint, ...] = ()
    container_labels: tuple[str, ...] = ()
    detects: bool = False
    """Whether there are signatures. They are those of the latest generation (Control.rules)."""
    hidden: tuple[str, ...] = ()
    """Arguments that are read only for signatures and not shown."""
    fold_s: int = 0
    """Number of seconds for which repeats of a finding are folded; 0 disables folding."""
    before_s: float = 0
    """Number of seconds of process history to include in findings."""
    secret: bytes = b""
    """Secret key for the hash that produces folding keys."""
    colour: bool = False
    users: tuple[dict[int, str], bool] | None = None
    """User names of the recorded host by uid, and whether there may be others. None: look up names on this host."""
    verbose: bool = False
    """Whether tables show all arguments."""
    columns: int = 0
    """Width of the terminal for the table format; 0: do not truncate lines."""

    @property
    def renders(self) -> list[Render]:
        """Renders of events. The index is the render number that a result record carries."""
        return sorted({render_of(s) for s in self.sinks if not s.of_findings and s.render != "none"})

    @property
    def finding_render(self) -> int:
        """The render number of findings. Number 0 is reserved for events even if there are no event renders."""
        return max(1, len(self.renders))

    @property
    def keyed(self) -> bool:
        """Whether text lines from several workers must be merged by time."""
        return self.workers > 1


def render_of(sink: Output) -> Render:
    """The render that a sink of events needs (see Plan.renders)."""
    return Render(sink.render, sink.format == "zmq", sink.enriched_ms, sink.policies)


class Control:
    """Typed views of the control segment."""

    def __init__(self, segment: Segment, workers: int, cpus: int, slots: int, rings: int, sinks: int) -> None:
        self._segment = segment  # the views do not keep it alive
        self._flags = segment.array("<u8", 6, 0)
        self.ready: Array = segment.array("u1", READY_BYTES, FLAGS_BYTES)
        self.interest: Array = segment.array("u1", EVENTS + 1, FLAGS_BYTES + READY_BYTES)
        at = (FLAGS_BYTES + READY_BYTES + EVENTS + 1 + 63) // 64 * 64
        self.running: Array = segment.array(RUNNING, workers, at)
        at += (RUNNING.itemsize * workers + 63) // 64 * 64
        self.off: Array = segment.array("u1", MAX_CODE, at)
        """Python signatures that are disabled, by number - 1. Written by the supervisor."""
        at += MAX_CODE
        self.rules: Array = segment.array(RULES, MAX_GENERATIONS, at)
        """Written by the supervisor. Generation n is at index n % MAX_GENERATIONS."""
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
        """Size of the segment in bytes."""
        total = FLAGS_BYTES + READY_BYTES + EVENTS + 1 + 192 + RUNNING.itemsize * workers + MAX_CODE
        total += RULES.itemsize * MAX_GENERATIONS + TALLIES.itemsize * workers + 64
        total += PROGRESS.itemsize * (sinks + 1) + 64
        total += ATTEMPT.itemsize * workers + 64
        total += Journal.bytes_for(books.reader_journal(cpus, slots, rings))
        total += Journal.bytes_for(books.worker_journal(cpus, sinks)) * workers
        total += Journal.bytes_for(offsets.TABLE) + Journal.bytes_for(TABLE)
        return total + Journal.bytes_for(books.publisher_journal(workers, sinks))

    def waits_for_worker(self, number: int) -> bool:
        """Whether the reader has written records that this worker has not read."""
        return int(self.reader.peek("ring_head")[number]) > int(self.workers[number].peek("next"))

    def fill(self, ring_bytes: int, result_bytes: int) -> dict[str, float]:
        """Share of each ring that is in use, by name."""
        heads, done = self.reader.peek("ring_head").tolist(), self.publisher.peek("release").tolist()
        found = {}
        for i, journal in enumerate(self.workers):
            found[f"worker-{i}"] = (int(heads[i]) - int(journal.peek("release"))) / ring_bytes
            found[f"results-{i}"] = (int(journal.peek("result_head")) - int(done[i])) / result_bytes
        return {name: round(min(max(share, 0.0), 1.0), 4) for name, share in found.items()}

    def waits_for_publisher(self) -> bool:
        """Whether a worker has written results that the publisher has not finished."""
        released = self.publisher.peek("release").tolist()
        heads = [int(journal.peek("result_head")) for journal in self.workers]
        return any(head > done for head, done in zip(heads, released, strict=True))

    @property
    def stopping(self) -> bool:
        """Whether the reader must drain the remaining records and end."""
        return bool(self._flags[0])

    def stop(self) -> None:
        """Called by the supervisor after the programs are detached: make the reader drain and end."""
        self._flags[0] = 1

    @property
    def closed_sinks(self) -> int:
        """Bit mask of sinks whose destination has failed (a closed pipe, a full disk)."""
        return int(self._flags[1])

    @property
    def closed_pipes(self) -> int:
        """Bit mask of the closed sinks whose reader has closed the pipe."""
        return int(self._flags[2])

    def close_sink(self, index: int, is_pipe: bool) -> None:
        """Called by the publisher when a sink can no longer be written."""
        self._flags[2] |= np.uint64(is_pipe << index)
        self._flags[1] |= np.uint64(1 << index)

    @property
    def satisfied_sinks(self) -> int:
        """Bit mask of sinks that have written as many lines as were asked for."""
        return int(self._flags[5])

    def satisfy_sink(self, index: int) -> None:
        """Called by the publisher when a sink has enough."""
        self._flags[5] |= np.uint64(1 << index)

    @property
    def latest_rules(self) -> int:
        """The current generation of signatures."""
        return int(self._flags[4])

    def offer_rules(self, generation: int, name: str, size: int) -> None:
        """Called by the supervisor: make `generation` the current generation."""
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
    """Attach to the control segment of a running pipeline."""
    segment = Segment(name=plan.control)
    return Control(segment, plan.workers, plan.cpus, plan.slots, len(plan.rings), len(plan.sinks))


def attach_producer(name: str) -> Producer:
    """Attach to a ring as its producer, by segment name."""
    return Producer(Segment(name=name))


def attach_consumer(name: str) -> Consumer:
    """Attach to a ring as its consumer, by segment name."""
    return Consumer(Segment(name=name))
