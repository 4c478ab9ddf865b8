"""What `headrace top` shows: counts of events as they come, rates, and the latest findings."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import msgspec

from headrace.config.printable import escaped
from headrace.pipeline.api.tracing import Run
from headrace.pipeline.process.books import Ledger

VIEWS = ("event", "process", "container")
HOST = "(host)"
MAX_FINDINGS, MAX_ROWS, MAX_KEYS = 50, 500, 20_000
INTERVAL_S = 1.0


class _EventSeen(msgspec.Struct, rename="camel"):
    """What the screen needs of a JSON line."""

    event_name: str
    host_process_id: int
    process_name: str
    container_id: str
    container_name: str


class _FindingSeen(msgspec.Struct, rename="camel"):
    title: str
    severity: str
    signature_i_d: str = msgspec.field(name="signatureID", default="")
    process: dict[str, Any] = msgspec.field(default_factory=dict)


@dataclass
class Feed:
    """Counts of the events of a run. A thread counts, and the screen reads."""

    total: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in VIEWS})
    findings: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_FINDINGS))
    ended: bool = False

    def add(self, line: bytes) -> None:
        """Count the JSON line of an event."""
        seen = msgspec.json.decode(line, type=_EventSeen)
        keys = {
            "event": seen.event_name,
            "process": f"{seen.process_name}[{seen.host_process_id}]",
            "container": seen.container_name or seen.container_id[:12] or HOST,
        }
        for view, key in keys.items():
            counts = self.total[view]
            counts[key if key in counts or len(counts) < MAX_KEYS else "(others)"] += 1

    def found(self, line: bytes) -> None:
        """Take the JSON line of a finding."""
        seen = msgspec.json.decode(line, type=_FindingSeen)
        who = f"{seen.process.get('name', '')}[{seen.process.get('pid', '')}]"
        self.findings.appendleft(escaped(f"{seen.severity:<8} {seen.signature_i_d} {seen.title}  {who}"))

    def read(self, run: Run) -> None:
        """Count until the run has ended."""
        for line in run.lines():
            self.add(line)
        self.ended = True


class Rates:
    """Rates of a view since the last look."""

    def __init__(self) -> None:
        self._before: dict[str, Counter[str]] = {name: Counter() for name in VIEWS}

    def rows(self, feed: Feed, view: str, by_total: bool, pattern: str, took_s: float) -> list[tuple[str, float, int]]:
        """(name, events per second, events) of all that match, the largest first."""
        counts = feed.total[view].copy()
        before, self._before[view] = self._before[view], counts
        found = [
            (name, (count - before[name]) / took_s, count)
            for name, count in counts.items()
            if pattern.lower() in name.lower()
        ]
        return sorted(found, key=lambda row: (-row[2] if by_total else -row[1], -row[2], row[0]))[:MAX_ROWS]


def status(ledger: Ledger | None, before: Ledger | None, took_s: float) -> str:
    """The line above the table: rates, losses, how full the rings are."""
    if ledger is None:
        return "waiting for the run"
    rate = (ledger.produced - (before.produced if before else 0)) / took_s
    gone = ledger.lost + ledger.dropped
    fill = max(ledger.fill.values(), default=0.0)
    cpu = sum(ledger.cpu_seconds.values()) - (sum(before.cpu_seconds.values()) if before else 0)
    return (
        f"{rate:,.0f} events/s  lost {gone:,}  fullest ring {fill:.0%}  CPU {100 * cpu / took_s:.0f} %  "
        f"findings {ledger.findings.get('published', 0):,}"
    )
