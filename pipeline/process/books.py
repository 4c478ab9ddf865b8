"""The ledger's raw material: what each process commits to its journal, and the sum over all of them.

    produced = filtered + throttled + lost + dropped + rejected + delivered + in_flight

`produced` and `lost` are counted in the kernel; `dropped` by the reader (a worker's ring was full); the
rest by the workers. Every counter changes together with the position it belongs to, in one journal
commit, so the sums are right at any moment that a process may die at.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from headrace.bpf.layout import EVENTS, LOST_REASONS
from headrace.bpf.tables.catalogue import LOSS, Catalogue
from headrace.config.printable import escaped

Array = np.ndarray[Any, Any]


def reader_journal(cpus: int, slots: int, rings: int) -> np.dtype[Any]:
    """State of the reader: positions first, then counters."""
    return np.dtype(
        [
            ("perf_tail", "<u8", (cpus, 2)),
            ("ring_head", "<u8", rings),
            ("watermark_ns", "<u8"),
            ("received", "<u8", (cpus, slots)),
            ("frames", "<u8", (cpus, slots)),
            ("dropped", "<u8", (cpus, slots)),
            ("copies_dropped", "<u8"),
            ("next_sequence", "<u8", (cpus, slots)),
            ("gaps", "<u8", (cpus, slots)),
            ("perf_lost", "<u8"),
            ("announced", "<u8", (cpus, slots)),
            ("losses_sent", "<u8"),
            ("flushes", "<u8"),
            ("cpu_ns", "<u8"),
        ]
    )


def worker_journal(cpus: int, sinks: int) -> np.dtype[Any]:
    """State of a worker: positions, the turn that it waits in, counters. Of that turn, by render: how many rows were
    written, and whether all is `done`; by event and CPU: how many of its rows some output was `handed`. Of rows that
    are held back for names (workers/hold.py), by render: how many there are, without those of the turn, and how many
    went with a predecessor.
    """
    return np.dtype(
        [
            ("next", "<u8"),
            ("release", "<u8"),
            ("result_head", "<u8"),
            ("written", "<u8", (sinks + 1,)),
            ("held", "<u8", (sinks + 1,)),
            ("done", "<u8", (sinks + 1,)),
            ("handed", "<u8", EVENTS),
            ("handed_cpu", "<u8", cpus),
            ("held_lost", "<u8", (sinks + 1,)),
            ("gave_up", "<u8"),
            ("turn_ns", "<u8"),
            ("turn_end", "<u8"),
            ("watermark_ns", "<u8"),
            ("generation", "<u8"),
            ("delivered", "<u8", EVENTS),
            ("filtered", "<u8", EVENTS),
            ("delivered_cpu", "<u8", cpus),
            ("rejected", "<u8"),
            ("given_up", "<u8"),
            ("observed", "<u8"),
            ("facts", "<u8"),
            ("late", "<u8"),
            ("unknown", "<u8"),
            ("found", "<u8"),
            ("cut", "<u8"),
            ("evicted", "<u8"),
            ("redelivered", "<u8"),
            ("turns", "<u8"),
            ("cpu_ns", "<u8"),
            ("ended", "<u8"),
        ]
    )


LINE = ("offered", "written", "filtered", "dropped", "repeated", "bytes", "refused")
"""What the publisher counts for a sink."""


def publisher_journal(workers: int, sinks: int) -> np.dtype[Any]:
    """State of the publisher: positions in the workers' result rings, the last whole turn of each before
    the released position (per output format), and a line per sink.
    """
    line = np.dtype([(name, "<u8") for name in LINE])
    return np.dtype(
        [
            ("release", "<u8", workers),
            ("read", "<u8", workers),
            ("finished", "<u8", (workers, sinks + 1)),
            ("sinks", line, sinks),
            ("published", "<u8"),
            ("folded", "<u8"),
            ("below", "<u8"),
            ("cpu_ns", "<u8"),
            ("ended", "<u8"),
        ]
    )


FINDINGS = ("published", "folded", "below")
"""What becomes of what signatures found."""


class Line(msgspec.Struct, kw_only=True):
    """One sink: `offered = written + uncertain + filtered + dropped`."""

    name: str
    offered: int = 0
    written: int = 0
    filtered: int = 0
    dropped: int = 0
    bytes: int = 0
    refused: int = 0
    """Peers of a ZeroMQ output that were not let in or were disconnected."""
    uncertain: int = 0
    """Of a run that was given up: rows that were being written, and may be there beside those `written`."""

    @property
    def rest(self) -> int:
        """What the other terms leave of `offered`."""
        return self.offered - self.written - self.uncertain - self.filtered - self.dropped


class Ledger(msgspec.Struct, kw_only=True):
    """The books of a run. `balanced` is the identity, every sink's line, that of findings, and no skipped program."""

    produced: int = 0
    delivered: int = 0
    filtered: int = 0
    throttled: int = 0
    lost: int = 0
    dropped: int = 0
    rejected: int = 0
    in_flight: int = 0
    abandoned: int = 0
    """Of `dropped`: what was still under way when the pipeline was given up."""
    given_up: int = 0
    """Of `rejected`: events that have ended a worker again and again."""
    redelivered: int = 0
    late: int = 0
    unknown: int = 0
    """Times that a condition could not be decided, since the text could not be read; the event is among `filtered`."""
    announced: int = 0
    missed_runs: int = 0
    missed_by_program: dict[str, int] = msgspec.field(default_factory=dict)
    balanced: bool = False
    lost_by_reason: dict[str, int] = msgspec.field(default_factory=dict)
    faults: int = 0
    cut: int = 0
    raced: int = 0
    cross_checks: dict[str, int] = msgspec.field(default_factory=dict)
    findings: dict[str, int] = msgspec.field(default_factory=dict)
    """found = published + folded + below (a threshold); `cut` of them were too long, and are shortened. Of a run
    that was given up some may be `abandoned`: nobody counted what became of them, and outputs may have some.
    """
    signatures: dict[str, int] = msgspec.field(default_factory=dict)
    """Those that hold: their generation, how many were loaded, and how often they were read again or refused."""
    refusal: str = ""
    """Why they were refused the last time."""
    uncovered: dict[str, str] = msgspec.field(default_factory=dict)
    """Of a replay: signatures that the recording cannot answer, or only in part, and what is missing."""
    remarks: list[str] = msgspec.field(default_factory=list)
    """The same for people."""
    reloading: bool = False
    """Whether some worker does not look by the latest yet."""
    by_rule: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    """Of signatures that have seen events, by id: `evaluated`, `matched`, `time_ns`; since their generation began."""
    values: dict[str, int] = msgspec.field(default_factory=dict)
    """Values of fields that signatures have looked at (pipeline/process/plan.py, VALUES)."""
    containers: dict[str, int] = msgspec.field(default_factory=dict)
    """What is known of containers: how many are in which state, and COUNTERS (pipeline/containers/enrichment.py)."""
    facts: dict[str, int] = msgspec.field(default_factory=dict)
    """Lifecycle records that no output asked for, and what became of them; outside of the sum."""
    by_cpu: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    by_worker: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    by_event: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    sinks: list[Line] = msgspec.field(default_factory=list)
    cpu_seconds: dict[str, float] = msgspec.field(default_factory=dict)
    restarts: dict[str, int] = msgspec.field(default_factory=dict)
    unoffered: int = 0
    """Events that were delivered and that an output was never offered, over all outputs; 0 unless there is a fault."""

    def close(self, abandoned: bool = False) -> None:
        """Work out `in_flight` and `balanced` from the rest. `abandoned`: what is under way will not come any more."""
        gone = self.filtered + self.throttled + self.lost + self.dropped + self.rejected + self.delivered
        self.in_flight = self.produced - gone
        if abandoned and self.in_flight > 0:
            self.abandoned, self.in_flight = self.in_flight, 0
            self.dropped += self.abandoned
        for sink in self.sinks if abandoned else ():
            sink.dropped += max(0, sink.rest)
        sinks_close = not self.unoffered and all(s.rest == s.uncertain == 0 for s in self.sinks)
        rest = self.findings.get("found", 0) - sum(self.findings.get(name, 0) for name in FINDINGS)
        if abandoned and rest > 0:
            self.findings["abandoned"], rest = rest, 0
        self.balanced = self.in_flight == 0 and sinks_close and rest == 0 and self.missed_runs == 0

    def text(self) -> list[str]:
        """Lines for people, on standard error."""
        shown = ("produced", "delivered", "filtered", "throttled", "lost", "dropped", "rejected")
        extra = [
            (n, getattr(self, n))
            for n in (
                *("in_flight", "abandoned", "given_up", "redelivered", "late", "unknown", "missed_runs"),
                "unoffered",
            )
            if getattr(self, n)
        ]
        parts = [f"{name} {getattr(self, name)}" for name in shown] + [f"{name} {value}" for name, value in extra]
        lines = ["ledger: " + "  ".join(parts) + ("  balanced" if self.balanced else "  NOT BALANCED")]
        for sink in self.sinks:
            lines.append(
                f"  {escaped(sink.name)}: offered {sink.offered}  written {sink.written}"
                + (f" at least, {sink.written + sink.uncertain} at most" if sink.uncertain else "")
                + f"  filtered {sink.filtered}  dropped {sink.dropped}"
                + (f"  peers refused {sink.refused}" if sink.refused else "")
            )
        if self.missed_by_program:
            lines.append("  missed runs: " + "  ".join(f"{name} {n}" for name, n in self.missed_by_program.items()))
        if self.findings:
            lines.append("  findings: " + "  ".join(f"{name} {n}" for name, n in self.findings.items()))
        if self.containers:
            lines.append("  containers: " + "  ".join(f"{name} {n}" for name, n in self.containers.items() if n))
        if self.restarts:
            lines.append("  restarted: " + "  ".join(f"{name} {n}" for name, n in self.restarts.items()))
        lines += [f"  {escaped(remark)}" for remark in self.remarks]
        return lines


