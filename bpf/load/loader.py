"""Loads and attaches the programs. Runs in the supervisor, the only privileged process."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from headrace.bpf import layout, syscall
from headrace.bpf.host import cgroups, dcache, offsets, probes
from headrace.bpf.host.btf import Btf, BtfError
from headrace.bpf.load.policies import PolicyMaps
from headrace.bpf.mapped import MappedArray
from headrace.bpf.programs import compiler, hooks, link, rows, source
from headrace.bpf.programs.looks import LOOKS, PROGRAMS, WALK
from headrace.bpf.programs.source import HERE, WantedPrograms
from headrace.bpf.syscall import KPROBE, RAW_TRACEPOINT, TRACEPOINT
from headrace.bpf.tables.catalogue import LIFECYCLE, SYS_EXIT, Call, Event, catalogue
from headrace.bpf.test_run import TestRun

GROUP_OWN, GROUP_TREE, GROUP_NOT_TREE, GROUP_FOLLOWED, GROUP_ARMED = 1, 2, 4, 8, 16
MOUNT_TRACEFS = f"mount -t tracefs tracefs {probes.TRACEFS[0]}"
INSTALL = "apt install python3-bpfcc, then make setup"
ESSENTIAL = frozenset({"on_sys_exit", "on_sched_switch", *(f"on_{name}" for name in LIFECYCLE)})
"""Programs that every run needs."""
STACK = re.compile(r"in function (\w+) .*stack limit")
READ_KERNEL, UNLOCK = (
    "unknown func bpf_probe_read_kernel",
    "a kernel that is not locked down as far as `confidentiality`",
)
SAMPLE_NAMES, ENTRY = "sample_names", "on_entry"
HOOKED = "@hook"
"""Suffix of the kprobe copies of a map and a program. Tail calls only reach programs of the same type."""


class LoadError(Exception):
    """The programs cannot run here. `remedy` says what would help."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message + (f" ({remedy})" if remedy else ""))
        self.remedy = remedy


class RefusedError(LoadError):
    """The kernel rejects a program."""


