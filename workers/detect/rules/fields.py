"""Named, typed fields of an event: its arguments and result, and its process, parent, ancestors and container.

Types come from the event catalogue only. A name is one of

    pathname            an argument             argv[0]             an element of a vector
    remote_addr.ip      a part of an address    flags@hex @dec @word    a number as text
    attr.prog_type      a member of a structure
    retval              the result              process.name ...    the tables below
    process.image       the executable of the process: its file, and the absolute path that started it
    pathname|endswith|process.name      whether one field equals, contains, begins or ends with another: a truth value
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache

from headrace.bpf.tables import words
from headrace.bpf.tables.catalogue import ON_PROCESSES, Event, catalogue, did_you_mean
from headrace.bpf.tables.structs import Member
from headrace.bpf.tables.widths import width_of
from headrace.config.conditions import COMPARED, COMPARISONS
from headrace.workers.decode.flags import parser_from
from headrace.workers.decode.meaning import BYTES_TYPE, shown_of, words_of
from headrace.workers.decode.numbers import signed32
from headrace.workers.decode.structs import TYPED
from headrace.workers.decode.texts import TEXT_TYPES
from headrace.workers.detect.rules import members
from headrace.workers.detect.rules.values import BYTES, NUMBER, TEXT, Words
from headrace.workers.views.pieces import VECTOR_TYPE

SOCKADDR_TYPE = "struct sockaddr*"
MEMBER_TYPE = "member"
OPAQUE_TYPES = frozenset({"slim_hooks"})
"""Types of lists that rules see as texts."""
TARGET = "target.own"
"""Whether the call targets the calling process itself, through any of its threads."""
EXEC = "sched_process_exec"

CONTEXT_FIELDS = {
    "process.pid": (NUMBER, "tgid"),
    "process.tid": (NUMBER, "tid"),
    "process.ppid": (NUMBER, "ppid"),
    "process.ns_pid": (NUMBER, "ns_tgid"),
    "process.ns_tid": (NUMBER, "ns_tid"),
    "process.ns_ppid": (NUMBER, "ns_ppid"),
    "process.uid": (NUMBER, "uid"),
    "process.gid": (NUMBER, "gid"),
    "process.euid": (NUMBER, "euid"),
    "process.login_uid": (NUMBER, "loginuid"),
    "process.session_id": (NUMBER, "sessionid"),
    "process.mntns": (NUMBER, "mntns"),
    "process.pidns": (NUMBER, "pidns"),
    "process.utsns": (NUMBER, "utsns"),
    "process.cap_effective": (NUMBER, "cap_effective"),
    "process.name": (TEXT, "comm"),
    "process.user": (TEXT, "uid"),
    "host.name": (TEXT, "nodename"),
    "container": (NUMBER, "container"),
    "container.started": (NUMBER, "container_state"),
    "container.id": (TEXT, "container"),
    "container.runtime": (TEXT, "runtime"),
}
"""Fields of the event's process: name -> (kind, column of CONTEXT)."""
IMAGE_PARTS = ("path", "image", "command_line", "cwd")
"""Parts of an image (workers/enrich/tree.py): its file; the file and the path that started it; argv; directory."""
IMAGE_FIELDS = tuple(f"{who}.{part}" for who in ("process", "parent", "ancestors") for part in IMAGE_PARTS)
"""`parent`: the process that forked this one, with the image that it had then. `ancestors`: any, including the parent.
"""
ADDRESS_PARTS = {"family": NUMBER, "ip": TEXT, "port": NUMBER, "path": TEXT}
VIEWS = ("hex", "dec", "word")
DESCRIPTOR = "descriptor.path"
NAME = re.compile(r"(?P<base>[A-Za-z_][A-Za-z0-9_.]*)(?:\[(?P<element>[0-9]{1,4})\])?(?:@(?P<view>[a-z]+))?")
FAMILIES = words.numbers_of("family")


class FieldError(Exception):
    """A name that is not a field of the event."""


@dataclass(frozen=True)
class Field:
    """One field of one event.

    `place` is the source of its value: argument, result, context, image, target, descriptor, or compared.
    """

    name: str
    kind: str
    place: str
    event: Event
    argument: int = 0
    column: str = ""
    """For a context: its column. For an address: the part. For a member: its path. For an image: its subject and part.
    For a comparison: the operator.
    """
    element: int | None = None
    view: str = ""
    type: str = ""
    """C type of an argument."""
    words: Words | None = None
    is_bool: bool = False
    member: Member | None = None
    """For a member of a structure behind an argument: `column` is its path, `element` its index in an array."""
    pair: tuple[Field, Field] | None = None
    """For a comparison: the two fields."""

    @property
    def width(self) -> str:
        """Width of a number in comparisons (bpf/tables/widths.py)."""
        if self.member is not None:
            return members.width_of(self.member)
        return self.event.arguments[self.argument].width if self.place == "argument" else width_of(self.type)


