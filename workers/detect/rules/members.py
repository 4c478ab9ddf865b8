"""Members of structures as fields: `attr.prog_type` of bpf, `act.sa_handler`, `arg.l_type` of fcntl.

The structure behind an argument depends on the ABI of the call, and for some calls on a command argument.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from headrace.bpf.tables.catalogue import Event
from headrace.bpf.tables.shown import Shown
from headrace.bpf.tables.structs import SCALARS, Layout, Member, declared, layout_of
from headrace.workers.decode.meaning import by_variant, decides, shown_of
from headrace.workers.decode.sockaddr import ipv4, ipv6
from headrace.workers.detect.rules.values import NUMBER, TEXT

WIDTHS = {"long": "s64", "ulong": "u64", "ptr": "u64", "au64": "u64", "p64": "u64", "be16": "u16", "be32": "u32"}
ADDRESSES = {"in4": ipv4, "in6": ipv6}


@dataclass(frozen=True)
class MemberLocation:
    """Position, size and type of a member. `step`: bytes from one structure of an array to the next, else 0."""

    offset: int
    size: int
    step: int
    member: Member


def kind_of(member: Member) -> str | None:
    """NUMBER or TEXT; None if a member is neither."""
    if member.type == "char" or member.type in ADDRESSES:
        return TEXT
    return NUMBER if member.type in SCALARS and member.type != "byte" and member.count is None else None


def width_of(member: Member) -> str:
    """Width of a member that is a number (bpf/tables/widths.py)."""
    return WIDTHS.get(member.type, member.type)


def _commands(event: Event, index: int) -> Iterator[int | None]:
    yield None
    yield from sorted(decides(event, event.arguments[index])[2])


def _layout(how: Shown | None, command: int | None, compat: bool) -> tuple[Layout, bool] | None:
    """The layout of the structure behind an argument, and whether it is an array; None if there is no structure."""
    if how is None or not how.struct or how.unit == "bits":
        return None
    variant = by_variant(how, command)
    name = f"{how.struct}/{variant}" if how.by else how.struct
    if name not in declared():
        return None
    return layout_of(name, compat), how.unit == "n" or how.fixed > 1


@cache
def place_of(event: Event, index: int, path: str, compat: bool, command: int | None) -> MemberLocation | None:
    """The place of the member with that path (`it_value.tv_sec`), for that command; None if there is none."""
    found = _layout(shown_of(event, event.arguments[index], command), command, compat)
    if found is None:
        return None
    layout, is_array = found
    offset, step = 0, layout.size if is_array else 0
    *outer, last = path.split(".")
    for name in outer:
        place = next((p for p in layout.places if p.member.name == name and p.member.count is None), None)
        if place is None or place.member.type in SCALARS:
            return None
        offset, layout = offset + place.offset, layout_of(place.member.type, compat)
    place = next((p for p in layout.places if p.member.name == last), None)
    if place is None or kind_of(place.member) is None:
        return None
    return MemberLocation(offset + place.offset, place.size, step, place.member)


@cache
def member_of(event: Event, index: int, path: str) -> Member | None:
    """The member with that path, for the first command that has one; None if no command has one."""
    for command in _commands(event, index):
        place = place_of(event, index, path, False, command)
        if place is not None:
            return place.member
    return None


@cache
def paths_of(event: Event, index: int) -> tuple[str, ...]:
    """Paths of all members behind an argument that are fields, for any command."""
    if not event.is_syscall:
        return ()
    found: dict[str, None] = {}
    for command in _commands(event, index):
        layout = _layout(shown_of(event, event.arguments[index], command), command, False)
        if layout is not None:
            found |= dict.fromkeys(_paths(layout[0], ""))
    return tuple(found)


def _paths(layout: Layout, before: str) -> Iterator[str]:
    for place in layout.places:
        member = place.member
        if not member.name or member.name.startswith("pad"):
            continue
        if kind_of(member):
            yield before + member.name
        elif member.type not in SCALARS and member.count is None:
            yield from _paths(layout_of(member.type, False), f"{before}{member.name}.")
