"""Thresholds of signatures: several matches within some time make one finding.

They are counted where the workers are merged, so matches of all shards count. Matches with the same `group` count
together; the rule defines the fields that must be equal. Matches that have not made a finding are `below` in the
ledger. Times are those of events. Per group, the matches within the time are kept. When there are `count` of them, they
make a finding, and the group starts again with the next match. The number of kept matches is bounded; beyond it, the
group that was first seen longest ago is dropped.
"""

from __future__ import annotations

from collections import deque
from typing import Annotated, NamedTuple

import msgspec
import numpy as np

MAX_TIMES = 1 << 20
"""Matches that are kept in all groups together."""
MARK = np.dtype([("fold", "<u8"), ("group", "<u8"), ("count", "<u4"), ("within_ms", "<u4")])
"""The mark of a finding. `fold`: equal for repeats of the finding; `group`: equal for matches that count together;
`count`: how many of them make a finding (0: each is one); `within_ms`: in what time. Workers send marks with the lines
(pipeline/transport/results.py).
"""


class Threshold(msgspec.Struct, frozen=True):
    """`count` matches within `within` make one finding. Only matches with equal fields in `by` count together."""

    count: Annotated[int, msgspec.Meta(ge=2, le=10_000)]
    within: Annotated[float, msgspec.Meta(gt=0, le=86_400)]
    """Seconds."""
    by: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """A description for people."""
        same = f", the same in {', '.join(self.by)}" if self.by else ""
        return f"{self.count} matches within {self.within:g} s{same}, make one finding"

    @property
    def within_ms(self) -> int:
        """`within` in milliseconds."""
        return max(1, round(self.within * 1000))


def threshold_of(given: object) -> Threshold:
    """Parse the threshold of a rule: {count, within, by}. ValueError if it is invalid."""
    try:
        for key in given if isinstance(given, dict) else ():
            if key not in ("count", "within", "by"):
                raise ValueError(f"threshold: count, within (seconds) and by (a list of fields), not {key}")
        return msgspec.convert(given, Threshold)
    except msgspec.ValidationError as error:
        raise ValueError(f"threshold: {error}") from error


class Reached(NamedTuple):
    """The matches that make a finding together. Times are nanoseconds of CLOCK_BOOTTIME."""

    matches: int
    first_ns: int
    last_ns: int

    @property
    def parts(self) -> dict[str, int]:
        """The keys of a finding for its threshold."""
        return {"count": self.matches, "firstTime": self.first_ns, "lastTime": self.last_ns}


class Thresholds:
    """Recent matches, by group."""

    def __init__(self) -> None:
        self._groups: dict[int, deque[int]] = {}
        self._times = 0

    def take(self, time_ns: int, group: int, count: int, within_ns: int) -> Reached | None:
        """Add a match. Returns the matches that reach the threshold with it, else None. Rules need different groups."""
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
