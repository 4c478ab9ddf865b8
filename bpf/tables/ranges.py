"""Intersects several expressions on one number, for scopes and conditions."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Range:
    """The numbers that satisfy all expressions."""

    low: int = 0
    high: int = 2**64
    one_of: set[int] | None = None
    none_of: set[int] = field(default_factory=set)

    def narrow(self, op: str, values: list[int]) -> None:
        """Apply one expression."""
        if op == "=":
            self.one_of = set(values) if self.one_of is None else self.one_of & set(values)
        elif op == "!=":
            self.none_of |= set(values)
        elif op in ("<", "<="):
            self.high = min(self.high, values[0] - (op == "<"))
        else:
            self.low = max(self.low, values[0] + (op == ">"))

    @property
    def empty(self) -> bool:
        """Whether no number is left."""
        if self.one_of is not None:
            return not any(self.low <= v <= self.high and v not in self.none_of for v in self.one_of)
        barred = sum(self.low <= v <= self.high for v in self.none_of)
        return self.high - self.low + 1 <= barred
