"""The ledger: the counters that each process commits to its journal, and their sum over all processes.

    produced = filtered + throttled + lost + dropped + rejected + delivered + in_flight

`produced` and `lost` are counted in the kernel, `dropped` by the reader (a worker's ring was full), the rest by the
workers. Each counter changes in the same journal commit as the position it belongs to. The sums therefore stay correct
if a process dies at any moment.
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
    """State of the reader: positions first, then counters. `block` and `ended`: of a replayer, the
    next block of the recording, and 1 + its exit status once it has finished."""
    return np.dtype(
        [
            ("perf_tail", "<u8", (cpus, 2)),
            ("ring_head", "<u8", rings),
            ("block", "<u8"),
            ("ended", "<u8"),
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
    """State of a worker: positions, the turn in progress, counters.

    For the turn in progress: `written` and `done` are the rows written per render, and whether the render is complete.
    `handed` and `handed_cpu` count, per event and per CPU, its rows that some output was handed.
    For rows that are held back until container names are known (workers/hold.py), per render: `held` counts those
    present without the rows of the turn, `held_lost` those lost, for example together with a predecessor.
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
"""Counters that the publisher keeps per sink."""


def publisher_journal(workers: int, sinks: int) -> np.dtype[Any]:
    """State of the publisher: positions in the workers' result rings, counters per sink, and counters of findings.

    `finished` is the last complete turn of each worker before its released position, per render.
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
"""The possible outcomes of a finding."""


class Line(msgspec.Struct, kw_only=True):
    """One sink: `offered = written + uncertain + filtered + dropped`."""

    name: str
    offered: int = 0
    written: int = 0
    filtered: int = 0
    dropped: int = 0
    bytes: int = 0
    refused: int = 0
    """Peers of a ZeroMQ output that were rejected or disconnected."""
    uncertain: int = 0
    """After an aborted run: rows of a write in progress, which may be in the output in addition to `written`."""

    @property
    def rest(self) -> int:
        """Rows of `offered` that no other term accounts for."""
        return self.offered - self.written - self.uncertain - self.filtered - self.dropped


class Ledger(msgspec.Struct, kw_only=True):
    """The counters of a run.

    `balanced` is true if the identity of this module, the identity of every sink and that of the findings hold, and no
    program run was missed.
    """

    produced: int = 0
    delivered: int = 0
    filtered: int = 0
    throttled: int = 0
    lost: int = 0
    dropped: int = 0
    rejected: int = 0
    in_flight: int = 0
    abandoned: int = 0
    """The part of `dropped` that was in flight when the run was aborted."""
    given_up: int = 0
    """The part of `rejected` that repeatedly crashed a worker."""
    redelivered: int = 0
    late: int = 0
    unknown: int = 0
    """Number of conditions not evaluated because the text was unreadable. The event counts as `filtered`."""
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
    """found = published + folded + below (a threshold). `cut` of them were too long and are truncated. In an aborted
    run, some may be `abandoned`: their outcome is unknown, and they may be in outputs."""
    signatures: dict[str, int] = msgspec.field(default_factory=dict)
    """The current signatures: their generation, how many are loaded, and how often they were reloaded or refused."""
    changes: dict[str, list[str]] = msgspec.field(default_factory=dict)
    """Ids of the signatures that the last reload added, removed and changed."""
    refusal: str = ""
    """Why the last reload was refused; "" if it was not."""
    uncovered: dict[str, str] = msgspec.field(default_factory=dict)
    """In a replay: signatures that the recording cannot support, or only in part, and the missing data."""
    remarks: list[str] = msgspec.field(default_factory=list)
    """`uncovered` as text for the user."""
    reloading: bool = False
    """Whether some worker does not use the latest signatures yet."""
    by_rule: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    """TALLY counters by signature id since the current generation began. Only signatures that have seen events."""
    values: dict[str, int] = msgspec.field(default_factory=dict)
    """Counters of field values that signatures evaluated (VALUES in pipeline/process/plan.py)."""
    containers: dict[str, int] = msgspec.field(default_factory=dict)
    """Number of containers per state, COUNTERS (pipeline/containers/enrichment.py), and `gave_up`."""
    artifacts: dict[str, int] = msgspec.field(default_factory=dict)
    """Outcomes of requests for artifacts (pipeline/capture/requests.py). They are not part of the identity."""
    facts: dict[str, int] = msgspec.field(default_factory=dict)
    """Lifecycle records that no output requested, by outcome. They are not part of the identity."""
    by_cpu: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    by_worker: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    by_event: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    sinks: list[Line] = msgspec.field(default_factory=list)
    cpu_seconds: dict[str, float] = msgspec.field(default_factory=dict)
    restarts: dict[str, int] = msgspec.field(default_factory=dict)
    fill: dict[str, float] = msgspec.field(default_factory=dict)
    """Share of each ring that is in use: of the workers, and of their results."""
    unoffered: int = 0
    """Delivered events that an output was never offered, summed over all outputs. Nonzero only if there is a bug."""

    def close(self, abandoned: bool = False) -> None:
        """Compute `in_flight` and `balanced` from the other fields.

        `abandoned`: the run was aborted, so events in flight count as dropped.
        """
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
        """Lines for the user, printed on standard error."""
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
        if self.artifacts:
            lines.append("  artifacts: " + "  ".join(f"{name} {n}" for name, n in self.artifacts.items() if n))
        if self.restarts:
            lines.append("  restarted: " + "  ".join(f"{name} {n}" for name, n in self.restarts.items()))
        lines += [f"  {escaped(remark)}" for remark in self.remarks]
        return lines


def with_begun(state: Array, findings: int) -> Array:
    """State of a worker that will not continue, including the rows of its unfinished turn that outputs were handed.

    `findings` is the render number of findings. Changes `state` in place and returns it.
    """
    state["delivered"] += state["handed"]
    state["delivered_cpu"] += state["handed_cpu"]
    state["found"] += state["written"][:, findings] if findings < state["written"].shape[1] else np.uint64(0)
    return state


def delivered_rows(journals: list[Array]) -> int:
    """Number of rows that every output of events must have been offered, including `loss` events."""
    return sum(int(state["delivered"].sum()) for state in journals)


def add_workers(ledger: Ledger, journals: list[Array], catalogue: Catalogue, detects: bool = False) -> None:
    """Add the workers' counters (delivered, filtered, rejected by worker, event and CPU).

    `detects`: whether there are signatures.
    """
    loss = catalogue.by_name[LOSS].id
    # every worker receives all lifecycle records
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
    """Add the kernel's counters. `produced` is u64[cpus, EVENTS]. `marks` is MARK[cpus, slots]; the last slot counts
    lifecycle records (facts).
    """
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
    """Add the reader's counters, and the cross-checks that must agree with the kernel's counters."""
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
    """Add the line of the recording: the rows that the reader received, and those in whole blocks of the file."""
    offered = int(state["received"][0][:, :-1].sum())
    line = Line(name=f"record:{path}", offered=offered, written=written, uncertain=uncertain)
    line.dropped = line.rest
    ledger.sinks.append(line)


def add_sinks(ledger: Ledger, state: Array, names: list[str]) -> None:
    """Add a line per sink, and the outcomes of findings."""
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
