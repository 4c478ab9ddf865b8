"""Thresholds of signatures: so many matches within some time make a finding only together.

They are counted where the workers are merged, so that matches of all shards count, by what the rule says is the same
about them (`group`); what has not made a finding is `below` in the ledger. Times are those of events: the last `count`
of a group are kept, and when the oldest of them is not too old they are one finding, and the next begins with the next
match. Groups are bounded: that which was first seen longest ago is forgotten.
"""

from __future__ import annotations

from collections import deque
from typing import Annotated, NamedTuple

import msgspec
import numpy as np

MAX_TIMES = 1 << 20
"""Of matches that are kept, of all groups."""
MARK = np.dtype([("fold", "<u8"), ("group", "<u8"), ("count", "<u4"), ("within_ms", "<u4")])
"""Of a finding: what is the same about those that repeat, and of those that make one finding together; how many these
are (0: each is one), and in what time. Workers give them along with the lines (pipeline/transport/results.py).
"""


class Threshold(msgspec.Struct, frozen=True):
    """So many matches within some time are one finding; those of which the fields in `by` are the same count."""

    count: Annotated[int, msgspec.Meta(ge=2, le=10_000)]
    within: Annotated[float, msgspec.Meta(gt=0, le=86_400)]
    """Seconds."""
    by: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """In words."""
        same = f", the same in {', '.join(self.by)}" if self.by else ""
        return f"{self.count} matches within {self.within:g} s{same}, make one finding"

    @property
    def within_ms(self) -> int:
        """`within` in milliseconds."""
        return max(1, round(self.within * 1000))


def threshold_of(given: object) -> Threshold:
    """A threshold as a rule has it: {count, within, by}. ValueError."""
    try:
        for key in given if isinstance(given, dict) else ():
            if key not in ("count", "within", "by"):
                raise ValueError(f"threshold: count, within (seconds) and by (a list of fields), not {key}")
        return msgspec.convert(given, Threshold)
    except msgspec.ValidationError as error:
        raise ValueError(f"threshold: {error}") from error


class Reached(NamedTuple):
    """Matches that make a finding together; nanoseconds of CLOCK_BOOTTIME."""

    matches: int
    first_ns: int
    last_ns: int

    @property
    def parts(self) -> dict[str, int]:
        """What the finding says of it."""
        return {"count": self.matches, "firstTime": self.first_ns, "lastTime": self.last_ns}


class Thresholds:
    """What has matched lately, by group."""

    def __init__(self) -> None:
        self._groups: dict[int, deque[int]] = {}
        self._times = 0

    def take(self, time_ns: int, group: int, count: int, within_ns: int) -> Reached | None:
        """Take a match; what it completes, if it does. `group` tells rules apart, too."""
        times = self._groups.setdefault(group, deque())
        while times and time_ns - times[0] > within_ns:
            times.popleft()
            self._times -= 1
        times.append(time_ns)
        self._times += 1
        if len(times) >= count:
            self._forget(group)
            return Reached(len(times), min(times), max(times))
        while self._times > MAX_TIMES:
            self._forget(next(iter(self._groups)))
        return None

    def _forget(self, group: int) -> None:
        self._times -= len(self._groups.pop(group))
