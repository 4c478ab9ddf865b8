"""Compile, load and attach the programs. Runs in the supervisor, the only process with privilege.

The C files are joined into one source with `#line`, since bcc 0.26 rewrites map methods in the main
file only; errors still name the right file and line. Constants come in by -D: offsets from BTF, sizes
from bpf/layout.py, event ids from the catalogue, and what is wanted.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bpf import layout, offsets
from bpf.btf import Btf, BtfError
from bpf.catalogue import (
    ENTRY_CALLS,
    LIFECYCLE,
    LOOKS,
    PROGRAMS,
    STEPS,
    SYS_EXIT,
    VARIANTS,
    WALK,
    Call,
    Event,
    Look,
    catalogue,
)
from bpf.mapped import MappedArray
from bpf.scope import Scope

HERE = Path(__file__).parent
SOURCES = (
    "layout.h",
    "kernel.h",
    "arch",
    "maps.h",
    "scope.h",
    "frame.h",
    "arguments.h",
    "path.h",
    "file.h",
    "objects.h",
    "syscalls.c",
    "files.c",
    "sockets.c",
    "names.c",
    "writes.c",
    "memory.c",
    "identity.c",
    "lifecycle.c",
    "cgroup.c",
    "flush.c",
)
GROUPS = 65536
GROUP_OWN, GROUP_TREE, GROUP_NOT_TREE, GROUP_FOLLOWED, GROUP_ARMED = 1, 2, 4, 8, 16
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
NEEDS = {"mmap": "WANT_MMAP", "mprotect": "WANT_REGIONS", "identity": "WANT_BEFORE"}
"""What a program needs beside the events that it raises."""
ENTRIES = {"mprotect": "enter_mprotect", "identity": "enter_identity"}
"""Programs that must have seen the call's entry, and what looks at it."""
FRAME_ROOM = layout.FRAME_CELLS * layout.CELL_BYTES - layout.CONTEXT.itemsize - 6 * layout.CELL_BYTES


