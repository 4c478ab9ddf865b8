"""Replayer: takes the reader's place in a replay, and writes a recording into the workers' rings."""

from __future__ import annotations

import os
import select

import numpy as np

from headrace.bpf.layout import STREAM_FACTS
from headrace.pipeline.process.logs import logger
from headrace.pipeline.process.plan import READY_READER, Plan, attach_control, attach_producer
from headrace.pipeline.stages.reader import FINAL_WATERMARK
from headrace.pipeline.stages.recording import (
    BLOCK,
    EX_DAMAGED,
    TURN_BYTES,
    RecordingError,
    blocks,
    last_tables,
    mapped,
    read_facts,
)
from headrace.pipeline.transport.clock import CpuClock
from headrace.pipeline.transport.doorbell import InheritedFd
from headrace.pipeline.transport.frames import HEADER, read_header
from headrace.pipeline.transport.gaps import GapTable
from headrace.pipeline.transport.offsets import OffsetTable
from headrace.pipeline.transport.ring import END, FRAME, U64, WATERMARK


class Replayer:
    """Replaces the reader in a replay: writes a recording into the workers' rings as fast as they drain.

    Its journal is committed at each watermark that is passed on, with the position of the next block. A successor goes
    on from there. Records behind the committed heads may have been read already: the successor writes the same bytes to
    the same places, because routing depends on the recording alone.
    """

    def __init__(self, plan: Plan, data: memoryview, at: int, name: str) -> None:
        self.plan = plan
        self.control = attach_control(plan)
        self.journal = self.control.reader
        self.state = self.journal.next[0]
        self._cpu = CpuClock(int(self.state["cpu_ns"]))
        self.rings = [attach_producer(name) for name in plan.rings]
        for i, ring in enumerate(self.rings):
            ring.repeat_from(int(self.state["ring_head"][i]))
        self._at = int(self.state["block"]) or at
        self._blocks = blocks(data, self._at, name)
        gaps, (lost, steps) = GapTable(self.control.gaps), last_tables(data, at)
        gaps.take(lost)
        gaps.commit()
        OffsetTable(self.control.offsets, plan.boot_epoch_ns).take(steps)

    def _targets(self, payload: memoryview) -> list[int]:
        """Workers that receive this frame: the owner of its shard, or all of them.

        The owner is known only for bulk frames whose number of shards is a multiple of the number of workers.
        """
        if len(payload) < HEADER.size:
            return [0]
        header = read_header(bytes(payload[: HEADER.size]))
        plan = self.plan
        if header.stream == 0 and header.shards and header.shards % plan.workers == 0:
            return [header.shard % plan.workers]
        return list(range(plan.workers))

    def _put(self, worker: int, kind: int, payload: memoryview) -> None:
        ring = self.rings[worker]
        while (room := ring.try_reserve(len(payload), kind)) is None:
            self._publish()
            select.select([], [], [], 0.0005)
        room[:] = np.frombuffer(payload, "u1")

    def _publish(self) -> None:
        for ring, bell in zip(self.rings, self.plan.bells, strict=True):
            ring.publish()
            bell.ring()

    def run(self) -> int:
        """Replay all blocks. Returns the exit status: 0, or EX_DAMAGED."""
        status = 0
        if self.state["ended"]:  # a predecessor had finished
            return int(self.state["ended"]) - 1
        since = 0
        try:
            for kind, payload in self._blocks:
                self._at += BLOCK.size + len(payload) + (-len(payload) % 8)
                if kind == FRAME:
                    self._take(payload)
                    since += len(payload)
                elif kind == WATERMARK and since >= TURN_BYTES:
                    since = 0
                    self.state["watermark_ns"] = max(int(self.state["watermark_ns"]), U64.unpack(payload)[0])
                    self._put_all(WATERMARK, int(self.state["watermark_ns"]))
                    self._commit()
        except RecordingError as error:
            logger("replay").error("replay.recording_damaged", reason=str(error))
            status = EX_DAMAGED
        self.state["watermark_ns"] = FINAL_WATERMARK
        self._put_all(WATERMARK, FINAL_WATERMARK)
        self._put_all(END, FINAL_WATERMARK)
        self.state["ended"] = 1 + status
        self._commit()
        return status

    def _take(self, payload: memoryview) -> None:
        """Count a frame and write it to the rings of its workers."""
        if len(payload) >= HEADER.size:
            header = read_header(bytes(payload[: HEADER.size]))
            slot = -1 if header.stream == STREAM_FACTS else 0
            self.state["received"][0, slot] += header.heads
            self.state["frames"][0, 0] += 1
        for worker in self._targets(payload):
            self._put(worker, FRAME, payload)

    def _put_all(self, kind: int, time_ns: int) -> None:
        for worker in range(self.plan.workers):
            self._put(worker, kind, memoryview(U64.pack(time_ns)))

    def _commit(self) -> None:
        """Commit the position and the counters, then show the workers what was written."""
        for i, ring in enumerate(self.rings):
            self.state["ring_head"][i] = ring.write_position
        self.state["block"], self.state["cpu_ns"] = self._at, self._cpu.now_ns()
        self.journal.commit()
        self._publish()


def replay(plan: Plan, file: InheritedFd, path: str) -> None:
    """Run the replayer process on an already open recording. Exits with EX_DAMAGED if it is damaged."""
    data = mapped(file, path)
    _, at = read_facts(data, path)
    replayer = Replayer(plan, data, at, path)
    replayer.control.ready[READY_READER] = 1
    status = replayer.run()
    if status:
        os._exit(status)
