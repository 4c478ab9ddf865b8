"""Tells a person at a terminal what a run does: before, while it starts, and at its end. On standard error."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence

from headrace.bpf.tables.catalogue import Event, catalogue
from headrace.config.filters import no_hook
from headrace.config.printable import escaped
from headrace.pipeline.process.books import Ledger
from headrace.pipeline.process.logs import logger
from headrace.pipeline.run.request import Request, Teller
from headrace.workers.detect.rules.rulesets import Lack, coverage

MAX_NAMES = 6
MAX_COMMAND = 60
ERASE = "\r\x1b[K"


class Narrator(Teller):
    """Tells a person. Says nothing unless `shown`, and logs what was decided."""

    def __init__(self, request: Request, lack: Lack, shown: bool) -> None:
        self._request, self._lack, self._shown = request, lack, shown
        self._began = self._started = time.monotonic()
        self._is_open = False

    def _say(self, text: str, end: str = "\n") -> None:
        if self._shown:
            sys.stderr.write((ERASE if self._is_open else "") + f"headrace: {escaped(text)}{end}")
            sys.stderr.flush()
            self._is_open = not end

    def begin(self, events: Sequence[Event]) -> None:
        request = self._request
        self._say(f"tracing {_subject(request)}")
        if request.claims:
            self._say(f"policies: {shortened(list(dict.fromkeys(claim.policy for claim in request.claims)))}")
        if request.outputs.sinks:
            self._say(f"events: {shortened([e.name for e in request.selection.events])}")
        if request.rules and self._shown:
            self._say(_signatures(request, self._lack))
        log = logger("supervisor")
        log.debug("supervisor.scope", scope=request.settings.scope, command=request.command)
        log.debug("supervisor.events", shown=[e.name for e in request.selection.events], all=[e.name for e in events])
        log.debug("supervisor.outputs", outputs=[sink.name for sink in request.sinks])

    def step(self, text: str) -> None:
        self._say(f"{text} ...", end="")

    def ready(self) -> None:
        self._started = time.monotonic()
        ends = "" if self._request.command else "; Ctrl-C ends it"
        self._say(f"ready in {self._started - self._began:.1f} s{ends}")

    def end(self, ledger: Ledger) -> None:
        self._say(summary(ledger, time.monotonic() - self._started, bool(self._request.rules)))


def _subject(request: Request) -> str:
    scope = " and ".join(request.settings.scope)
    if request.command:
        text = shlex.join(request.command)
        short = text if len(text) <= MAX_COMMAND else text[: MAX_COMMAND - 1] + "…"
        return f"`{short}` and what it starts" + (f", where {scope}" if scope else "")
    if scope:
        return f"processes where {scope}"
    return "the whole host (a scope limits it: -s uid=1000, -p PID, or -- COMMAND)"


def shortened(names: Sequence[str]) -> str:
    """The first names, and how many others there are."""
    shown = ", ".join(names[:MAX_NAMES])
    return shown + (f" and {len(names) - MAX_NAMES} others" if len(names) > MAX_NAMES else "")


def _signatures(request: Request, lack: Lack) -> str:
    """How many signatures are in force, and why others are not."""
    reasons: dict[str, int] = {}
    for rule in request.rules:
        if coverage(rule, catalogue(), lack) != coverage(rule, catalogue(), no_hook):
            why = next(reason for name in rule.events if (reason := lack(catalogue().by_name[name])))
            reasons[why] = reasons.get(why, 0) + 1
    left = "; ".join(f"{count} not fully here: {why}" for why, count in reasons.items())
    return f"{len(request.rules)} signatures" + (f" ({left})" if left else "")


def summary(ledger: Ledger, seconds: float, detects: bool) -> str:
    """A run in one sentence: findings, events, time, losses."""
    parts = []
    if detects:
        found = ledger.findings.get("published", 0)
        repeats = ledger.findings.get("folded", 0)
        parts.append(f"{found or 'no'} finding{'s' * (found != 1)}" + (f" and {repeats:,} repeats" if repeats else ""))
    gone = ledger.lost + ledger.dropped + ledger.missed_runs
    parts.append(f"{ledger.produced:,} events looked at in {seconds:.1f} s")
    parts.append("nothing lost" if not gone else f"{gone:,} events lost: the ledger says where")
    return "; ".join(parts)
