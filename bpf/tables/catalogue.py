"""The catalogue of events, with their arguments, types and sources.

Ids of system calls are their x86-64 numbers. A 32-bit call has the id of the 64-bit call with the same name; a call
that only the i386 table has gets 512 + its number. Ids of other events start at 1024. Argument names and types are
Tracee's, so that its users recognize them.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from headrace.bpf import layout
from headrace.bpf.tables.events import EVENTS, MULTIPLEXED, X32_CALLS
from headrace.bpf.tables.reads import BUFFERS, NAME, PATH, ROOT, Argument, Blob, asides_of, blobs_of
from headrace.bpf.tables.sets import SETS
from headrace.bpf.tables.widths import shown_width, width_of

TABLES = Path(__file__).parent
UNIQUE_32_BASE = 512
HOOK_BASE = 1024
UNKNOWN_CALL_ID = HOOK_BASE - 1
TRIED = {
    "all": "'*' (every event)",
    **dict.fromkeys(("file", "files"), "set=fs"),
    **dict.fromkeys(("network", "netw", "socket_calls"), "set=net"),
    **dict.fromkeys(("process", "processes"), "set=proc"),
    "signal": "set=signals",
    "memory": "set=proc_mem",
    "exec": "execve or sched_process_exec",
    "exit_code": "sched_process_exit",
}
"""What people try first who know other tools, and what it is called here."""

LEXICAL, HOOK, CHECK = "lexical", "hook", "check"
SYS_ENTER, SYS_EXIT = "raw_tracepoint:sys_enter", "raw_tracepoint:sys_exit"
FAMILIES = ("socketcall", "ipc", "struct")
"""Multiplexing calls, in the order of `enum family` of bpf/c/dispatch.h from 1 on."""
HOOKS_OF_OWN = {"start": "start", "headrace": "pipeline"}
CHECKS_NONE, CHECKS_REST, CHECKS_ALL = CHECKS = "none", "rest", "all"
"""What kprobes on security checks report: nothing, what the end of calls does not, or everything."""
SYSCALL_ENTRY, SYSCALL_EXIT, TRACEPOINT, KPROBE = "syscall_entry", "syscall_exit", "raw_tracepoint", "kprobe"
SOURCE_NAMES = {TRACEPOINT: "tracepoint", HOOK: KPROBE, CHECK: "kernel_tables", "pipeline": "headrace"}
SOURCES = (SYSCALL_ENTRY, SYSCALL_EXIT, KPROBE, "tracepoint", "kernel_tables", "start", "headrace")
"""Where events come from, as every event says."""


DESCRIPTOR = re.compile(r"\w*fd|fd_?in")
DESCRIPTOR_TYPES = ("int", "unsigned int", "unsigned long")


def descriptor_of(arguments: tuple[Argument, ...]) -> int | None:
    """Position of a call's first file descriptor, or None."""
    is_one = (a.type in DESCRIPTOR_TYPES and DESCRIPTOR.fullmatch(a.name) for a in arguments)
    return next((i for i, found in enumerate(is_one) if found), None)


