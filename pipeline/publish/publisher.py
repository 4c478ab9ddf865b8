"""Publisher: takes what workers rendered, in the order of watermarks, and offers it to every sink.

    result ring of each worker --read--> queue --all workers past W--> merge --> sinks --done--> release

Result rings are released when every sink is done with a batch, never before: a publisher that dies is
started again at the released position, and what it may have written already is written again, marked
`repeated` and counted. With one worker nothing is merged, and batches go straight through.
"""

from __future__ import annotations

import itertools
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from headrace.pipeline.process.logs import logger
from headrace.pipeline.process.plan import ALL, LINES, READY_PUBLISHER, Plan, attach_consumer, attach_control, render_of
from headrace.pipeline.process.progress import Progress
from headrace.pipeline.publish.curve import ServerKeys
from headrace.pipeline.publish.folding import Folder, Stayed, topic
from headrace.pipeline.publish.merge import Merger, Part, merge
from headrace.pipeline.publish.reopen import Reopened
from headrace.pipeline.publish.sinks import FileSink, NoneSink, Offer, Sink, SinkError, ZmqSink, nothing
from headrace.pipeline.transport.clock import CpuClock, boottime_ns
from headrace.pipeline.transport.doorbell import InheritedFd
from headrace.pipeline.transport.gather import Gather
from headrace.pipeline.transport.results import Result, read
from headrace.pipeline.transport.ring import BATCH

Shape = Callable[[str, bytes, Plan], bytes]
EXPIRY_SLACK_NS = 10**9
"""A window of folding is closed by the clock so much later than by an event: what it counts may be under way."""
WAIT_MS = 500
RETRY_MS = 1


@dataclass
class Held:
    """A record of a result ring until all sinks are done with it."""

    end: int
    users: int = 0
    render: int = 0
    finished_ns: int = 0
    """Watermark of the turn that this record ends; 0 if more of it follows."""
    published: int = 0
    stayed: Stayed = field(default_factory=Stayed)
    """Findings of it: counted with its release, so that a successor, who reads it again, does not count them twice."""


