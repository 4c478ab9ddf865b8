"""Events as a table for terminals: one line each, columns that fit the width, colour if enabled."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.bpf.layout import HEAD_ENTRY, HEAD_NOT_RUN
from headrace.bpf.tables.catalogue import Event
from headrace.bpf.tables.reads import Argument
from headrace.config.printable import CUT, quoted
from headrace.workers.decode.flags import error_name
from headrace.workers.decode.ignored import REASON
from headrace.workers.enrich.users import user_name
from headrace.workers.views.style import HostFacts, RowMarks, Value

Array = np.ndarray[Any, Any]
HEADER = f"{'TIME':<15} {'USER':<8} {'COMM':<15} {'PID':>7} {'TID':>7} {'EVENT':<20} {'RET':>10}  ARGS"
NARROW_HEADER = f"{'TIME':<8} {'PID':>7} {'COMM':<10} {'EVENT':<12} ARGS"
NARROW = 140
"""On a terminal with fewer columns, a line has no user, no thread, no fractions of a second, and of results only
errors. The first argument comes without its name.
"""
RED, DIM, RESET = "\x1b[31m", "\x1b[2m", "\x1b[0m"
ESCAPE = re.compile(r"\x1b\[[0-9]*m")
MAX_VALUE = 200
"""Maximum characters of one argument on a terminal. Files contain all of them."""
FIRST = (
    *("argv", "pathname", "path", "file_name", "file_path", "old_path", "linkpath", "oldname", "new_path", "target"),
    *("newname", "remote_addr", "addr", "uservaddr", "umyaddr", "local_addr", "name", "symbol_name", "fd", "sockfd"),
)
"""Arguments that say most, in the order in which a line begins with them."""
DETAILS = frozenset(
    """dev inode ctime inode_mode stdin_type invoked_from_kernel interpreter_dev interpreter_inode interp cmdpath
    interpreter_pathname prev_comm pwd start_time child_process_start_time parent_ns_tid parent_ns_pid child_ns_tid
    child_ns_pid parent_tid""".split()
)
"""Arguments that are shown only with --verbose, except where the event has no others."""
USUAL = {"dirfd": "AT_FDCWD", "dfd": "AT_FDCWD", "mode": 0, "flags": "0"}
"""Values that are shown only with --verbose."""


def shown(value: object) -> str:
    """Text of a value. Strings are quoted if they would be ambiguous."""
    if isinstance(value, str | bytes):
        return quoted(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(k)}: {shown(v)}" for k, v in value.items()) + "}"
    return str(value)


def header(columns: int) -> str:
    """The header line for a terminal of `columns` (0: no terminal)."""
    return NARROW_HEADER if 0 < columns < NARROW else HEADER


def _cut(line: str, columns: int) -> str:
    """The line truncated to the width of the terminal. Colour codes take no width."""
    plain = len(line) - sum(len(m[0]) for m in ESCAPE.finditer(line))
    if plain <= columns:
        return line
    kept: list[str] = []
    room = columns - 1
    for part in re.split(f"({ESCAPE.pattern})", line):
        if ESCAPE.fullmatch(part):
            kept.append(part)
        elif room > 0:
            kept.append(part[:room])
            room -= len(part)
    return "".join(kept) + "…"


def fitted(data: bytes, ends: Array, columns: int) -> tuple[bytes, Array]:
    """Rendered lines, each truncated to the width of the terminal.

    `ends`: end of each line, in bytes. Lines are located only by `ends`, never by their content.
    """
    begins = [0, *ends.tolist()][:-1]
    rows = [data[b : e - 1].decode() for b, e in zip(begins, ends.tolist(), strict=True)]
    lines = [(_cut(line, columns) + "\n").encode() for line in rows]
    return b"".join(lines), np.cumsum([len(line) for line in lines], dtype=np.int64)


class TableStyle:
    """Pieces of a table line, for a terminal of `columns` (0: a file, nothing is truncated)."""

    def __init__(self, facts: HostFacts, colour: bool = False, columns: int = 0, verbose: bool = False) -> None:
        self._facts, self._relative = facts, facts.relative_to_ns is not None
        self._colour = colour
        self._columns, self._verbose = columns, verbose
        self._narrow = 0 < columns < NARROW
        self.end = "\n"
        self.stacks = False

    def time(self, time_ns: Array, flags: Array) -> Array:
        """Time of day in UTC, or seconds since the start, in microseconds (whole seconds on a narrow terminal)."""
        found = []
        for ns in self._facts.shown_ns(time_ns).view(np.int64).tolist():
            seconds, rest = divmod(ns, 10**9)
            whole = (
                f"{seconds:>8}" if self._relative else f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%T}"
            )
            found.append(f"{whole} " if self._narrow else f"{whole}.{rest // 1000:06d} ")
        return np.array(found, "S")

    def who(self, context: Any, cpu: int) -> str:
        c = context
        comm = quoted(bytes(c["comm"]))
        if self._narrow:
            return f"{c['tgid']:>7} {comm[:10]:<10} "
        user = user_name(int(c["uid"]), c["container"]) or str(c["uid"])
        return f"{quoted(user)[:8]:<8} {comm:<15} {c['tgid']:>7} {c['tid']:>7} "

    def forget_who(self) -> None:
        return

    def event(self, event: Event, flags: int, marks: RowMarks, retval: int, arguments: int) -> str:
        error = None if flags & HEAD_NOT_RUN else error_name(retval)
        result = "?" if flags & HEAD_NOT_RUN else "" if flags & HEAD_ENTRY or not event.is_syscall else str(retval)
        if error:
            result = f"-{error}"
        elif abs(retval) >= 10**9:
            result = hex(retval)
        shown = f"{result:>10}  "
        if self._narrow:
            shown = f"{result} " if error or flags & HEAD_NOT_RUN else ""
        if self._colour and error:
            shown = f"{RED}{shown}{RESET}"
        return f"{event.name:<{12 if self._narrow else 20}} {shown}" + ("(late) " if marks.late else "")

    def stack(self, addresses: bytes) -> str:
        return ""

    def order(self, event: Event) -> Sequence[int]:
        names = [argument.name for argument in event.arguments]
        if self._verbose:
            return range(len(names))
        chosen = [i for i, name in enumerate(names) if not name.startswith("root_")] or list(range(len(names)))
        if any(names[i] in FIRST for i in chosen):
            chosen = [i for i in chosen if names[i] not in DETAILS]
        rank = {name: number for number, name in enumerate(FIRST)}
        return sorted(chosen, key=lambda i: (names[i] in USUAL, rank.get(names[i], len(rank)), i))

    def argument(self, event: Event, argument: Argument, position: int, value: Value) -> str:
        if position and value.reason == REASON:
            return ""  # most opens have an ignored mode
        if position and not self._verbose and USUAL.get(argument.name, "") == value.shown:
            return ""
        whole = value.shown
        if value.exact is not None and isinstance(whole, dict):
            whole = {**whole, "raw": value.exact.hex()}
        text = f"<{value.reason}>" if value.reason else shown(whole)
        if self._columns and len(text) > MAX_VALUE:
            text = text[:MAX_VALUE] + CUT
        mark = CUT if value.cut else ""
        if self._narrow and not position and argument.name in FIRST:
            return f"{text}{mark}"
        return (", " if position else "") + f"{argument.name}={text}{mark}"
