"""Signatures in Python: what their authors write against.

    from headrace.signature import Event, Signature

    class Api(Signature):
        id, name, severity = "MY-1", "api_connection", "low"
        state = "container"
        events = {"sched_process_exec": {"env|startswith": "API="}, "security_socket_connect": None}
        shared = ["sched_process_exec"]
        fields = ["env", "remote_addr.ip"]

        def on_event(self, event, state):
            if event.name == "sched_process_exec":
                state["api"] = event["env"][0].removeprefix("API=")
            elif event["remote_addr.ip"] == state.get("api"):
                return {"ip": event["remote_addr.ip"]}

`events` and their conditions are those of YAML: the engine passes on only what they hold for, by columns, so code runs
for few events. What is returned becomes the finding's data; None and False are no finding, True one without data.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

Result = Mapping[str, Any] | bool | None
State = MutableMapping[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `event[field]` is what a finding would show of it, None if it could not be read."""

    name: str
    time_ns: int
    values: Mapping[str, Any]

    def __getitem__(self, field: str) -> Any:
        return self.values.get(field)


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of a turn in the order of time, as columns; `states` has the state of each."""

    names: Sequence[str]
    times_ns: Sequence[int]
    columns: Mapping[str, Sequence[Any]]
    states: Sequence[State]

    def __len__(self) -> int:
        return len(self.names)


class Signature:
    """One signature; every worker makes one of it."""

    id: ClassVar[str] = ""
    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    description: ClassVar[str] = ""
    severity: ClassVar[str] = "medium"
    mitre: ClassVar[Mapping[str, str]] = {}
    tags: ClassVar[Sequence[str]] = ()
    scope: ClassVar[str] = "any"
    events: ClassVar[Mapping[str, Any]] = {}
    fields: ClassVar[Sequence[str]] = ()
    state: ClassVar[str] = ""
    """`process`, `fork` (of a process, a copy of which its children begin with), `container`, or none."""
    threshold: ClassVar[Mapping[str, Any]] = {}
    """`count`, `within` (seconds) and `by` (fields): so many findings, of all workers, are one."""
    shared: ClassVar[Sequence[str]] = ()
    """Events that every worker sees, whatever process they are of: those that make a state of more than one process."""
    examples: ClassVar[Mapping[str, Any]] = {}

    def on_event(self, event: Event, state: State) -> Result:
        """Look at one event. `state` is this process's or container's own, empty at first."""
        return None

    def on_batch(self, batch: Batch) -> Sequence[Result]:
        """Look at many; of each what on_event() would say."""
        columns = {name: list(column) for name, column in batch.columns.items()}
        found = []
        for i in range(len(batch)):
            values = {name: column[i] for name, column in columns.items()}
            found.append(self.on_event(Event(batch.names[i], batch.times_ns[i], values), batch.states[i]))
        return found