@dataclass(frozen=True)
class Event:
    """One event. `hook` is None if headrace cannot provide the event; `missing` then says why.

    `programs` are the programs of bpf/c/objects.h that emit it; `functions` the kernel functions, of which the first
    that a kernel has is probed.
    """

    id: int
    name: str
    arguments: tuple[Argument, ...]
    hook: str | None
    sets: frozenset[str] = field(default_factory=frozenset)
    missing: str = ""
    blobs: tuple[Blob, ...] = ()
    is_syscall: bool = False
    urgent: bool = False
    programs: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()

    @property
    def is_check(self) -> bool:
        """Whether the end of calls reports it, and a kprobe what no call does (bpf/c/checks.c)."""
        return bool(self.programs and self.functions)

    def source(self, is_entry: bool, retval: int) -> str:
        """Where a record of the event comes from: one of SOURCES. `is_entry`: it has no result."""
        if self.is_syscall:
            return SYSCALL_ENTRY if is_entry else SYSCALL_EXIT
        kind = (self.hook or "").partition(":")[0]
        if self.is_check and is_entry:
            return KPROBE
        if self.programs and (self.hook == SYS_EXIT or retval < 0):
            return SYSCALL_EXIT
        return SOURCE_NAMES.get(kind, kind)

    @property
    def cells(self) -> int:
        """Number of arguments that have a cell in the record."""
        return sum(a.in_record for a in self.arguments)

    def blobs_with(self, capture_bytes: int) -> tuple[Blob, ...]:
        """Data to read if the first `capture_bytes` bytes of buffers are requested."""
        buffer = BUFFERS.get(self.name) if capture_bytes else None
        if buffer is None:
            return self.blobs
        arg, sized, limit = buffer
        most, on_success = min(capture_bytes, layout.STRING_BYTES), sized == layout.SIZED_BY_RESULT
        wanted = Blob(arg, layout.KIND_SIZED, most, sized, on_success, limit=0 if limit is None else limit + 1)
        return (*self.blobs, wanted)

    @property
    def descriptor(self) -> int | None:
        """Position of the argument that --fd-paths shows with its file, or None."""
        return descriptor_of(self.arguments) if self.is_syscall else None

    def index(self, argument: str) -> int | None:
        """Position of an argument by name, or None."""
        names = [a.name for a in self.arguments]
        return names.index(argument) if argument in names else None


@dataclass(frozen=True)
class Call:
    """One number of one table: its event, and the data to read for it.

    `compat`: it uses 32-bit structs; `slot`: its row in the BPF table of calls (bpf/c/dispatch.h); `registers`: for
    each argument, 1 + the index of the call argument that holds it, 0 for none, empty if all are in order; `joined`:
    arguments whose upper 32 bits are in the next register.
    """

    number: int
    compat: bool
    event: Event
    arguments: tuple[Argument, ...]
    blobs: tuple[Blob, ...]
    slot: int
    registers: tuple[int, ...] = ()
    joined: frozenset[int] = frozenset()