def names(event: Event) -> list[str]:
    """All fields of an event that can be named without an index."""
    found = [a.name for i, a in enumerate(event.arguments) if _argument(event, i)]
    found += [f"{a.name}.{part}" for a in event.arguments if a.type == SOCKADDR_TYPE for part in ADDRESS_PARTS]
    found += [f"{a.name}.{path}" for i, a in enumerate(event.arguments) for path in members.paths_of(event, i)]
    found += [TARGET] if event.name in ON_PROCESSES else []
    found += [DESCRIPTOR] if event.descriptor is not None else []
    return [*found, *(["retval"] if event.is_syscall else []), *CONTEXT_FIELDS, *IMAGE_FIELDS]


def field_of(event: Event, name: str) -> Field:
    """The field of that name. FieldError if there is none, with the nearest name."""
    if COMPARED in name:
        return _comparison(event, name)
    match = NAME.fullmatch(name)
    found = _find(event, name, match) if match else None
    if found is None:
        raise FieldError(f"{event.name} has no field {name}" + did_you_mean(name, names(event)))
    return found


def _comparison(event: Event, name: str) -> Field:
    left, *how, right = name.split(COMPARED)
    if not how or how[0] not in COMPARISONS or how[1:] not in ([], ["nocase"]):
        raise FieldError(f"{name} is neither a field nor a comparison of two")
    pair = field_of(event, left), field_of(event, right)
    if any(each.kind == BYTES for each in pair):
        raise FieldError(f"{name}: bytes are not compared with other fields")
    if NUMBER in (pair[0].kind, pair[1].kind) and how[0] != "equals":
        raise FieldError(f"{name}: numbers are only compared by equals")
    return Field(name, NUMBER, "compared", event, column=COMPARED.join(how), type="bool", is_bool=True, pair=pair)


def _find(event: Event, name: str, match: re.Match[str]) -> Field | None:
    base, view = match["base"], match["view"] or ""
    element = int(match["element"]) if match["element"] else None
    found = _plain(event, base)
    if found is None or (view and (view not in VIEWS or found.kind != NUMBER)):
        return None
    if element is not None and found.type != VECTOR_TYPE and found.member is None:
        return None
    if not view and element is None:
        return found
    return replace(found, name=name, kind=TEXT if view else found.kind, element=element, view=view)


def _plain(event: Event, base: str) -> Field | None:
    index = event.index(base)
    if index is not None:
        return _argument(event, index)
    if base == "retval" and event.is_syscall:
        return Field(base, NUMBER, "result", event, type="long")
    if base in CONTEXT_FIELDS:
        kind, column = CONTEXT_FIELDS[base]
        return Field(base, kind, "context", event, column=column, type="u64", is_bool=base in BOOLEAN)
    if base in IMAGE_FIELDS:
        return Field(base, TEXT, "image", event, column=base)
    if base == DESCRIPTOR and event.descriptor is not None:
        return Field(base, TEXT, "descriptor", event, event.descriptor)
    if base == TARGET and event.name in ON_PROCESSES:
        return Field(base, NUMBER, "target", event, event.index("pid") or 0, type="bool", is_bool=True)
    name, _, part = base.rpartition(".")
    index = event.index(name)
    if index is not None and event.arguments[index].type == SOCKADDR_TYPE and part in ADDRESS_PARTS:
        words = family_name if part == "family" else None
        return Field(base, ADDRESS_PARTS[part], "argument", event, index, part, type=SOCKADDR_TYPE, words=words)
    return _member(event, base)


def _member(event: Event, base: str) -> Field | None:
    name, _, path = base.partition(".")
    index = event.index(name)
    member = members.member_of(event, index, path) if index is not None and event.is_syscall else None
    if index is None or member is None:
        return None
    kind = members.kind_of(member)
    assert kind is not None
    words = parser_from(member.shown) if member.shown and kind == NUMBER else None
    return Field(base, kind, "argument", event, index, path, type=MEMBER_TYPE, words=words, member=member)


def family_name(raw: int) -> str:
    """The name of an address family."""
    return words.names_of("family").get(raw, str(raw))


@cache
def _calls() -> dict[int, str]:
    return {call.number: call.event.name for call in catalogue().calls if not call.compat}


def call_name(raw: int) -> str:
    """The name of a system call, given its native number."""
    return _calls().get(raw & 0xFFFFFFFF, str(signed32(raw)))


BOOLEAN = ("container", "container.started")


def _argument(event: Event, index: int) -> Field | None:
    argument = event.arguments[index]
    kind = argument.type
    if kind in TEXT_TYPES or kind == VECTOR_TYPE or kind in OPAQUE_TYPES:
        return Field(argument.name, TEXT, "argument", event, index, type=kind)
    if kind == BYTES_TYPE:
        return Field(argument.name, BYTES, "argument", event, index, type=kind)
    how = shown_of(event, argument, None)
    if kind in TYPED or (how is not None and how.struct):
        return None
    words = call_name if argument.name == "syscall" else words_of(event, index)
    return Field(argument.name, NUMBER, "argument", event, index, type=kind, words=words, is_bool=kind == "bool")