def with_begun(state: Array, findings: int) -> Array:
    """A worker's state, when it will not go on: what outputs were handed of the turn that it is in is counted, too.
    `findings`: the number of their render.
    """
    state["delivered"] += state["handed"]
    state["delivered_cpu"] += state["handed_cpu"]
    state["found"] += state["written"][:, findings] if findings < state["written"].shape[1] else np.uint64(0)
    return state


def delivered_rows(journals: list[Array]) -> int:
    """What every output of events must have been offered: `loss` events are among it."""
    return sum(int(state["delivered"].sum()) for state in journals)


def add_workers(ledger: Ledger, journals: list[Array], catalogue: Catalogue, detects: bool = False) -> None:
    """The workers' part: delivered, filtered, rejected, by worker, event and CPU; `detects`: there are signatures."""
    loss = catalogue.by_name[LOSS].id
    # every worker takes all of them
    ledger.facts["taken"] = min(int(state["facts"][0]) for state in journals)
    for i, state in enumerate(journals):
        delivered, filtered = state["delivered"][0].copy(), state["filtered"][0].copy()
        ledger.announced += int(delivered[loss]) + int(filtered[loss])
        delivered[loss] = filtered[loss] = 0
        counts = {
            "delivered": int(delivered.sum()),
            "filtered": int(filtered.sum()),
            "rejected": int(state["rejected"][0]),
        }
        ledger.delivered += counts["delivered"]
        ledger.filtered += counts["filtered"]
        ledger.rejected += counts["rejected"]
        ledger.given_up += int(state["given_up"][0])
        ledger.late += int(state["late"][0])
        ledger.unknown += int(state["unknown"][0])
        if detects:
            ledger.findings["found"] = ledger.findings.get("found", 0) + int(state["found"][0])
            if cut := int(state["cut"][0]):
                ledger.findings["cut"] = ledger.findings.get("cut", 0) + cut
        ledger.facts["evicted"] = ledger.facts.get("evicted", 0) + int(state["evicted"][0])
        ledger.redelivered += int(state["redelivered"][0])
        ledger.cpu_seconds[f"worker-{i}"] = int(state["cpu_ns"][0]) / 1e9
        ledger.by_worker[str(i)] = counts | {"turns": int(state["turns"][0])}
        for name, column in (("delivered", delivered), ("filtered", filtered)):
            for event in np.flatnonzero(column).tolist():
                row = ledger.by_event.setdefault(catalogue.by_id[event].name, {})
                row[name] = row.get(name, 0) + int(column[event])
        for cpu, n in enumerate(state["delivered_cpu"][0].tolist()):
            if n:
                row = ledger.by_cpu.setdefault(str(cpu), {})
                row["delivered"] = row.get("delivered", 0) + int(n)


