"""Reader: drains the perf rings of all CPUs into the workers' rings, and keeps its part of the ledger.

    perf ring (CPU, stream)  --copy-->  ring of worker (shard % N)      bulk frames
                                        every worker's ring             urgent frames (lifecycle)
                                        the recorder's ring             everything

A cycle samples the marks (pipeline/transport/watermark.py), drains up to the data_heads read after that, appends the
watermark, and commits. Commit order: payloads, journal, ring heads, data_tails. A reader that dies in between leaves
its journal at the last whole cycle. Its successor starts there and overwrites everything that was copied after it:
the death of a reader neither loses nor duplicates records.

If a worker's ring is full, the frame is dropped, counted as `dropped` by CPU and slot, and announced as a `loss` event.
The reader never waits for a worker.
"""

from __future__ import annotations

import select
import time
from dataclasses import dataclass

import numpy as np

from headrace.bpf.layout import BROADCAST, EXTRA_SLOTS, STREAM_BULK, STREAM_FACTS, TIME_END
from headrace.bpf.test_run import TestRun
from headrace.pipeline.process.plan import READY_READER, Plan, attach_control, attach_producer
from headrace.pipeline.stages.losses import Losses
from headrace.pipeline.transport.clock import CpuClock, StepAlarm, boottime_ns
from headrace.pipeline.transport.doorbell import InheritedFd
from headrace.pipeline.transport.frames import HEADER, FrameHeader, Loss, loss_frame, read_header
from headrace.pipeline.transport.gaps import GapTable
from headrace.pipeline.transport.offsets import OffsetTable
from headrace.pipeline.transport.pace import Pace
from headrace.pipeline.transport.perf import PerfRing, Sample
from headrace.pipeline.transport.ring import END, FRAME, U64, WATERMARK, Producer, put
from headrace.pipeline.transport.watermark import Watermarks

BULK, URGENT = 0, 1
FINAL_WATERMARK = TIME_END
RECORDER_PATIENCE_S = 2.0
FD_SETSIZE = 1024
IDLE_MS = 40
"""Poll interval of an idle reader: it checks for unsent records on a CPU, which no sample announces."""


@dataclass(frozen=True)
class KernelEnds:
    """Descriptors that the reader inherits: perf events per CPU as (bulk, urgent), maps, flush program, alarm."""

    perf: tuple[tuple[InheritedFd, InheritedFd], ...]
    perf_pages: int
    urgent_pages: int
    marks: InheritedFd
    flush: InheritedFd
    alarm: StepAlarm


