"""What signatures in Python keep, of a process or container, and which events put it there: bounded, and counted.

key (process, container) -> Kept     a dictionary, since when there is one, the events that changed it
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

MAX_STATES = 65_536
MIN_LOOK = 1024
MAX_CAUSES = 16
"""Of one state: the latest."""
MAX_CAUSE_BYTES = 16 << 20
"""Of one signature."""
MAX_LINE = 64 << 10
"""Of one event: a longer one is not shown."""
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
    """None until it is known, and if it is too long."""


class Caused(NamedTuple):
    """Why a signature said what it said: since when it kept something, what changed that, and how many more did."""

    began_ns: int
    causes: tuple[Cause, ...]
    omitted: int

    def events(self) -> list[Any]:
        """What is shown of those that are."""
        return [cause.shown for cause in self.causes if cause.shown is not None]

    def left_out(self) -> int:
        """How many are not shown."""
        return self.omitted + sum(cause.shown is None for cause in self.causes)


class Kept(dict[str, Any]):
    """One state, as a signature has it: a dictionary that knows whether it was changed."""

    __slots__ = ("began_ns", "causes", "changed", "omitted")

    def __init__(self, began_ns: int) -> None:
        super().__init__()
        self.began_ns, self.changed, self.omitted = began_ns, False, 0
        self.causes: tuple[Cause, ...] = ()

    def __setitem__(self, key: str, item: Any) -> None:
        if key not in self or self[key] is not item:
            self.changed = True
        super().__setitem__(key, item)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self.changed = True

    def __ior__(self, others: Any) -> Kept:  # type: ignore[override, misc]
        self.update(others)
        return self

    def update(self, *others: Any, **more: Any) -> None:
        """As a dictionary's."""
        for key, item in dict(*others, **more).items():
            self[key] = item

    def setdefault(self, key: str, default: Any = None) -> Any:
        """As a dictionary's."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, *key_and_default: Any) -> Any:
        """As a dictionary's."""
        self.changed |= key_and_default[:1] != () and key_and_default[0] in self
        return super().pop(*key_and_default)

    def popitem(self) -> tuple[str, Any]:
        """As a dictionary's."""
        self.changed |= bool(self)
        return super().popitem()

    def clear(self) -> None:
        """As a dictionary's."""
        self.changed |= bool(self)
        super().clear()

    def copied(self) -> Kept:
        """What a new process begins with."""
        found = Kept(self.began_ns)
        dict.update(found, self)
        found.causes, found.omitted = self.causes, self.omitted
        return found

    def caused(self) -> Caused:
        """What made it what it is."""
        return Caused(self.began_ns, self.causes, self.omitted)

    def add(self, cause: Cause) -> None:
        """An event that changed it; the oldest goes if there are too many. With nothing kept, there are no causes."""
        self.changed = False
        if not self:
            self.causes, self.omitted = (), 0
            return
        self.omitted += len(self.causes) == MAX_CAUSES
        self.causes = (*self.causes, cause)[-MAX_CAUSES:]

    def drop_causes(self) -> None:
        """There are too many of them elsewhere."""
        self.omitted += len(self.causes)
        self.causes = ()


class States:
    """What one signature keeps, by process or container: the oldest goes first when there are too many."""

    def __init__(self, scope: str) -> None:
        self._scope = scope
        self._known: OrderedDict[Hashable, Kept] = OrderedDict()
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
        found = self._known.get(key)
        if found is None:
            found = Kept(event.time_ns)
            self._put(key, found)
        self._known.move_to_end(key)
        return found

    def _put(self, key: Hashable, state: Kept) -> None:
        self._known[key] = state
        if len(self._known) > MAX_STATES:
            self._known.popitem(last=False)
            self.evicted += 1

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
            cause.shown = None if isinstance(what, bytes) and len(what) > MAX_LINE else what
            self._cause_bytes += _bytes(cause)
        if self._cause_bytes > MAX_CAUSE_BYTES:
            self._bound()

    def _bound(self) -> None:
        total = sum(_bytes(cause) for state in self._known.values() for cause in state.causes)
        for state in self._known.values():
            if total <= MAX_CAUSE_BYTES // 2:
                break
            total -= sum(map(_bytes, state.causes))
            state.drop_causes()
        self._cause_bytes = total

    def forked(self, event: Given) -> None:
        """A new process begins with a copy of what is kept of the one that made it."""
        known = self._known.get(event.process)
        if self._scope == "fork" and known:
            self._put(event.child, known.copied())

    def keep(self, lives: Callable[[Hashable], bool]) -> None:
        """Forget processes that have ended; looked for once there are many more than before."""
        if len(self._known) < self._look_at:
            return
        self._known = OrderedDict((key, state) for key, state in self._known.items() if lives(key))
        self._look_at = max(MIN_LOOK, 2 * len(self._known))

    def __len__(self) -> int:
        return len(self._known)


def _bytes(cause: Cause) -> int:
    return len(cause.shown) if isinstance(cause.shown, bytes) else NO_BYTES
