"""The catalogue: every event by name, with its arguments, their types, and where it comes from.

Ids of system calls are their x86-64 numbers. A 32-bit call shares the id of the 64-bit call of its
name; one that only the i386 table has gets 512 + its number. Events of other hooks follow from 1024.
Argument names and types are Tracee's, so that its users find them again.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from bpf import layout

TABLES = Path(__file__).parent / "tables"
UNIQUE_32_BASE = 512
HOOK_BASE = 1024
UNKNOWN_CALL_ID = HOOK_BASE - 1

STRING, VECTOR, SOCKADDR, INT_PAIR = "const char*", "const char*const*", "struct sockaddr*", "int[2]"
TIMESPEC, TIMESPEC_OUT = "const struct timespec*", "struct timespec*"


@dataclass(frozen=True)
class Blob:
    """What the kernel side reads behind an argument (layout.h, `struct blob_spec`)."""

    arg: int
    kind: int
    bytes: int
    sized: int = 0
    on_success: bool = False

    @property
    def room(self) -> int:
        """Bytes of a frame that the programs ask for before they read this (bpf/c/arguments.h)."""
        most = (
            layout.VECTOR_BYTES + layout.VECTOR_STRING if self.kind == layout.KIND_VECTOR else layout.STRING_BYTES + 8
        )
        return layout.BLOB.itemsize + most


@dataclass(frozen=True)
class Argument:
    """One argument of an event: its name and its C type."""

    name: str
    type: str


@dataclass(frozen=True)
class Event:
    """One event. `hook` is None where nothing can provide it yet; `missing` then says why."""

    id: int
    name: str
    arguments: tuple[Argument, ...]
    hook: str | None
    sets: frozenset[str] = field(default_factory=frozenset)
    missing: str = ""
    blobs: tuple[Blob, ...] = ()
    is_syscall: bool = False
    urgent: bool = False

    def blobs_with(self, capture_bytes: int) -> tuple[Blob, ...]:
        """What to read when the first bytes of buffers are asked for, too."""
        buffer = BUFFERS.get(self.name) if capture_bytes else None
        if buffer is None:
            return self.blobs
        arg, sized = buffer
        on_success = sized == layout.SIZED_BY_RESULT
        return (*self.blobs, Blob(arg, layout.KIND_SIZED, min(capture_bytes, layout.STRING_BYTES), sized, on_success))

    def index(self, argument: str) -> int | None:
        """Position of an argument by name, or None."""
        names = [a.name for a in self.arguments]
        return names.index(argument) if argument in names else None


@dataclass(frozen=True)
class Call:
    """One number of one table: which event it is, and what to read for it."""

    number: int
    compat: bool
    event: Event
    arguments: tuple[Argument, ...]
    blobs: tuple[Blob, ...]


class UnknownName(Exception):
    """A name that the catalogue does not have; `nearest` is the closest one, or None."""

    def __init__(self, kind: str, name: str, nearest: str | None) -> None:
        hint = f"; did you mean {nearest}?" if nearest else ""
        super().__init__(f"no such {kind}: {name}{hint}")
        self.kind, self.name, self.nearest = kind, name, nearest


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


"""The set `default`: the 75 events that Tracee 0.8.0 traces when nothing is asked for, and fork."""
DEFAULT = frozenset(
    """open close stat fstat lstat access dup socket connect accept bind listen getsockname clone fork vfork
    execve kill getdents creat unlink symlink chmod fchmod chown fchown lchown ptrace setuid setgid setreuid
    setregid setfsuid setfsgid mknod prctl mount umount2 init_module delete_module getdents64 openat mknodat
    fchownat unlinkat symlinkat fchmodat faccessat accept4 dup3 process_vm_readv process_vm_writev finit_module
    memfd_create bpf execveat pkey_mprotect move_mount clone3 close_range openat2 faccessat2 sched_process_exec
    sched_process_exit cap_capable security_bprm_check security_file_open security_inode_unlink
    security_socket_create security_socket_listen security_socket_connect security_socket_accept
    security_socket_bind security_socket_setsockopt security_sb_mount sched_process_fork""".split()
)
SETS: dict[str, frozenset[str]] = {
    "default": DEFAULT,
    "proc_life": frozenset(
        """clone clone3 fork vfork execve execveat exit exit_group wait4 waitid sched_process_fork
        sched_process_exec sched_process_exit""".split()
    ),
    "fs_file_ops": frozenset(
        """open openat openat2 creat close close_range unlink unlinkat rename renameat renameat2 truncate
        ftruncate fallocate mknod mknodat symlink symlinkat link linkat readlink readlinkat""".split()
    ),
    "net_sock": frozenset(
        """socket socketpair bind listen accept accept4 connect getsockname getpeername setsockopt getsockopt
        shutdown""".split()
    ),
    "signals": frozenset(
        """kill tkill tgkill rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigqueueinfo
        rt_sigsuspend rt_sigreturn rt_tgsigqueueinfo sigaltstack signalfd signalfd4 pidfd_send_signal
        pause""".split()
    ),
    "proc_ids": frozenset(
        """getpid getppid gettid getuid geteuid getgid getegid setuid setgid setreuid setregid setresuid
        setresgid getresuid getresgid setfsuid setfsgid getgroups setgroups setpgid getpgid getpgrp setsid
        getsid capget capset""".split()
    ),
    "system_module": frozenset("init_module finit_module delete_module create_module query_module".split()),
}
URGENT = frozenset(
    """ptrace process_vm_writev init_module finit_module delete_module mount umount2 move_mount setuid setgid
    setreuid setregid setresuid setresgid setfsuid setfsgid capset setns unshare bpf""".split()
)

"""Buffers whose first bytes are read on request (`capture_bytes`): event -> (argument, length argument)."""
BUFFERS = {
    "write": (1, 2),
    "pwrite64": (1, 2),
    "sendto": (1, 2),
    "read": (1, layout.SIZED_BY_RESULT),
    "pread64": (1, layout.SIZED_BY_RESULT),
    "recvfrom": (1, layout.SIZED_BY_RESULT),
}
"""Calls whose result is a string of the result's length."""
RESULT_STRINGS = {"readlink": 1, "readlinkat": 2, "getcwd": 0}
"""Sockaddr arguments that the kernel writes: event -> (argument, argument with the length's address)."""
SOCKADDR_OUT = {"accept": (1, 2), "accept4": (1, 2), "getsockname": (1, 2), "getpeername": (1, 2), "recvfrom": (4, 5)}
SOCKADDR_IN = {"bind": (1, 2), "connect": (1, 2), "sendto": (4, 5)}
SOCKADDR_BYTES = 128
"""Structs read whole: type -> (bytes at most, argument with its size)."""
SIZED_STRUCTS = {("clone3", "struct clone_args*"): (88, 1), ("openat2", "struct open_how*"): (64, 3)}
"""Calls that do not return, or not as themselves: taken at their entry."""
ENTRY_CALLS = ("exit", "exit_group", "rt_sigreturn")

