"""Members of structures as fields: `attr.prog_type` of bpf, `act.sa_handler`, `arg.l_type` of fcntl.

Which structure stands behind an argument depends on the ABI of the call, and of some on its command: rows of each are
read by themselves, and a call whose structure has no such member has no value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from bpf.layout import HEAD_COMPAT
from bpf.tables.catalogue import Event
from bpf.tables.shown import Shown
from bpf.tables.structs import SCALARS, Layout, Member, declared, layout_of
from bpf.tables.widths import number
from workers.decode.meaning import by_variant, decides, shown_of
from workers.decode.sockaddr import ipv4, ipv6
from workers.decode.values import grouped
from workers.detect.columns.view import Array, Keys, ValueColumn, View
from workers.detect.rules.values import NUMBER, TEXT, Text, Value
from workers.records.blobs import used
from workers.records.blocks import Block

WIDTHS = {"long": "s64", "ulong": "u64", "ptr": "u64", "au64": "u64", "p64": "u64", "be16": "u16", "be32": "u32"}
ADDRESSES = {"in4": ipv4, "in6": ipv6}


@dataclass(frozen=True)
class Place:
    """Where a member stands, and in what: `step` from one structure of an array to the next, 0 if it is none."""

    offset: int
    size: int
    step: int
    member: Member


def kind_of(member: Member) -> str | None:
    """Whether a member is a number or a text; None if it is neither."""
    if member.type == "char" or member.type in ADDRESSES:
        return TEXT
    return NUMBER if member.type in SCALARS and member.type != "byte" and member.count is None else None


def width_of(member: Member) -> str:
    """Of a number (bpf/tables/widths.py)."""
    return WIDTHS.get(member.type, member.type)


def _commands(event: Event, index: int) -> Iterator[int | None]:
    yield None
    yield from sorted(decides(event, event.arguments[index])[2])


def _layout(how: Shown | None, command: int | None, compat: bool) -> tuple[Layout, bool] | None:
    """The structure that stands behind an argument, and whether it is an array."""
    if how is None or not how.struct or how.unit == "bits":
        return None
    variant = by_variant(how, command)
    name = f"{how.struct}/{variant}" if how.by else how.struct
    if name not in declared():
        return None
    return layout_of(name, compat), how.unit == "n" or how.fixed > 1


@cache
def place_of(event: Event, index: int, path: str, compat: bool, command: int | None) -> Place | None:
    """Where the member of that path (`it_value.tv_sec`) stands, with that command; None if there is none."""
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
    return Place(offset + place.offset, place.size, step, place.member)


@cache
def member_of(event: Event, index: int, path: str) -> Member | None:
    """The member, whatever the command; None if no command has one."""
    for command in _commands(event, index):
        place = place_of(event, index, path, False, command)
        if place is not None:
            return place.member
    return None


@cache
def paths_of(event: Event, index: int) -> tuple[str, ...]:
    """All members of the structures behind an argument that are fields."""
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


class MemberColumn(ValueColumn):
    """A member of what a pointer pointed to. The key of a number is its bits, of a text (bytes, whether it was cut)."""

    def __init__(self, event: Event, index: int, path: str, element: int, member: Member) -> None:
        self._event, self._index, self._path, self._element = event, index, path, element
        self._of, self._mask, self._known = decides(event, event.arguments[index])
        self._kind, self._type, self._width = kind_of(member), member.type, width_of(member)

    def keys(self, view: View, chosen: Array) -> Keys:
        block, unread, _, _ = view.read(self._index, chosen)
        keys: list[Any] = [None] * len(chosen)
        compat = (view.rows.flags[chosen] & HEAD_COMPAT).astype(np.uint64)
        group = compat << np.uint64(33)
        if self._of >= 0:
            commands = used(view.rows, self._event, self._of, chosen) & np.uint64(self._mask)
            group = group | commands | np.uint64(1 << 32)
        for key, at in zip(*grouped(group), strict=True):
            command = int(key) & 0xFFFFFFFF if int(key) >> 32 & 1 else None
            command = command if command in self._known else None
            place = place_of(self._event, self._index, self._path, bool(int(key) >> 33), command)
            if place is not None:
                self._take(keys, block, unread, at, place)
        return keys

    def _take(self, keys: list[Any], block: Block, unread: Array, at: Array, place: Place) -> None:
        """The keys of some rows, of which all have the same structure."""
        if self._element and not place.step:
            return
        offset = place.offset + self._element * place.step
        at = at[(block.size[at] >= offset + place.size) & ~unread[at]]
        begin = block.begin[at] + offset
        if self._kind == TEXT:
            for row, start in zip(at.tolist(), begin.tolist(), strict=True):
                keys[row] = block.data[start : start + place.size].tobytes()
            return
        order = range(place.size) if not self._type.startswith("be") else reversed(range(place.size))
        numbers = np.zeros(len(at), np.uint64)
        for shift, byte in enumerate(order):
            numbers |= block.data[begin + byte].astype(np.uint64) << np.uint64(8 * shift)
        if place.size == 4 and self._type == "long":  # of a 32-bit call
            numbers = numbers.astype(np.uint32).view(np.int32).astype(np.int64).view(np.uint64)
        for row, bits in zip(at.tolist(), numbers.tolist(), strict=True):
            keys[row] = bits

    def value(self, key: Any) -> Value:
        if key is None:
            return None
        if isinstance(key, bytes):
            shown = ADDRESSES[self._type](key).encode() if self._type in ADDRESSES else key.split(b"\0", 1)[0]
            return Text((shown,))
        return number(int(key), self._width)
