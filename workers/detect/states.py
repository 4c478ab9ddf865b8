"""What signatures in Python keep, of a process or container, and which events put it there: bounded, and counted.

key (process, container) -> Kept     a dictionary, since when there is one, the events that changed it
"""

from __future__ import annotations

from collections import UserDict, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

MAX_STATES = 65_536
MIN_LOOK = 1024
MOST_CAUSES = 16
"""Of one state: the latest."""
MOST_CAUSE_BYTES = 16 << 20
"""Of one signature."""
NO_BYTES = 1024
"""What a cause counts for that is not bytes."""


class Given(NamedTuple):
    """One event for a signature: whose it is, and the values of its fields."""

    at: int
    """The caller's number of it, in the order of time."""
    name: str
    time_ns: int
    process: Hashable
    container: str
    values: Mapping[str, Any]
    child: Hashable = None
    """Of a fork: the new process."""


@dataclass(eq=False, slots=True)
class Cause:
    """An event that changed a state: the caller's number of it, and what a finding shows of it."""

    at: int
    shown: Any = None


class Caused(NamedTuple):
    """Why a signature said what it said: since when it kept something, what changed that, and how many more did."""

    began_ns: int
    causes: tuple[Cause, ...]
    omitted: int


class Kept(UserDict[str, Any]):
    """One state, as a signature has it."""

    def __init__(self, began_ns: int) -> None:
        self.began_ns, self.changed, self.omitted = began_ns, False, 0
        self.causes: deque[Cause] = deque(maxlen=MOST_CAUSES)
        super().__init__()

    def __setitem__(self, key: str, item: Any) -> None:
        if key not in self.data or self.data[key] is not item:
            self.changed = True
        self.data[key] = item

    def __delitem__(self, key: str) -> None:
        self.changed = True
        del self.data[key]

    def copied(self) -> Kept:
        """What a new process begins with."""
        found = Kept(self.began_ns)
        found.data, found.omitted = dict(self.data), self.omitted
        found.causes.extend(self.causes)
        return found

    def caused(self) -> Caused:
        """What made it what it is."""
        return Caused(self.began_ns, tuple(self.causes), self.omitted)

    def add(self, cause: Cause) -> None:
        """An event that changed it; the oldest goes if there are too many."""
        self.changed = False
        self.omitted += len(self.causes) == MOST_CAUSES
        self.causes.append(cause)

    def drop_causes(self) -> None:
        """There are too many of them elsewhere."""
        self.omitted += len(self.causes)
        self.causes.clear()


class States:
    """What one signature keeps, by process or container: the oldest goes first when there are too many."""

    def __init__(self, scope: str) -> None:
        self._scope = scope
        self._known: dict[Hashable, Kept] = {}
        self._fresh: list[Cause] = []
        """Not shown yet."""
        self._cause_bytes = 0
        """At most: of those that have gone since it was last worked out as well."""
        self._look_at = MIN_LOOK
        self.evicted = 0

    def of(self, event: Given) -> Kept:
        """The state that an event is looked at with."""
        if not self._scope:
            return Kept(event.time_ns)
        key = event.container if self._scope == "container" else event.process
        found = self._known.pop(key, None)
        if found is None:
            found = Kept(event.time_ns)
        self._known[key] = found
        if len(self._known) > MAX_STATES:
            del self._known[next(iter(self._known))]
            self.evicted += 1
        return found

    def note(self, state: Kept, event: Given) -> None:
        """An event was looked at: if it changed the state, findings that come of it shall have it."""
        if state.changed and self._scope:
            cause = Cause(event.at)
            state.add(cause)
            self._fresh.append(cause)

    def show(self, shown: Callable[[Sequence[int]], Sequence[Any]]) -> None:
        """What findings show of the events that changed something since this was called last: by their numbers."""
        fresh, self._fresh = self._fresh, []
        if not fresh:
            return
        for cause, what in zip(fresh, shown([cause.at for cause in fresh]), strict=True):
            cause.shown = what
            self._cause_bytes += _bytes(cause)
        if self._cause_bytes > MOST_CAUSE_BYTES:
            self._bound()

    def _bound(self) -> None:
        total = sum(_bytes(cause) for state in self._known.values() for cause in state.causes)
        for state in self._known.values():
            if total <= MOST_CAUSE_BYTES // 2:
                break
            total -= sum(map(_bytes, state.causes))
            state.drop_causes()
        self._cause_bytes = total

    def forked(self, event: Given) -> None:
        """A new process begins with a copy of what is kept of the one that made it."""
        known = self._known.get(event.process)
        if self._scope == "fork" and known:
            self._known[event.child] = known.copied()

    def keep(self, lives: Callable[[Hashable], bool]) -> None:
        """Forget processes that have ended; looked for once there are many more than before."""
        if len(self._known) < self._look_at:
            return
        self._known = {key: state for key, state in self._known.items() if lives(key)}
        self._look_at = max(MIN_LOOK, 2 * len(self._known))

    def __len__(self) -> int:
        return len(self._known)


def _bytes(cause: Cause) -> int:
    return len(cause.shown) if isinstance(cause.shown, bytes) else NO_BYTES
