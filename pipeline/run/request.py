"""What a run is asked to do, and how it ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from headrace.bpf.programs.early import AnyOf
from headrace.bpf.tables.catalogue import Event, catalogue
from headrace.config import filters
from headrace.config.outputs import Output, Outputs
from headrace.config.rules import Rule
from headrace.config.runtimes import Endpoint
from headrace.config.settings import Settings
from headrace.pipeline.process.books import Ledger
from headrace.workers.conditions.narrowing import narrowed
from headrace.workers.detect.findings import shapes
from headrace.workers.detect.rules.rulesets import Lack, Ruleset
from headrace.workers.views.table import header


@dataclass(frozen=True)
class Request:
    """What a run is asked to do, resolved and checked."""

    settings: Settings
    selection: filters.Selection
    outputs: Outputs
    ruleset: Ruleset = field(default_factory=Ruleset)
    findings: tuple[Output, ...] = ()
    command: tuple[str, ...] = ()
    ready_fd: int = -1
    endpoints: tuple[Endpoint, ...] = ()
    """Runtimes that are asked about containers."""
    fold_s: int = 0
    hidden: tuple[str, ...] = ()
    read_rules: Callable[[], Ruleset] | None = None
    """Reads the signatures again; Failure or TuningError."""

    @property
    def sinks(self) -> tuple[Output, ...]:
        """All of them: events' first."""
        return (*self.outputs.sinks, *self.findings)

    def traced(self, lack: Lack) -> filters.Selection:
        """What the kernel is asked for: the events of the outputs, and those that signatures look at, whole."""
        needed = self.ruleset.events(catalogue(), lack)
        return replace(self.selection.beside(needed), events=self.beside(self.ruleset, lack))

    def beside(self, ruleset: Ruleset, lack: Lack) -> tuple[Event, ...]:
        """The events of the outputs, and those that these signatures look at."""
        events = {event.name: event for event in (*self.selection.events, *ruleset.events(catalogue(), lack))}
        return tuple(sorted(events.values(), key=lambda e: e.id))

    def early(self, traced: filters.Selection) -> list[filters.Condition]:
        """Conditions that the kernel may decide: none on an event that signatures look at."""
        looked_at = {name for rule in self.ruleset.rules for name in rule.events}
        return [condition for condition in traced.conditions if condition.event.name not in looked_at]

    def narrowed(self, ruleset: Ruleset) -> tuple[AnyOf, ...]:
        """What the kernel keeps back of events that these signatures alone look at; nothing if all is to be kept."""
        if not self.findings or self.settings.record or self.settings.before_s:
            return ()
        return narrowed(ruleset.rules, catalogue(), {event.name for event in self.selection.events})

    def only(self, traced: filters.Selection) -> tuple[Event, ...] | None:
        """Events that outputs show, if that is not all that is traced."""
        fewer = bool(self.outputs.sinks) and len(traced.events) > len(self.selection.events)
        return self.selection.events if fewer else None

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Those that are on."""
        return self.ruleset.rules if self.findings else ()


@dataclass
class Outcome:
    """How a run ended."""

    status: int
    ledger: Ledger


def _to_terminal(sinks: Sequence[Output]) -> bool:
    """Whether the tables are for a terminal alone."""
    return sys.stdout.isatty() and {s.target for s in sinks if s.format == "table"} == {"-"}


def coloured(sinks: Sequence[Output]) -> bool:
    """Whether they are in colour."""
    return _to_terminal(sinks) and not os.environ.get("NO_COLOR")


def terminal_columns(sinks: Sequence[Output]) -> int:
    """Width of the terminal that they are for; 0: for none."""
    return shutil.get_terminal_size().columns if _to_terminal(sinks) else 0


def print_headers(request: Request, columns: int) -> None:
    """The line above each table on standard output."""
    for sink in request.sinks:
        if (sink.format, sink.target) == ("table", "-"):
            line = shapes.header(columns) if sink.of_findings else header(columns)
            with contextlib.suppress(OSError):
                os.write(1, (line + "\n").encode())
