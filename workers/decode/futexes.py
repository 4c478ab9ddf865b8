"""Numbers of futex: `op`, and what `val3` is with some of them."""

from __future__ import annotations

from bpf.tables import words
from workers.decode.numbers import LOW, bits, both, word


def futex_operation(raw: int) -> str:
    """`op` of futex."""
    return both(word("futex", raw & 0x7F), bits(raw & ~0x7F, words.bits_of("futex_flags"), ""))


WAKE_OPERATION = ("FUTEX_OP_SET", "FUTEX_OP_ADD", "FUTEX_OP_OR", "FUTEX_OP_ANDN", "FUTEX_OP_XOR")
WAKE_COMPARISON = tuple(f"FUTEX_OP_CMP_{name}" for name in ("EQ", "NE", "LT", "LE", "GT", "GE"))
"""By number (include/uapi/linux/futex.h)."""


def _by_number(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else str(number)


def futex_wake(raw: int) -> str:
    """`val3` of FUTEX_WAKE_OP: what is done to the second futex, and when its waiters are woken."""
    operation, comparison = raw >> 28 & 7, raw >> 24 & 0xF
    shift = "FUTEX_OP_OPARG_SHIFT|" if raw >> 31 & 1 else ""
    done = f"{shift}{_by_number(WAKE_OPERATION, operation)}({raw >> 12 & 0xFFF})"
    return f"{done} if {_by_number(WAKE_COMPARISON, comparison)}({raw & 0xFFF})"


def futex_bitset(raw: int) -> str:
    """Which waiters are meant."""
    return "FUTEX_BITSET_MATCH_ANY" if raw == LOW else hex(raw)
