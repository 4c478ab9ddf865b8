"""Batches as Arrow IPC (docs/reference/wire.md), which polars, pandas, DuckDB and the Arrow libraries read as a table.

A row is an event, with the names of the JSON lines. Arguments are a list of name, text and raw value. A number is in
words as in JSON. The text is null if there is a reason instead of a value.

Requires pyarrow, an optional dependency. Other modules import this one on demand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from headrace.bpf.layout import EVENTS, HEAD_ENTRY, HEAD_NOT_RUN
from headrace.bpf.tables.catalogue import Catalogue, Event
from headrace.bpf.tables.reads import Argument
from headrace.config.policies.claims import Claim, names_of
from headrace.workers.enrich.containers import Describe, container_id, nobody, of_event
from headrace.workers.enrich.executables import Executables
from headrace.workers.records.blobs import argument
from headrace.workers.records.rows import Contexts, Rows
from headrace.workers.views.named import Named, unasked
from headrace.workers.views.pieces import Laid, Lines
from headrace.workers.views.style import HostFacts, RowMarks, Value, text

Array = np.ndarray[Any, Any]
NULL = "\0"
"""Piece of an argument without a value. No other piece is equal to it."""
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
ARGUMENT = pa.struct([("name", pa.string()), ("value", pa.string()), ("raw", pa.uint64())])
NAMES = pa.list_(pa.string())
WHO: dict[str, tuple[pa.DataType, Callable[[Any], object]]] = {
    "processId": (pa.uint32(), lambda c: int(c["ns_tgid"])),
    "threadId": (pa.uint32(), lambda c: int(c["ns_tid"])),
    "parentProcessId": (pa.uint32(), lambda c: int(c["ns_ppid"])),
    "hostProcessId": (pa.uint32(), lambda c: int(c["tgid"])),
    "hostThreadId": (pa.uint32(), lambda c: int(c["tid"])),
    "hostParentProcessId": (pa.uint32(), lambda c: int(c["ppid"])),
    "userId": (pa.uint32(), lambda c: int(c["uid"])),
    "mountNamespace": (pa.uint32(), lambda c: int(c["mntns"])),
    "pidNamespace": (pa.uint32(), lambda c: int(c["pidns"])),
    "cgroupId": (pa.uint64(), lambda c: int(c["cgroup_id"])),
    "processName": (pa.string(), lambda c: text(bytes(c["comm"]))),
    "hostName": (pa.string(), lambda c: text(bytes(c["nodename"]))),
    "containerId": (pa.string(), lambda c: container_id(c) or None),
    "processStartTime": (pa.uint64(), lambda c: int(c["process_start_ns"])),
}
"""Columns derived from a context (a CONTEXT scalar). containerId is null on the host."""
CONTAINER = ("containerName", "containerImage", "podName", "podNamespace", "podUID", "enrichment")
"""Columns with texts from the container's runtime; null if there is none."""


def schema(relative: bool) -> pa.Schema:
    """The schema. Times are since the epoch or, if `relative`, since the start of the run."""
    time = pa.duration("ns") if relative else pa.timestamp("ns", "UTC")
    return pa.schema(
        [
            ("timestamp", time),
            ("eventName", pa.string()),
            ("processorId", pa.uint16()),
            ("returnValue", pa.int64()),
            *((name, kind) for name, (kind, _) in WHO.items()),
            ("executable", pa.string()),
            *((name, pa.string()) for name in CONTAINER),
            ("matchedPolicies", NAMES),
            ("late", pa.bool_()),
            ("args", pa.list_(ARGUMENT)),
        ]
    )


class ArrowStyle:
    """Pieces with the text of an argument. All other data of a row is in separate columns."""

    end = ""
    stacks = False

    def time(self, time_ns: Array, flags: Array) -> Array:
        return np.zeros(len(time_ns), "S1")

    def who(self, context: Any, cpu: int) -> str:
        return ""

    def forget_who(self) -> None:
        return

    def event(self, event: Event, flags: int, marks: RowMarks, retval: int, arguments: int) -> str:
        return ""

    def stack(self, addresses: bytes) -> str:
        return ""

    def order(self, event: Event) -> Sequence[int]:
        return range(len(event.arguments))

    def argument(self, event: Event, argument: Argument, position: int, value: Value) -> str:
        shown = value.shown
        if value.reason or shown is None:
            return NULL
        if isinstance(shown, bytes):
            return text(shown) + ("\0" if shown == b"\0" else "")
        if isinstance(shown, str):
            return shown
        if isinstance(shown, list):
            shown = [text(part) if isinstance(part, bytes) else part for part in shown]
        return msgspec.json.encode(shown).decode()


