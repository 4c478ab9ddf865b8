"""The composition root: assembles a run, and ends it in flow order.

    programs -> perf rings -> reader -> rings -> workers -> result rings -> publisher -> sinks

Stop order: detach the programs, drain the reader, then the workers, then the publisher, then unlink.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing import connection

import msgspec

from headrace import __version__
from headrace.bpf.host import probes
from headrace.bpf.layout import EXTRA_SLOTS
from headrace.bpf.load import loader, trees
from headrace.bpf.programs import scope
from headrace.bpf.programs.early import Test
from headrace.bpf.programs.terms import ScopeError
from headrace.bpf.tables.catalogue import catalogue
from headrace.config.filters import Condition
from headrace.config.outputs import STDOUT
from headrace.config.policies.claims import Claim, event_masks, names_of
from headrace.pipeline.host.features import event_lack, pid_namespace, time_namespace
from headrace.pipeline.process import privilege
from headrace.pipeline.process.books import Ledger
from headrace.pipeline.process.logs import logger
from headrace.pipeline.process.plan import Host
from headrace.pipeline.process.signals import Stopper
from headrace.pipeline.publish.targets import open_file
from headrace.pipeline.run.assemble import live_pipeline
from headrace.pipeline.run.kernel import Kernel
from headrace.pipeline.run.live import Server
from headrace.pipeline.run.reload import Reloader
from headrace.pipeline.run.request import Outcome, Request, Teller, print_headers
from headrace.pipeline.run.stage import EX_SOFTWARE, PipelineFailed, reader_stage, recorder_stage, sink_status
from headrace.pipeline.run.traced import Command
from headrace.pipeline.stages import reader, recording
from headrace.pipeline.transport.clock import boot_epoch_ns, boottime_ns
from headrace.workers.conditions import early
from headrace.workers.enrich.users import USERS

READS = ("exec_environment", "fd_paths", "exec_hash", "capture_bytes", "stack_addresses")
"""Settings that make headrace read additional data."""
STOP_DEADLINE_S = 5.0
START_DEADLINE_S = 60.0
TICK_S, IDLE_TICK_S = 0.02, 0.5
EX_UNAVAILABLE = 69


class LiveRun:
    """One live run."""

    def __init__(self, request: Request, teller: Teller) -> None:
        self.request = request
        settings = request.settings
        self._traced = request.traced(event_lack)
        now_ns = boottime_ns()
        self.span = scope.parse(settings.scope, now_ns, bool(request.command))
        self.span = scope.with_policies(self.span, [claim.scope for claim in request.claims], now_ns)
        named = () if request.command else (*self.span.pids, *self.span.trees)
        self._watched = [_watch(pid) for pid in named]
        self._teller = teller
        self._until = float("inf")
        self.stopper = Stopper()
        self._reloader: Reloader | None = None
        self._server = Server()
        self.command: Command | None = None
        self.kernel: Kernel | None = None
        self.status = 0
        self._failed = False
        """A stage has failed for good."""
        self._abandoned = False
        """The pipeline did not drain: events in flight are counted as dropped."""
        self._seeded = 0
        host = Host(
            cpus=probes.possible_cpus(),
            boot_epoch_ns=boot_epoch_ns(),
            nodename=os.uname().nodename.encode(),
            slots=settings.workers + EXTRA_SLOTS,
            started_ns=boottime_ns(),
        )
        self.pipeline = live_pipeline(request, host, self._traced.conditions, request.only(self._traced))
        self._facts = recording.RecordingFacts(
            boot_epoch_ns=host.boot_epoch_ns,
            nodename=os.uname().nodename,
            cpus=host.cpus,
            shards=settings.workers,
            machine=platform.machine(),
            made_by=f"headrace {__version__}",
            started_ns=host.started_ns,
            hidden=request.hidden,
            events=tuple(event.name for event in self._traced.events),
            reads=tuple(name for name in READS if getattr(settings, name)),
            narrowed=_narrowed(request.early(self._traced)) | _policed(request.claims),
            users=recording.RecordedUsers(*USERS.known()),
        )

    @property
    def _tree_live(self) -> int:
        """Number of live thread groups in the traced trees: those seeded here plus the kernel's change since then."""
        return self._seeded + (self.kernel.programs.tree_change if self.kernel else 0)

    def run(self) -> Outcome:
        """Trace until the end of the run, drain the pipeline, and complete the ledger."""
        try:
            self._start()
            self._attend()
            self._stop()
            ledger = self._ledger()
            self._teller.end(ledger)
            return Outcome(self.status, ledger)
        finally:
            self.close()

    def _start(self) -> None:
        """Start the stages, load and attach the programs, and release the command.

        The stages start while the programs are compiled, which takes longest.
        """
        settings = self.request.settings
        self._teller.begin(self._traced.events)
        for namespace in (pid_namespace(), time_namespace()):
            if not namespace.ok:
                raise loader.LoadError(f"{namespace.name}: {namespace.detail}", namespace.remedy)
        recorder = recorder_stage(settings.record, self._facts) if settings.record else None
        self.pipeline.start(recorder)
        self._teller.step("compiling and loading programs")
        self.kernel = kernel = self._load()
        programs = kernel.programs
        if self.request.rules:
            self._reloader = Reloader(self.request, self.pipeline.generations, programs, self.pipeline.plan.bells)
        descriptors = 2 * len(kernel.ends.perf)
        self.pipeline.on_restart = programs.resend_images
        self.pipeline.start_source(reader_stage(reader.run, kernel.ends, descriptors=descriptors, kept=kernel.rights))
        self.pipeline.wait_ready(START_DEADLINE_S)
        # do this before the command exists: the kernel attributes later children of headrace to headrace
        trees.seed_tree(programs, (os.getpid(),), loader.GROUP_OWN)
        if self.request.command:
            self.command = Command(self.request.command, self._separates())
            programs.set_group(self.command.pid, loader.GROUP_TREE | loader.GROUP_ARMED)
            self._seeded += 1
        request = self.request
        if masks := request.policy_masks(event_lack, request.ruleset, request.claims):
            programs.policies.ask(masks)
        programs.attach()
        kernel.tell_refused()
        programs.enter_containers()
        kernel.look_at_tables()
        for roots, flag in (
            (self.span.trees, loader.GROUP_TREE),
            (self.span.excluded_trees, loader.GROUP_NOT_TREE),
        ):
            count = trees.seed_tree(programs, roots, flag) if roots else 0
            self._seeded += count if flag == loader.GROUP_TREE else 0
        trees.seed_policies(programs, self.span)
        self._server.open()
        privilege.keep(*privilege.SUPERVISOR, *kernel.rights)
        if self.request.ready_fd >= 0:
            os.write(self.request.ready_fd, b"\n")
            os.close(self.request.ready_fd)
        self._teller.ready()
        print_headers(self.request, self.pipeline.columns)
        if self.request.duration_s:
            self._until = time.monotonic() + self.request.duration_s
        if self.command:
            self.command.go()

    def _separates(self) -> bool:
        """Whether the command's standard output goes to standard error, because headrace writes to standard output.

        On a terminal, both can share it.
        """
        targets = {sink.target for sink in self.request.sinks} | {self.request.settings.ledger}
        return STDOUT in targets and not os.isatty(1)

    def _load(self) -> Kernel:
        """Load programs that filter by signatures and conditions. If the kernel refuses them, use fewer filters."""
        settings, boot_ns = self.request.settings, self.pipeline.host.boot_epoch_ns
        tests: tuple[Test, ...] = early.early_tests(self.request.early(self._traced))
        tests += self.request.early_claims()
        narrowed = self.request.narrowed(self.request.ruleset)
        for decided in ((*tests, *narrowed) if narrowed else (), tests):
            try:
                if decided:
                    return Kernel(settings, self._traced, self.span, decided, boot_ns, whole=True)
            except loader.RefusedError as error:
                logger("supervisor").warning("supervisor.not_narrowed", reason=str(error))
        return Kernel(settings, self._traced, self.span, (), boot_ns)

    def _attend(self) -> None:
        """Supervise the run until it ends: by a signal, with the command's tree, or with the processes in the scope."""
        assert self.kernel is not None
        try:
            while not self._over():
                wait = [self.stopper.fd, self.kernel.alarm.fd, *self._server.fds(), *self.pipeline.sentinels()]
                wait += self._watched_fds()
                draining = self.command is not None and self.command.ended
                left_s = max(0.0, self._until - time.monotonic())
                connection.wait(wait, min(TICK_S if draining else IDLE_TICK_S, left_s))
                self.pipeline.attend()
                self.kernel.follow_clock()
                self.kernel.look_at_tables()
                self._if_hung_up()
                self._answer()
        except PipelineFailed as failure:
            self.status, self._failed = failure.status, True

    def _if_hung_up(self) -> None:
        """Handle a pending SIGHUP: reopen outputs and reload signatures."""
        if self.stopper.hung_up():
            self.pipeline.reopen_outputs()
            if self._reloader:
                self._reloader.now()

    def _watched_fds(self) -> list[int]:
        """Descriptors of the live processes whose end may end the run."""
        if self.command:
            return [] if self.command.ended else [self.command.pidfd]
        ended = set(connection.wait(self._watched, 0))
        return [fd for fd in self._watched if fd not in ended]

    def _over(self) -> bool:
        if self.stopper.signals:
            if self.command and not self.command.ended:
                self.command.signal(self.stopper.signals[0])
                connection.wait([self.command.pidfd], 1.0)
            return True
        if time.monotonic() > self._until:
            if self.command and not self.command.ended:
                self.command.signal(signal.SIGTERM)
                connection.wait([self.command.pidfd], 1.0)
            return True
        closed = self.pipeline.control.closed_sinks | self.pipeline.control.satisfied_sinks
        if closed and closed == (1 << len(self.pipeline.sinks)) - 1:
            return True
        if self.command:
            return self.command.ended and self._tree_live <= 0
        if self.span.trees and self._tree_live <= 0:
            return True
        if self.span.trees or self.span.follow or not self._watched:
            return False
        return len(connection.wait(self._watched, 0)) == len(self._watched)

    def _stop(self) -> None:
        assert self.kernel is not None
        self.kernel.programs.detach()
        self.pipeline.control.stop()
        self._if_hung_up()
        self._drain()
        if self.command and not self.status:
            # a command that ignores the signal, or whose events have lost all readers, continues untraced
            signalled = 128 + self.stopper.signals[0] if self.stopper.signals else 0
            self.status = self.command.status if self.command.ended else signalled
        self.status = self.status or sink_status(self.pipeline.control)

    def _drain(self) -> None:
        """Wait until everything is written.

        After a signal, or once a stage has failed for good, the stages have STOP_DEADLINE_S left: they may be waiting
        for the failed one. Then they are killed and the run counts as abandoned.
        """

        def hurry() -> bool:
            return bool(self._failed or self.stopper.signals)

        while True:
            try:
                self.pipeline.finish(hurry, STOP_DEADLINE_S, self._answer)
                self._abandoned = self.pipeline.failed
                return
            except PipelineFailed as failure:
                self.status, self._failed = self.status or failure.status, True
            except TimeoutError as error:
                logger("supervisor").error("supervisor.drain_abandoned", reason=str(error))
                self.status, self._abandoned = self.status or EX_SOFTWARE, True
                self.pipeline.kill()
                return

    def _answer(self) -> None:
        """Answer requests for the ledger. Also called while the pipeline drains."""
        self._server.serve(self._ledger)

    def _ledger(self) -> Ledger:
        assert self.kernel is not None
        ledger = self.pipeline.books(catalogue(), self._abandoned)
        self.kernel.add_to(ledger)
        if self._reloader:
            self._reloader.add_to(ledger)
        ledger.close(self._abandoned)
        return ledger

    def close(self) -> None:
        """Release everything, regardless of earlier errors."""
        with contextlib.ExitStack() as stack:
            for fd in self._watched:
                stack.callback(os.close, fd)
            stack.callback(self.stopper.close)
            stack.callback(self._server.close)
            if self.kernel:
                stack.callback(self.kernel.close)
            stack.callback(self.pipeline.close)
            if self.command:
                stack.callback(self.command.close)


