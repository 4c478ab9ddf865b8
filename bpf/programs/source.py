"""The source of the BPF programs: C files, constants, and attachment points.

The C files are joined into one source with `#line` directives, because bcc 0.26 rewrites map methods only in the main
file. Compiler errors still name the original file and line. Constants are passed with -D: offsets from BTF, sizes
from bpf/layout.py, event ids from the catalogue, and the requested features.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from headrace.bpf import layout
from headrace.bpf.host import cgroups, probes
from headrace.bpf.host.btf import VMLINUX, Btf, UnknownMember
from headrace.bpf.programs import early, link
from headrace.bpf.programs.early import AnyOf, Test
from headrace.bpf.programs.looks import ALWAYS, LOOKS, MULTIPLEXED, PROGRAMS, RESOLVE, STEPS, WALK
from headrace.bpf.programs.scope import Scope
from headrace.bpf.syscall import KPROBES
from headrace.bpf.tables.catalogue import (
    CHECK,
    CHECKS_ALL,
    CHECKS_NONE,
    CHECKS_REST,
    ENTRY_CALLS,
    LIFECYCLE,
    ON_PROCESSES,
    SYS_EXIT,
    UNKNOWN_CALL_ID,
    Event,
    catalogue,
)

HERE = Path(__file__).parents[1]
SOURCES = (
    "layout.h",
    "kernel.h",
    "arch",
    "maps.h",
    "tracepoints.h",
    "containers.h",
    "scope.h",
    "told.h",
    "early.h",
    "frame.h",
    "loop.h",
    "arguments.h",
    "pieces.h",
    "file.h",
    "path.h",
    "pids.h",
    "dcache.h",
    "resolve.h",
    "walk.h",
    "regions.h",
    "dispatch.h",
    "objects.h",
    "sockets.h",
    "addresses.h",
    "syscalls.c",
    "files.c",
    "sockets.c",
    "names.c",
    "writes.c",
    "memory.c",
    "identity.c",
    "uring.c",
    "modules.c",
    "hooks.c",
    "checks.c",
    "lifecycle.c",
    "cgroup.c",
    "integrity.c",
    "origin.c",
    "flush.c",
)
GROUPS, COMMANDS = 65536, 2048
NUMBER = re.compile(r"\b([0-9]+)U(?:LL)?\b")
ROOMS = frozenset({"recvfrom", "recvmsg"})
"""Calls whose entry is observed because it holds the size of the address buffer (bpf/c/addresses.h)."""
ENTRIES = {"mprotect": "enter_mprotect", "identity": "enter_identity"}
"""For programs that handle calls at their end: the program that handles their entry."""
ORIGIN = "suspicious_syscall_source"
ORIGINS = frozenset(
    """execve execveat clone clone3 fork vfork ptrace process_vm_writev memfd_create mmap mmap2 old_mmap mprotect
    pkey_mprotect socket socketpair socketcall connect bind accept accept4 dup2 dup3 prctl capset setuid setuid32 setgid
    setgid32 setresuid setresuid32 setns unshare chroot pivot_root mount init_module finit_module bpf kill""".split()
)
"""Calls whose origin is checked if ORIGIN is requested (bpf/c/origin.c)."""
CONTAINERS = 16384
"""Maximum control groups of containers in the map at a time."""
NAMES = (
    *("file_open", "inode_unlink", "inode_rename", "inode_link", "inode_symlink", "inode_mknod"),
    *("path_truncate", "sb_mount", "sb_umount", "bprm_refused"),
)
"""Programs that resolve paths as passed by the caller."""
RUN, PEEK = ("flush_now", "enter_cgroup"), "peek"
NEEDS = {
    "mmap": "WANT_MMAP",
    "mprotect": "WANT_REGIONS",
    "shmat": "WANT_SHMAT",
    "identity": "WANT_BEFORE",
    **dict.fromkeys(NAMES, "WANT_NAMES"),
}
"""Constant that each program needs in addition to those of its events."""


PERF_EVENTS = {
    **dict.fromkeys(("sys_enter", "sys_exit"), "raw_syscalls"),
    **dict.fromkeys(LIFECYCLE, "sched"),
    "task_rename": "task",
    "cap_capable": "capability",
    **dict.fromkeys(("io_uring_create", "io_uring_submit_req"), "io_uring"),
    **dict.fromkeys(("module_load", "module_free"), "module"),
}
"""Tracepoints, with their groups, that programs use through perf events where raw tracepoints can be preempted."""
RECORDED = {
    "sys_enter": ("id",),
    "sys_exit": ("ret",),
    "sched_process_fork": ("child_pid",),
    "sched_process_exec": ("filename",),
    "task_rename": ("oldcomm", "newcomm"),
    "cap_capable": ("cap", "ret"),
    "io_uring_create": ("fd", "sq_entries", "cq_entries", "flags"),
    "io_uring_submit_req": ("req",),
    "module_load": ("name",),
    "module_free": ("name",),
}
"""Fields that those programs read from the tracepoint record (bpf/c/tracepoints.h)."""


@dataclass(frozen=True)
class WantedPrograms:
    """What a run requests from the kernel."""

    events: tuple[Event, ...]
    scope: Scope
    shards: int
    environment: bool = False
    capture_bytes: int = 0
    stacks: bool = False
    fd_paths: bool = False
    tests: tuple[Test, ...] = ()
    retval: tuple[tuple[str, int, int], ...] = ()
    """(event name, minimum, maximum): range of results for which an event is recorded."""
    boot_epoch_ns: int = 0
    """CLOCK_REALTIME minus CLOCK_BOOTTIME."""
    checks: str = CHECKS_REST
    """One of CHECKS: what kprobes on security checks report."""

    @property
    def narrowed(self) -> tuple[AnyOf, ...]:
        """Tests for the records that signatures can match, one per event."""
        return early.of_signatures(self.tests)

    @property
    def told(self) -> tuple[str, ...]:
        """Programs that the loader runs once at the start."""
        return ("tell_namespaces",) if any(e.name == "init_namespaces" for e in self.events) else ()

    @property
    def origin(self) -> tuple[str, ...]:
        """The program that checks the origin of calls, if it is requested."""
        return tuple(f"enter_{event.name}" for event in self.events if event.name == ORIGIN)

    @property
    def checked(self) -> tuple[str, ...]:
        """Requested events that report findings in kernel tables (bpf/load/integrity.py)."""
        return tuple(e.name for e in self.events if (e.hook or "").startswith(CHECK))

    @property
    def run(self) -> tuple[str, ...]:
        """Programs that headrace runs itself."""
        return (*RUN, *self.told, *([PEEK] if self.checked else ()), *(f"tell_{name}" for name in self.checked))

    @property
    def programs(self) -> tuple[str, ...]:
        """Programs that read the objects of calls."""
        found = tuple(p for p in PROGRAMS if any(p in event.programs for event in self.events))
        calls = found or any(e.hook == SYS_EXIT for e in self.events)
        return (*found, MULTIPLEXED) if calls else ()

    @property
    def probed(self) -> tuple[Event, ...]:
        """Requested events that come from kernel functions, wholly or in part."""
        has_checks = self.checks != CHECKS_NONE and KPROBES.exists()
        return tuple(e for e in self.events if e.functions and (has_checks or not e.is_check))

    def raised_by(self, function: str) -> list[str]:
        """Names of the requested events that a program emits."""
        program = function.removeprefix("on_")
        own = {program, *(first for first, steps in STEPS.items() if program in steps)}
        return [
            e.name
            for e in self.events
            if own & {*e.programs}
            or e.hook == f"raw_tracepoint:{program}"
            or function in (f"hook_{e.name}", f"tell_{e.name}", f"enter_{e.name}")
            or (function == PEEK and (e.hook or "").startswith(CHECK))
        ]

    def lost_without(self, function: str) -> list[str]:
        """Names of the requested events that only this program emits. Those of bpf/c/checks.c come from calls, too."""
        is_hook = function.startswith("hook_")
        return [name for name in self.raised_by(function) if not (is_hook and catalogue().by_name[name].is_check)]

    @property
    def tails(self) -> tuple[str, ...]:
        """Programs that are reached by a tail call."""
        return (
            WALK,
            *([RESOLVE] if set(self.programs) & set(NAMES) else ()),
            *ALWAYS,
            *self.programs,
            *(step for p in self.programs for step in STEPS.get(p, ())),
        )


def entries(wanted: WantedPrograms, defined: dict[str, int]) -> dict[str, str]:
    """The programs that handle the entries of calls, by call."""
    found = {name: f"enter_{name}" for name in ENTRY_CALLS if f"WANT_{name.upper()}" in defined}
    if "WANT_ROOMS" in defined:
        found |= {name: f"enter_{name}" for name in sorted(ROOMS)}
    looks = [look for look in LOOKS if look.program in wanted.programs]
    return found | {look.call: ENTRIES[look.program] for look in looks if look.program in ENTRIES}


def numbers(scope: Scope) -> list[int]:
    """The numbers in a scope's conditions, which the loader inserts: process ids, inodes, times."""
    return [int(found[1]) for found in NUMBER.finditer(scope.c_container() + scope.c_source())]


