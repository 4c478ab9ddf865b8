"""Compares kernel tables with the kernel's symbols to find modifications by rootkits.

    system calls    sys_call_table, ia32_sys_call_table: each entry is a function of a system call
    seq_operations  of /proc/net/{tcp,tcp6,udp,udp6,raw,raw6}: functions of the kernel
    /proc           the operations of its root: functions of the kernel
    modules         three independent sources: the kernel's list (in memory, and as shown by /proc/modules),
                    /sys/module, and the tree that maps addresses to modules
    ftrace          functions with a callback at their beginning (enabled_functions of tracefs)

A program reads the kernel's memory on request (bpf/c/integrity.c). While a module is loaded or unloaded, the three
sources briefly differ, so a hidden module is reported only if two consecutive checks find it. Each finding is reported
once.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headrace.bpf import layout
from headrace.bpf.host import probes
from headrace.bpf.host.btf import Btf, BtfError
from headrace.bpf.host.symbols import KERNEL, SYMBOLS, SymbolPlace, Symbols
from headrace.bpf.load.loader import Programs
from headrace.bpf.mapped import MappedArray
from headrace.bpf.programs.source import PEEK
from headrace.bpf.tables.catalogue import catalogue
from headrace.bpf.test_run import TestRun

TEXT = ("_stext", "_etext")
TABLES = {"sys_call_table": False, "ia32_sys_call_table": True}
"""Tables of system calls, and whether they contain 32-bit calls."""
SEQUENCES = tuple(f"{name}_seq_ops" for name in "tcp4 tcp6 udp udp6 raw raw6".split())
STEPS = ("start", "stop", "next", "show")
"""Members of struct seq_operations, include/linux/seq_file.h."""
PROC, MODULE_LIST, MODULE_TREE, ENABLED = "proc_root", "modules", "mod_tree", "enabled_functions"
SYMBOLS_NEEDED = (*TEXT, *TABLES, *SEQUENCES, PROC, MODULE_LIST, MODULE_TREE)
LISTED, LOADED = Path("/proc/modules"), Path("/sys/module")
CALL_FUNCTION = r"\w*sys_\w+"
MAX_MODULES = 4096
MAX_TOLD = 65536
WORD = 8
NAME_BYTES = 56
"""MODULE_NAME_LEN of include/linux/module.h on 64-bit hosts."""
ENTRY = re.compile(
    r"(?P<symbol>\S+) (?:\[\w+\] )?\((?P<count>\d+)\)(?P<flags>(?: +[A-Z](?= |\t|$))*)"
    r"(?:\s*tramp: (?P<trampoline>0x[0-9a-f]+) \((?P<callback>[^+)\s]+)(?:\+(?P<offset>0x[0-9a-f]+)/\w+)?"
    r"(?: \[(?P<owner>[^]]+)\])?\))?"
)


class Found(NamedTuple):
    """One finding: an event and its arguments in order."""

    event: str
    arguments: tuple[str | int | tuple[str, ...] | None, ...]


class Module(NamedTuple):
    """A module as seen by one of the three sources. `address` of its struct is 0 if the source does not have it."""

    name: str
    address: int


class KernelMemory:
    """Reads kernel memory in words."""

    def __init__(self, programs: Programs) -> None:
        fd = programs.function_fd(PEEK)
        self._run = TestRun(-1 if fd is None else fd)
        self._peeked = MappedArray(programs.map_fd("peeked"), layout.PEEKED, 1)

    def words(self, address: int, count: int) -> list[int] | None:
        """`count` words (at most 512) from an address; None if they cannot be read."""
        if not address or not self._run((address, count)) or self._peeked.array["failed"][0]:
            return None
        return [int(word) for word in self._peeked.array["words"][0, :count]]

    def word(self, address: int) -> int:
        """One word; 0 if it cannot be read."""
        found = self.words(address, 1)
        return found[0] if found else 0

    def text(self, address: int, most: int) -> str:
        """A text up to its NUL, at most `most` bytes."""
        words = self.words(address, most // WORD)
        return np.array(words or [], "<u8").tobytes().partition(b"\0")[0].decode(errors="backslashreplace")

    def close(self) -> None:
        """Unmap the result."""
        self._peeked.close()


def lack(names: Iterable[str], symbols: dict[str, int], modules: bool) -> str:
    """Why none of the tables at the symbols `names` can be checked; "" if at least one can. `symbols`: the available
    ones of SYMBOLS_NEEDED; `modules`: whether the kernel supports modules.
    """
    if ENABLED in names:
        try:
            ((probes.tracefs() or probes.TRACEFS[0]) / ENABLED).open().close()
        except OSError as error:
            return f"{ENABLED} of tracefs: {error.strerror}"
        return ""
    if MODULE_LIST in names and not modules:
        return "this kernel has no modules"
    if not all(name in symbols for name in TEXT):
        return "the kernel's addresses are hidden (CAP_SYSLOG, kernel.kptr_restrict)"
    if not any(name in symbols for name in names):
        return "this kernel has no symbols of its data (CONFIG_KALLSYMS_ALL)"
    return ""


class Integrity:
    """Checks the tables and emits findings. Must be constructed with the privilege to see kernel addresses; later
    checks need less.
    """

    def __init__(self, programs: Programs, btf: Btf) -> None:
        self._memory = KernelMemory(programs)
        self._btf = btf
        tells = {event: programs.function_fd(f"tell_{event}") for event in programs.wanted.checked}
        self._tells = {event: TestRun(fd) for event, fd in tells.items() if fd is not None}
        # the credentials at open time decide whether addresses are visible
        self._kallsyms, self._listed = _opened(SYMBOLS), _opened(LISTED)
        symbols = Symbols(_content(self._kallsyms))
        self._addresses = symbols.addresses(SYMBOLS_NEEDED)
        self._functions = symbols.functions(CALL_FUNCTION)
        self._text = range(self._addresses.get(TEXT[0], 0), self._addresses.get(TEXT[1], 0))
        self._now: tuple[Symbols, list[tuple[int, int, str]]] | None = None
        """Symbols and modules during a check, read on first use because that takes 0.2 s."""
        self._suspected: set[Found] = set()
        self._told: set[Found] = set()
        self._own_hooks = frozenset(programs.hooked_functions)
        self._sizes = {name: min(symbols.size(name) // WORD, layout.PEEK_WORDS) for name in TABLES}
        calls = [(call.compat, call.number, call.event.name) for call in catalogue().calls]
        self._names = {is_compat: {n: name for c, n, name in calls if c == is_compat} for is_compat in TABLES.values()}

    def look(self) -> list[Found]:
        """Check once. Emits and returns the new findings."""
        new = [found for found in self._found() if found not in self._told][: MAX_TOLD - len(self._told)]
        for found in new:
            self._told.add(found)
            kept: list[object] = []
            self._tells[found.event](_passed(found.arguments, kept))
        self._now = None
        return new

    @property
    def unsure(self) -> bool:
        """Whether another check should follow soon to confirm a finding."""
        return bool(self._suspected)

    def _found(self) -> Iterator[Found]:
        looks: dict[str, Callable[[], Iterator[Found]]] = {
            "hooked_syscall": self._calls,
            "hooked_syscalls": self._all_calls,
            "hooked_seq_ops": self._sequences,
            "hooked_proc_fops": self._proc,
            "hidden_kernel_module": self._modules,
            "ftrace_hook": self._hooks,
        }
        for event in self._tells:
            yield from looks[event]()

    def _calls(self) -> Iterator[Found]:
        for name, compat in TABLES.items():
            names = self._names[compat]
            entries = self._memory.words(self._addresses.get(name, 0), self._sizes[name]) or []
            for number, entry in enumerate(entries):
                # 0 is padding up to the next symbol
                if entry and entry not in self._functions:
                    place, call = self._place(entry), names.get(number, str(number))
                    yield Found("hooked_syscall", (call, f"{entry:x}", place.symbol or None, place.owner))

    def _all_calls(self) -> Iterator[Found]:
        found = tuple(f"{call} {address} {owner}" for _, (call, address, _, owner) in self._calls())
        if found:
            yield Found("hooked_syscalls", (found,))

    def _foreign(self, functions: dict[str, int]) -> tuple[str, ...]:
        """Descriptions of those functions that are outside the kernel's text."""
        return tuple(
            f"{name} {address:x} {self._place(address).owner}"
            for name, address in functions.items()
            if address and address not in self._text
        )

    def _sequences(self) -> Iterator[Found]:
        functions: dict[str, int] = {}
        for name in SEQUENCES:
            words = self._memory.words(self._addresses.get(name, 0), len(STEPS)) or []
            functions |= {f"{name}.{step}": address for step, address in zip(STEPS, words, strict=False)}
        if found := self._foreign(functions):
            yield Found("hooked_seq_ops", (found,))

    def _proc(self) -> Iterator[Found]:
        root, functions = self._addresses.get(PROC, 0), {}
        for pointer, struct, members in (
            ("proc_dir_ops", "file_operations", ("iterate_shared", "iterate", "read", "open")),
            ("proc_iops", "inode_operations", ("lookup", "getattr", "permission")),
        ):
            with suppress(BtfError):
                table = self._memory.word(root + self._btf.offset("proc_dir_entry", pointer))
                for member in members:
                    with suppress(BtfError):
                        functions[f"{pointer}.{member}"] = self._memory.word(table + self._btf.offset(struct, member))
        if found := self._foreign(functions):
            yield Found("hooked_proc_fops", (found,))

    def _modules(self) -> Iterator[Found]:
        listed = {module.name: module for module in self._in_list()}
        shown = {line.split()[0] for line in _lines(self._listed)} if self._listed is not None else {*listed}
        others = [*self._in_tree(), *(Module(name, 0) for name in _in_sysfs())]
        hidden: dict[str, Module] = {}
        for module in (*others, *listed.values()):
            if module.name not in listed or module.name not in shown:
                hidden[module.name] = max(module, hidden.get(module.name, module), key=lambda known: known.address)
        suspected, self._suspected = self._suspected, set()
        for name, module in hidden.items():
            found = Found("hidden_kernel_module", (f"{module.address:x}", name, self._source_version(module)))
            if found in suspected or found in self._told:
                yield found
            else:
                self._suspected.add(found)

    def _source_version(self, module: Module) -> str:
        if not module.address:
            return ""
        return self._memory.text(self._memory.word(module.address + self._btf.offset("module", "srcversion")), 32)

    def _module(self, address: int) -> Module:
        return Module(self._memory.text(address + self._btf.offset("module", "name"), NAME_BYTES), address)

    def _in_list(self) -> Iterator[Module]:
        first, at = self._addresses[MODULE_LIST], self._btf.offset("module", "list")
        entry = self._memory.word(first)
        for _ in range(MAX_MODULES):
            if entry in (0, first):
                return
            yield self._module(entry - at)
            entry = self._memory.word(entry)

    def _in_tree(self) -> Iterator[Module]:
        """Modules in `mod_tree`: two red-black trees with the same nodes, one in use (include/linux/rbtree_latch.h)."""
        try:
            root = self._btf.offset("mod_tree_root", "root") + self._btf.offset("latch_tree_root", "tree")
            node = self._btf.offset("mod_tree_node", "node")
            left, right = (self._btf.offset("rb_node", name) for name in ("rb_left", "rb_right"))
        except BtfError:
            return
        tree = self._addresses.get(MODULE_TREE, 0)
        waiting = [self._memory.word(tree + root)] if tree else []
        seen: set[int] = set()
        modules: set[int] = set()
        while waiting and len(seen) < MAX_MODULES * WORD:
            at = waiting.pop()
            if not at or at in seen:
                continue
            seen.add(at)
            modules.add(self._memory.word(at - node + self._btf.offset("mod_tree_node", "mod")))
            waiting += self._memory.word(at + left), self._memory.word(at + right)
        yield from (self._module(address) for address in sorted(modules - {0}))

    def _hooks(self) -> Iterator[Found]:
        with suppress(OSError):
            listed = (probes.tracefs() or probes.TRACEFS[0]) / ENABLED
            lines = listed.read_text(errors="backslashreplace").splitlines()
            for match in filter(None, map(ENTRY.match, lines)):
                count = int(match["count"])
                if match["symbol"] in self._own_hooks and count == 1:
                    continue
                yield Found(
                    "ftrace_hook",
                    (
                        match["symbol"],
                        match["trampoline"],
                        match["callback"],
                        int(match["offset"] or "0", 16),
                        match["owner"] or (KERNEL if match["callback"] else None),
                        "".join(match["flags"].split()),
                        count,
                    ),
                )

    def _place(self, address: int) -> SymbolPlace:
        if self._now is None:
            lines = map(str.split, _lines(self._listed))
            modules = [(int(line[5], 16), int(line[1]), line[0]) for line in lines]
            self._now = Symbols(_content(self._kallsyms)), modules
        symbols, modules = self._now
        return symbols.place(address, self._text, modules)

    def close(self) -> None:
        """Unmap and close everything."""
        self._memory.close()
        for fd in (self._kallsyms, self._listed):
            if fd is not None:
                os.close(fd)


