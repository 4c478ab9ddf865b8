"""Events as JSON, one object per line, in the format of Tracee's `trace.Event` (docs/schema.json)."""

from __future__ import annotations

import base64
import zlib
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from headrace.bpf.layout import CONTEXT, HEAD_ANSWERED, HEAD_COMPAT, HEAD_ENTRY, HEAD_NOT_RUN, HEAD_OWN_TARGET
from headrace.bpf.tables.catalogue import ON_PROCESSES, Event
from headrace.bpf.tables.reads import Argument
from headrace.config.policies.claims import Claim, names_of
from headrace.workers.decode.flags import error_name
from headrace.workers.decode.values import decimals
from headrace.workers.enrich.containers import AccountNames, Describe, nobody, of_event
from headrace.workers.enrich.users import user_name
from headrace.workers.views.style import HostFacts, RowMarks, Value, said, said_user, text

Array = np.ndarray[Any, Any]
Context: Any = type("Context", (namedtuple("Fields", CONTEXT.names or ()),), {"__slots__": ()})
MAX_CONTAINERS = 1024
CONTEXT_NAMES = ("gid", "euid", "loginUid", "sessionId", "utsNamespace", "capEffective")
UNSET, UTS = 0xFFFFFFFF, 0xEFFFFFFE
"""Audit's value for a user who has not logged in, and the number of the initial UTS namespace (linux/proc_ns.h)."""


def encode(value: object) -> str:
    """JSON text of a plain value."""
    return msgspec.json.encode(value).decode()


def inner(parts: Mapping[str, object]) -> str:
    """JSON text of a map without its braces."""
    return encode(parts)[1:-1]


def entity_id(start_ns: int, number: int) -> int:
    """32 bits that identify a task while the host is up: CRC-32 of start time and id."""
    return zlib.crc32(start_ns.to_bytes(8, "little") + number.to_bytes(4, "little"))


def _plain(value: object) -> tuple[object, bool]:
    """The value with bytes decoded as text, and whether any bytes were not UTF-8."""
    if isinstance(value, bytes):
        shown = text(value)
        return shown, "\ufffd" in shown
    if isinstance(value, list):
        parts = [_plain(item) for item in value]
        return [p for p, _ in parts], any(bad for _, bad in parts)
    return value, False