def _watch(pid: int) -> int:
    """A pidfd, which becomes readable when the process ends. Raises ScopeError if the process has already ended."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError as error:
        raise ScopeError(f"scope: process {pid} has ended") from error


def _narrowed(early: Sequence[Condition]) -> dict[str, str]:
    """Events that the kernel filters, with the conditions that their records meet."""
    found: dict[str, list[str]] = {}
    for condition in early:
        found.setdefault(condition.event.name, []).append(condition.text)
    return {name: ", ".join(texts) for name, texts in found.items()}


def _policed(claims: Sequence[Claim]) -> dict[str, str]:
    """Events that policies ask for, with the names of the policies. Other processes have no such records."""
    masks = event_masks(claims)
    return {event: f"a policy asks for it: {', '.join(names_of(claims, mask))}" for event, mask in masks.items()}


def live(request: Request, teller: Teller | None = None) -> Outcome:
    """Trace this host."""
    return LiveRun(request, teller or Teller()).run()


def write_ledger(ledger: Ledger, path: str) -> None:
    """Write the ledger as JSON ("-": to standard output). Raises OSError if the file cannot be written."""
    data = msgspec.json.format(msgspec.json.encode(ledger), indent=2)
    if path == "-":
        sys.stdout.write(data.decode() + "\n")
    else:
        with open(open_file(path, truncate=True), "wb") as file:
            file.write(data + b"\n")