def _in_sysfs() -> list[str]:
    """Loaded modules in /sys/module. Built-in modules have no `initstate`."""
    with suppress(OSError):
        return [folder.name for folder in LOADED.iterdir() if (folder / "initstate").exists()]
    return []


def _opened(path: Path) -> int | None:
    with suppress(OSError):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return None


def _content(fd: int | None) -> bytes:
    if fd is None:
        return b""
    os.lseek(fd, 0, os.SEEK_SET)
    parts = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def _lines(fd: int | None) -> list[str]:
    return _content(fd).decode(errors="backslashreplace").splitlines()


def _passed(arguments: tuple[str | int | tuple[str, ...] | None, ...], kept: list[object]) -> list[int]:
    """Arguments for a program. Texts are passed by address; `kept` keeps their memory alive."""

    def address(memory: ctypes.Array[Any]) -> int:
        kept.append(memory)
        return ctypes.addressof(memory)

    passed = []
    for argument in arguments:
        if argument is None or isinstance(argument, int):
            passed.append(argument or 0)
        elif isinstance(argument, str):
            passed.append(address(ctypes.create_string_buffer(argument.encode())))
        else:
            texts = [address(ctypes.create_string_buffer(text.encode())) for text in argument]
            passed.append(address((ctypes.c_uint64 * (len(texts) + 1))(*texts)))
    return passed