def _strings(pieces: Array, lengths: Array, missing: Array | None = None) -> pa.Array:
    """pa.string() of pieces (bytes objects), null where `missing`."""
    offsets = np.zeros(len(pieces) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    valid = None if missing is None else pa.py_buffer(np.packbits(~missing, bitorder="little").tobytes())
    data = pa.py_buffer(b"".join(pieces.tolist()))
    return pa.StringArray.from_buffers(len(pieces), pa.py_buffer(offsets.tobytes()), data, valid)


class ArrowView:
    """Rows as record batches. One per worker."""

    def __init__(
        self,
        catalogue: Catalogue,
        facts: HostFacts,
        parse: bool = True,
        executable: Callable[[Any], bytes] = lambda context: b"",
        executables: Executables | None = None,
        describe: Describe = nobody,
        named: Named = unasked,
        claims: Sequence[Claim] = (),
    ) -> None:
        """`executable` returns the path of the executable of a process context."""
        self._describe, self._claims = describe, claims
        self._lines = Lines(catalogue, ArrowStyle(), parse, executables, named=named)
        self._schema = schema(facts.relative_to_ns is not None)
        self._head = head(facts.relative_to_ns is not None)
        self._facts = facts
        self._executable = executable
        self._names = pa.array([catalogue.by_id[i].name if i in catalogue.by_id else None for i in range(EVENTS)])

    def batch(self, rows: Rows, contexts: Contexts) -> pa.RecordBatch:
        """A record batch of the rows, of which there must be at least one."""
        time = pa.array(self._facts.shown_ns(rows.time_ns).view(np.int64)).cast(self._schema.field("timestamp").type)
        no_result = (rows.flags & (HEAD_ENTRY | HEAD_NOT_RUN)) != 0
        known, who = np.unique(rows.who, return_inverse=True)
        of_who = pa.array(who)
        table = [contexts.table[i] for i in known.tolist()]
        about = [pa.array([read(c) for c in table], kind).take(of_who) for kind, read in WHO.values()]
        executables = pa.array([text(self._executable(c)) or None for c in table], pa.string())
        said = [of_event(c, self._describe) for c in table]
        containers = [pa.array([one.get(name) or None for one in said], pa.string()).take(of_who) for name in CONTAINER]
        masks, which = np.unique(rows.policies, return_inverse=True)
        laid = self._lines.lay_out(rows, contexts)
        columns = [
            time,
            self._names.take(pa.array(rows.event)),
            pa.array(np.ascontiguousarray(rows.cpu)),
            pa.array(np.ascontiguousarray(rows.retval), mask=no_result),
            *about,
            executables.take(of_who),
            *containers,
            pa.array([names_of(self._claims, mask) for mask in masks.tolist()], NAMES).take(pa.array(which)),
            pa.array(rows.late),
            self._arguments(rows, laid),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _arguments(self, rows: Rows, laid: Laid) -> pa.Array:
        store = self._lines.store
        counts = np.empty(len(rows), np.int64)
        for group, chosen in zip(laid.groups, laid.places, strict=True):
            counts[chosen] = len(group.arguments)
        ends = np.cumsum(counts)
        keys, values = np.zeros((2, int(ends[-1])), np.int64)
        raws, lacking = np.zeros(len(keys), np.uint64), np.zeros(len(keys), bool)
        names: list[str] = []
        for group, chosen in zip(laid.groups, laid.places, strict=True):
            for j, pieces in enumerate(group.arguments):
                at = ends[chosen] - counts[chosen] + j
                keys[at] = len(names)
                values[at] = laid.numbers[laid.ends[chosen] - counts[chosen] + j]
                names.append(pieces.argument.name)
                if pieces.argument.in_record:
                    raws[at] = argument(rows, pieces.index, chosen)
                else:
                    lacking[at] = True
        found, lengths = store.pieces(values), store.lengths(values)
        missing = np.zeros(len(values), bool)
        short = np.flatnonzero(lengths == 1)
        # compared as bytes objects: numpy strips trailing NULs
        missing[short] = [piece == NULL.encode() for piece in found[short].tolist()]
        texts = _strings(found, lengths, missing)
        columns = [pa.array(names, pa.string()).take(pa.array(keys)), texts, pa.array(raws, mask=lacking)]
        entries = pa.StructArray.from_arrays(columns, fields=list(ARGUMENT))
        return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]), pa.int32()), entries)

    def render(self, rows: Rows, contexts: Contexts, whole: bool) -> list[bytes | memoryview]:
        """`whole`: a complete stream with schema and end. Otherwise only the message, for a stream that has begun."""
        message = memoryview(self.batch(rows, contexts).serialize())
        return [self._head, message, END_OF_STREAM] if whole else [message]


def head(relative: bool) -> bytes:
    """The beginning of a stream, which is its schema."""
    return schema(relative).serialize().to_pybytes()  # type: ignore[no-any-return]