def joined(wanted: WantedPrograms, machine: str) -> str:
    """The complete source, with the conditions of scope and events compiled in. Scope numbers are left as
    placeholders, so programs compiled for one process can be reused for another.
    """
    scope, places = wanted.scope, itertools.count()
    container, terms = (
        NUMBER.sub(lambda found: f"SCOPE_NUMBER({next(places)})", text)
        for text in (scope.c_container(), scope.c_source())
    )
    parts = []
    for name in SOURCES:
        path = HERE / "c" / (f"arch_{machine}.h" if name == "arch" else name)
        text = path.read_text()
        if name == "scope.h":
            text = text.replace("\nSCOPE_CONTAINER\n", f"\n{container}\n")
            text = text.replace("\nSCOPE_TERMS\n", f"\n{terms}\n")
        if name == "early.h":
            text = text.replace("\nEARLY_TESTS\n", f"\n{early.c_source(wanted.tests)}\n")
        parts.append(f'#line 1 "{path.name}"\n{text}')
        if name == "layout.h":
            parts.append(f'#line 1 "static_asserts"\n{layout.static_asserts()}')
    return "#include <linux/types.h>\n" + "\n".join(parts)


def hierarchy(btf: Btf) -> dict[str, int]:
    """Constants for the control group hierarchy that identifies containers."""
    found = cgroups.hierarchy()
    if found is None:
        return {"CGROUP_HIERARCHY": -1}
    if found.controller is None:
        return {"CGROUP_HIERARCHY": found.id}
    return {
        "CGROUP_HIERARCHY": found.id,
        "CGROUP_CONTROLLER": btf.enumerator("cgroup_subsys_id", found.enumerator),
    }


