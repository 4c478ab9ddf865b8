"""The kernel's end of a run: programs, perf events, and a mapping of every perf ring. Held by the supervisor."""

from __future__ import annotations

import os
import time
from pathlib import Path

from headrace.bpf.host.btf import Btf, BtfError
from headrace.bpf.load import loader
from headrace.bpf.load.integrity import Integrity
from headrace.bpf.programs import scope, source
from headrace.bpf.programs.early import Test
from headrace.bpf.tables.catalogue import catalogue
from headrace.config import filters
from headrace.config.settings import Settings
from headrace.pipeline.host.features import NO_BTF
from headrace.pipeline.process import privilege
from headrace.pipeline.process.books import Ledger, add_kernel
from headrace.pipeline.process.logs import logger
from headrace.pipeline.stages import reader
from headrace.pipeline.transport import perf, watermark
from headrace.pipeline.transport.clock import StepAlarm, boot_epoch_ns
from headrace.pipeline.transport.doorbell import InheritedFd
from headrace.pipeline.transport.perf import PerfRing

AGAIN_S = 1.0
"""Until the second look at what can be seen in passing."""
WAKE_BYTES, WAKE_FRACTION = 1 << 20, 8
"""What wakes the reader if nothing else does: so much in a bulk perf ring, or this part of a small one. The rest of the
ring is there for the time that the reader waits for a CPU."""


class Tables:
    """When the kernel's own tables are looked at: at the start, every `interval_s`, and when a module has loaded; then
    again AGAIN_S later, since the module's own code runs after the tracepoint.
    """

    def __init__(self, programs: loader.Programs, btf: Btf, interval_s: int) -> None:
        self._programs, self._interval_s = programs, interval_s
        self._integrity = Integrity(programs, btf)
        self._next_s, self._loaded = 0.0, programs.modules_loaded

    def attend(self) -> None:
        """Look if it is time."""
        before, self._loaded = self._loaded, self._programs.modules_loaded
        changed = self._loaded != before
        if not changed and time.monotonic() < self._next_s:
            return
        for found in self._integrity.look():
            logger("supervisor").info("supervisor.kernel_changed", event_name=found.event)
        self._next_s = time.monotonic() + (AGAIN_S if changed or self._integrity.unsure else self._interval_s)

    def close(self) -> None:
        """Close what is open."""
        self._integrity.close()


class Kernel:
    """The kernel's end: programs, perf events, and a mapping of every perf ring that outlives readers."""

    def __init__(
        self,
        settings: Settings,
        selection: filters.Selection,
        span: scope.Scope,
        tests: tuple[Test, ...],
        boot_ns: int,
        whole: bool = False,
    ) -> None:
        """`whole`: a program that the kernel refuses is an error whatever it is for (bpf/load/loader.py)."""
        try:
            btf = Btf.of_kernel()
        except BtfError as error:
            raise loader.LoadError(str(error), NO_BTF) from error
        wanted = source.Wanted(
            events=selection.events,
            scope=span,
            shards=settings.workers,
            environment=settings.exec_environment,
            capture_bytes=settings.capture_bytes,
            stacks=settings.stack_addresses,
            fd_paths=settings.fd_paths,
            tests=tests,
            retval=selection.retval,
            boot_epoch_ns=boot_ns,
        )
        self.programs = loader.Programs(wanted, btf, Path(settings.cache) if settings.cache else None, whole)
        self._wanted = wanted
        self._tables = Tables(self.programs, btf, settings.integrity_s) if self.programs.wanted.checked else None
        self.rights = (privilege.CAP_BPF,) if privilege.descriptors_need_right(self.programs.containers) else ()
        """What supervisor and reader must keep, to go on using maps and programs."""
        self.cpus = self.programs.cpus
        self._produced = watermark.produced(self.programs.map_fd("produced"), self.cpus)
        self._marks = watermark.Marks(self.programs.map_fd("marks"), self.cpus, self.programs.slots)
        self._fds: list[tuple[int, int]] = []
        self._mappings: list[PerfRing] = []
        wake_bytes = min(WAKE_BYTES, settings.perf_pages * perf.PAGE // WAKE_FRACTION)
        for cpu in range(self.cpus):
            self._fds.append(
                (
                    self._open("bulk", cpu, settings.perf_pages, wake_bytes),
                    self._open("urgent", cpu, settings.urgent_pages, 1),
                )
            )
        self.ends = reader.KernelEnds(
            perf=tuple((InheritedFd(a), InheritedFd(b)) for a, b in self._fds),
            perf_pages=settings.perf_pages,
            urgent_pages=settings.urgent_pages,
            marks=InheritedFd(self.programs.map_fd("marks")),
            flush=InheritedFd(self.programs.flush_fd),
            alarm=StepAlarm(),
        )
        self.alarm = StepAlarm()
        """Readable when the wall clock was set: follow_clock() then."""

    def _open(self, name: str, cpu: int, pages: int, wakeup_bytes: int) -> int:
        try:
            fd = perf.open_output(cpu, wakeup_bytes)
            self._mappings.append(PerfRing(fd, pages))
        except OSError as error:
            remedy = "CAP_IPC_LOCK, fewer --perf-pages, or more of kernel.perf_event_mlock_kb"
            raise loader.LoadError(f"perf buffer of CPU {cpu}: {error.strerror}", remedy) from error
        perf.enable(fd)
        self.programs.set_perf_fd(name, cpu, fd)
        return fd

    def tell_refused(self) -> None:
        """Warn of programs that the kernel did not take, or not where they belong; once they are attached."""
        for function, reason in self.programs.refused.items():
            events = ", ".join(self._wanted.raised_by(function))
            logger("supervisor").warning("supervisor.program_refused", program=function, events=events, reason=reason)

    def follow_clock(self) -> None:
        """Tell the programs what the wall clock shows, for the times of containers."""
        self.alarm.rang()
        self.programs.set_boot_epoch(boot_epoch_ns())

    def look_at_tables(self) -> None:
        """Look at the kernel's own tables if it is time, and have told what is found; asked several times a second."""
        if self._tables:
            self._tables.attend()

    def add_to(self, ledger: Ledger) -> None:
        """The kernel's part of the books."""
        produced = self._produced.array["events"]
        add_kernel(ledger, produced, self._marks.array, catalogue())
        ledger.missed_by_program = self.programs.missed_runs()
        ledger.missed_runs = sum(ledger.missed_by_program.values())
        ledger.cross_checks["lost_frames"] = int(self._marks.array["lost_frames"].sum())
        ledger.cross_checks["groups_overflow"] = self.programs.groups_overflow
        ledger.cross_checks["containers"] = len(self.programs.containers())
        ledger.cross_checks["containers_overflow"] = self.programs.containers_overflow

    def close(self) -> None:
        """Detach, unmap, free."""
        if self._tables:
            self._tables.close()
        self.alarm.close()
        self.ends.alarm.close()
        self._produced.close()
        self._marks.close()
        for mapping in self._mappings:
            mapping.close()
        for pair in self._fds:
            for fd in pair:
                os.close(fd)
        self.programs.close()
