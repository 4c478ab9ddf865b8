"""Features of this host. Each is probed individually; kernel versions are never compared."""

from __future__ import annotations

import functools
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from headrace.bpf.host import beyond, cgroups
from headrace.bpf.host.btf import EXTERNAL, Btf, BtfError, place
from headrace.bpf.host.probes import FORMER, can_be_preempted, has_raw_tracepoint, tracefs
from headrace.bpf.host.symbols import SYMBOLS, Symbols
from headrace.bpf.load import integrity, loader
from headrace.bpf.load.loader import INSTALL
from headrace.bpf.programs import scope, source
from headrace.bpf.programs.compiler import CompileError, import_bcc
from headrace.bpf.syscall import KPROBES
from headrace.bpf.tables.catalogue import CHECK, HOOK, Event, catalogue
from headrace.pipeline.process import privilege
from headrace.pipeline.transport.clock import ClockError, namespace_ns
from headrace.pipeline.transport.shm import UnorderedMemory, require_total_store_order

LOCKDOWN = Path("/sys/kernel/security/lockdown")
INIT_PID_NAMESPACE = 0xEFFFFFFC
"""PROC_PID_INIT_INO of include/linux/proc_ns.h."""
CAPABILITIES = {"CAP_DAC_READ_SEARCH": 2, "CAP_IPC_LOCK": 14, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
SMALLEST = ("CAP_BPF", "CAP_PERFMON", "CAP_IPC_LOCK")
"""Sufficient for every kind of run: to load programs, open perf events, and lock their memory."""
FOR_TRACEFS = "CAP_DAC_READ_SEARCH"
"""Also needed where programs are attached to perf events, whose ids are read from tracefs (decisions/0045)."""
OPTIONAL_TRACEPOINTS = (
    "sched_prepare_exec",
    "cap_capable",
    "io_uring_create",
    "io_uring_submit_req",
    "module_load",
    "module_free",
)
"""Optional: without them, the name before an exec comes from task_rename, and some events are unavailable."""
RAW_TRACEPOINTS = (
    "sys_enter",
    "sys_exit",
    "sched_switch",
    "sched_process_fork",
    "sched_process_exec",
    "sched_process_exit",
    "task_rename",
    "cgroup_mkdir",
    "cgroup_rmdir",
    "cgroup_attach_task",
    *OPTIONAL_TRACEPOINTS,
)


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    optional: bool = False


def pid_namespace() -> Finding:
    """Check that this is the host's PID namespace: the BPF programs report process ids of the host."""
    name = "PID namespace"
    try:
        inside = Path("/proc/self/ns/pid").stat().st_ino != INIT_PID_NAMESPACE
    except OSError as error:
        return Finding(name, False, f"/proc/self/ns/pid: {error.strerror}", "mount /proc")
    if not inside:
        return Finding(name, True, "the host's")
    return Finding(name, False, "not the host's: processes have other numbers here", "use the host's (--pid=host)")


def time_namespace() -> Finding:
    """Check that the offset of the time namespace is known: the BPF programs report times of the host."""
    name = "time namespace"
    try:
        added_ns = namespace_ns()
    except ClockError as error:
        return Finding(name, False, str(error), "start headrace with: unshare --time --fork, or in the host's")
    return Finding(
        name, True, f"CLOCK_BOOTTIME is {added_ns / 1e9:+} s here, taken off" if added_ns else "as the host's"
    )


NO_BTF = f"a kernel built with CONFIG_DEBUG_INFO_BTF, or a file with its types in {EXTERNAL} (docs: kernels)"


def _btf() -> tuple[Finding, Btf | None]:
    try:
        return Finding("BTF", True, str(place())), Btf.of_kernel()
    except BtfError as error:
        return Finding("BTF", False, str(error), NO_BTF), None


def _bcc() -> Finding:
    try:
        version = getattr(import_bcc(), "__version__", "unknown version")
    except CompileError as error:
        return Finding("bcc", False, str(error), INSTALL)
    return Finding("bcc", True, str(version))


def _capabilities(preempted: bool) -> Finding:
    smallest = (*SMALLEST, FOR_TRACEFS) if preempted else SMALLEST
    held = privilege.effective()
    if held >> CAPABILITIES["CAP_SYS_ADMIN"] & 1:
        return Finding("capabilities", True, "CAP_SYS_ADMIN")
    missing = [name for name in smallest if not held >> CAPABILITIES[name] & 1]
    if missing:
        return Finding(
            "capabilities", False, f"{', '.join(missing)} missing", "run as root, or with these capabilities"
        )
    return Finding("capabilities", True, ", ".join(smallest))


def _lockdown() -> list[Finding]:
    """The kernel's lockdown mode, if it can be read."""
    try:
        chosen = re.search(r"\[(\w+)]", LOCKDOWN.read_text())
    except OSError:
        return []
    word = chosen[1] if chosen else "none"
    if word != "confidentiality":
        return [Finding("lockdown", True, word)]
    return [Finding("lockdown", False, f"{word}: programs may not read the kernel's memory", loader.UNLOCK)]


def _machine() -> Finding:
    try:
        require_total_store_order()
    except UnorderedMemory as error:
        return Finding("machine", False, str(error), "use an x86-64 host")
    return Finding("machine", True, platform.machine())


def _calls() -> Finding:
    name = "system calls"
    try:
        with beyond.SYMBOLS.open() as symbols:
            found = beyond.unnamed({event.name for event in catalogue().by_id.values()}, symbols)
    except OSError as error:
        return Finding(name, False, f"{beyond.SYMBOLS}: {error.strerror}", "mount /proc", optional=True)
    if not found:
        return Finding(name, True, "all of this kernel's have names")
    return Finding(name, False, f"shown as unknown_syscall: {', '.join(found)}", "a later headrace", optional=True)


def findings() -> list[Finding]:
    """Check all requirements of tracing, and each raw tracepoint."""
    btf_finding, btf = _btf()
    preempted = btf is not None and can_be_preempted(btf)
    found = [
        _machine(),
        _capabilities(preempted),
        *_lockdown(),
        pid_namespace(),
        time_namespace(),
        btf_finding,
        _bcc(),
        *([_tracefs()] if preempted else ()),
        _shm(),
        _containers(),
        _calls(),
    ]
    for name in RAW_TRACEPOINTS:
        if btf is None:
            found.append(Finding(f"raw tracepoint {name}", False, "not known without BTF", optional=True))
            continue
        there = has_raw_tracepoint(btf, name)
        optional = name in OPTIONAL_TRACEPOINTS
        found.append(Finding(f"raw tracepoint {name}", there, "" if there else NOT_IN_KERNEL, optional=optional))
    return found


def _tracefs() -> Finding:
    where = tracefs()
    return Finding("tracefs", where is not None, str(where or "not mounted"), loader.MOUNT_TRACEFS)


def _containers() -> Finding:
    found = cgroups.hierarchy()
    text = found.text if found else "no control groups are mounted"
    return Finding("containers by", found is not None, text, "mount -t cgroup2 none /sys/fs/cgroup", optional=True)


def _shm() -> Finding:
    try:
        stat = os.statvfs("/dev/shm")
    except OSError as error:
        return Finding("/dev/shm", False, error.strerror or "", "mount -t tmpfs tmpfs /dev/shm")
    free = stat.f_bavail * stat.f_frsize
    enough = free > 256 << 20
    return Finding("/dev/shm", enough, f"{free >> 20} MiB free", "enlarge it, or use smaller rings (--ring-bytes)")


NOT_IN_KERNEL = "not in this kernel"


@functools.cache
def _kernel_btf() -> Btf:
    return Btf.of_kernel()


@functools.cache
def _there() -> frozenset[str] | None:
    """The tracepoints and functions that events need and this kernel has; None if BTF cannot be read.

    Searches the raw bytes of BTF for the names, which is faster than parsing it.
    """
    functions = {name for event in catalogue().by_id.values() for name in event.functions}
    try:
        names = place().read_bytes()
    except OSError:
        return None
    needed = functions | {f"btf_trace_{name}" for name in OPTIONAL_TRACEPOINTS}
    return frozenset(name for name in needed if f"\0{name}\0".encode() in names)


def hooked_function(event: Event) -> str:
    """The kernel function that is probed for an event on this host; "" if there is none."""
    there = (f for f in event.functions if f in (_there() or ()))
    return next(there, "") if KPROBES.exists() else ""


@functools.cache
def _hook_lack(event: Event) -> str:
    """Why none of the event's functions can be probed; "" if one can."""
    if not KPROBES.exists():
        return "needs a kprobe, and this kernel has none"
    return "" if hooked_function(event) else NOT_IN_KERNEL


@functools.cache
def _symbols() -> dict[str, int]:
    try:
        return Symbols(SYMBOLS.read_bytes()).addresses(integrity.SYMBOLS_NEEDED)
    except OSError:
        return {}


@functools.cache
def _table_lack(symbols: str) -> str:
    """Why the kernel's tables at these symbols cannot be checked; "" if they can."""
    return integrity.lack(symbols.split(","), _symbols(), "btf_trace_module_load" in (_there() or ()))


def trial(cache: Path, shards: int) -> tuple[list[Finding], frozenset[str]]:
    """Load the programs of all events that this host supports. Returns (findings, names of the refused events).

    The programs are those of a run that traces a command with `shards` workers. They are stored in `cache`, so such a
    run need not compile them again.
    """
    name = "programs"
    events = tuple(e for e in catalogue().by_id.values() if e.hook is not None and not event_lack(e))
    wanted = source.WantedPrograms(events=events, scope=scope.parse((), 0, command=True), shards=shards)
    try:
        programs = loader.Programs(wanted, _kernel_btf(), cache)
    except loader.LoadError as error:
        return [Finding(name, False, str(error))], frozenset()
    programs.close()
    found = [Finding(name, True, f"loaded on trial, for {len(events)} events")]
    refused = {function: wanted.lost_without(function) for function in programs.refused}
    for function, lost in refused.items():
        without = ", ".join(lost) or f"{wanted.raised_by(function)[0]} outside of calls"
        detail = f"refused: no {without}: {programs.refused[function]}"
        found.append(Finding(f"program {function}", False, detail, optional=True))
    return found, frozenset(event for lost in refused.values() for event in lost)


def event_lack(event: Event) -> str:
    """Why this host cannot support an event; "" if it can."""
    if event.hook is None:
        return event.missing
    kind, _, name = event.hook.partition(":")
    if kind == HOOK:
        return _hook_lack(event)
    if kind == CHECK:
        return _table_lack(name)
    if kind != "raw_tracepoint" or name not in OPTIONAL_TRACEPOINTS or (there := _there()) is None:
        return ""
    if f"btf_trace_{name}" in there:
        return ""
    return "" if name in FORMER and has_raw_tracepoint(_kernel_btf(), name) else NOT_IN_KERNEL


def event_state(event: Event) -> tuple[bool, str]:
    """Whether this host has the hook of an event, and the reason if it does not."""
    if event.hook is None or event.hook in ("pipeline", "start"):
        return event.hook is not None, event.missing
    kind, _, name = event.hook.partition(":")
    if kind in (HOOK, CHECK):
        lack = event_lack(event)
        return not lack, lack
    try:
        there = has_raw_tracepoint(_kernel_btf(), name)
    except BtfError as error:
        return False, str(error)
    return there, "" if there else "not in this kernel"