def features(btf: Btf, exchanges: bool, ancestors: bool) -> dict[str, int]:
    """Constants for features of this kernel. `exchanges` and `ancestors` were probed (takes() of bpf/syscall.py)."""
    found = {"HAVE_EXCHANGE": 1} if exchanges else {}
    if ancestors:
        found["HAVE_ANCESTOR"] = 1
    if probes.has_raw_tracepoint(btf, "module_load"):
        found["HAVE_MODULES"] = 1
    if _has_helper(btf, "loop"):
        found |= link.defines()
    if VMLINUX.exists() and _has_helper(btf, "get_current_task_btf"):
        found["HAVE_TASK"] = 1
        if _has_helper(btf, "task_pt_regs"):
            found["HAVE_REGISTERS"] = 1
    return found


def records(tracefs: Path) -> dict[str, int]:
    """Offsets of the record fields of tracepoints that this kernel has. Raises OSError if they cannot be read."""
    found = {"BY_PERF": 1}
    for tracepoint, names in RECORDED.items():
        with contextlib.suppress(FileNotFoundError):
            places = probes.record_fields(tracefs / "events" / PERF_EVENTS[tracepoint] / tracepoint)
            found |= {f"RECORD_{tracepoint}_{name}": places[name] for name in names if name in places}
    return found


def _has_helper(btf: Btf, name: str) -> bool:
    try:
        btf.enumerator("bpf_func_id", f"BPF_FUNC_{name}")
    except UnknownMember:
        return False
    return True


