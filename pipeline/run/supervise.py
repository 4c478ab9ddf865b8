"""Supervisor: creates the segments, starts the stages, restarts stages that die, and ends them in flow order.

    supervisor (the only one with privilege)
      |- reader, or replayer     drains or reads into the rings
      |- recorder                if a recording is made
      |- worker 0..N-1
      |- publisher

The journals (pipeline/transport/shm.py) make restarts exact. This module only decides whether a stage is restarted. It
gives up after MAX_RESTARTS restarts (for a worker: without a committed turn in between), or on an exit status for which
a restart is pointless (GIVE_UP).
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any

from headrace.bpf.tables.catalogue import Event
from headrace.config.capture import Capture
from headrace.config.filters import Condition
from headrace.config.outputs import STANDARD, Output
from headrace.config.policies.claims import Claim, rule_masks
from headrace.config.rules import Rule
from headrace.config.runtimes import Endpoint
from headrace.config.settings import Settings
from headrace.pipeline.process.books import (
    Ledger,
    add_reader,
    add_recording,
    add_sinks,
    add_workers,
    delivered_rows,
    with_begun,
)
from headrace.pipeline.process.logs import logger
from headrace.pipeline.process.plan import READY_WORKER, Control, Host, Plan, render_of
from headrace.pipeline.process.privilege import stage_ids
from headrace.pipeline.process.progress import settled
from headrace.pipeline.publish import publisher
from headrace.pipeline.publish.curve import server_keys
from headrace.pipeline.publish.endpoints import Listening
from headrace.pipeline.publish.reopen import Files
from headrace.pipeline.publish.settling import settle
from headrace.pipeline.publish.sinks import open_target
from headrace.pipeline.publish.targets import make_room
from headrace.pipeline.run.asides import Asides
from headrace.pipeline.run.preload import modules_for
from headrace.pipeline.run.stage import PipelineFailed, Stage, end_nursery, nursery_is_stopped, start_helpers
from headrace.pipeline.run.watchdog import Watchdog
from headrace.pipeline.signatures.generations import Generations
from headrace.pipeline.transport.clock import boottime_ns
from headrace.pipeline.transport.doorbell import Doorbell, InheritedFd
from headrace.pipeline.transport.ring import Ring
from headrace.pipeline.transport.shm import Array, Segment, remove_orphans, require_room, require_total_store_order
from headrace.workers import process as worker_process
from headrace.workers.detect.findings.shapes import shape

MAX_RESTARTS = 20
ASIDE_S = 1.0
"""Time that auxiliary stages (Stage.aside) have to end after all others have ended."""
SIGNATURE_NS = 5 * 10**9
"""Time limit of a Python signature for the events of a turn."""
GIVE_UP = frozenset({64, 65, 74})


@dataclass
class Pipeline:
    """Segments and processes of a run. `close()` ends and removes all of them."""

    settings: Settings
    host: Host
    sinks: tuple[Output, ...]
    conditions: tuple[Condition, ...] = ()
    only: tuple[Event, ...] | None = None
    claims: tuple[Claim, ...] = ()
    """What policies ask for."""
    rules: Sequence[Rule] = ()
    hidden: tuple[str, ...] = ()
    fold_s: int = 0
    before_s: float = 0
    records: bool = False
    endpoints: tuple[Endpoint, ...] = ()
    """Container runtimes to query."""
    hashes: bool = False
    """Whether executables are hashed. Never in a replay, because the files are on the recorded host."""
    capture: Capture | None = None
    """Artifacts to keep. Never in a replay."""
    colour: bool = False
    columns: int = 0
    users: tuple[dict[int, str], bool] | None = None
    """User names of the recorded host (see Plan.users)."""
    on_restart: Callable[[], None] = lambda: None
    """Called before a stage is restarted, because a worker's knowledge of the traced processes dies with it."""
    _listening: dict[str, Listening] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        require_total_store_order()
        self._keys = tuple(server_keys(sink) for sink in self.sinks)
        start_helpers(modules_for(self.rules, self.sinks, self.endpoints))
        workers, rings = self.settings.workers, self.settings.workers + self.records
        self._segments: list[Segment] = []
        targets = [self._target(sink, sink.truncate) for sink in self.sinks]
        self._files, self._targets = Files(self.sinks, targets, self._reopened), targets
        size = Control.bytes_for(workers, self.host.cpus, self.host.slots, rings, len(self.sinks))
        remove_orphans()
        ring, result = Ring.bytes_for(self.settings.ring_bytes), Ring.bytes_for(self.settings.result_bytes)
        tables = Asides.room(self.hashes, bool(self.endpoints))
        require_room([size, rings * ring, workers * result, tables])
        control = self._segment(size)
        self.control = Control(control, workers, self.host.cpus, self.host.slots, rings, len(self.sinks))
        self._watchdog, self.generations = Watchdog(self.control), Generations(self.control)
        if self.rules:
            self.generations.offer(self.rules, rule_masks(self.claims))
        self.stages: list[Stage] = []
        self._asides = Asides(self.settings, self._segment, self.hashes, self.endpoints, self.capture)
        self.plan = Plan(
            workers=workers,
            cpus=self.host.cpus,
            slots=self.host.slots,
            boot_epoch_ns=self.host.boot_epoch_ns,
            relative_to_ns=self.host.started_ns if self.settings.relative_time else None,
            nodename=self.host.nodename,
            sinks=self.sinks,
            conditions=self.conditions,
            only=self.only,
            claims=self.claims,
            parse_arguments=self.settings.parse_arguments,
            detect_syscall=self.settings.detect_syscall,
            stack_addresses=self.settings.stack_addresses,
            control=control.name,
            rings=tuple(self._segment(ring).name for _ in range(rings)),
            results=tuple(self._segment(result).name for _ in range(workers)),
            bells=tuple(Doorbell() for _ in range(rings)),
            publisher_bell=Doorbell(),
            interval_ms=self.settings.interval_ms,
            order_bound_ms=self.settings.order_bound_ms,
            log_level=self.settings.log_level,
            publisher=uuid.uuid4().hex[:12],
            hashes_remote=self.settings.exec_hash_remote,
            users=self.users,
            container_labels=self.settings.container_labels,
            detects=bool(self.rules),
            hidden=self.hidden,
            fold_s=self.fold_s,
            before_s=self.before_s,
            secret=os.urandom(16) if self.rules and self.fold_s else b"",
            colour=self.colour,
            columns=self.columns,
            verbose=self.settings.verbose,
            **self._asides.plan,
        )

    def reopen_outputs(self) -> None:
        """Reopen output files whose path names another file."""
        self._files.reopen()

    def _reopened(self, sink: Output) -> InheritedFd:
        target = self._target(sink, truncate=False)
        assert target is not None
        return target

    def _target(self, sink: Output, truncate: bool) -> InheritedFd | None:
        if sink.format == "zmq":
            if sink.target not in self._listening:
                self._listening[sink.target] = Listening(sink.target)
            return self._listening[sink.target].target
        if sink.format == "none":
            return None
        target = InheritedFd(open_target(sink.target, f"output {sink.name}", truncate))
        if sink.target not in STANDARD and stat.S_ISFIFO(os.fstat(target.fd).st_mode):
            os.set_blocking(target.fd, False)  # a blocking write does not report how much it has written so far
        make_room(target.fd)
        if sink.format == "arrow":
            from headrace.workers.views import arrow  # needs the optional dependency pyarrow

            with contextlib.suppress(OSError):  # the sink will report the error
                os.write(target.fd, arrow.head(self.settings.relative_time))
        return target

    def _segment(self, size: int) -> Segment:
        segment = Segment(size, ids=stage_ids())
        self._segments.append(segment)
        return segment

    def start(self, recorder: Stage | None = None) -> None:
        """Start every stage except the source."""
        self._recording = recorder.args[0].fd if recorder else -1
        self._launch(Stage("publisher", publisher.run, (self._targets, self._files.end, shape, self._keys)))
        for i in range(self.plan.workers):
            self._launch(Stage(f"worker-{i}", worker_process.run, (i,)))
        if recorder:
            self._launch(recorder)
        for stage in self._asides.stages():
            self._launch(stage)

    def start_source(self, source: Stage) -> None:
        """Start the stage that feeds the rings: the reader or the replayer."""
        self._launch(source)

    def _launch(self, stage: Stage) -> None:
        if stage not in self.stages:
            self.stages.append(stage)
        stage.launch(self.plan, len(self.plan.bells) + len(self._targets))

    def wait_ready(self, deadline_s: float) -> None:
        """Wait until the publisher, reader, workers and enricher are ready. Raises TimeoutError at the deadline."""
        until = time.monotonic() + deadline_s
        stages = READY_WORKER + self.plan.workers + bool(self.endpoints)
        while not self.control.ready[:stages].all():
            if time.monotonic() > until:
                raise TimeoutError("the pipeline's processes did not start")
            self.attend()
            time.sleep(0.005)

    def sentinels(self) -> list[int]:
        """Descriptors that become readable when a process ends."""
        return [s.running.sentinel for s in self.stages if not s.finished and s.running is not None]

    def _watch_signatures(self) -> None:
        """Disable Python signatures that have not returned within SIGNATURE_NS or have crashed their worker."""
        for i, stage in enumerate(self.stages_of_workers()):
            running = self.control.running[i]
            if not (number := int(running["signature"])) or stage.running is None:
                continue
            alive = stage.running.is_alive()
            if alive and boottime_ns() - int(running["since_ns"]) < SIGNATURE_NS:
                continue
            self.control.off[number - 1] = 1
            running["signature"] = 0
            what = "did not return" if alive else "ended its worker"
            logger("supervisor").error("supervisor.signature_switched_off", number=number, worker=i, reason=what)
            if alive:
                stage.running.kill()

    def stages_of_workers(self) -> list[Stage]:
        """The stages of the workers, in order."""
        return [stage for stage in self.stages if stage.name.startswith("worker-")]

    def attend(self) -> None:
        """Supervise: disable hanging signatures, reopen rotated files, kill stuck stages, restart stages that died.

        Raises PipelineFailed if a stage cannot be restarted.
        """
        if self.rules:
            self._watch_signatures()
            self.generations.attend()
        self._files.look()
        for stage, why in self._watchdog.look(self.stages):
            logger("supervisor").error("supervisor.process_stalled", name=stage.name, reason=why)
            stage.lost = not stage.kill()
        for stage in self.stages:
            if stage.finished or stage.running is None or (stage.running.is_alive() and not stage.lost):
                continue
            stage.status = -signal.SIGKILL if stage.lost else stage.running.exitcode or 0
            stage.lost = False
            if stage.status == 0:
                stage.finished = True
            elif stage.status in GIVE_UP or self._futile(stage) >= MAX_RESTARTS or stage.once:
                stage.finished = True
                if stage.spare:
                    self.control.ready[READY_WORKER + self.plan.workers] = 1  # do not wait for it
                    logger("supervisor").error("supervisor.process_given_up", name=stage.name, status=stage.status)
                    continue
                raise PipelineFailed(stage.name, stage.status)
            else:
                stage.restarts, stage.futile = stage.restarts + 1, stage.futile + 1
                logger("supervisor").warning("supervisor.process_restarted", name=stage.name, status=stage.status)
                if not stage.spare:
                    self.on_restart()  # first: what happens from now on finds its process known
                self._launch(stage)

    def _futile(self, stage: Stage) -> int:
        """Restarts without progress. A worker eventually gives up rows that crash it (workers/attempts.py)."""
        if stage.name.startswith("worker-"):
            turns = int(self.control.workers[int(stage.name.partition("-")[2])].peek("turns"))
            stage.futile, stage.turns = stage.futile if turns == stage.turns else 0, turns
        return stage.futile

    def finish(self, hurry: Callable[[], bool], deadline_s: float, meanwhile: Callable[[], None]) -> None:
        """Wait until every stage has drained and ended. `meanwhile` is called several times a second.

        Raises TimeoutError `deadline_s` after `hurry` has first returned true. Auxiliary stages are killed ASIDE_S
        after all others have ended.
        """
        until = None
        while not all(stage.finished or stage.aside for stage in self.stages):
            if until is None and hurry():
                until = time.monotonic() + deadline_s
            if until is not None and time.monotonic() > until:
                names = [s.name for s in self.stages if not s.finished]
                raise TimeoutError(f"still running: {', '.join(names)}")
            connection.wait(self.sentinels(), 0.1)
            self.attend()
            meanwhile()
        aside_until = time.monotonic() + ASIDE_S
        while not all(stage.finished for stage in self.stages) and time.monotonic() < aside_until:
            connection.wait(self.sentinels(), 0.1)
            self.attend()
            meanwhile()
        for stage in self.stages:
            if not stage.finished:
                logger("supervisor").error("supervisor.process_stalled", name=stage.name, reason="it did not end")
                stage.kill()
                stage.finished = True

    def books(self, catalogue: Any, abandoned: bool = False) -> Ledger:
        """The user-space part of the ledger. `abandoned`: the run was aborted and all stages are killed."""
        ledger = Ledger()
        workers = [journal.committed() for journal in self.control.workers]
        if abandoned:
            workers = [with_begun(state, self.plan.finding_render) for state in workers]
        add_reader(ledger, self.control.reader.committed())
        add_workers(ledger, workers, catalogue, bool(self.rules))
        add_sinks(ledger, self.control.publisher.committed(), [s.name for s in self.sinks])
        self._add_outputs(ledger, workers, abandoned)
        if self.records:
            found = settled(self.control.progress[-1], self._recording if abandoned else -1, lines=False)
            uncertain = found.uncertain if abandoned else 0
            add_recording(ledger, self.control.reader.committed(), self.settings.record, found.written, uncertain)
        if self.rules:
            self.generations.add_to(ledger)
        self._asides.add_to(ledger, workers)
        ledger.fill = self.control.fill(self.settings.ring_bytes, self.settings.result_bytes)
        ledger.restarts = {s.name: s.restarts for s in self.stages if s.restarts}
        return ledger

    def _add_outputs(self, ledger: Ledger, workers: list[Array], abandoned: bool) -> None:
        """Complete the lines of the outputs: rows lost together with a worker, and the outcome of an aborted run."""
        rows = delivered_rows(workers)
        if abandoned:
            goes_on = any(s.name == "publisher" and s.running and s.running.is_alive() for s in self.stages)
            settle(ledger, self.sinks, self._targets, self.control.progress, rows, goes_on)
            return
        for number, render in enumerate(self.plan.renders):
            lost = sum(int(state["held_lost"][0][number]) for state in workers)
            for line, sink in zip(ledger.sinks, self.sinks, strict=False):
                counts = render_of(sink) == render or (sink.render == "none" and not number)
                if lost and counts and not sink.of_findings:
                    line.offered, line.dropped = line.offered + lost, line.dropped + lost
        if all(stage.finished for stage in self.stages):
            lines = zip(ledger.sinks, self.sinks, strict=False)
            ledger.unoffered = sum(max(0, rows - line.offered) for line, sink in lines if not sink.of_findings)

    @property
    def failed(self) -> bool:
        """Whether a stage that events pass through has failed for good. The recorder does not count."""
        return any(s.finished and s.status and not (s.aside or s.once) for s in self.stages)

    def kill(self) -> None:
        """Kill all stages that still run."""
        if nursery_is_stopped():
            end_nursery("the run ends")
        for stage in self.stages:
            stage.kill()

    def close(self) -> None:
        """Kill all stages that still run, and remove the segments, pipes and sockets."""
        self.kill()
        self.generations.close()
        self.control.close()
        for segment in self._segments:
            segment.close()
        for bell in (*self.plan.bells, self.plan.publisher_bell):
            bell.close()
        self._files.close()
        for listening in self._listening.values():
            listening.close()
        self._asides.close()
