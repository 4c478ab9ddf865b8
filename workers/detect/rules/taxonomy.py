"""Sigma's fields for Linux as fields of events: which events serve a log source, and what each field means there.

    process_creation     sched_process_exec
    file_event           an open that creates, truncates or opens for writing; what rename, link, symlink, mknod create
    network_connection   security_socket_connect, and sendto, sendmsg, sendmmsg with an address
    auditd               one row per record, as auditd would write them for the same event:
        EXECVE           sched_process_exec: a0, a1, ... are the arguments
        PATH             of executed files, interpreters and opened files: `name` as it was passed, and absolute
        SYSCALL          exec, open, connect, and the calls that the rule names: a0 to a3 are hex without 0x
        SOCKADDR         connect

A Sigma field is a field from workers/detect/rules/fields.py, a constant, or absent from the record.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from headrace.bpf.tables.catalogue import Catalogue, Event
from headrace.config.conditions import Node, Test
from headrace.config.tree import And, Certain, Not, Or
from headrace.workers.detect.rules.fields import EXEC

OPEN_CALLS = ("open", "openat", "openat2", "creat", "open_by_handle_at")
CREATED = Or(
    (
        Test("created", "equals", (True,)),
        And((Test("created", "exists", (False,)), Test("flags", "has", ("O_CREAT",)))),
    )
)
"""If `created` is absent, O_CREAT in the flags counts as creation."""
OPEN, CONNECT = "security_file_open", "security_socket_connect"
EXEC_CALLS = ("execve", "execveat")
ARGUMENT = re.compile(r"a([0-9]{1,4})")


@dataclass(frozen=True)
class Constant:
    """A field that has the same value in every such record."""

    value: str


@dataclass(frozen=True)
class Plain:
    """A field of the event."""

    name: str
    number: bool = False
    words: tuple[str, ...] = ()
    """All possible values, if they are known."""


Meaning = Constant | Plain | None
"""None: the record has no such field."""


@dataclass(frozen=True)
class Row:
    """One kind of record made from an event: what its fields mean, and the condition under which the record exists."""

    event: str
    meaning: Callable[[str], Meaning]
    when: Node = field(default_factory=And)


PROCESS = {
    "Image": Plain("process.image"),
    "CommandLine": Plain("process.command_line"),
    "ParentImage": Plain("parent.image"),
    "ParentCommandLine": Plain("parent.command_line"),
    "User": Plain("process.user"),
    "LogonId": Plain("process.login_uid@dec"),
    "CurrentDirectory": Plain("process.cwd"),
    "ProcessId": Plain("process.pid@dec"),
    "ParentProcessId": Plain("process.ppid@dec"),
}
DESTINATIONS = {CONNECT: "remote_addr", "sendto": "dest_addr", "sendmsg": "addr", "sendmmsg": "addr"}
"""Events that send to an address, and the argument that holds the address. Datagrams need no connection."""


def _network(address: str) -> dict[str, Meaning]:
    return {
        **PROCESS,
        "Initiated": Constant("true"),
        "DestinationIp": Plain(f"{address}.ip"),
        "DestinationPort": Plain(f"{address}.port", number=True),
    }


WRITES = Test("flags", "has", ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"))
FILES: dict[str, tuple[str, Node]] = {
    OPEN: ("pathname", WRITES),
    "security_inode_rename": ("new_path", And()),
    "security_inode_link": ("new_path", And()),
    "security_inode_symlink": ("linkpath", And()),
    "security_inode_mknod": ("file_name", And()),
}
_NAMETYPES = (
    ("mkdir mkdirat mknod mknodat", {"pathname": "CREATE"}),
    ("symlink symlinkat", {"linkpath": "CREATE"}),
    ("link linkat", {"newpath": "CREATE"}),
    ("rename renameat renameat2", {"oldpath": "DELETE", "newpath": "CREATE"}),
    ("unlink unlinkat rmdir", {"pathname": "DELETE"}),
)
NAMETYPES = {call: kinds for calls, kinds in _NAMETYPES for call in calls.split()}
"""What a successful call does to a name: call -> argument -> nametype. All others are NORMAL."""
AUDIT_SUBJECT = {
    "exe": Plain("process.path"),
    "comm": Plain("process.name"),
    "uid": Plain("process.uid@dec"),
    "gid": Plain("process.gid@dec"),
    "euid": Plain("process.euid@dec"),
    "auid": Plain("process.login_uid@dec"),
    "ses": Plain("process.session_id@dec"),
    "pid": Plain("process.pid@dec"),
    "ppid": Plain("process.ppid@dec"),
    "cwd": Plain("process.cwd"),
}


def _of(table: Mapping[str, Meaning]) -> Callable[[str], Meaning]:
    return lambda name: table.get(name)


def rows_of_category(category: str) -> list[Row] | None:
    """The rows for a category of log source; None if the category is not supported."""
    if category == "process_creation":
        return [Row(EXEC, _of(PROCESS))]
    if category == "network_connection":
        return [
            Row(event, _of(_network(address)), Test(f"{address}.family", "equals", ("AF_INET", "AF_INET6")))
            for event, address in DESTINATIONS.items()
        ]
    if category == "file_event":
        return [
            Row(event, _of({**PROCESS, "TargetFilename": Plain(path)}), when) for event, (path, when) in FILES.items()
        ]
    return None


def audit_rows(named: frozenset[str], fields: frozenset[str], catalogue: Catalogue) -> list[Row]:
    """The rows for auditd, with those of the calls that a rule names (`named`). `fields`: fields that the rule uses."""
    found = [
        Row(EXEC, _execve),
        Row(EXEC, _syscall(Constant("execve"), {"success": Constant("yes"), "exit": Constant("0")})),
        *(Row(EXEC, _path(name, Constant("NORMAL"))) for name in ("cmdpath", "pathname", "interpreter_pathname")),
        Row(OPEN, _syscall(Plain("syscall@word", words=OPEN_CALLS), {"success": Constant("yes")})),
    ]
    for name in ("syscall_pathname", "pathname"):
        if "nametype" in fields:
            found.append(Row(OPEN, _path(name, Constant("CREATE")), CREATED))
            found.append(Row(OPEN, _path(name, Constant("NORMAL")), Not(Certain(CREATED))))
        else:
            found.append(Row(OPEN, _path(name, None)))
    found.append(Row(CONNECT, _syscall(Constant("connect"), {})))
    found.append(Row(CONNECT, _of({"type": Constant("SOCKADDR")})))
    for call in sorted(named - set(EXEC_CALLS)):
        event = catalogue.by_name.get(call)
        if event is not None and event.is_syscall:
            found += _call_rows(event, "success" in fields)
    return found


def _call_rows(event: Event, by_success: bool) -> list[Row]:
    own: dict[str, Meaning] = {"exit": Plain("retval@dec")}
    for number, argument in enumerate(event.arguments[:4]):
        is_number = "*" not in argument.type and "[" not in argument.type
        own[f"a{number}"] = Plain(f"{argument.name}@hex") if is_number else None
    found = [Row(event.name, _syscall(Constant(event.name), own))]
    if by_success:
        words = {"yes": "gte", "no": "lt"}
        found = [
            Row(event.name, _syscall(Constant(event.name), own | {"success": Constant(word)}), _result(operator))
            for word, operator in words.items()
        ]
    kinds = NAMETYPES.get(event.name, {})
    return found + [Row(event.name, _path(name, Constant(kinds.get(name, "NORMAL")))) for name in _paths(event)]


def _paths(call: Event) -> list[str]:
    return [a.name for a in call.arguments if a.type == "const char*" and ("path" in a.name or "name" in a.name)]


def looked_at(event: Event, is_audit: bool) -> list[str]:
    """The fields that describe a match on an event: the command line, the path, or the destination."""
    found = ["process.command_line"] if is_audit or event.name == EXEC else []
    if event.name == EXEC:
        return [*found, "process.image"]
    if event.name in DESTINATIONS:
        return found + [f"{DESTINATIONS[event.name]}.{part}" for part in ("ip", "port")]
    return found + ([FILES[event.name][0]] if event.name in FILES else _paths(event))


def _result(operator: str) -> Node:
    return Test("retval", operator, (0,))


def _execve(name: str) -> Meaning:
    match = ARGUMENT.fullmatch(name)
    if match:
        return Plain(f"argv[{int(match[1])}]")
    if name == "":
        return Plain("argv")
    return Constant("EXECVE") if name == "type" else None


def _syscall(call: Meaning, own: Mapping[str, Meaning]) -> Callable[[str], Meaning]:
    return _of({**AUDIT_SUBJECT, "type": Constant("SYSCALL"), "SYSCALL": call, "syscall": call, **own})


def _path(name: str, kind: Constant | None) -> Callable[[str], Meaning]:
    return _of({"type": Constant("PATH"), "name": Plain(name), "nametype": kind})