class JsonStyle:
    """Pieces of a JSON line."""

    def __init__(
        self,
        facts: HostFacts,
        detect_syscall: bool = True,
        executable: Callable[[Any], bytes] = lambda context: b"",
        stacks: bool = False,
        describe: Describe = nobody,
        accounts: AccountNames | None = None,
        claims: Sequence[Claim] = (),
    ) -> None:
        """`executable` returns the path of the executable of a process context; `stacks`: every record has a stack;
        `accounts` returns names of the host's users and groups.
        """
        self._describe, self._accounts, self._claims = describe, accounts, claims
        self._containers: dict[tuple[bytes, int], str] = {}
        self.stacks = stacks
        self.end = "]" if stacks else "]}\n"
        self._stack = "" if stacks else ',"stackAddresses":null'
        self._facts = facts
        self._executable = executable
        self._detect = detect_syscall

    def time(self, time_ns: Array, flags: Array) -> Array:
        times = self._facts.shown_ns(time_ns)
        pieces = decimals(b'{"timestamp":', times)
        entries = np.flatnonzero(flags & HEAD_ENTRY)
        if not len(entries):
            return pieces
        longer = [b'{"timestamp":%d,"entryTime":%d' % (t, t) for t in times[entries].tolist()]
        pieces = pieces.astype(f"S{max(map(len, longer))}")
        pieces[entries] = longer
        return pieces

    def who(self, context: Any, cpu: int) -> str:
        c = Context._make(context.item())
        thread, process = c.thread_start_ns, c.process_start_ns
        return (
            f',"threadStartTime":{thread},"processorId":{cpu},"processId":{c.ns_tgid}'
            f',"cgroupId":{c.cgroup_id},"threadId":{c.ns_tid},"parentProcessId":{c.ns_ppid}'
            f',"hostProcessId":{c.tgid},"hostThreadId":{c.tid},"hostParentProcessId":{c.ppid}'
            f',"userId":{c.uid}{self._names(c)}{_context(c)},"mountNamespace":{c.mntns},"pidNamespace":{c.pidns}'
            f',{inner(said("processName", c.comm))},"executable":{encode(said("path", self._executable(context)))}'
            f',{inner(said("hostName", c.nodename))},{self._container(context, c)},"processStartTime":{process}'
            f',"threadEntityId":{entity_id(thread, c.tid)},"processEntityId":{entity_id(process, c.tgid)}'
            f',"parentEntityId":{entity_id(c.parent_start_ns, c.ppid)}'
        )

    def _names(self, c: Any) -> str:
        """User and group name of a host process. "" in containers, which have databases of their own."""
        if self._accounts is None or c.container.any():
            return ""
        user, group = self._accounts.user(c.uid), self._accounts.group(c.gid)
        return f',"userName":{encode(user)},"groupName":{encode(group)}'

    def _container(self, context: Any, c: Any) -> str:
        key = c.container.tobytes(), c.runtime
        known = self._containers.get(key)
        if known is None:
            if len(self._containers) >= MAX_CONTAINERS:
                self._containers.clear()
            known = self._containers[key] = encode(of_event(context, self._describe))[1:-1]
        return known

    def forget_who(self) -> None:
        """Discard cached container data after more has become known."""
        self._containers.clear()

    def policies(self, mask: int) -> str:
        """The names of the policies in a mask, as a list."""
        return encode(names_of(self._claims, mask))

    def event(self, event: Event, flags: int, marks: RowMarks, retval: int, arguments: int) -> str:
        syscall = event.name if event.is_syscall and self._detect else ""
        parts = [
            f',"eventId":"{event.id}","eventName":"{event.name}"'
            f',"source":"{event.source(bool(flags & HEAD_ENTRY), retval)}"'
            f',"matchedPolicies":{self.policies(marks.policies)}'
            f',"argsNum":{arguments},"returnValue":{_result(flags, retval)}'
        ]
        error = None if flags & HEAD_NOT_RUN else error_name(retval)
        if error:
            parts.append(f',"error":"{error}"')
        started, compat = _word(marks.container_started), _word(bool(flags & HEAD_COMPAT))
        parts.append(
            f',"syscall":"{syscall}"{self._stack},"contextFlags":{{"containerStarted":{started},"isCompat":{compat}}}'
        )
        if flags & HEAD_NOT_RUN:
            parts.append(',"notRun":"seccomp"')
        if flags & HEAD_ANSWERED:
            parts.append(',"resultFrom":"seccomp listener"')
        if flags & HEAD_OWN_TARGET and event.name in ON_PROCESSES:
            parts.append(',"ownTarget":true')
        if marks.late:
            parts.append(',"late":true')
        return "".join(parts) + ',"args":['

    def stack(self, addresses: bytes) -> str:
        """Last piece of a line, innermost address first; null if the stack could not be read."""
        # in a recording, the last address may be incomplete
        found = ",".join(map(str, np.frombuffer(addresses, "<u8", len(addresses) // 8).tolist()))
        return f',"stackAddresses":[{found}]}}\n' if found else ',"stackAddresses":null}\n'

    def order(self, event: Event) -> Sequence[int]:
        return range(len(event.arguments))

    def argument(self, event: Event, argument: Argument, position: int, value: Value) -> str:
        shown, lossy = _plain(value.shown)
        kind = "string" if value.raw is not None and isinstance(shown, str) else argument.type
        parts: dict[str, object] = {"name": argument.name, "type": kind, "value": shown}
        if value.raw is not None:
            parts["raw"] = value.raw
        if value.source:
            parts["source"] = value.source
        if value.reason:
            parts["reason"] = value.reason
        if value.cut:
            parts["cut"] = True
        exact = value.exact
        if lossy:
            exact = value.shown if isinstance(value.shown, bytes) else b"\0".join(value.shown)  # type: ignore[arg-type]
        if exact is not None:
            parts["base64"] = base64.b64encode(exact).decode()
        return ("," if position else "") + encode(parts)


def _context(c: Any) -> str:
    """Process data that signatures read and Tracee's format lacks. Usual values are omitted."""
    parts: dict[str, object] = {**said_user(user_name(c.uid, c.container))}
    shown = (
        (c.gid, c.uid),
        (c.euid, c.uid),
        (c.loginuid, UNSET),
        (c.sessionid, UNSET),
        (c.utsns, UTS),
        (c.cap_effective, 0),
    )
    parts |= {name: value for name, (value, usual) in zip(CONTEXT_NAMES, shown, strict=True) if value != usual}
    return f',"context":{encode(parts)}'


def _word(value: bool) -> str:
    return "true" if value else "false"


def _result(flags: int, retval: int) -> str:
    return "null" if flags & (HEAD_NOT_RUN | HEAD_ENTRY) else str(retval)
