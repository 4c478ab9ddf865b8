"""The kernel side of a run, owned by the supervisor: programs, perf events, and a mapping of every perf ring."""

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
"""Delay before tables are checked again after a module was loaded or a check was inconclusive."""
WAKE_BYTES, WAKE_FRACTION = 1 << 20, 8
"""A bulk perf ring wakes the reader at WAKE_BYTES, or when 1/WAKE_FRACTION of it is full if that is less. The rest of
the ring covers the time until the reader is scheduled."""


class Tables:
    """Schedules checks of the kernel's own tables: at the start, every `interval_s`, and when a module is loaded.

    After a module load they are checked again AGAIN_S later, because the module's code runs after the tracepoint.
    """

    def __init__(self, programs: loader.Programs, btf: Btf, interval_s: int) -> None:
        self._programs, self._interval_s = programs, interval_s
        self._integrity = Integrity(programs, btf)
        self._next_s, self._loaded = 0.0, programs.modules_loaded

    def attend(self) -> None:
        """Check the tables if a check is due."""
        before, self._loaded = self._loaded, self._programs.modules_loaded
        changed = self._loaded != before
        if not changed and time.monotonic() < self._next_s:
            return
        for found in self._integrity.look():
            logger("supervisor").info("supervisor.kernel_changed", event_name=found.event)
        self._next_s = time.monotonic() + (AGAIN_S if changed or self._integrity.unsure else self._interval_s)

    def close(self) -> None:
        """Release the resources of the checks."""
        self._integrity.close()


class Kernel:
    """The kernel side: programs, perf events, and a mapping of every perf ring that survives restarts of the reader."""

    def __init__(
        self,
        settings: Settings,
        selection: filters.Selection,
        span: scope.Scope,
        tests: tuple[Test, ...],
        boot_ns: int,
        whole: bool = False,
    ) -> None:
        """`whole`: any program that the kernel refuses is an error (bpf/load/loader.py). Raises loader.LoadError."""
        try:
            btf = Btf.of_kernel()
        except BtfError as error:
            raise loader.LoadError(str(error), NO_BTF) from error
        wanted = source.WantedPrograms(
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
            checks=settings.kernel_checks,
        )
        self.programs = loader.Programs(wanted, btf, Path(settings.cache) if settings.cache else None, whole)
        self._wanted = wanted
        self._tables = Tables(self.programs, btf, settings.integrity_s) if self.programs.wanted.checked else None
        self.rights = (privilege.CAP_BPF,) if privilege.descriptors_need_right(self.programs.containers) else ()
        """Capabilities that the supervisor and the reader must keep to use maps and programs."""
        self.cpus = self.programs.cpus
        self._produced = watermark.produced(self.programs.map_fd("produced"), self.cpus)
        self._marks = watermark.Watermarks(self.programs.map_fd("marks"), self.cpus, self.programs.slots)
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
        """Readable when the wall clock was set. Call follow_clock() then."""

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
        """Log a warning for each program that the kernel refused to load or attach. Call it after attaching."""
        for function, reason in self.programs.refused.items():
            lost = ", ".join(self._wanted.lost_without(function))
            logger("supervisor").warning("supervisor.program_refused", program=function, events=lost, reason=reason)

    def follow_clock(self) -> None:
        """Pass the wall clock offset to the programs, which need it for the times of containers."""
        self.alarm.rang()
        self.programs.set_boot_epoch(boot_epoch_ns())

    def look_at_tables(self) -> None:
        """Check the kernel's own tables if a check is due, and log changes. Called several times a second."""
        if self._tables:
            self._tables.attend()

    def add_to(self, ledger: Ledger) -> None:
        """Add the kernel's counters to the ledger."""
        produced = self._produced.array["events"]
        add_kernel(ledger, produced, self._marks.array, catalogue())
        ledger.missed_by_program = self.programs.missed_runs()
        ledger.missed_runs = sum(ledger.missed_by_program.values())
        ledger.cross_checks["lost_frames"] = int(self._marks.array["lost_frames"].sum())
        ledger.cross_checks["groups_overflow"] = self.programs.groups_overflow
        ledger.cross_checks["containers"] = len(self.programs.containers())
        ledger.cross_checks["containers_overflow"] = self.programs.containers_overflow

    def close(self) -> None:
        """Close everything: detach programs, unmap rings, close descriptors."""
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