def add_kernel(ledger: Ledger, produced: Array, marks: Array, catalogue: Catalogue) -> None:
    """The kernel's part. `produced` is u64[cpus, EVENTS], `marks` MARK[cpus, slots], the last slot that of facts."""
    ledger.facts["produced"] = int(marks["facts"].sum())
    ledger.facts["lost"] = sum(int(marks[reason][:, -1].sum()) for reason in LOST_REASONS)
    marks = marks[:, :-1]
    ledger.produced = int(produced.sum())
    for event in np.flatnonzero(produced.sum(axis=0)).tolist():
        name = catalogue.by_id[event].name
        ledger.by_event.setdefault(name, {})["produced"] = int(produced[:, event].sum())
    for reason in LOST_REASONS:
        count = int(marks[reason].sum())
        ledger.lost += count
        ledger.lost_by_reason[reason.removeprefix("lost_")] = count
    ledger.faults, ledger.cut, ledger.raced = (int(marks[name].sum()) for name in ("faults", "cut", "raced"))
    for cpu in range(len(produced)):
        if produced[cpu].any():
            row = ledger.by_cpu.setdefault(str(cpu), {})
            row["produced"] = int(produced[cpu].sum())
            row["lost"] = sum(int(marks[reason][cpu].sum()) for reason in LOST_REASONS)


