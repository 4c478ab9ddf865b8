"""A worker's reading without its process: frames in, every view and every signature out."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from headrace.bpf.layout import CELL_BYTES, CONTEXT, FRAME, FRAME_CELLS, FRAME_VERSION, HEAD, STREAM_FACTS
from headrace.bpf.tables.catalogue import catalogue
from headrace.config.filters import parse
from headrace.config.policies.claims import Claim
from headrace.workers.conditions.filters import Predicates
from headrace.workers.core import Core, TurnBatch
from headrace.workers.detect.detector import Detector, FindingOptions
from headrace.workers.detect.engine.matches import Matches
from headrace.workers.detect.findings.shapes import shape
from headrace.workers.detect.rules.rulesets import build
from headrace.workers.records.rows import Rows
from headrace.workers.views import style
from headrace.workers.views.choice import Sources, view_of
from headrace.workers.views.table import fitted

Array = np.ndarray[Any, Any]
FINAL_NS = 2**63
COUNTED_BYTES = 48
"""A frame's header up to its count of heads."""
MAX_CELLS = FRAME_CELLS
BOOT_EPOCH_NS = 1_790_000_000_000_000_000
WIDTH = 100
CONTEXT_CELLS = CONTEXT.itemsize // CELL_BYTES
WHO = (
    bytes(48) + bytes(range(32)) + b"\1\0\0\0" * 15 + b"\1\2\0\0" + b"task".ljust(16, b"\0") + b"host".ljust(64, b"\0")
)
assert len(WHO) == CONTEXT.itemsize
CONDITIONS = (
    "*",
    "openat.pathname=*/etc*",
    "openat.flags=O_RDONLY",
    "execve.argv=*x*",
    "connect.sockfd>2",
    "close.retval!=0",
    "sched_process_exec.pathname!=/bin/sh",
)


class Options:
    """What is asked of views: all that there is."""

    parse_arguments = detect_syscall = stack_addresses = colour = verbose = True
    claims: tuple[Claim, ...] = ()
    hidden = ()
    columns = WIDTH


class Plain(Options):
    """For a file."""

    colour = stack_addresses = verbose = False
    columns = 0


@cache
def event_ids() -> Array:
    """All events that there are."""
    return np.array(sorted(catalogue().by_id), np.uint16)


@cache
def most_argument_cells() -> int:
    """Cells of a record that any event's arguments fit into."""
    return max(1 + (event.cells + 2) // 4 for event in catalogue().by_id.values())


def records(rows: Array) -> list[Array]:
    """A sound frame of one record for each row of bytes: context 224 | event u16 | flags u8 | blobs u8 | retval i64 |
    argument 0 u64 | whatever stands behind it. Rows that are too short are filled up with zeros.
    """
    count, size = rows.shape
    begin = CONTEXT.itemsize + 20
    body = max(size - begin, (most_argument_cells() - 1) * CELL_BYTES)
    cells = min(1 + -(-body // CELL_BYTES), MAX_CELLS - CONTEXT_CELLS)
    whole = np.zeros((count, begin + (cells - 1) * CELL_BYTES), np.uint8)
    kept = min(size, whole.shape[1])
    whole[:, :kept] = rows[:, :kept]
    head = np.zeros(count, HEAD)
    small = np.ascontiguousarray(whole[:, CONTEXT.itemsize : begin])
    head["event"] = event_ids()[small[:, :2].copy().view("<u2")[:, 0] % len(event_ids())]
    head["flags"], head["blobs"] = small[:, 2], small[:, 3]
    head["retval"] = small[:, 4:12].copy().view("<i8")[:, 0]
    head["arg0"] = small[:, 12:20].copy().view("<u8")[:, 0]
    head["cells"], head["time_ns"] = cells, np.arange(1, count + 1) * 1000
    header = np.zeros(count, FRAME)
    header["version"], header["heads"], header["shards"] = FRAME_VERSION, 1, 1
    header["used"] = (CONTEXT_CELLS + cells) * CELL_BYTES
    header["bitmap"][:, 0] = 1 << CONTEXT_CELLS
    parts = [header.view(np.uint8), whole[:, : CONTEXT.itemsize].ravel(), head.view(np.uint8), whole[:, begin:].ravel()]
    frames = np.concatenate([part.reshape(count, -1) for part in parts], axis=1)
    return list(frames)


def claimed(frame: bytes | Array) -> int:
    """Events that a frame's header claims; lifecycle records that nobody asked for are no events."""
    if len(frame) < COUNTED_BYTES:
        return 0
    data = np.frombuffer(bytes(frame[:COUNTED_BYTES]), np.uint8)
    return 0 if data[34] == STREAM_FACTS else int(data[36]) | int(data[37]) << 8


class Worker:
    """Views by name, signatures, conditions. `turn` gives what a turn has let go."""

    def __init__(self, views: tuple[str, ...], options: Any = Options, detects: bool = True) -> None:
        known = catalogue()
        self.core = Core(known, 0, 1)
        self._known: style.HostFacts | None = None
        self.options, self.names = options, views
        self._keep = Predicates(known, parse(CONDITIONS, known).conditions, None)
        self.detector = Detector(_signatures(), known) if detects else None
        if self.detector is not None:
            self.core.look(self.detector.match, self.detector.shared)
        self.know(style.HostFacts(BOOT_EPOCH_NS))

    def know(self, facts: style.HostFacts) -> None:
        """Begin anew, with what a recording says of its host."""
        self.core.watermark_ns = 0
        if facts == self._known:
            return
        self._known = facts
        known = catalogue()
        sources = Sources(self.options(), known, facts, self.core.tree)
        self.views: dict[str, Any] = {name: view_of(name, sources) for name in self.names}
        if self.detector is not None:
            self.detector.open(known, facts, self.core.tree, FindingOptions(b"secret"))

    def begin(self) -> None:
        """Of the next input, nothing is late yet."""
        self.core.watermark_ns = 0

    def turn(self, watermark_ns: int) -> TurnBatch:
        """Everything up to there, in every form."""
        batch, contexts = self.core.advance(watermark_ns), self.core.contexts
        self._keep(batch.rows, contexts)
        for name in self.names:
            self.shown(name, batch.rows)
        if self.detector is not None:
            self._findings(batch)
        return batch

    def shown(self, name: str, rows: Rows) -> Any:
        """Rows in a view."""
        if name == "arrow":
            return self.views[name].render(rows, self.core.contexts, True) if len(rows) else []
        out = self.views[name].render(rows, self.core.contexts)
        if name == "table":
            fitted(*out, WIDTH)
        return out

    def _findings(self, batch: TurnBatch) -> None:
        assert self.detector is not None
        matches = batch.matches or Matches.none()
        found = self.detector.render(batch.ripe, self.core.contexts, matches, slice(0, len(matches)))
        lines = found.data.splitlines()
        assert len(lines) == len(found) == sum(map(len, matches.rules)), "a finding is a line"
        for line in lines[:4]:
            for form in ("table", "falco", "tracee"):
                shape(form, line, self.options())


@cache
def _signatures() -> tuple[Any, ...]:
    return build(catalogue(), ()).rules
