"""Tells the collector (pipeline/capture/collector.py) which artifacts the rows of a turn speak of (`--capture`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from headrace.bpf.layout import EVENTS, HEAD_NO_OBJECT
from headrace.bpf.tables.catalogue import Catalogue, Event
from headrace.config.capture import BPF, EXEC, MEM, MODULE, WRITE, Capture
from headrace.pipeline.capture.requests import ArtifactRequest
from headrace.workers.decode.texts import Texts
from headrace.workers.records.blobs import blobs, used
from headrace.workers.records.rows import Contexts, Rows

Array = np.ndarray[Any, Any]
O_ACCMODE, PROT_EXEC, BPF_PROG_LOAD = 3, 4, 5


class Asked(Protocol):
    """Interface of the collector."""

    def ask(self, request: ArtifactRequest) -> None:
        """Request an artifact. Does not wait."""


class _Naming(NamedTuple):
    """How an event names an artifact: the arguments of the request's members, and which rows do."""

    kind: str
    members: dict[str, str]
    wanted: Callable[[Rows, Array, Callable[[str], Array]], Array] = lambda rows, chosen, value: chosen == chosen


FILE = {"device": "dev", "inode": "inode"}
NAMINGS: dict[str, _Naming] = {
    "sched_process_exec": _Naming(EXEC, FILE | {"place": "ctime"}),
    "security_file_open": _Naming(WRITE, FILE, lambda rows, chosen, value: (value("flags") & O_ACCMODE) != 0),
    "vfs_write": _Naming(WRITE, FILE),
    "vfs_writev": _Naming(WRITE, FILE),
    "magic_write": _Naming(WRITE, FILE),
    "module_load": _Naming(
        MODULE, FILE | {"place": "ctime"}, lambda rows, chosen, value: rows.flags[chosen] & HEAD_NO_OBJECT == 0
    ),
    "init_module": _Naming(
        MODULE, {"place": "module_image", "extent": "len"}, lambda rows, chosen, value: rows.retval[chosen] == 0
    ),
    "finit_module": _Naming(MODULE, {"extent": "fd"}, lambda rows, chosen, value: rows.retval[chosen] == 0),
    "bpf": _Naming(BPF, {}, lambda rows, chosen, value: (value("cmd") == BPF_PROG_LOAD) & (rows.retval[chosen] >= 0)),
    "mem_prot_alert": _Naming(
        MEM, {"place": "addr", "extent": "len"}, lambda rows, chosen, value: (value("prot") & PROT_EXEC) != 0
    ),
}


class Artifacts:
    """The artifacts that one worker's rows speak of."""

    def __init__(self, catalogue: Catalogue, capture: Capture, asked: Asked, boot_epoch_ns: int) -> None:
        self._events = [catalogue.by_name[name] for name in capture.events]
        self._asked, self._epoch_ns = asked, boot_epoch_ns
        self._counts = np.zeros(EVENTS, np.uint8)
        for event in self._events:
            self._counts[event.id] = event.cells
        places = ((event, event.index("pathname")) for event in self._events)
        self._paths = {event.id: Texts(event, at) for event, at in places if at is not None}

    def take(self, rows: Rows, contexts: Contexts) -> None:
        """Send a request for each artifact of the rows. A written file is requested once per turn."""
        seen: set[tuple[int, int]] = set()
        for event in self._events:
            chosen = np.flatnonzero((rows.event == event.id) & ~rows.foreign)
            if not len(chosen):
                continue
            for request in self._requests(event, rows, chosen, contexts):
                if request.kind == WRITE:
                    key = request.device, request.inode
                    if key in seen:
                        continue
                    seen.add(key)
                self._asked.ask(request)

    def _requests(self, event: Event, rows: Rows, chosen: Array, contexts: Contexts) -> Iterator[ArtifactRequest]:
        source = NAMINGS[event.name]

        def value(name: str) -> Array:
            index = event.index(name)
            assert index is not None
            return used(rows, event, index, chosen)

        chosen = chosen[source.wanted(rows, chosen, value)]
        if not len(chosen):
            return
        members = {member: value(name).astype(np.int64).tolist() for member, name in source.members.items()}
        if source.kind == BPF:
            members["extent"] = rows.retval[chosen].tolist()
        who = contexts.table[rows.who[chosen]]
        times = (rows.time_ns[chosen].astype(np.int64) + self._epoch_ns).tolist()
        for i, path in enumerate(self._known_paths(event, rows, chosen)):
            given = {member: values[i] for member, values in members.items()}
            pid, start_ns = int(who["tgid"][i]), int(who["process_start_ns"][i])
            yield ArtifactRequest(source.kind, pid, start_ns, time_ns=times[i], path=path, **given)

    def _known_paths(self, event: Event, rows: Rows, chosen: Array) -> list[bytes]:
        if event.id not in self._paths:
            return [b""] * len(chosen)
        rows = rows.select(chosen)
        found = self._paths[event.id].known(rows, np.arange(len(chosen)), blobs(rows, self._counts))
        return [text or b"" for text in found]