_HOOKS: tuple[tuple[str, str | None, str], ...] = (
    ("sys_enter", "raw_tracepoint:sys_enter", "int syscall"),
    ("sys_exit", "raw_tracepoint:sys_exit", "int syscall"),
    (
        "sched_process_fork",
        "raw_tracepoint:sched_process_fork",
        "int parent_tid, int parent_ns_tid, int parent_pid, int parent_ns_pid, int child_tid, int child_ns_tid,"
        "int child_pid, int child_ns_pid, u64 start_time, u64 child_process_start_time",
    ),
    (
        "sched_process_exec",
        "raw_tracepoint:sched_process_exec",
        "const char* cmdpath, const char* pathname, const char*const* argv, const char*const* env, dev_t dev,"
        "unsigned long inode, int invoked_from_kernel, unsigned long ctime, umode_t stdin_type,"
        "umode_t inode_mode, const char* interp, const char* interpreter_pathname, dev_t interpreter_dev,"
        "unsigned long interpreter_inode, const char* prev_comm",
    ),
    ("sched_process_exit", "raw_tracepoint:sched_process_exit", "long exit_code, bool process_group_exit"),
    (
        "sched_switch",
        "raw_tracepoint:sched_switch",
        "int cpu, int prev_tid, const char* prev_comm, int next_tid, const char* next_comm",
    ),
    ("task_rename", "raw_tracepoint:task_rename", "const char* old_name, const char* new_name, int syscall"),
    ("cgroup_mkdir", "raw_tracepoint:cgroup_mkdir", "u64 cgroup_id, const char* cgroup_path, u32 hierarchy_id"),
    ("cgroup_rmdir", "raw_tracepoint:cgroup_rmdir", "u64 cgroup_id, const char* cgroup_path, u32 hierarchy_id"),
    (
        "cgroup_attach_task",
        "raw_tracepoint:cgroup_attach_task",
        "const char* cgroup_path, const char* comm, pid_t pid",
    ),
    ("loss", "pipeline", "u32 cpu, u32 shard, u64 count, u64 first_time, u64 last_time"),
    ("cap_capable", None, "int cap, int syscall"),
    ("security_bprm_check", None, "const char* pathname, dev_t dev, unsigned long inode"),
    (
        "security_file_open",
        None,
        "const char* pathname, int flags, dev_t dev, unsigned long inode, unsigned long ctime,"
        "const char* syscall_pathname, int syscall",
    ),
    ("security_inode_unlink", None, "const char* pathname"),
    ("security_socket_create", None, "int family, int type, int protocol, int kern"),
    ("security_socket_listen", None, "int sockfd, struct sockaddr* local_addr, int backlog"),
    ("security_socket_connect", None, "int sockfd, struct sockaddr* remote_addr"),
    ("security_socket_accept", None, "int sockfd, struct sockaddr* local_addr"),
    ("security_socket_bind", None, "int sockfd, struct sockaddr* local_addr"),
    (
        "security_socket_setsockopt",
        None,
        "int sockfd, int level, int optname, struct sockaddr* local_addr",
    ),
    ("security_sb_mount", None, "const char* dev_name, const char* path, const char* type, unsigned long flags"),
)
"""Arguments whose blob is a path walked leaf first (bpf/c/lifecycle.c, blob_path)."""
WALKED = frozenset({("sched_process_exec", "pathname")})
"""Arguments that Tracee's event has and no hook of this version reads: null, never a made-up value."""
UNREAD = frozenset(
    ("sched_process_exec", name) for name in ("interpreter_pathname", "interpreter_dev", "interpreter_inode")
)
NOT_YET = "not provided yet: headrace does not read the kernel's objects in this version"
LIFECYCLE = frozenset({"sched_process_fork", "sched_process_exec", "sched_process_exit"})
LOSS = "loss"


