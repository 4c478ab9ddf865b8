"""State that signatures in Python keep for each process or container, and the events that changed it: bounded and
counted.

key (process or container) -> Kept     a dictionary, the time at which it was created, the events that changed it
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

MAX_STATES = 65_536
MIN_LOOK = 1024
MAX_CAUSES = 16
"""Events per state; the latest are kept."""
MAX_CAUSE_BYTES = 16 << 20
"""Bytes of shown events per signature."""
MAX_LINE = 64 << 10
"""Bytes of one event; a longer event is not shown."""
NO_BYTES = 1024
"""Bytes that a cause counts for if it is not bytes."""


class Given(NamedTuple):
    """One event for a signature: its process and container, and the values of its fields."""

    at: int
    """The caller's number of the event; ascending in time."""
    name: str
    time_ns: int
    process: Hashable
    container: str
    values: Mapping[str, Any]
    child: Hashable = None
    """For a fork: the new process."""


@dataclass(eq=False, slots=True)
class Cause:
    """An event that changed a state: the caller's number of the event, and its form in a finding."""

    at: int
    shown: Any = None
    """None until show() has set it, and if the event is too long."""


class Caused(NamedTuple):
    """The history of a state: its creation time, the latest events that changed it, and how many are omitted."""

    began_ns: int
    causes: tuple[Cause, ...]
    omitted: int

    def events(self) -> list[Any]:
        """The causes as findings show them, without those that cannot be shown."""
        return [cause.shown for cause in self.causes if cause.shown is not None]

    def left_out(self) -> int:
        """How many causes are not shown."""
        return self.omitted + sum(cause.shown is None for cause in self.causes)


class Kept(dict[str, Any]):
    """The state that a signature gets: a dictionary that records whether it was changed."""

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
        """Like dict.update."""
        for key, item in dict(*others, **more).items():
            self[key] = item

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Like dict.setdefault."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, *key_and_default: Any) -> Any:
        """Like dict.pop."""
        self.changed |= key_and_default[:1] != () and key_and_default[0] in self
        return super().pop(*key_and_default)

    def popitem(self) -> tuple[str, Any]:
        """Like dict.popitem."""
        self.changed |= bool(self)
        return super().popitem()

    def clear(self) -> None:
        """Like dict.clear."""
        self.changed |= bool(self)
        super().clear()

    def copied(self) -> Kept:
        """A copy, with its history: the initial state of a child process."""
        found = Kept(self.began_ns)
        dict.update(found, self)
        found.causes, found.omitted = self.causes, self.omitted
        return found

    def caused(self) -> Caused:
        """The history of the state."""
        return Caused(self.began_ns, self.causes, self.omitted)

    def add(self, cause: Cause) -> None:
        """Record an event that changed the state. Only the latest MAX_CAUSES are kept. An empty state has no causes."""
        self.changed = False
        if not self:
            self.causes, self.omitted = (), 0
            return
        self.omitted += len(self.causes) == MAX_CAUSES
        self.causes = (*self.causes, cause)[-MAX_CAUSES:]

    def drop_causes(self) -> None:
        """Omit all causes, because those of the whole signature take too many bytes."""
        self.omitted += len(self.causes)
        self.causes = ()


class States:
    """The states of one signature, by process or container.

    Beyond MAX_STATES, the least recently used state is dropped and counted in `evicted`.
    """

    def __init__(self, scope: str) -> None:
        self._scope = scope
        self._known: OrderedDict[Hashable, Kept] = OrderedDict()
        self._fresh: list[Cause] = []
        """Causes that show() has not been called for yet."""
        self._cause_bytes = 0
        """Upper bound: includes causes that were dropped since it was last computed."""
        self._look_at = MIN_LOOK
        self.evicted = 0

    def of(self, event: Given) -> Kept:
        """The state for an event; a new one if there is none, or if the signature keeps no state."""
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
        """Called after an event was evaluated: if it changed the state, later findings show it."""
        if state.changed and self._scope:
            cause = Cause(event.at)
            state.add(cause)
            self._fresh.append(cause)

    def show(self, shown: Callable[[Sequence[int]], Sequence[Any]]) -> None:
        """Set what findings show of the events that changed a state since the last call; `shown` gets their numbers."""
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
        """For state `fork`: give the new process a copy of the state of the process that forked it."""
        known = self._known.get(event.process)
        if self._scope == "fork" and known:
            self._put(event.child, known.copied())

    def keep(self, lives: Callable[[Hashable], bool]) -> None:
        """Drop the states of processes for which `lives` is false. It looks only when there are MIN_LOOK states, and
        twice as many as after it last looked.
        """
        if len(self._known) < self._look_at:
            return
        self._known = OrderedDict((key, state) for key, state in self._known.items() if lives(key))
        self._look_at = max(MIN_LOOK, 2 * len(self._known))

    def __len__(self) -> int:
        return len(self._known)


def _bytes(cause: Cause) -> int:
    return len(cause.shown) if isinstance(cause.shown, bytes) else NO_BYTES