def add_reader(ledger: Ledger, state: Array) -> None:
    """The reader's part, and what it saw that must agree with the kernel's counts."""
    row = state[0]
    ledger.cpu_seconds["reader"] = int(row["cpu_ns"]) / 1e9
    dropped, received = row["dropped"][:, :-1], row["received"][:, :-1]
    ledger.dropped = int(dropped.sum())
    ledger.facts["dropped"] = int(row["dropped"][:, -1].sum())
    ledger.cross_checks |= {
        "frames_received": int(row["frames"].sum()),
        "events_received": int(received.sum()),
        "sequence_gaps": int(row["gaps"].sum()),
        "perf_lost_records": int(row["perf_lost"]),
        "lifecycle_copies_dropped": int(row["copies_dropped"]),
        "losses_announced": int(row["losses_sent"]),
        "flushes": int(row["flushes"]),
    }
    for cpu in range(len(dropped)):
        if dropped[cpu].any():
            ledger.by_cpu.setdefault(str(cpu), {})["dropped"] = int(dropped[cpu].sum())


def add_recording(ledger: Ledger, state: Array, path: str, written: int, uncertain: int = 0) -> None:
    """The recording's line: what the reader had for it, and what stands in whole blocks of the file."""
    offered = int(state["received"][0][:, :-1].sum())
    line = Line(name=f"record:{path}", offered=offered, written=written, uncertain=uncertain)
    line.dropped = line.rest
    ledger.sinks.append(line)


def add_sinks(ledger: Ledger, state: Array, names: list[str]) -> None:
    """A line per sink."""
    ledger.cpu_seconds["publisher"] = int(state["cpu_ns"][0]) / 1e9
    if ledger.findings:
        ledger.findings |= {name: int(state[name][0]) for name in FINDINGS}
    for name, line in zip(names, state["sinks"][0], strict=True):
        ledger.sinks.append(
            Line(
                name=name,
                offered=int(line["offered"]),
                written=int(line["written"]),
                filtered=int(line["filtered"]),
                dropped=int(line["dropped"]),
                bytes=int(line["bytes"]),
                refused=int(line["refused"]),
            )
        )
        ledger.redelivered += int(line["repeated"])