@dataclass
class Source:
    """One worker's result ring and what was read from it but not released."""

    read: int
    held: deque[Held] = field(default_factory=deque)


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
            self.sources.append(Source(position))
            self._repeat_until.append(int(self.state["read"][i]))
        self._lock = threading.Lock()
        self._mergers = {
            i: Merger(self.state["finished"][:, i].tolist())
            for i, (name, is_topic, _) in enumerate(self.renders)
            if plan.keyed and name in LINES and not is_topic
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

    def _release(self, held: list[Held]) -> None:
        with self._lock:
            for one in held:
                one.users -= 1

    def _finished(self, held: list[Held]) -> None:
        """A sink is done: from its thread, so the loop is woken to give the room back."""
        self._release(held)
        self.plan.publisher_bell.ring()

    def _take(self) -> bool:
        """Read what workers wrote; offer what needs no merging."""
        took = False
        for index, (ring, source) in enumerate(zip(self.rings, self.sources, strict=True)):
            while len(source.held) < 4096:
                record = ring.read(source.read)
                if record is None:
                    break
                took = True
                source.read = record.next
                held = Held(record.next)
                source.held.append(held)
                if record.kind == BATCH:
                    self._sort_in(index, read(record.payload), held)
        return took

    def _sort_in(self, index: int, result: Result, held: Held) -> None:
        render = int(result.header["render"])
        repeated = held.end <= self._repeat_until[index]
        held.users, held.render = 1, render
        if result.header["final"]:
            held.finished_ns = int(result.header["watermark_ns"])
        merger = self._mergers.get(render)
        if merger is None and render == self.plan.finding_render:
            self._publish([Part(result, 0, result.rows, (held, repeated), True)] if result.rows else [])
            self._release([held])
        elif merger is None:
            self._offer(result, Gather.of(result.payload), result.rows, [held], repeated)
            self._release([held])
        elif not merger.add(index, result, (held, repeated)):
            self._release([held])

    def _merge_ripe(self) -> None:
        """Offer what all workers have passed."""
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

    def _offer(self, result: Result, gather: Gather, rows: int, held: list[Held], repeated: bool) -> None:
        """To every sink of this render; the ring's room is free when the last is done."""
        render = int(result.header["render"])
        topic, covered = int(result.header["topic"]), int(result.header["covered"])
        users = [i for i, s in enumerate(self.sinks) if self._uses(s, render)]
        with self._lock:
            for one in held:
                one.users += len(users)
        for i in users:
            offer = Offer(gather, rows, topic, covered, lambda: self._finished(held), repeated)
            if repeated:
                self.sinks[i].counts.repeated += rows
            self._blocked[i].append(offer)

    def _publish(self, parts: list[Part]) -> None:
        """Findings of some records, merged: to the sinks as they are, or line by line."""
        if not parts:
            return
        users = [i for i, s in enumerate(self.sinks) if s.output.of_findings]
        stayed = [Stayed() for _ in parts]
        counted = any(part.result.marks()["count"].any() for part in parts)
        if self._folder.folds or counted or any(self.sinks[i].output.format != "json" for i in users):
            self._send_lines(list(self._folder.take(parts, stayed)))
        else:
            held = [part.token[0] for part in parts]
            rows = sum(part.last - part.first for part in parts)
            with self._lock:
                for one in held:
                    one.users += len(users)
            gather = merge(parts)
            for i in users:
                self._blocked[i].append(Offer(gather, rows, ALL, 0, lambda: self._finished(held)))
        for part, count in zip(parts, stayed, strict=True):
            record = part.token[0]
            record.stayed.folded += count.folded
            record.stayed.below += count.below
            record.published += part.last - part.first - count.folded - count.below

    def _send_lines(self, lines: list[bytes]) -> None:
        """Lines of findings, in each sink's shape; those of one rule that follow each other are one message."""
        for i, sink in enumerate(self.sinks):
            if not sink.output.of_findings or not lines:
                continue
            named = topic if sink.output.format == "zmq" else lambda _: b""
            for name, group in itertools.groupby(lines, key=named):
                texts = [self._shape(sink.output.render, line, self.plan) for line in group]
                data = np.frombuffer(b"".join(texts), "u1")
                self._blocked[i].append(Offer(Gather.of(data), len(texts), ALL, 0, nothing, name=name))

    def _uses(self, sink: Sink, render: int) -> bool:
        if sink.output.of_findings:
            return False
        if sink.output.render == "none":
            # counted once a turn: with the first render's batches
            return render == 0
        return self.renders[render] == render_of(sink.output)

    def _push(self) -> bool:
        """Hand offers to their sinks, each in order; True if one must wait."""
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
                self._push()  # what has come before goes where it was to go
                found = self.sinks[number]
                assert isinstance(found, FileSink)
                found.reopen(fd)
            ended = all(bool(journal.peek("ended")) for journal in self.control.workers)
            took = self._take()
            self._merge_ripe()
            if self._folder.folds:
                self._send_lines(list(self._folder.expire(boottime_ns() - EXPIRY_SLACK_NS)))
            if took:
                self._commit()  # before a sink is given what was read: a successor knows then that it may have had it
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


def run(
    plan: Plan,
    targets: list[InheritedFd | None],
    files: InheritedFd,
    shape: Shape,
    keys: tuple[ServerKeys | None, ...],
) -> None:
    """The publisher process. `files`: where reopened files come from (pipeline/publish/reopen.py); `shape` gives a
    finding's line the shape of a sink; `keys`: of each sink, which no other process is given.
    """
    try:
        publisher = Publisher(plan, targets, files, shape, keys)
        publisher.control.ready[READY_PUBLISHER] = 1
        publisher.run()
    except SinkError as error:
        logger("publisher").error("publisher.sink_refused", reason=str(error))
        os._exit(74)