def defines(wanted: WantedPrograms, cpus: int, kernel: dict[str, int], prepare_exec: bool) -> dict[str, int]:
    """Constants by name: offsets, sizes, event ids, and requested features."""
    names = {e.name for e in wanted.events}
    found = dict(kernel)
    found |= {
        "FRAME_CELLS": layout.FRAME_CELLS,
        "EVENTS": layout.EVENTS,
        "CALL_SLOTS": layout.CALL_SLOTS,
        "ALL_SLOTS": layout.ALL_SLOTS,
        "COMMANDS": COMMANDS,
        "SHARDS": wanted.shards,
        "CPUS": cpus,
        "GROUPS": GROUPS,
        "CONTAINERS": CONTAINERS,
        **wanted.scope.defines(),
        "SCOPE_FOLLOW": int(wanted.scope.follow),
        "EXEC_ENVIRONMENT": int(wanted.environment),
        "KEEP_BEFORE_EXEC_AT_RENAME": int(not prepare_exec),
    }
    if wanted.stacks:
        found["STACK_ADDRESSES"] = 1
    if wanted.fd_paths:
        found["FD_PATHS"] = 1
    if wanted.tests:
        found["EARLY"] = 1
    if wanted.checks == CHECKS_ALL:
        found["CHECKS_ONLY"] = 1
    # facts have the same format as lifecycle events
    for name in (*names, *LIFECYCLE, *(ON_PROCESSES if names & ON_PROCESSES else ())):
        found[f"EVENT_{name}"] = catalogue().by_name[name].id
    if names & ON_PROCESSES:
        found["WANT_OWN_TARGET"] = 1
    programs = wanted.programs
    if programs or any(e.hook == SYS_EXIT for e in wanted.events):
        found["WANT_SYSCALLS"] = 1
    found |= {"KERNEL_FUNCTION": link.FUNCTION, "SCOPE_NUMBERS": link.SCOPE_NUMBERS}
    found["PROGRAMS"] = len(PROGRAMS)
    found["UNKNOWN_CALL_ID"] = UNKNOWN_CALL_ID
    found |= {f"PROGRAM_{name}": number for number, name in enumerate(PROGRAMS)}
    found |= {define: 1 for program, define in NEEDS.items() if program in programs}
    hooks = ("sys_enter", "sys_exit", "sched_switch")
    for name in (*hooks, *ENTRY_CALLS, *LIFECYCLE):
        if name in names:
            found[f"WANT_{name.upper()}"] = 1
    if names & ROOMS:
        found["WANT_ROOMS"] = 1
    if wanted.checked:
        found["WANT_INTEGRITY"] = 1
        if "HAVE_MODULES" in kernel:
            found["WATCH_MODULES"] = 1
    if "task_rename" in names or not prepare_exec:
        found["WANT_TASK_RENAME"] = 1
    if prepare_exec:
        found["WANT_SCHED_PREPARE_EXEC"] = 1
    return found


def attached(defined: dict[str, int]) -> list[tuple[str, str]]:
    """(function, raw tracepoint) of each program to attach. Exit comes last so that process trees stay complete."""
    optional = {
        "WANT_SYS_ENTER": ("on_sys_enter", "sys_enter"),
        "WANT_SYSCALLS": ("on_sys_exit", "sys_exit"),
        "WANT_TASK_RENAME": ("on_task_rename", "task_rename"),
        "WANT_SCHED_PREPARE_EXEC": ("on_sched_prepare_exec", "sched_prepare_exec"),
        "EVENT_cap_capable": ("on_cap_capable", "cap_capable"),
        "EVENT_io_uring_create": ("on_io_uring_create", "io_uring_create"),
        "EVENT_io_uring_submit": ("on_io_uring_submit_req", "io_uring_submit_req"),
        "EVENT_module_load": ("on_module_load", "module_load"),
        "WATCH_MODULES": ("on_module_load", "module_load"),
        "EVENT_module_free": ("on_module_free", "module_free"),
        "EVENT_cgroup_attach_task": ("on_cgroup_attach_task", "cgroup_attach_task"),
    }
    always = [(f"on_{name}", name) for name in ("cgroup_mkdir", "cgroup_rmdir", "sched_switch")]
    always += [(f"on_{name}", name) for name in ("sched_process_fork", "sched_process_exec")]
    chosen = list(dict.fromkeys(program for key, program in optional.items() if key in defined))
    return [*always, *chosen, ("on_sched_process_exit", "sched_process_exit")]