class Reader:
    """State of the reader process."""

    def __init__(self, plan: Plan, ends: KernelEnds) -> None:
        self.plan = plan
        self.control = attach_control(plan)
        self.journal = self.control.reader
        self.state = self.journal.next[0]
        self._cpu = CpuClock(int(self.state["cpu_ns"]))
        self.marks = Watermarks(ends.marks.fd, plan.cpus, plan.slots, plan.order_bound_ms * 1_000_000)
        self.flush = TestRun(ends.flush.fd)
        self.perf = [
            (PerfRing(bulk.fd, ends.perf_pages), PerfRing(urgent.fd, ends.urgent_pages)) for bulk, urgent in ends.perf
        ]
        self.rings = [attach_producer(name) for name in plan.rings]
        self._poll = select.poll()
        for bulk, urgent in ends.perf:
            self._poll.register(bulk.fd, select.POLLIN)
            self._poll.register(urgent.fd, select.POLLIN)
        self._moved: list[tuple[int, int]] = []
        """(bytes, size) of the perf rings that the last cycle drained."""
        self._pace = Pace()
        self._latest_ns = 0
        self._owed: list[Producer] = []
        self._gaps = GapTable(self.control.gaps)
        self._alarm, self._offsets = ends.alarm, OffsetTable(self.control.offsets, plan.boot_epoch_ns)
        self._poll.register(self._alarm.fd, select.POLLIN)
        recorder = self.rings[-1] if len(self.rings) > plan.workers else None
        self._losses = Losses(self._loss_frame, self.rings[0], recorder)
        self._recover()

    def _recover(self) -> None:
        """Continue at the committed state (all zero at the first start)."""
        for i, ring in enumerate(self.rings):
            ring.restore_head(int(self.state["ring_head"][i]))
        for cpu, pair in enumerate(self.perf):
            for stream, perf in enumerate(pair):
                perf.release(int(self.state["perf_tail"][cpu, stream]))

    def cycle(self) -> bool:
        """Move all available records. Returns whether there were any."""
        self._flush_stale()
        watermark_ns = self.marks.sample()
        self._offsets.look()
        moved = self._drain()
        self._notice_losses()
        owes = self._owed or self._losses.due or self._latest_ns > int(self.state["watermark_ns"])
        if moved or owes or self._somebody_holds:
            self._announce(watermark_ns)
            self._mark(watermark_ns)
            self._commit()
        return moved

    def _drain(self) -> bool:
        self._moved = []
        tails = self.state["perf_tail"]
        for cpu, pair in enumerate(self.perf):
            for stream in (URGENT, BULK):
                perf = pair[stream]
                head = perf.head
                tail = int(tails[cpu, stream])
                if head == tail:
                    continue
                self._moved.append((head - tail, perf.size))
                for sample in perf.samples(tail, head):
                    if sample.bytes < HEADER.size:
                        continue  # a wakeup sample without a frame (bpf/c/flush.c)
                    self._route(perf, sample, read_header(perf.header(sample, HEADER.size)))
                self.state["perf_lost"] += perf.lost
                perf.lost = 0
                tails[cpu, stream] = head
        return bool(self._moved)

    def _route(self, perf: PerfRing, sample: Sample, header: FrameHeader) -> None:
        plan, state = self.plan, self.state
        slot = plan.slots - EXTRA_SLOTS - 1 + header.stream if header.stream else header.shard
        cpu = header.cpu
        owner = header.shard % plan.workers
        state["frames"][cpu, slot] += 1
        state["received"][cpu, slot] += header.heads
        expected = int(state["next_sequence"][cpu, slot])
        if header.sequence != expected:
            state["gaps"][cpu, slot] += header.sequence - expected
        state["next_sequence"][cpu, slot] = header.sequence + 1
        self._latest_ns = max(self._latest_ns, header.last_ns)
        targets = (owner,) if header.stream == STREAM_BULK else range(plan.workers)
        for worker in targets:
            room = self.rings[worker].try_reserve(sample.bytes, FRAME)
            if room is not None:
                perf.copy(sample, room)
            else:
                loss = Loss(cpu, header.shard, header.heads, header.first_ns, header.last_ns)
                self._miss(loss, header.stream)
                if worker != owner:
                    state["copies_dropped"] += header.heads
                    continue
                state["dropped"][cpu, slot] += header.heads
                if header.stream != STREAM_FACTS:
                    self._losses.add(loss)
        if len(self.rings) > plan.workers:
            room = self.rings[-1].try_reserve(sample.bytes, FRAME)
            if room is not None:
                perf.copy(sample, room)

    def _miss(self, loss: Loss, stream: int) -> None:
        """Add a gap: of one shard for bulk frames, else of all shards, because all process trees are affected."""
        of_shard = (loss.shard, self.plan.workers) if stream == STREAM_BULK else (0, 0)
        self._gaps.add(loss.first_ns, loss.last_ns, loss.count, *of_shard)

    def _notice_losses(self) -> None:
        """Register losses that the kernel has counted since the last call."""
        lost = self.marks.lost()
        fresh = lost != self.state["announced"]
        if not fresh.any():
            return
        # losses before the last watermark were already counted
        after_ns = int(self.state["watermark_ns"]) + 1
        for cpu, slot in np.argwhere(fresh).tolist():
            mark = self.marks.array[cpu, slot]
            count = int(lost[cpu, slot]) - int(self.state["announced"][cpu, slot])
            last_ns = int(mark["lost_last_ns"])
            first_ns = min(max(int(mark["lost_first_ns"]), after_ns), last_ns)
            is_bulk = slot < self.plan.workers
            loss = Loss(cpu, slot if is_bulk else BROADCAST, count, first_ns, last_ns)
            self._miss(loss, STREAM_BULK if is_bulk else STREAM_FACTS)
            if slot < self.plan.slots - 1:  # the last slot holds facts, which are not events
                self._losses.add(loss)
        self.state["announced"] = lost

    def _loss_frame(self, loss: Loss, time_ns: int) -> bytes:
        return loss_frame(loss, time_ns, self._offsets.at(loss.last_ns), self.plan.nodename)

    def _announce(self, watermark_ns: int, at_once: bool = False) -> None:
        if sent := self._losses.announce(watermark_ns, at_once):
            self.state["losses_sent"] += sent
            self._latest_ns = max(self._latest_ns, self._losses.announced_ns)

    def _mark(self, watermark_ns: int) -> None:
        """Append the watermark to every ring, after the frames of this cycle."""
        payload = U64.pack(watermark_ns)
        self._owed = [ring for ring in self.rings if not put(ring, WATERMARK, payload)]
        self.state["watermark_ns"] = watermark_ns

    def _commit(self) -> None:
        self._gaps.commit()
        for i, ring in enumerate(self.rings):
            self.state["ring_head"][i] = ring.write_position
        self.state["cpu_ns"] = self._cpu.now_ns()
        self.journal.commit()
        for ring in self.rings:
            ring.publish()
        for ring in self._owed:
            ring.promise(int(self.state["watermark_ns"]))
        for cpu, pair in enumerate(self.perf):
            for stream, perf in enumerate(pair):
                perf.release(int(self.state["perf_tail"][cpu, stream]))
        for bell in self.plan.bells:
            bell.ring()

    @property
    def _somebody_holds(self) -> bool:
        """Whether a worker holds back events until container names are known. It rechecks them at each watermark."""
        return any(journal.peek("held").any() for journal in self.control.workers)

    @property
    def _idle(self) -> bool:
        """Whether nothing is pending: no unsent record, sample, watermark or loss, and no row that a worker holds."""
        if (
            self._owed
            or self._losses.owed
            or self._somebody_holds
            or self._latest_ns > int(self.state["watermark_ns"])
            or self.marks.any_waiting()
        ):
            return False
        return all(perf.head == perf.tail for pair in self.perf for perf in pair)

    def _flush_stale(self) -> None:
        """Flush CPUs whose oldest record has waited for half an interval. This cycle drains it."""
        waiting = self.marks.waiting()
        if not waiting.any():
            return
        oldest = boottime_ns() - self.plan.interval_ms * 500_000
        stale = ((waiting != 0) & (waiting < oldest)).any(axis=1)
        for cpu in np.flatnonzero(stale).tolist():
            self.flush(cpu=cpu)
            self.state["flushes"] += 1

    def _cpu_of_others(self) -> list[int]:
        """CPU time in ns of the workers and the publisher."""
        return [int(journal.peek("cpu_ns")) for journal in (*self.control.workers, self.control.publisher)]

    def run(self) -> None:
        """Run cycles until the supervisor requests a stop, then drain all rings and send END to the workers."""
        interval_s = self.plan.interval_ms / 1000
        due, idle = time.monotonic(), False
        while not self.control.stopping:
            # a sample wakes the reader at once; the minimum distance between cycles batches samples under load
            self._poll.poll(IDLE_MS if idle else self.plan.interval_ms)
            early = due - time.monotonic()
            if early > 0:
                self._wait(early)
            self._look_at_clock()
            idle = self._idle
            if not idle:
                self.cycle()
                now = time.monotonic()
                self._pace.look(now, self._cpu_of_others, self._moved)
                due = now + interval_s * self._pace.intervals
        for cpu in range(self.plan.cpus):
            self.flush(cpu=cpu)
        while self.cycle():
            pass
        self._close_sequences()
        self._announce(boottime_ns(), at_once=True)
        self._finish()

    def _wait(self, seconds: float) -> None:
        """Wait for some seconds, or until the wall clock is set."""
        fds = [self._alarm.fd] if self._alarm.fd < FD_SETSIZE else []
        select.select(fds, [], [], seconds)

    def _look_at_clock(self) -> None:
        if self._alarm.rang():
            self._offsets.look()

    def _close_sequences(self) -> None:
        """Count frames refused after the last received one as gaps. The marks hold the next sequence number."""
        self.state["gaps"] += self.marks.array["frames"] - self.state["next_sequence"]
        self.state["next_sequence"] = self.marks.array["frames"]

    def _finish(self) -> None:
        """Write the final watermark and END. Only here does the reader wait for room in a ring.

        It stops waiting for the recorder after RECORDER_PATIENCE_S, because the recorder may be dead.
        """
        patience = time.monotonic() + RECORDER_PATIENCE_S
        for i, (ring, bell) in enumerate(zip(self.rings, self.plan.bells, strict=True)):
            for kind in (WATERMARK, END):
                while not put(ring, kind, U64.pack(FINAL_WATERMARK)):
                    if i >= self.plan.workers and time.monotonic() > patience:
                        break
                    ring.publish()
                    bell.ring()
                    select.select([], [], [], 0.001)
        self._commit()


def run(plan: Plan, ends: KernelEnds) -> None:
    """Run the reader process."""
    reader = Reader(plan, ends)
    reader.control.ready[READY_READER] = 1
    reader.run()
