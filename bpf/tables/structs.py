"""Structures that calls point to, as declared in `tables/structs.txt`, with the layout of their members for both ABIs.

In x86-64 calls, longs and pointers have 8 bytes. In 32-bit calls, they have 4 bytes, and 8-byte members are aligned to
4 bytes (i386 ABI), except au64.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).parent / "structs.txt"
SCALARS = {
    **{f"{sign}{8 * size}": (size, size) for sign in "su" for size in (1, 2, 4, 8)},
    **dict.fromkeys(("long", "ulong", "ptr"), (8, 8)),
    "au64": (8, 8),
    "p64": (8, 1),
    "be16": (2, 2),
    "be32": (4, 4),
    "in4": (4, 4),
    "in6": (16, 4),
    "char": (1, 1),
    "byte": (1, 1),
}
"""(size, alignment) in bytes in a 64-bit call."""
OF_A_WORD = ("long", "ulong", "ptr")
ALIGNED_TO_4 = ("s64", "u64")
DECLARATION = re.compile(r"(?P<name>\w+)(?P<of>/[\w,]+)?(?P<how>:| =) (?P<members>.*)")
MEMBER = re.compile(r"(?P<type>\w+)(?: (?P<name>\w+))?(?:\[(?P<count>\d+)\])?(?: (?P<shown>[=|:]\w+))?")
COMPAT = "/32"


@dataclass(frozen=True)
class Member:
    """One member: `count` is None unless it is an array; `shown` as in structs.txt."""

    name: str
    type: str
    count: int | None
    shown: str


@dataclass(frozen=True)
class Struct:
    """A declaration. A single value (`is_value`) is stored as one member whose name is never shown."""

    name: str
    members: tuple[Member, ...]
    is_value: bool


@dataclass(frozen=True)
class MemberPlace:
    """Position of a member. `size` includes all of its elements."""

    member: Member
    offset: int
    size: int
    element: int


@dataclass(frozen=True)
class Layout:
    """The layout of a struct in one ABI."""

    struct: Struct
    places: tuple[MemberPlace, ...]
    size: int
    align: int


def _members(text: str) -> tuple[Member, ...]:
    found = []
    for part in text.split(","):
        match = MEMBER.fullmatch(part.strip())
        assert match, f"structs.txt: {part.strip()!r} is no member"
        count = int(match["count"]) if match["count"] else None
        found.append(Member(match["name"] or "", match["type"], count, match["shown"] or ""))
    return tuple(found)


@cache
def declared() -> dict[str, Struct]:
    """All structs by name, including `NAME/32` and `NAME/VALUE`."""
    found: dict[str, Struct] = {}
    for line in TABLE.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        match = DECLARATION.fullmatch(line)
        assert match, f"structs.txt: cannot read {line!r}"
        names = [f"{match['name']}/{of}" for of in match["of"][1:].split(",")] if match["of"] else [match["name"]]
        for name in names:
            found[name] = Struct(name, _members(match["members"]), match["how"] == " =")
    return found


@cache
def layout_of(name: str, compat: bool) -> Layout:
    """Memory layout of a struct. Raises KeyError if there is no struct of that name."""
    known = declared()
    struct = known[name + COMPAT] if compat and name + COMPAT in known else known[name]
    places, offset, align = [], 0, 1
    for member in struct.members:
        size, own = _size(member.type, compat)
        offset = -(-offset // own) * own
        whole = size * (1 if member.count is None else member.count)
        places.append(MemberPlace(member, offset, whole, size))
        offset, align = offset + whole, max(align, own)
    return Layout(struct, tuple(places), -(-offset // align) * align, align)


def _size(kind: str, compat: bool) -> tuple[int, int]:
    if kind not in SCALARS:
        inner = layout_of(kind, compat)
        return inner.size, inner.align
    size, align = SCALARS[kind]
    if compat and kind in OF_A_WORD:
        return 4, 4
    return size, 4 if compat and kind in ALIGNED_TO_4 else align