class UnknownName(Exception):
    """A name is not in the catalogue. `nearest` is the closest known name, or None."""

    def __init__(self, kind: str, name: str, nearest: str | None) -> None:
        hint = f"; did you mean {nearest}?" if nearest else ""
        super().__init__(f"no such {kind}: {name}{hint}")
        self.kind, self.name, self.nearest = kind, name, nearest


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` most likely refers to, or None."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message that suggests the nearest known name; empty if none is near."""
    near = nearest(name, known)
    return f"; did you mean {near}?" if near else ""


URGENT = frozenset(
    """ptrace process_vm_writev init_module finit_module delete_module mount umount2 move_mount setuid setgid
    setreuid setregid setresuid setresgid setfsuid setfsgid capset setns unshare bpf""".split()
)

ENTRY_CALLS = ("exit", "exit_group", "rt_sigreturn", "sigreturn")
"""Calls that do not return normally. They are recorded at their entry."""
ON_PROCESSES = frozenset({"process_vm_readv", "process_vm_writev"})
"""Calls on a process by number. Their records say whether it is the caller's own process (bpf/c/pids.h)."""
LIFECYCLE = frozenset({"sched_process_fork", "sched_process_exec", "sched_process_exit"})
LOSS = "loss"


def _arguments(declared: str, widths: str = "") -> tuple[Argument, ...]:
    parts = [part.strip().rpartition(" ") for part in declared.split(",") if part.strip()]
    each = widths.split() or [width_of(kind.strip()) for kind, _, _ in parts]
    found = []
    for (kind, _, text), width in zip(parts, each, strict=True):
        name, _, form = text.partition("@")
        found.append(Argument(name, kind.strip(), form, shown_width(name, kind.strip(), width)))
    own = [Argument(f"root_{a.name}", a.type, ROOT, a.width) for a in found if a.form in (PATH, NAME)]
    return (*found, *own)


def _registers(text: str) -> tuple[tuple[int, ...], frozenset[int]]:
    """Parses `0 1 2+3` to the `registers` and `joined` of a Call."""
    parts = text.split()
    joined = frozenset(i for i, part in enumerate(parts) if "+" in part)
    return tuple(1 + int(part.partition("+")[0]) for part in parts), joined


class _Row(NamedTuple):
    """An event of bpf/tables/events.py."""

    name: str
    hook: str | None
    missing: str
    programs: tuple[str, ...]
    functions: tuple[str, ...]
    arguments: tuple[Argument, ...]


def _hook_events() -> Iterable[_Row]:
    for line in EVENTS.replace("\n    ", " ").split("\n"):
        if not line:
            continue
        name, source, arguments = (part.strip() for part in line.split("|"))
        kind, _, rest = source.partition(":")
        if kind == "none":
            yield _Row(name, None, rest, (), (), _arguments(arguments))
            continue
        sources = [word.partition(":") for word in source.split()]
        raw = [f"raw_tracepoint:{what}" for how, _, what in sources if how == "raw"]
        programs = tuple(what for how, _, what in sources if how == "exit")
        functions = tuple(f for how, _, what in sources if how == HOOK for f in what.split(","))
        hook = raw[0] if raw else SYS_EXIT if programs else source if kind in (HOOK, CHECK) else HOOKS_OF_OWN[kind]
        yield _Row(name, hook, "", programs, functions, _arguments(arguments))


def _read_table(name: str) -> dict[int, tuple[str, tuple[Argument, ...], str]]:
    """By number: the call, its arguments, and its registers if they differ from the order of arguments."""
    rows = {}
    for line in (TABLES / f"syscalls_{name}.tsv").read_text().splitlines():
        if not line.startswith("#"):
            number, call, arguments, widths, registers = (*line.split("\t"), "", "", "")[:5]
            rows[int(number)] = (call, _arguments(arguments, widths), registers)
    return rows


def _syscall(number: int, name: str, arguments: tuple[Argument, ...], only_32: bool) -> Event:
    hook = SYS_ENTER if name in ENTRY_CALLS else SYS_EXIT
    arguments = (*arguments, *asides_of(name, arguments))
    sets = {"syscalls"} | {s for s, members in SETS.items() if name in members}
    return Event(
        id=UNIQUE_32_BASE + number if only_32 else number,
        name=name,
        arguments=arguments,
        hook=hook,
        sets=frozenset(sets | ({"32bit_unique"} if only_32 else set())),
        blobs=blobs_of(name, arguments, only_32),
        is_syscall=True,
        urgent=name in URGENT,
    )


class Catalogue:
    """All events by id and by name, and the calls of both tables. Immutable once built."""

    def __init__(self) -> None:
        self.by_name: dict[str, Event] = {}
        self.calls: list[Call] = []
        """Calls by number in the two tables, and one entry per table for all unknown numbers."""
        self.other_rows: list[Call] = []
        """Rows of the BPF table that are not in the two tables: x32 calls, calls by family, unnamed numbers."""
        native, compat = _read_table("x86_64"), _read_table("i386")
        for number, (name, arguments, _) in native.items():
            self._add_call(number, False, _syscall(number, name, arguments, only_32=False), arguments)
        for number, (name, arguments, registers) in compat.items():
            event = self.by_name.get(name) or _syscall(number, name, arguments, only_32=True)
            self._add_call(number, True, event, arguments, registers)
        unknown = Event(
            UNKNOWN_CALL_ID,
            "unknown_syscall",
            (Argument("number", "long", width="s64"),),
            SYS_EXIT,
            is_syscall=True,
        )
        for is_compat in (False, True):
            self._add_call(layout.UNKNOWN_CALL, is_compat, unknown, unknown.arguments)
        self._add_x32()
        self._add_multiplexed()
        self._add_unnamed(unknown)
        for i, row in enumerate(_hook_events()):
            self.by_name[row.name] = Event(
                HOOK_BASE + i,
                row.name,
                row.arguments,
                row.hook,
                frozenset(s for s, members in SETS.items() if row.name in members),
                row.missing,
                urgent=row.name in LIFECYCLE or row.name.startswith("cgroup_"),
                programs=row.programs,
                functions=row.functions,
            )
        self.by_id = {event.id: event for event in self.by_name.values()}
        assert max(self.by_id) < layout.EVENTS

    def _add_call(
        self, number: int, compat: bool, event: Event, arguments: tuple[Argument, ...], registers: str = ""
    ) -> None:
        self.by_name[event.name] = event
        slot = number + layout.CALL_SLOTS * compat
        blobs = blobs_of(event.name, arguments, compat) if compat else event.blobs
        self.calls.append(Call(number, compat, event, arguments, blobs, slot, *_registers(registers)))

    def _add_other(self, slot: int, name: str, count: int | None = None, registers: tuple[int, ...] = ()) -> None:
        """Add a row for the event `name` with its first `count` arguments."""
        event = self.by_name[name]
        arguments = event.arguments[:count]
        blobs = blobs_of(name, arguments, True, structs=slot >= layout.MULTIPLEXED_SLOT)
        self.other_rows.append(Call(slot, True, event, arguments, blobs, slot, registers))

    def _add_x32(self) -> None:
        for line in X32_CALLS.split("\n"):
            if line:
                number, name = line.split()
                self._add_other(int(number), name)

    def _add_multiplexed(self) -> None:
        for line in MULTIPLEXED.split("\n"):
            if line:
                through, number, name, rest = line.split()
                slot = layout.MULTIPLEXED_SLOT + FAMILIES.index(through) * layout.MULTIPLEXED + int(number)
                registers = tuple(1 + int(part) for part in rest.split(",")) if through == "ipc" else ()
                self._add_other(slot, name, len(registers) or int(rest), registers)

    def _add_unnamed(self, unknown: Event) -> None:
        """Add unnamed numbers within the tables as unknown calls, like numbers beyond the tables."""
        taken = {call.slot for call in (*self.calls, *self.other_rows)}
        for slot in set(range(layout.MULTIPLEXED_SLOT)) - taken:
            self.other_rows.append(Call(slot, False, unknown, unknown.arguments, (), slot))

    @property
    def rows(self) -> list[Call]:
        """Every row of the BPF table of calls."""
        return [*self.calls, *self.other_rows]

    def event(self, name: str) -> Event:
        """The event of that name. Raises UnknownName with the nearest name if there is none."""
        if name not in self.by_name:
            raise UnknownName("event", name, nearest(name, self.by_name))
        return self.by_name[name]

    def sets(self) -> dict[str, list[Event]]:
        """All sets by name, with their events ordered by id."""
        found: dict[str, list[Event]] = {name: [] for name in SETS}
        for event in self.by_name.values():
            for name in event.sets:
                found.setdefault(name, []).append(event)
        return {name: sorted(events, key=lambda e: e.id) for name, events in sorted(found.items())}

    def select(self, expression: str) -> list[Event]:
        """Events that a comma-separated list of names, sets, globs and `!name` selects, ordered by id.

        If an event and a set have the same name, the name selects the event, and `set=NAME` selects the set. A list
        with only `!` entries starts from the set `default`. Raises UnknownName if a part matches nothing. The result
        includes events that headrace cannot provide; the caller reports them, and treats them as an error if they were
        named individually.
        """
        chosen: dict[str, Event] = {}
        sets = self.sets()
        parts = [part.strip() for part in expression.split(",") if part.strip()]
        if parts and all(part.startswith("!") for part in parts):
            chosen = {e.name: e for e in sets["default"]}
        for part in parts:
            name = part.removeprefix("!")
            if name.startswith("set="):
                name = name.removeprefix("set=")
                found = sets.get(name, [])
            elif name in self.by_name:
                found = [self.by_name[name]]
            elif name in sets:
                found = sets[name]
            elif any(c in name for c in "*?["):
                found = [self.by_name[n] for n in fnmatch.filter(self.by_name, name)]
            else:
                found = []
            if not found:
                near = TRIED.get(name) or nearest(name, [*self.by_name, *sets])
                raise UnknownName("event or set", name, near)
            for event in found:
                if part.startswith("!"):
                    chosen.pop(event.name, None)
                else:
                    chosen[event.name] = event
        return sorted(chosen.values(), key=lambda e: e.id)


@cache
def catalogue() -> Catalogue:
    """The catalogue of this version, built once per process (about 10 ms)."""
    return Catalogue()
