"""Publisher: reads the workers' rendered results in watermark order and offers them to every sink.

    result ring of each worker --read--> queue --all workers past W--> merge --> sinks --done--> release

A result ring is released only when every sink is done with a batch. A restarted publisher continues at the released
position. It writes batches again that its predecessor may already have written; they are marked `repeated` and counted.
With one worker nothing is merged, and batches go directly to the sinks.
"""

from __future__ import annotations

import itertools
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec
import numpy as np

from headrace.config.outputs import Output
from headrace.pipeline.process.logs import logger
from headrace.pipeline.process.plan import (
    ALL,
    READY_PUBLISHER,
    Plan,
    attach_consumer,
    attach_control,
    is_lines,
    render_of,
)
from headrace.pipeline.process.progress import Progress
from headrace.pipeline.publish.curve import ServerKeys
from headrace.pipeline.publish.folding import Folder, Stayed, topic
from headrace.pipeline.publish.merge import Merger, Part, merge
from headrace.pipeline.publish.reopen import Reopened
from headrace.pipeline.publish.sinks import FileSink, NoneSink, Offer, Sink, SinkError
from headrace.pipeline.publish.sockets import ZmqSink
from headrace.pipeline.transport.clock import CpuClock, boottime_ns
from headrace.pipeline.transport.doorbell import InheritedFd
from headrace.pipeline.transport.gather import Gather
from headrace.pipeline.transport.results import Result, read
from headrace.pipeline.transport.ring import BATCH

Shape = Callable[[str, bytes, Plan], bytes]
EXPIRY_SLACK_NS = 10**9
"""Delay before the clock closes a folding window: findings that belong to the window may still be in the pipeline."""
WAIT_MS = 500
RETRY_MS = 1


class FindingPolicies(msgspec.Struct):
    """The part of a finding that says which policies it belongs to."""

    policies: tuple[str, ...] = msgspec.field(name="matchedPolicies", default=())


@dataclass
class PendingRecord:
    """A record of a result ring that at least one sink still needs."""

    end: int
    users: int = 0
    render: int = 0
    finished_ns: int = 0
    """Watermark of the turn that ends with this record; 0 if more records of the turn follow."""
    published: int = 0
    stayed: Stayed = field(default_factory=Stayed)
    """Counters of its findings. They are added when the record is released: a successor reads unreleased records again
    and would otherwise count them twice."""


@dataclass
class ResultSource:
    """One worker's result ring: the read position, and the records read but not yet released."""

    read: int
    held: deque[PendingRecord] = field(default_factory=deque)


