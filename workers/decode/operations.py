"""Operation codes that are composed of parts: requests of ioctl, operations of futex."""

from __future__ import annotations

import re
from collections.abc import Mapping

from headrace.bpf.tables import words
from headrace.workers.decode.numbers import LOW, bits, both, word

IOCTL_SIZE = 0x3FFF << 16
IOCTL = re.compile(r"_IO(|R|W|WR)\((0x[0-9a-f]+), (0x[0-9a-f]+)(?:, (\d+))?\)")
IOCTL_DIRECTIONS = ("", "W", "R", "WR")
"""Indexed by the two highest bits of a request (include/uapi/asm-generic/ioctl.h)."""


class Requests:
    """Parser for ioctl requests: by name, with the size of the caller's buffer if it is encoded; unknown ones by
    parts.
    """

    def __call__(self, raw: int) -> str:
        if raw >> 32 or raw in self.known:
            return self.known.get(raw) or hex(raw)
        size, direction = raw >> 16 & 0x3FFF, IOCTL_DIRECTIONS[raw >> 30]
        if name := words.names_of("ioctl_sized").get(raw & ~IOCTL_SIZE):
            return f"{name}({size})"
        return f"_IO{direction}({raw >> 8 & 0xFF:#x}, {raw & 0xFF:#x}{f', {size}' if size or direction else ''})"

    @property
    def known(self) -> Mapping[int, str]:
        """Names of requests with a fixed number."""
        return words.names_of("ioctl")

    @property
    def numbers(self) -> Mapping[str, int]:
        """The number of each name."""
        return words.numbers_of("ioctl")


ioctl_request = Requests()


def request_number(text: str) -> int | None:
    """The number of a request such as `HIDIOCGNAME(8)` or `_IOR(0x48, 0x6, 8)`; None if it is invalid."""
    if match := IOCTL.fullmatch(text):
        direction = IOCTL_DIRECTIONS.index(match[1])
        return direction << 30 | int(match[4] or 0) << 16 | int(match[2], 16) << 8 | int(match[3], 16)
    name, _, size = text.removesuffix(")").partition("(")
    number = words.numbers_of("ioctl_sized").get(name)
    return number | int(size) << 16 if number is not None and size.isdecimal() else None


def futex_operation(raw: int) -> str:
    """`op` of futex."""
    return both(word("futex", raw & 0x7F), bits(raw & ~0x7F, words.bits_of("futex_flags"), ""))


def futex_wake(raw: int) -> str:
    """`val3` of FUTEX_WAKE_OP: the operation on the second futex, and the condition for waking its waiters."""
    operation, comparison = raw >> 28 & 7, raw >> 24 & 0xF
    shift = "FUTEX_OP_OPARG_SHIFT|" if raw >> 31 & 1 else ""
    done = f"{shift}{word('futex_wake', operation)}({raw >> 12 & 0xFFF})"
    return f"{done} if {word('futex_wake_if', comparison)}({raw & 0xFFF})"


def futex_bitset(raw: int) -> str:
    """Bit set that selects the waiters."""
    return "FUTEX_BITSET_MATCH_ANY" if raw == LOW else hex(raw)
