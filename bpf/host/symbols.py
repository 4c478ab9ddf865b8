"""The kernel's symbols (/proc/kallsyms): addresses of names, and names and owners of addresses."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

SYMBOLS = Path("/proc/kallsyms")
KERNEL = "system"
HIDDEN = "hidden"
"""Owners that are not modules: the kernel itself, and unknown code. The words are Tracee's."""
LINE = re.compile(rb"^([0-9a-f]+) (\w) (\S+)(?:\t\[(\S+)\])?$", re.MULTILINE)


class SymbolPlace(NamedTuple):
    """The function that contains an address."""

    symbol: str
    offset: int
    owner: str


@dataclass(frozen=True)
class Symbols:
    """Content of /proc/kallsyms at one time. `text` is the whole file."""

    text: bytes

    def addresses(self, names: Iterable[str]) -> dict[str, int]:
        """Addresses of the kernel's own symbols with these names. Hidden addresses are omitted."""
        wanted = "|".join(map(re.escape, names)).encode()
        found = re.findall(rb"^([0-9a-f]+) \w (" + wanted + rb")$", self.text, re.MULTILINE)
        return {name.decode(): int(address, 16) for address, name in found if int(address, 16)}

    def size(self, name: str) -> int:
        """Bytes from one of the kernel's own symbols to the next; 0 if it is missing."""
        at = self.addresses((name,)).get(name)
        if at is None:
            return 0
        return (
            min(
                (int(a, 16) for a in re.findall(rb"^[0-9a-f]+", self.text, re.MULTILINE) if int(a, 16) > at), default=at
            )
            - at
        )

    def functions(self, pattern: str) -> frozenset[int]:
        """Addresses of the kernel's functions whose whole name matches."""
        found = re.findall(rb"^([0-9a-f]+) [tTwW] (?:" + pattern.encode() + rb")$", self.text, re.MULTILINE)
        return frozenset(int(address, 16) for address in found)

    @cached_property
    def _sorted(self) -> tuple[list[int], list[tuple[str, str]]]:
        found = sorted(
            (int(address, 16), name.decode(errors="replace"), owner.decode(errors="replace"))
            for address, kind, name, owner in LINE.findall(self.text)
            if kind in b"tTwW"
        )
        return [address for address, _, _ in found], [(name, owner or KERNEL) for _, name, owner in found]

    def place(self, address: int, text: range, modules: Iterable[tuple[int, int, str]]) -> SymbolPlace:
        """The owner and function of an address. `text`: the kernel's text; `modules`: (address, bytes, name)."""
        known = (name for first, size, name in modules if first <= address < first + size)
        owner = KERNEL if address in text else next(known, "")
        addresses, names = self._sorted
        at = bisect_right(addresses, address) - 1
        if owner and at >= 0 and names[at][1] == owner:
            return SymbolPlace(names[at][0], address - addresses[at], owner)
        return SymbolPlace("", 0, owner or HIDDEN)