def _arguments(text: str) -> tuple[Argument, ...]:
    parts = [part.strip().rpartition(" ") for part in text.split(",") if part.strip()]
    return tuple(Argument(name, kind) for kind, _, name in parts)


def _read_table(name: str) -> dict[int, tuple[str, tuple[Argument, ...]]]:
    rows = {}
    for line in (TABLES / f"syscalls_{name}.tsv").read_text().splitlines():
        if not line.startswith("#"):
            number, call, *arguments = line.split("\t")
            rows[int(number)] = (call, _arguments(arguments[0] if arguments else ""))
    return rows


def _blobs(name: str, arguments: tuple[Argument, ...], compat: bool) -> tuple[Blob, ...]:
    """What to read behind the pointers of one call. 32-bit structs that differ stay raw."""
    found: list[Blob] = []
    for i, argument in enumerate(arguments):
        sized = SIZED_STRUCTS.get((name, argument.type))
        if argument.type == STRING:
            found.append(Blob(i, layout.KIND_STRING, layout.STRING_BYTES))
        elif argument.type == VECTOR:
            found.append(Blob(i, layout.KIND_VECTOR, 8192))
        elif argument.type == INT_PAIR:
            found.append(Blob(i, layout.KIND_FIXED, 8, on_success=True))
        elif name in SOCKADDR_IN and SOCKADDR_IN[name][0] == i:
            found.append(Blob(i, layout.KIND_SIZED, SOCKADDR_BYTES, SOCKADDR_IN[name][1]))
        elif name in SOCKADDR_OUT and SOCKADDR_OUT[name][0] == i:
            found.append(Blob(i, layout.KIND_SIZED_PTR, SOCKADDR_BYTES, SOCKADDR_OUT[name][1], on_success=True))
        elif RESULT_STRINGS.get(name) == i:
            found.append(Blob(i, layout.KIND_SIZED, layout.STRING_BYTES, layout.SIZED_BY_RESULT, on_success=True))
        elif sized and not compat:
            found.append(Blob(i, layout.KIND_SIZED, sized[0], sized[1]))
        elif argument.type in (TIMESPEC, TIMESPEC_OUT) and (not compat or "64" in name):
            found.append(Blob(i, layout.KIND_FIXED, 16, on_success=argument.type == TIMESPEC_OUT))
    return tuple(found[:5])