class LoadError(Exception):
    """The programs cannot run here; `remedy` says what would help."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message + (f" ({remedy})" if remedy else ""))
        self.remedy = remedy


@dataclass(frozen=True)
class Wanted:
    """What the kernel is asked for."""

    events: tuple[Event, ...]
    scope: Scope
    shards: int
    environment: bool = False
    capture_bytes: int = 0
    retval: tuple[tuple[str, int, int], ...] = ()
    """(event name, least, largest) result that passes the kernel."""

    @property
    def programs(self) -> tuple[str, ...]:
        """Programs that look at the objects of calls."""
        return tuple(p for p in PROGRAMS if any(p in event.programs for event in self.events))

    @property
    def tails(self) -> tuple[str, ...]:
        """Programs that are entered by a tail call."""
        return (WALK, "exec", *self.programs, *(step for p in self.programs for step in STEPS.get(p, ())))


def _joined(terms: str, machine: str) -> str:
    parts = []
    for name in SOURCES:
        path = HERE / "c" / (f"arch_{machine}.h" if name == "arch" else name)
        text = path.read_text()
        if name == "scope.h":
            text = text.replace("\nSCOPE_TERMS\n", f"\n{terms}\n")
        parts.append(f'#line 1 "{path.name}"\n{text}')
        if name == "layout.h":
            parts.append(f'#line 1 "static_asserts"\n{layout.static_asserts()}')
    return "#include <linux/types.h>\n" + "\n".join(parts)


def _defines(wanted: Wanted, cpus: int, kernel: dict[str, int], prepare_exec: bool) -> dict[str, int]:
    names = {e.name for e in wanted.events}
    defines = dict(kernel)
    defines |= {
        "FRAME_CELLS": layout.FRAME_CELLS,
        "EVENTS": layout.EVENTS,
        "CALL_SLOTS": layout.CALL_SLOTS,
        "SHARDS": wanted.shards,
        "CPUS": cpus,
        "GROUPS": GROUPS,
        "SCOPE_FOLLOW": int(wanted.scope.follow),
        "EXEC_ENVIRONMENT": int(wanted.environment),
        "KEEP_COMM_AT_RENAME": int(not prepare_exec),
    }
    for name in names:
        defines[f"EVENT_{name}"] = catalogue().by_name[name].id
    programs = wanted.programs
    if programs or any(e.hook == SYS_EXIT for e in wanted.events):
        defines["WANT_SYSCALLS"] = 1
    defines["PROGRAMS"] = len(PROGRAMS)
    defines |= {f"PROGRAM_{name}": number for number, name in enumerate(PROGRAMS)}
    defines |= {define: 1 for program, define in NEEDS.items() if program in programs}
    hooks = ("sys_enter", "sys_exit", "sched_switch", "cgroup_mkdir", "cgroup_rmdir", "cgroup_attach_task")
    for name in (*hooks, *ENTRY_CALLS, *LIFECYCLE):
        if name in names:
            defines[f"WANT_{name.upper()}"] = 1
    if "task_rename" in names or not prepare_exec:
        defines["WANT_TASK_RENAME"] = 1
    if prepare_exec:
        defines["WANT_SCHED_PREPARE_EXEC"] = 1
    return defines


def _programs(defines: dict[str, int]) -> list[tuple[str, str]]:
    """(function, raw tracepoint) of what is attached, exit last so that trees stay complete."""
    optional = {
        "WANT_SYS_ENTER": ("on_sys_enter", "sys_enter"),
        "WANT_SYSCALLS": ("on_sys_exit", "sys_exit"),
        "WANT_TASK_RENAME": ("on_task_rename", "task_rename"),
        "WANT_SCHED_PREPARE_EXEC": ("on_sched_prepare_exec", "sched_prepare_exec"),
        "EVENT_cap_capable": ("on_cap_capable", "cap_capable"),
        "WANT_CGROUP_MKDIR": ("on_cgroup_mkdir", "cgroup_mkdir"),
        "WANT_CGROUP_RMDIR": ("on_cgroup_rmdir", "cgroup_rmdir"),
        "WANT_CGROUP_ATTACH_TASK": ("on_cgroup_attach_task", "cgroup_attach_task"),
    }
    always = [(f"on_{name}", name) for name in ("sched_switch", "sched_process_fork", "sched_process_exec")]
    chosen = [program for key, program in optional.items() if key in defines]
    return [*always, *chosen, ("on_sched_process_exit", "sched_process_exit")]


def possible_cpus() -> int:
    """CPUs that this host can ever have; ids are below it."""
    text = Path("/sys/devices/system/cpu/possible").read_text().strip()
    return int(text.split(",")[-1].split("-")[-1]) + 1


def has_raw_tracepoint(btf: Btf, name: str) -> bool:
    """Whether this kernel has the tracepoint (its BTF names the handler's type)."""
    return btf.has_typedef(f"btf_trace_{name}")


class Programs:
    """The loaded programs and their maps. Detached and freed by close()."""

    def __init__(self, wanted: Wanted, bcc: Any, btf: Btf) -> None:
        self.wanted = wanted
        self.cpus = possible_cpus()
        machine = platform.machine()
        if machine not in offsets.REGISTERS:
            raise LoadError(f"headrace has no register table for {machine}")
        try:
            kernel = offsets.resolve(btf, machine)
        except BtfError as error:
            raise LoadError(str(error), "this kernel is older or newer than headrace knows") from error
        self._defines = _defines(wanted, self.cpus, kernel, has_raw_tracepoint(btf, "sched_prepare_exec"))
        source = _joined(wanted.scope.c_source(), machine)
        flags = ["-w", f"-I{HERE / 'c'}", *(f"-D{k}={v}" for k, v in self._defines.items())]
        self._bcc = bcc
        try:
            self._bpf = bcc.BPF(text=source, cflags=flags)
        except Exception as error:  # bcc raises bare Exception
            raise LoadError(f"bcc could not compile or load the programs: {error}") from error
        self._status = MappedArray(self.map_fd("status"), layout.STATUS, 1, writable=True)
        self._fill_calls()
        self._entries_attached: list[str] = []
        self._raw_attached: list[str] = []
        self._functions: dict[str, Any] = {}
        tails = [(f"on_{program}", "") for program in wanted.tails]
        for function, _ in [*_programs(self._defines), *tails, ("flush_now", "")]:
            try:
                self._functions[function] = self._bpf.load_func(function, bcc.BPF.RAW_TRACEPOINT)
            except Exception as error:
                raise LoadError(f"the kernel refused the program {function}: {error}") from error
        for program in wanted.tails:
            number = ctypes.c_int(PROGRAMS.index(program))
            self._bpf["objects"][number] = ctypes.c_int(self._functions[f"on_{program}"].fd)

    def map_fd(self, name: str) -> int:
        """Descriptor of a map, valid until close()."""
        return int(self._bpf[name].map_fd)

    @property
    def tree_change(self) -> int:
        """Thread groups that came into the traced trees less those that ended, as the kernel saw it."""
        return int(self._status.array["tree_live"][0])

    @property
    def groups_overflow(self) -> int:
        """Thread groups that found no place in the kernel's table."""
        return int(self._status.array["groups_overflow"][0])

    @property
    def flush_fd(self) -> int:
        """Descriptor of the program that sends what waits on a CPU (BPF_PROG_TEST_RUN)."""
        return int(self._functions["flush_now"].fd)

    @property
    def _entries(self) -> list[tuple[str, str]]:
        """(call, function) of the entries that must be seen."""
        calls = [(name, f"enter_{name}") for name in ENTRY_CALLS if f"WANT_{name.upper()}" in self._defines]
        looks = [look for look in LOOKS if look.program in self.wanted.programs]
        return calls + [(look.call, ENTRIES[look.program]) for look in looks if look.program in ENTRIES]

    def missed_runs(self) -> int:
        """Program runs that the kernel skipped because one was running on the CPU already."""
        missed = 0
        for function in self._functions.values():
            with open(f"/proc/self/fdinfo/{function.fd}") as info:
                missed += sum(int(line.split()[1]) for line in info if line.startswith("recursion_misses"))
        return missed

    @property
    def slots(self) -> int:
        """Frames per CPU: one a shard, and the urgent one."""
        return self.wanted.shards + 1

    def _fill_calls(self) -> None:
        names = {e.name for e in self.wanted.events}
        looks = {look.call: look for look in LOOKS if look.program in self.wanted.programs}
        bounds = {name: (least, largest) for name, least, largest in self.wanted.retval}
        table = self._bpf["calls"]
        for call in catalogue().calls:
            name = call.event.name
            wanted = name in names and call.event.hook == SYS_EXIT
            look = looks.get(name)
            if look and look.native and call.compat:
                look = None
            if wanted or look:
                row = self._call_row(call, bounds.get(name, (INT64_MIN, INT64_MAX)))
                row["wanted"] = wanted
                if look:
                    _add_look(row, look)
                at = call.number + layout.CALL_SLOTS * call.compat
                table[ctypes.c_int(at)] = table.Leaf.from_buffer_copy(row.tobytes())

    def _call_row(self, call: Call, bounds: tuple[int, int]) -> np.ndarray[Any, Any]:
        row = np.zeros(1, layout.CALL)
        row["arguments"], row["event"] = len(call.arguments), call.event.id
        row["urgent"] = call.event.urgent
        row["retval_min"], row["retval_max"] = bounds
        blobs = call.blobs if call.compat else call.event.blobs_with(self.wanted.capture_bytes)
        for i, blob in enumerate(blobs):
            row["blobs"][0, i] = (blob.kind, blob.arg, blob.sized, blob.on_success, blob.bytes)
        room = sum(blob.room for blob in blobs)
        if call.event.name in ("execve", "execveat"):
            row["exec"] = 1 + (call.event.name == "execveat")
            room = layout.STRING_BYTES + layout.ARGV_BYTES + layout.ENVP_BYTES + 64
        row["room"] = min(room, FRAME_ROOM)
        return row

    def set_perf_fd(self, name: str, cpu: int, fd: int) -> None:
        """Let programs on `cpu` submit to this perf event. The entry lives as long as this map descriptor."""
        table = self._bpf[name]
        table[ctypes.c_int(cpu)] = ctypes.c_int(fd)

    def set_group(self, tgid: int, flags: int) -> None:
        """Enter a thread group in `groups` (bpf/c/maps.h)."""
        table = self._bpf["groups"]
        table[ctypes.c_uint(tgid)] = ctypes.c_uint(flags)
        self._groups_changed()

    def _groups_changed(self) -> None:
        self._status.array["user_epoch"] += np.uint64(1)

    def groups(self) -> dict[int, int]:
        """Thread groups that the kernel side knows, with their flags. For tests and seeding."""
        return {int(k.value): int(v.value) for k, v in self._bpf["groups"].items()}

    def forget_group(self, tgid: int) -> None:
        """Take a thread group out again, if it is still there."""
        with contextlib.suppress(KeyError):
            del self._bpf["groups"][ctypes.c_uint(tgid)]
        self._groups_changed()

    def attach(self) -> None:
        """Attach every program; LoadError names the hook that was refused."""
        for function, tracepoint in _programs(self._defines):
            try:
                self._bpf.attach_raw_tracepoint(tp=tracepoint, fn_name=function)
            except Exception as error:
                raise LoadError(f"cannot attach to the raw tracepoint {tracepoint}: {error}") from error
            self._raw_attached.append(tracepoint)
        for name, function in self._entries:
            try:
                self._bpf.attach_tracepoint(tp=f"syscalls:sys_enter_{name}", fn_name=function)
            except Exception as error:
                remedy = "mount -t tracefs tracefs /sys/kernel/tracing"
                raise LoadError(f"cannot attach to the entry of {name}: {error}", remedy) from error
            self._entries_attached.append(name)

    def detach(self) -> None:
        """Detach every program. Records already in frames stay there: flush them afterwards."""
        for name in self._entries_attached:
            self._bpf.detach_tracepoint(tp=f"syscalls:sys_enter_{name}")
        for tracepoint in self._raw_attached:
            self._bpf.detach_raw_tracepoint(tp=tracepoint)
        self._entries_attached, self._raw_attached = [], []

    def close(self) -> None:
        """Detach and free programs and maps."""
        self.detach()
        self._status.close()
        self._bpf.cleanup()


def _add_look(row: np.ndarray[Any, Any], look: Look) -> None:
    row["object"], row["variant"] = PROGRAMS.index(look.program), VARIANTS.index(look.variant)
    for name in ("fd", "path", "dir", "path2", "dir2", "flags"):
        row[name] = getattr(look, name)


def import_bcc() -> Any:
    """The bcc module; LoadError with the remedy if it is not there."""
    os.environ.setdefault("BCC_KERNEL_SOURCE", str(HERE / "headers"))
    try:
        import bcc
    except ImportError as error:
        raise LoadError(f"bcc cannot be imported: {error}", "apt install python3-bpfcc, then make setup") from error
    return bcc


def seed_tree(programs: Programs, roots: Sequence[int], flags: int, proc: Path = Path("/proc")) -> int:
    """Enter running processes and their descendants, again until nothing is new; how many there were.

    Called after attaching: what a process forks from then on enters by itself, so a pass that finds
    nothing new has all of them.
    """
    known: set[int] = set()
    seeded = 0
    while True:
        parents = _parents(proc)
        members = {pid for pid in parents if _descends(pid, parents, frozenset(roots))} - known
        if not members:
            return seeded
        present = programs.groups()
        for pid in members - present.keys():
            programs.set_group(pid, flags)
            if (proc / str(pid)).exists():
                seeded += 1
            else:
                programs.forget_group(pid)
        known |= members


def _parents(proc: Path) -> dict[int, int]:
    found = {}
    for entry in os.listdir(proc):
        if entry.isdigit():
            try:
                stat = (proc / entry / "stat").read_bytes()
            except OSError:
                continue
            found[int(entry)] = int(stat[stat.rindex(b")") + 2 :].split()[1])
    return found


def _descends(pid: int, parents: dict[int, int], roots: frozenset[int]) -> bool:
    seen = set()
    while pid in parents and pid not in seen:
        if pid in roots:
            return True
        seen.add(pid)
        pid = parents[pid]
    return False