class Publisher:
    """State of the publisher process."""

    def __init__(
        self,
        plan: Plan,
        targets: list[InheritedFd | None],
        files: InheritedFd,
        shape: Shape,
        keys: tuple[ServerKeys | None, ...],
    ) -> None:
        self.plan, self._shape, self._keys = plan, shape, keys
        self._folder = Folder(plan.fold_s)
        self.control = attach_control(plan)
        self.journal = self.control.publisher
        self.state = self.journal.next[0]
        self._cpu = CpuClock(int(self.state["cpu_ns"]))
        self.rings = [attach_consumer(name) for name in plan.results]
        self.renders = plan.renders
        self.sinks: list[Sink] = []
        for i, target in enumerate(targets):
            self.sinks.append(self._open(i, target))
        self.sources = []
        self._repeat_until = []
        for i, ring in enumerate(self.rings):
            position = int(self.state["release"][i])
            ring.release(position)
            self.sources.append(ResultSource(position))
            self._repeat_until.append(int(self.state["read"][i]))
        self._lock = threading.Lock()
        self._mergers = {
            i: Merger(self.state["finished"][:, i].tolist())
            for i, render in enumerate(self.renders)
            if plan.keyed and is_lines(render.format) and not render.has_topics
        }
        if plan.keyed and plan.detects:
            number = plan.finding_render
            self._mergers[number] = Merger(self.state["finished"][:, number].tolist())
        self._blocked: dict[int, deque[Offer]] = {i: deque() for i in range(len(self.sinks))}
        self._poll = select.poll()
        self._poll.register(plan.publisher_bell.fd, select.POLLIN)
        self._reopened = Reopened(files)
        self._poll.register(self._reopened.fd, select.POLLIN)
        for sink in self.sinks:
            if isinstance(sink, ZmqSink):
                self._poll.register(sink.fd, select.POLLIN)

    def _open(self, index: int, target: InheritedFd | None) -> Sink:
        output = self.plan.sinks[index]
        sink: Sink
        if output.format == "zmq":
            shared = next((s for s in self.sinks if isinstance(s, ZmqSink) and s.output.target == output.target), None)
            name = f"{self.plan.publisher}-{os.getpid()}"
            sink = ZmqSink(output, self.control.interest, name, shared, target, self._keys[index])
        elif output.format == "none":
            sink = NoneSink(output)
        else:
            assert target is not None
            sink = FileSink(output, target.fd)
        sink.progress = Progress(self.control.progress[index : index + 1])
        sink.counts.load(self.state["sinks"][index])
        sink.take_up()
        return sink

    def _release(self, held: Sequence[PendingRecord]) -> None:
        with self._lock:
            for one in held:
                one.users -= 1

    def _finished(self, held: Sequence[PendingRecord]) -> None:
        """A sink is done with its records. Called from the sink's thread; wakes the main loop, which releases them."""
        self._release(held)
        self.plan.publisher_bell.ring()

    def _take(self) -> bool:
        """Read new results and offer those that need no merging. Returns whether there were any."""
        took = False
        for index, (ring, source) in enumerate(zip(self.rings, self.sources, strict=True)):
            while len(source.held) < 4096:
                record = ring.read(source.read)
                if record is None:
                    break
                took = True
                source.read = record.next
                held = PendingRecord(record.next)
                source.held.append(held)
                if record.kind == BATCH:
                    self._sort_in(index, read(record.payload), held)
        return took

    def _sort_in(self, index: int, result: Result, held: PendingRecord) -> None:
        render = int(result.header["render"])
        repeated = held.end <= self._repeat_until[index]
        held.users, held.render = 1, render
        if result.header["final"]:
            held.finished_ns = int(result.header["watermark_ns"])
        if (skipped := int(result.header["skipped"])) and not repeated:
            self._skip(render, skipped)
        merger = self._mergers.get(render)
        if merger is None and render == self.plan.finding_render:
            self._publish([Part(result, 0, result.rows, (held, repeated), True)] if result.rows else [])
            self._release([held])
        elif merger is None:
            self._offer(result, Gather.of(result.payload), result.rows, [held], repeated)
            self._release([held])
        elif not merger.add(index, result, (held, repeated)):
            self._release([held])

    def _skip(self, render: int, rows: int) -> None:
        """Count rows that the sinks of a render do not take, because of their policies."""
        for sink in self.sinks:
            if self._uses(sink, render):
                sink.counts.offered += rows
                if sink.output.render == "none":  # it takes what no other render does
                    sink.counts.written += rows
                else:
                    sink.counts.filtered += rows

    def _merge_ripe(self) -> None:
        """Offer merged results up to the time that all workers have passed."""
        for number, merger in self._mergers.items():
            for parts in merger.ripe():
                if number == self.plan.finding_render:
                    self._publish(parts)
                else:
                    rows = sum(part.last - part.first for part in parts)
                    held = [part.token[0] for part in parts]
                    repeated = any(part.token[1] for part in parts)
                    self._offer(parts[0].result, merge(parts), rows, held, repeated)
                self._release([part.token[0] for part in parts if part.whole])

    def _offer(self, result: Result, gather: Gather, rows: int, held: list[PendingRecord], repeated: bool) -> None:
        """Queue a batch for every sink of this render. Its records are released when the last sink is done."""
        render = int(result.header["render"])
        topic, covered = int(result.header["topic"]), int(result.header["covered"])
        offer = Offer(gather, rows, topic, covered, partial(self._finished, held), repeated)
        for i, sink in enumerate(self.sinks):
            if self._uses(sink, render):
                self._queue(i, offer, held)

    def _publish(self, parts: list[Part]) -> None:
        """Merge the findings of some records and queue them: as one batch, or line by line if it must read them."""
        if not parts:
            return
        users = [i for i, s in enumerate(self.sinks) if s.output.of_findings]
        held, repeated = [part.token[0] for part in parts], any(part.token[1] for part in parts)
        stayed = [Stayed() for _ in parts]
        counted = any(part.result.marks()["count"].any() for part in parts)
        shaped = any(self.sinks[i].output.format != "json" or self.sinks[i].output.policies for i in users)
        if self._folder.folds or counted or shaped:
            self._send_lines(list(self._folder.take(parts, stayed)), held, repeated)
        else:
            rows = sum(part.last - part.first for part in parts)
            offer = Offer(merge(parts), rows, ALL, 0, partial(self._finished, held), repeated)
            for i in users:
                self._queue(i, offer, held)
        for part, count in zip(parts, stayed, strict=True):
            record = part.token[0]
            record.stayed.folded += count.folded
            record.stayed.below += count.below
            record.published += part.last - part.first - count.folded - count.below

    def _queue(self, sink: int, offer: Offer, held: Sequence[PendingRecord]) -> None:
        """Queue a batch for a sink. The records in `held`, which it comes from, are released only when the sink is
        done: a successor reads them again, so that nothing that was only queued is lost.
        """
        with self._lock:
            for one in held:
                one.users += 1
        if offer.repeated:
            self.sinks[sink].counts.repeated += offer.rows
        self._blocked[sink].append(offer)

    def _send_lines(self, lines: list[bytes], held: Sequence[PendingRecord] = (), repeated: bool = False) -> None:
        """Queue findings in each sink's format. For ZeroMQ, consecutive lines of one topic form one message."""
        for i, sink in enumerate(self.sinks):
            if not sink.output.of_findings or not lines:
                continue
            taken = [line for line in lines if _takes(sink.output, line)]
            sink.counts.offered += len(lines) - len(taken)
            sink.counts.filtered += len(lines) - len(taken)
            named = topic if sink.output.format == "zmq" else lambda _: b""
            for name, group in itertools.groupby(taken, key=named):
                texts = [self._shape(sink.output.render, line, self.plan) for line in group]
                data = np.frombuffer(b"".join(texts), "u1")
                offer = Offer(Gather.of(data), len(texts), ALL, 0, partial(self._finished, held), repeated, name)
                self._queue(i, offer, held)

    def _uses(self, sink: Sink, render: int) -> bool:
        if sink.output.of_findings:
            return False
        if sink.output.render == "none":
            # counted once per turn, with the batches of the first render
            return render == 0
        return self.renders[render] == render_of(sink.output)

    def _push(self) -> bool:
        """Pass queued offers to their sinks, in order per sink. Returns whether some must wait."""
        waiting = False
        for i, offers in self._blocked.items():
            while offers:
                if not self.sinks[i].try_offer(offers[0]):
                    waiting = True
                    break
                offers.popleft()
        return waiting

    def _commit(self) -> None:
        for i, source in enumerate(self.sources):
            with self._lock:
                while source.held and source.held[0].users == 0:
                    done = source.held.popleft()
                    self.state["release"][i] = done.end
                    self.state["published"] += np.uint64(done.published)
                    self.state["folded"] += np.uint64(done.stayed.folded)
                    self.state["below"] += np.uint64(done.stayed.below)
                    if done.finished_ns:
                        self.state["finished"][i, done.render] = done.finished_ns
            self.state["read"][i] = max(source.read, self._repeat_until[i])
        for i, sink in enumerate(self.sinks):
            sink.counts.store(self.state["sinks"][i])
            if sink.has_enough:
                self.control.satisfy_sink(i)
            if sink.broken and not self.control.closed_sinks & 1 << i:
                self.control.close_sink(i, sink.broken == "EPIPE")
                if sink.broken != "EPIPE":
                    logger("publisher").error("publisher.sink_broken", sink=sink.output.name, reason=sink.broken)
        self.state["cpu_ns"] = self._cpu.now_ns()
        self.journal.commit()
        for i, ring in enumerate(self.rings):
            ring.release(int(self.state["release"][i]))

    def run(self) -> None:
        """Publish until all workers have ended and everything is written."""
        pause, unfinished = WAIT_MS, True
        while True:
            ready = {fd for fd, _ in self._poll.poll(pause)}
            if self.plan.publisher_bell.fd in ready:
                os.eventfd_read(self.plan.publisher_bell.fd)
            for sink in self.sinks:
                if isinstance(sink, ZmqSink):
                    sink.read_subscriptions()
            for number, fd in self._reopened.take() if self._reopened.fd in ready else ():
                self._push()  # offers from before the reopening still go to the old file
                found = self.sinks[number]
                assert isinstance(found, FileSink)
                found.reopen(fd)
            ended = all(bool(journal.peek("ended")) for journal in self.control.workers)
            took = self._take()
            self._merge_ripe()
            if self._folder.folds:
                self._send_lines(list(self._folder.expire(boottime_ns() - EXPIRY_SLACK_NS)))
            if took:
                # commit before sinks get the new results: a successor then knows that sinks may have written them
                self._commit()
            waiting = self._push()
            if took or waiting or unfinished:
                self._commit()
            unfinished = any(source.held for source in self.sources)
            if ended and not took and not unfinished:
                self._send_lines(list(self._folder.end()))
                while self._push():
                    self._poll.poll(RETRY_MS)
                break
            pause = RETRY_MS if waiting else WAIT_MS
        for sink in self.sinks:
            sink.close()
        self._commit()
        self.state["ended"] = 1
        self.journal.commit()


def _takes(output: Output, line: bytes) -> bool:
    """Whether an output of findings takes a finding, given as its line."""
    if not output.policies:
        return True
    return not set(output.policies).isdisjoint(msgspec.json.decode(line, type=FindingPolicies).policies)


def run(
    plan: Plan,
    targets: list[InheritedFd | None],
    files: InheritedFd,
    shape: Shape,
    keys: tuple[ServerKeys | None, ...],
) -> None:
    """Run the publisher process. Exits with status 74 if a sink cannot be opened.

    `files` is the socket that delivers reopened files (pipeline/publish/reopen.py). `shape` converts the line of a
    finding to the format of a sink. `keys` are the CURVE keys of each sink; no other stage receives them.
    """
    try:
        publisher = Publisher(plan, targets, files, shape, keys)
        publisher.control.ready[READY_PUBLISHER] = 1
        publisher.run()
    except SinkError as error:
        logger("publisher").error("publisher.sink_refused", reason=str(error))
        os._exit(74)
