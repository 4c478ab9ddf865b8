"""The request for a run, and its outcome."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from headrace.bpf.programs.early import AnyOf
from headrace.bpf.tables.catalogue import Event, catalogue
from headrace.config import filters
from headrace.config.capture import Capture
from headrace.config.outputs import FOR_PEOPLE, STANDARD, STDERR, STDOUT, Output, Outputs
from headrace.config.policies.claims import Claim, event_masks
from headrace.config.rules import Rule
from headrace.config.runtimes import Endpoint
from headrace.config.settings import Settings
from headrace.pipeline.process.books import Ledger
from headrace.workers.conditions.narrowing import narrowed, of_claims
from headrace.workers.detect.findings import shapes
from headrace.workers.detect.rules.rulesets import Lack, Ruleset
from headrace.workers.views.table import header

DEFAULT_COLUMNS = 80


class Teller:
    """Is told what a run does. This one says nothing."""

    def begin(self, events: Sequence[Event]) -> None:
        """Before anything is loaded. `events`: all that the kernel will record."""

    def step(self, text: str) -> None:
        """What headrace is doing now."""

    def ready(self) -> None:
        """Tracing is active."""

    def end(self, ledger: Ledger) -> None:
        """The run has ended."""


@dataclass(frozen=True)
class Request:
    """The request for a run, resolved and validated."""

    settings: Settings
    selection: filters.Selection
    outputs: Outputs
    ruleset: Ruleset = field(default_factory=Ruleset)
    findings: tuple[Output, ...] = ()
    command: tuple[str, ...] = ()
    ready_fd: int = -1
    duration_s: float = 0
    """Seconds after which the run ends; 0: no limit."""
    endpoints: tuple[Endpoint, ...] = ()
    """Container runtimes to query."""
    claims: tuple[Claim, ...] = ()
    """What policies ask for; () without policies."""
    capture: Capture | None = None
    """Artifacts to keep."""
    fold_s: int = 0
    hidden: tuple[str, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    """Where each setting stands that is not a default."""
    read_again: Callable[[], Request] | None = None
    """Reads configuration and signatures again. Raises Failure."""

    @property
    def sinks(self) -> tuple[Output, ...]:
        """All sinks: those of events, then those of findings."""
        return (*self.outputs.sinks, *self.findings)

    def traced(self, lack: Lack) -> filters.Selection:
        """The selection to trace: the events of the outputs, and the events of signatures without conditions."""
        needed = (*self.ruleset.events(catalogue(), lack), *self._captured(lack))
        if self.claims:
            # the claims have the conditions
            names = {event.name for event in needed}
            ranges = tuple(each for each in self.selection.retval if each[0] not in names)
            return replace(self.selection, events=self.beside(self.ruleset, lack), retval=ranges)
        return replace(self.selection.beside(needed), events=self.beside(self.ruleset, lack))

    def beside(self, ruleset: Ruleset, lack: Lack) -> tuple[Event, ...]:
        """The events of the outputs and of these signatures, ordered by id."""
        asked = *self.selection.events, *ruleset.events(catalogue(), lack), *self._captured(lack)
        events = {event.name: event for event in asked}
        return tuple(sorted(events.values(), key=lambda e: e.id))

    def _captured(self, lack: Lack) -> tuple[Event, ...]:
        """The events that say which artifacts there are, as far as this host has them."""
        named = (catalogue().by_name[name] for name in (self.capture.events if self.capture else ()))
        return tuple(event for event in named if not lack(event))

    def policy_masks(self, lack: Lack, ruleset: Ruleset, claims: Sequence[Claim]) -> dict[int, int]:
        """Masks of the claims that ask for each event, by event id: for themselves, or for their signatures in the set.
        Events of artifacts are wanted by all.
        """
        every = (1 << len(claims)) - 1
        masks = event_masks(claims, {rule.id: rule for rule in ruleset.rules})
        found = {catalogue().by_name[name].id: mask for name, mask in masks.items()}
        return found | {event.id: every for event in self._captured(lack)} if claims else {}

    @property
    def _needed_whole(self) -> set[str]:
        """Events of which signatures or artifacts need every record."""
        names = {name for rule in self.ruleset.rules for name in rule.events}
        return names | set(self.capture.events if self.capture else ())

    def early(self, traced: filters.Selection) -> list[filters.Condition]:
        """Conditions that the kernel may evaluate: those on events that no signature uses."""
        return [condition for condition in traced.conditions if condition.event.name not in self._needed_whole]

    def early_claims(self) -> tuple[AnyOf, ...]:
        """Conditions of policies that the kernel may evaluate."""
        return of_claims(self.claims, self._needed_whole)

    def narrowed(self, ruleset: Ruleset) -> tuple[AnyOf, ...]:
        """Kernel filters for events that only these signatures use. Empty if all records are needed: there are no
        outputs of findings, the run is recorded, or findings include process history.
        """
        if not self.findings or self.settings.record or self.settings.before_s:
            return ()
        asked = {event.name for event in self.selection.events}
        return narrowed(ruleset.rules, catalogue(), asked | set(self.capture.events if self.capture else ()))

    def only(self, traced: filters.Selection) -> tuple[Event, ...] | None:
        """The events that outputs show, if these are fewer than the traced events; otherwise None."""
        fewer = bool(self.outputs.sinks) and len(traced.events) > len(self.selection.events)
        return self.selection.events if fewer else None

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The enabled rules; none if there are no outputs of findings."""
        return self.ruleset.rules if self.findings else ()


@dataclass
class Outcome:
    """Exit status and ledger of a run."""

    status: int
    ledger: Ledger


def _terminal(sinks: Sequence[Output]) -> int | None:
    """The descriptor of the terminal that all tables go to; None if there is no such terminal."""
    targets = {s.target for s in sinks if s.format in FOR_PEOPLE}
    numbers = {STANDARD.get(target) for target in targets}
    number = numbers.pop() if len(numbers) == 1 else None
    return number if number is not None and os.isatty(number) else None


def coloured(sinks: Sequence[Output]) -> bool:
    """Whether tables are coloured."""
    return _terminal(sinks) is not None and not os.environ.get("NO_COLOR")


def terminal_columns(sinks: Sequence[Output]) -> int:
    """Width of the terminal for tables; 0 if they do not go to a terminal."""
    number = _terminal(sinks)
    if number is None:
        return 0
    with contextlib.suppress(OSError, ValueError):
        return int(os.environ.get("COLUMNS", "")) or os.get_terminal_size(number).columns
    with contextlib.suppress(OSError):
        return os.get_terminal_size(number).columns
    return DEFAULT_COLUMNS


def print_headers(request: Request, columns: int) -> None:
    """Print the header line of each table on standard output or error. A story and its findings need none."""
    has_story = any(sink.format == "story" for sink in request.sinks)
    for sink in request.sinks:
        # what goes to standard error without being asked for comes with no header where nobody reads
        is_read = sink.target == STDOUT or (sink.target == STDERR and os.isatty(STANDARD[STDERR]))
        if sink.format == "table" and is_read and not has_story:
            line = shapes.header(columns) if sink.of_findings else header(columns)
            with contextlib.suppress(OSError):
                os.write(STANDARD[sink.target], (line + "\n").encode())