def _syscall(number: int, name: str, arguments: tuple[Argument, ...], only_32: bool) -> Event:
    hook = f"tracepoint:syscalls:sys_enter_{name}" if name in ENTRY_CALLS else "raw_tracepoint:sys_exit"
    sets = {"syscalls"} | {s for s, members in SETS.items() if name in members}
    return Event(
        id=UNIQUE_32_BASE + number if only_32 else number,
        name=name,
        arguments=arguments,
        hook=hook,
        sets=frozenset(sets | ({"32bit_unique"} if only_32 else set())),
        blobs=_blobs(name, arguments, only_32),
        is_syscall=True,
        urgent=name in URGENT,
    )


class Catalogue:
    """All events, by id and by name, and the calls of both tables. Immutable once built."""

    def __init__(self) -> None:
        self.by_name: dict[str, Event] = {}
        self.calls: list[Call] = []
        native, compat = _read_table("x86_64"), _read_table("i386")
        for number, (name, arguments) in native.items():
            self._add_call(number, False, _syscall(number, name, arguments, only_32=False), arguments)
        for number, (name, arguments) in compat.items():
            event = self.by_name.get(name) or _syscall(number, name, arguments, only_32=True)
            self._add_call(number, True, event, arguments)
        unknown = Event(
            UNKNOWN_CALL_ID,
            "unknown_syscall",
            (Argument("number", "long"),),
            "raw_tracepoint:sys_exit",
            is_syscall=True,
        )
        for is_compat in (False, True):
            self._add_call(layout.UNKNOWN_CALL, is_compat, unknown, unknown.arguments)
        for i, (name, hook, text) in enumerate(_HOOKS):
            self.by_name[name] = Event(
                HOOK_BASE + i,
                name,
                _arguments(text),
                hook,
                frozenset(s for s, members in SETS.items() if name in members),
                "" if hook else NOT_YET,
                urgent=name in LIFECYCLE or name.startswith("cgroup_"),
            )
        self.by_id = {event.id: event for event in self.by_name.values()}
        assert max(self.by_id) < layout.EVENTS

    def _add_call(self, number: int, compat: bool, event: Event, arguments: tuple[Argument, ...]) -> None:
        self.by_name[event.name] = event
        self.calls.append(Call(number, compat, event, arguments, _blobs(event.name, arguments, compat)))

    def event(self, name: str) -> Event:
        """The event of that name; UnknownName suggests the nearest."""
        if name not in self.by_name:
            raise UnknownName("event", name, nearest(name, self.by_name))
        return self.by_name[name]

    def sets(self) -> dict[str, list[Event]]:
        """Every set with its events, by name."""
        found: dict[str, list[Event]] = {name: [] for name in SETS}
        for event in self.by_name.values():
            for name in event.sets:
                found.setdefault(name, []).append(event)
        return {name: sorted(events, key=lambda e: e.id) for name, events in sorted(found.items())}

    def select(self, expression: str) -> list[Event]:
        """Events that a comma-separated list of names, sets, globs and `!name` selects.

        A name that is both is the event. UnknownName if a part matches nothing; events that cannot be
        provided stay in the answer when a set or a glob brought them (the caller says so), and are the
        caller's error when they were named.
        """
        chosen: dict[str, Event] = {}
        sets = self.sets()
        parts = [part.strip() for part in expression.split(",") if part.strip()]
        if parts and all(part.startswith("!") for part in parts):
            chosen = {e.name: e for e in sets["default"]}
        for part in parts:
            name = part.removeprefix("!")
            if name in self.by_name:
                found = [self.by_name[name]]
            elif name in sets:
                found = sets[name]
            elif any(c in name for c in "*?["):
                found = [self.by_name[n] for n in fnmatch.filter(self.by_name, name)]
            else:
                found = []
            if not found:
                raise UnknownName("event or set", name, nearest(name, [*self.by_name, *sets]))
            for event in found:
                if part.startswith("!"):
                    chosen.pop(event.name, None)
                else:
                    chosen[event.name] = event
        return sorted(chosen.values(), key=lambda e: e.id)


@cache
def catalogue() -> Catalogue:
    """The catalogue of this version; built once per process (about 10 ms)."""
    return Catalogue()
