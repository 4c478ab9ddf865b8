"""The interface for signatures in Python. Import these names from `headrace.signature`.

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

A file defines a signature with each class that derives from `Signature` and has an `id`. The engine evaluates `events`
on columns and calls the code only with events whose condition holds, so few events reach Python.

headrace executes the file in the supervisor and in every worker. In a worker, code has no privileges: it cannot open
files for writing, open sockets or run programs. An exception is reported and counted, and after ten exceptions the
signature is off in that worker. A signature that takes more than five seconds for the events of a turn, or ends its
worker, is off in all workers.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

Result = Mapping[str, Any] | bool | None
"""The result for one event.

A non-empty mapping is a finding with that data: text keys, and values that can be encoded as JSON. True is a finding
without data. None, False and an empty mapping mean no finding. Any other type counts as an exception.
"""
State = MutableMapping[str, Any]
"""A dictionary that a signature keeps for one process or container; see `Signature.state`. Empty at first.

A finding also shows the events that changed the state before it: the latest 16, while the state is not empty. An event
changes the state if the code sets a key to another object or deletes a key. A change inside a nested list or dictionary
is not noticed: assign a new object to the key instead.
"""


@dataclass(frozen=True, slots=True)
class Event:
    """One event whose condition holds.

    `event[field]` is the value of one of the `fields` of the signature, in the form that a finding shows:

    number              int; flags and other named values are text, such as "O_WRONLY|O_CREAT"
    truth value         bool
    text, path          str; bytes that are not UTF-8 become U+FFFD
    vector              list of str; if the condition tests the field, only the elements for which a test holds
    vector[0]           str
    bytes               str, base64

    It is None if the field could not be read, if the event does not have it, or if it is not in `fields`.
    """

    name: str
    """Name of the event, a key of `Signature.events`."""
    time_ns: int
    """Nanoseconds of CLOCK_BOOTTIME. In `analyze`, the timestamp of the line, 0 if it has none."""
    values: Mapping[str, Any]
    """All fields by name: those in `Signature.fields`."""

    def __getitem__(self, field: str) -> Any:
        return self.values.get(field)


@dataclass(frozen=True, slots=True)
class Batch:
    """The events of a turn as columns, in order of time. All sequences have `len(batch)` elements."""

    names: Sequence[str]
    """Name of each event."""
    times_ns: Sequence[int]
    """Time of each event, as `Event.time_ns`."""
    columns: Mapping[str, Sequence[Any]]
    """By field in `Signature.fields`: its value in each event, as `event[field]`."""
    states: Sequence[State]
    """State of each event; the same object for events of the same process or container, as `Signature.state` says."""

    def __len__(self) -> int:
        return len(self.names)


class Signature:
    """Base class of a signature. Set the class attributes, and override `on_event` or `on_batch`.

    Each worker creates one instance, without arguments, and passes it the events of the worker's own processes. Keep
    data in `state`, not on the instance: workers do not share the attributes of an instance.

    `id`, `name` and `events` are required. headrace refuses a signature with an invalid attribute. All attributes
    except `fields`, `state` and `shared` mean the same as in YAML (docs/reference/signatures.md).
    """

    id: ClassVar[str] = ""
    """Unique identifier: letters, digits, dots, dashes and underscores, 128 at most, the first a letter or digit."""
    name: ClassVar[str] = ""
    """Short name, such as "api_connection"."""
    title: ClassVar[str] = ""
    """One line for people, shown in findings. Default: `name`."""
    description: ClassVar[str] = ""
    """A sentence or two on what the signature detects."""
    severity: ClassVar[str] = "medium"
    """`info`, `low`, `medium`, `high` or `critical`."""
    mitre: ClassVar[Mapping[str, str]] = {}
    """The ATT&CK technique: `tactic`, `technique` and `id`, all optional."""
    tags: ClassVar[Sequence[str]] = ()
    """Words that findings show; `--rules tag=NAME` selects signatures by them."""
    scope: ClassVar[str] = "any"
    """Processes to look at: `any`, `host` (outside containers), or `container` (in a container that has started)."""
    events: ClassVar[Mapping[str, Any]] = {}
    """By name of the event: its condition as in YAML, in mappings, lists and values; None if there is no condition."""
    fields: ClassVar[Sequence[str]] = ()
    """Fields that the code reads. Each must exist in at least one of `events`."""
    state: ClassVar[str] = ""
    """The owner of a `State`.

    process     the process of the event
    fork        the same, and a child starts with a copy of the state of the process that forked it
    container   the container of the event; all processes outside containers share one
    ""          nothing: each event has a new, empty state

    A signature has at most 65,536 states in a worker; beyond that, the one that was used least recently is dropped. The
    state of a process is dropped some time after the process has ended. States are in the memory of a worker and are
    lost if the worker is replaced. A reload keeps them if the signature has not changed.
    """
    threshold: ClassVar[Mapping[str, Any]] = {}
    """`count`, `within` (seconds) and optionally `by` (fields): this many results within that time make one finding, if
    the fields in `by` are equal. headrace counts over all workers.
    """
    shared: ClassVar[Sequence[str]] = ()
    """Events that every worker passes to its instance, whichever worker the process belongs to.

    With `state = "container"`, list the events that change the state, because the processes of a container are spread
    over the workers. Only the worker of the process reports findings on a shared event. Only events that all workers
    receive can be shared: sched_process_fork, sched_process_exec, sched_process_exit, and other urgent ones such as
    ptrace and setuid; headrace refuses others. With `state = "fork"`, the default is all of `events`. If an event that
    is not shared changes the state, children on other workers do not inherit that change.
    """
    examples: ClassVar[Mapping[str, Any]] = {}
    """`match` and `near_miss`, each a list of examples for `headrace signatures test`.

    An example is a list of events (or one event), each a mapping with the keys `event`, `args`, `retval`, `process`,
    `parent`, `ancestors` and `container`; only `event` is required. The last event of a `match` must produce a finding;
    the last event of a `near_miss` must not.
    """

    def on_event(self, event: Event, state: State) -> Result:
        """Evaluate one event.

        headrace calls it once per event, in order of time within a worker. `state` belongs to the process or container
        of the event. Returns a finding or nothing; see `Result`.
        """
        return None

    def on_batch(self, batch: Batch) -> Sequence[Result]:
        """Evaluate the events of a turn together. Returns one `Result` per event, in the same order.

        Override it to work on whole columns; the default calls `on_event` for each event. headrace does not call an
        override if `state` is "fork". The findings of an override do not show earlier events that changed the state. An
        exception, or a wrong number of results, discards the results of the whole turn.
        """
        columns = {name: list(column) for name, column in batch.columns.items()}
        found = []
        for i in range(len(batch)):
            values = {name: column[i] for name, column in columns.items()}
            found.append(self.on_event(Event(batch.names[i], batch.times_ns[i], values), batch.states[i]))
        return found