class Programs:
    """The loaded programs and their maps. close() detaches and frees them."""

    def __init__(self, wanted: WantedPrograms, btf: Btf, kept: Path | None = None, whole: bool = False) -> None:
        """Raises LoadError. `kept`: cache folder for compiled programs (bpf/programs/compiler.py); `whole`: raise
        RefusedError if the kernel rejects any program, even one that only some events need.
        """
        self.wanted, self._whole = wanted, whole
        self.refused: dict[str, str] = {}
        """Programs that could not be used, with the reason. Their events are missing."""
        self.cpus = probes.possible_cpus()
        machine = platform.machine()
        if machine not in offsets.REGISTERS:
            raise LoadError(f"headrace has no register table for {machine}")
        try:
            kernel = offsets.resolve(btf, machine) | source.hierarchy(btf)
        except BtfError as error:
            raise LoadError(str(error), "this kernel is older or newer than headrace knows") from error
        probes.lift_memory_limit()
        self._kernel = kernel | source.features(btf, syscall.takes(syscall.EXCHANGE), syscall.takes(syscall.ANCESTOR))
        self._perf_events: dict[str, str] = {}
        """Tracepoints whose programs use perf events, with their groups."""
        if probes.can_be_preempted(btf):
            self._perf_events = source.PERF_EVENTS
            self._kernel |= self._records()
        self._prepares = probes.has_raw_tracepoint(btf, "sched_prepare_exec")
        self._btf = btf
        self._attached: list[int] = []
        self._hooked = hooks.hooked(wanted.probed, btf)
        self._kernel |= {f"HOOK_{program.removeprefix('hook_')}": which for program, (_, which) in self._hooked.items()}
        self._functions: dict[str, int] = {}
        self._maps: dict[str, syscall.Map] = {}
        self.policies = PolicyMaps(self._maps, self._groups_changed)
        found = self._compiled(machine, kept)
        wanted = self.wanted
        # hook programs that needed too much stack are missing
        self._hooked = {program: where for program, where in self._hooked.items() if program in found.programs}
        for spec in found.maps:
            try:
                self._maps[spec.name] = spec.create()
                if self._hooked and spec.name == "objects":
                    self._maps[spec.name + HOOKED] = spec.create()
            except OSError as error:
                raise LoadError(f"the kernel refused the map {spec.name}: {error.strerror}") from error
        self._status = MappedArray(self.map_fd("status"), layout.STATUS, 1, writable=True)
        self._status.array["boot_epoch_ns"] = wanted.boot_epoch_ns
        self._fill_calls()
        try:
            self._load(found)
        except RefusedError:
            self._free()
            raise
        self._find_names()
        for program in wanted.tails:
            fd = self._functions.get(f"on_{program}")
            if fd is not None:
                self._maps["objects"][PROGRAMS.index(program)] = fd
        self._fill_entries()
        if self._hooked:
            self._maps["objects" + HOOKED][PROGRAMS.index(WALK)] = self._functions[f"on_{WALK}{HOOKED}"]

    def _records(self) -> dict[str, int]:
        try:
            return source.records(probes.tracefs() or probes.TRACEFS[0])
        except OSError as error:
            raise LoadError(f"cannot read how tracepoints record: {error.strerror}", MOUNT_TRACEFS) from error

    def _compiled(self, machine: str, kept: Path | None) -> compiler.Compiled:
        """The compiled programs. A program that exceeds the stack limit is omitted together with its events. This
        happens on kernels where more data must be read through calls.
        """
        while True:
            self._defines = source.defines(self.wanted, self.cpus, self._kernel, self._prepares)
            self._defines |= hooks.check_defines(self._hooked, self.wanted.checks)
            flags = ("-w", f"-I{HERE / 'c'}", *(f"-D{k}={v}" for k, v in sorted(self._defines.items())))
            try:
                return compiler.compiled(compiler.Source(source.joined(self.wanted, machine), flags), kept)
            except compiler.CompileError as error:
                function = match[1] if (match := STACK.search(str(error))) else ""
                raised, lost = self.wanted.raised_by(function), self.wanted.lost_without(function)
                if self._whole or function in ESSENTIAL or not raised:
                    kind = RefusedError if raised else LoadError
                    raise kind(f"bcc could not compile the programs: {error}", INSTALL) from error
                self.refused[function] = "it needs more than the 512 bytes of stack that programs have"
                self._hooked.pop(function, None)
                events = tuple(event for event in self.wanted.events if event.name not in lost)
                self.wanted = dataclasses.replace(self.wanted, events=events)

    def _load(self, found: compiler.Compiled) -> None:
        """Load all requested programs. Most of the time is spent in the kernel's verifier."""
        tails = [f"on_{program}" for program in self.wanted.tails]
        run = (*self.wanted.run, *(set(found.programs) & {SAMPLE_NAMES}))
        kinds = dict.fromkeys(run, RAW_TRACEPOINT)
        for function, tracepoint in source.attached(self._defines):
            kinds[function] = TRACEPOINT if tracepoint in self._perf_events else RAW_TRACEPOINT
        entered = set(source.entries(self.wanted, self._defines).values()) | set(self.wanted.origin)
        entries = {ENTRY, *entered} if entered else ()
        # tail calls only reach programs of the same type
        kinds |= dict.fromkeys((*tails, *entries), TRACEPOINT if self._perf_events else RAW_TRACEPOINT)
        if self._hooked:
            kinds |= dict.fromkeys((*self._hooked, f"on_{WALK}{HOOKED}"), KPROBE)
        fds = {name: each.fd for name, each in self._maps.items()}
        numbers = source.numbers(self.wanted.scope)
        # largest first: they take longest
        order = sorted(kinds, key=lambda name: -len(found.programs[name.removesuffix(HOOKED)].instructions))

        def load(key: str) -> None:
            function = key.removesuffix(HOOKED)
            code = found.programs[function]
            functions = link.func_info(function, code.functions) if code.functions else None
            given = fds | {"objects": fds["objects" + HOOKED]} if kinds[key] == KPROBE else fds
            try:
                fd = syscall.load_program(function, kinds[key], code.placed(given, numbers), functions)
            except OSError as error:
                if self._whole or function in ESSENTIAL or not self.wanted.raised_by(function):
                    remedy = UNLOCK if READ_KERNEL in (error.strerror or "") else ""
                    raise RefusedError(
                        f"the kernel refused the program {function}: {error.strerror}", remedy
                    ) from error
                self.refused[function] = error.strerror or ""
                return
            self._functions[key] = fd

        with ThreadPoolExecutor() as pool:
            list(pool.map(load, order))

    def _find_names(self) -> None:
        """Find the kernel's dentry hash table and let the programs use it."""
        if SAMPLE_NAMES not in self._functions or not TestRun(self._functions[SAMPLE_NAMES])():
            return
        table = dcache.table_of(sample for _, sample in self._maps["name_samples"].items())
        if table:
            self._status.array["names_shift"], self._status.array["names_table"] = table.shift, table.address

    def _free(self) -> None:
        self._status.close()
        for fd in self._functions.values():
            os.close(fd)
        for each in self._maps.values():
            each.close()

    def map_fd(self, name: str) -> int:
        """Descriptor of a map, valid until close()."""
        return self._maps[name].fd

    @property
    def tree_change(self) -> int:
        """Number of thread groups that joined the traced trees minus those that ended, as counted by the kernel."""
        return int(self._status.array["tree_live"][0])

    @property
    def modules_loaded(self) -> int:
        """Number of modules loaded since the start. Counted only if kernel tables are checked."""
        return int(self._status.array["modules_loaded"][0])

    @property
    def hooked_functions(self) -> frozenset[str]:
        """Kernel functions that have a kprobe."""
        return frozenset(name for name, _ in self._hooked.values())

    def function_fd(self, name: str) -> int | None:
        """Descriptor of a loaded program, valid until close(); None if it was not loaded."""
        return self._functions.get(name)

    @property
    def groups_overflow(self) -> int:
        """Number of thread groups that did not fit in the map `groups`."""
        return int(self._status.array["groups_overflow"][0])

    @property
    def flush_fd(self) -> int:
        """Descriptor of the program that sends the pending frames of a CPU (BPF_PROG_TEST_RUN)."""
        return self._functions["flush_now"]

    def missed_runs(self) -> dict[str, int]:
        """Number of runs that the kernel skipped because a program was already running on that CPU, by the name of the
        tracepoint or `enter_CALL`.
        """
        missed = {}
        for function, fd in self._functions.items():
            with open(f"/proc/self/fdinfo/{fd}") as info:
                count = sum(int(line.split()[1]) for line in info if line.startswith("recursion_misses"))
            if count:
                missed[function.removeprefix("on_")] = count
        return missed

    @property
    def slots(self) -> int:
        """Frames per CPU: one per shard, and two others."""
        return self.wanted.shards + layout.EXTRA_SLOTS

    def _fill_calls(self) -> None:
        names = {e.name for e in self.wanted.events}
        looks = {look.call: look for look in LOOKS if look.program in self.wanted.programs}
        bounds = {name: (least, largest) for name, least, largest in self.wanted.retval}
        self._rows: dict[int, np.ndarray[Any, Any]] = {}
        for call in catalogue().rows:
            name = call.event.name
            wanted = name in names and call.event.hook == SYS_EXIT
            look = looks.get(name)
            if wanted or look:
                row = rows.of_call(call, self.wanted, bounds.get(name, rows.ANY_RESULT))
                row["wanted"] = wanted
                if look:
                    rows.add_look(row, look)
                self._put_row(call, row)

    def _fill_entries(self) -> None:
        entries = source.entries(self.wanted, self._defines)
        functions = {name: self._functions[function] for name, function in entries.items()}
        origin = next((self._functions.get(function) for function in self.wanted.origin), None)
        for call in catalogue().rows:
            name = call.event.name
            if call.slot >= layout.MULTIPLEXED_SLOT:
                continue
            if origin is not None and name in source.ORIGINS:
                self._maps["entered"][call.slot] = origin
                if name in functions:
                    self._maps["entered_then"][call.slot] = functions[name]
            elif name in functions:
                self._maps["entered"][call.slot] = functions[name]

    def _put_row(self, call: Call, row: np.ndarray[Any, Any]) -> None:
        if call.slot not in self._rows:
            for key, value in rows.commands(call):
                self._maps["commands"][int.from_bytes(key, "little")] = value
        self._rows[call.slot] = row
        self._maps["calls"][call.slot] = row.tobytes()

    def ask(self, events: Sequence[Event]) -> None:
        """Record these system calls from now on, and no others. Other events stay as loaded."""
        names = {event.name for event in events if event.hook == SYS_EXIT}
        for call in catalogue().rows:
            wanted = call.event.name in names
            row = self._rows.get(call.slot)
            if wanted == bool(row is not None and row["wanted"][0]):
                continue
            if row is None:
                row = rows.of_call(call, self.wanted)
                # a row is not written atomically: set `wanted` last
                self._put_row(call, row)
            row["wanted"] = wanted
            self._put_row(call, row)

    def enter_containers(self) -> None:
        """Enter the containers that already exist. Call this after attach(), so that none is missed."""
        found = cgroups.hierarchy()
        if found is not None:
            cgroups.enter_existing(found.path, TestRun(self._functions["enter_cgroup"]), self._forget_cgroup)
        for name in self.wanted.told:
            TestRun(self._functions[name])()

    def _forget_cgroup(self, number: int) -> None:
        with contextlib.suppress(KeyError):
            del self._maps["containers"][number]

    def containers(self) -> dict[int, np.ndarray[Any, Any]]:
        """Known control groups of containers, CONTAINER[1] by control group id. For tests and `stat`."""
        return {key: np.frombuffer(value, layout.CONTAINER) for key, value in self._maps["containers"].items()}

    @property
    def containers_overflow(self) -> int:
        """Number of control groups of containers that did not fit in the map `containers`."""
        return int(self._status.array["containers_overflow"][0])

    def set_perf_fd(self, name: str, cpu: int, fd: int) -> None:
        """Let programs on `cpu` submit to this perf event. The entry lives as long as this map descriptor."""
        self._maps[name][cpu] = fd

    def set_group(self, tgid: int, flags: int) -> None:
        """Enter a thread group in `groups` (bpf/c/maps.h)."""
        self._maps["groups"][tgid] = flags
        self._groups_changed()

    def _groups_changed(self) -> None:
        self._status.array["user_epoch"] += np.uint64(1)

    def set_boot_epoch(self, offset_ns: int) -> None:
        """Set CLOCK_REALTIME minus CLOCK_BOOTTIME after the wall clock was changed."""
        self._status.array["boot_epoch_ns"] = offset_ns

    def resend_images(self) -> None:
        """Report the image of every process again, because a worker has lost its process tree."""
        self._status.array["told_epoch"] += np.uint64(1)
        self._groups_changed()

    def let_pass(self, all_records: bool) -> None:
        """Set whether to pass records that the initial signatures cannot match (bpf/programs/early.py, AnyOf)."""
        self._status.array["let_pass"] = int(all_records)

    def groups(self) -> dict[int, int]:
        """Thread groups in the map `groups`, with their flags. For tests and seeding."""
        return {key: int.from_bytes(value, "little") for key, value in self._maps["groups"].items()}

    def forget_group(self, tgid: int) -> None:
        """Remove a thread group if it is in the map."""
        with contextlib.suppress(KeyError):
            del self._maps["groups"][tgid]
        self._groups_changed()

    def attach(self) -> None:
        """Attach every program. Raises LoadError with the name of the tracepoint if one cannot be attached."""
        entry = [(ENTRY, "sys_enter")] if ENTRY in self._functions else []
        for function, tracepoint in [*source.attached(self._defines), *entry]:
            if function in self.refused:
                continue
            if tracepoint in self._perf_events:
                self._attach_perf(f"{self._perf_events[tracepoint]}/{tracepoint}", function)
            else:
                self._attach_raw(tracepoint, function)
        self._attach_hooks()

    def _attach_hooks(self) -> None:
        places = probes.functions_named(name for name, _ in self._hooked.values()) if self._hooked else {}
        for function, (name, _) in self._hooked.items():
            try:
                for place in places[name] if function not in self.refused else ():
                    self._attached.append(syscall.attach_kprobe(place, self._functions[function]))
            except OSError as error:
                self.refused[function] = f"no kprobe at {name}: {error.strerror}"

    def _attach_raw(self, tracepoint: str, function: str) -> None:
        try:
            name = probes.raw_tracepoint(self._btf, tracepoint) or tracepoint
            self._attached.append(syscall.attach_raw_tracepoint(name, self._functions[function]))
        except OSError as error:
            raise LoadError(f"cannot attach to the raw tracepoint {tracepoint}: {error.strerror}") from error

    def _attach_perf(self, tracepoint: str, function: str) -> None:
        """Attach a program to the perf event of a tracepoint."""
        folder = probes.tracefs() or probes.TRACEFS[0]
        try:
            self._attached.append(syscall.attach_tracepoint(folder, tracepoint, self._functions[function]))
        except OSError as error:
            raise LoadError(f"cannot attach to {tracepoint}: {error.strerror}", MOUNT_TRACEFS) from error

    def detach(self) -> None:
        """Detach every program. Records that are already in frames stay there: flush them afterwards."""
        while self._attached:
            os.close(self._attached.pop())

    def close(self) -> None:
        """Detach and free programs and maps."""
        self.detach()
        self._free()
