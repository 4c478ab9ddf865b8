"""Reloads the configuration of a running headrace (SIGHUP, `headrace reload`): taken completely, or refused.

The configuration is read again as a whole. What decides signatures is taken at once (IN_PLACE). Anything else that has
changed is named, and nothing is taken: the supervisor has given up the right to load programs
(decisions/0057-reload-in-place.md).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from headrace.bpf.load.loader import Programs
from headrace.bpf.tables.catalogue import ON_PROCESSES, SYS_EXIT, Event, catalogue
from headrace.config.layers import POLICY
from headrace.config.policies.claims import Claim, rule_masks
from headrace.config.tuning import TuningError
from headrace.pipeline.host.features import event_lack
from headrace.pipeline.process.books import Ledger
from headrace.pipeline.process.failure import Failure
from headrace.pipeline.process.logs import logger
from headrace.pipeline.run import live
from headrace.pipeline.run.request import Request
from headrace.pipeline.signatures.detection import unread
from headrace.pipeline.signatures.generations import Generations, TooSoon, difference
from headrace.pipeline.transport.doorbell import Doorbell
from headrace.pipeline.transport.shm import NoSharedMemory
from headrace.workers.detect.rules.rulesets import Ruleset, coverage

PATIENCE_S = 30.0
IN_PLACE = frozenset(("signatures", "sigma", "sigma_keywords", "rules", "exclude", "min_severity", "exceptions"))
"""Settings that a reload takes."""
SHORT = {"left_out": "left out", "not_covered": "not covered"}
"""Words for the ledger's counters of signatures that are missing from a set or not fully covered."""


class ReloadRefused(Exception):
    """A set cannot be used; the message is the reason."""


class SignatureSet(NamedTuple):
    """A set, the events to trace for it, and whether the kernel must pass all records of them. `claims`: what policies
    ask for, with the signatures of this set.
    """

    ruleset: Ruleset
    asked: tuple[Event, ...]
    wider: bool
    claims: tuple[Claim, ...] = ()


class Reloader:
    """Reloads signatures: reads the files, asks the kernel for the events, and offers the set to the workers."""

    def __init__(
        self, request: Request, generations: Generations, programs: Programs, bells: Sequence[Doorbell]
    ) -> None:
        """`bells` are the doorbells of the workers."""
        self._request, self._generations, self._programs = request, generations, programs
        self._bells = bells
        traced = request.traced(event_lack)
        self._loaded = {event.name for event in traced.events}
        self._narrowed = {c.event.name for c in request.early(traced)} | {name for name, _, _ in traced.retval}
        self._narrowed |= {test.event.name for test in request.early_claims()}
        self._asked, self._narrowing, self._wider = traced.events, programs.wanted.narrowed, False
        self.count = self.refused = 0
        self.refusal = ""
        self._held = self._settled = SignatureSet(request.ruleset, traced.events, False, request.claims)
        self._changes: dict[str, list[str]] = {}
        self._not_covered = 0

    def lack(self, event: Event) -> str:
        """Why a reloaded signature cannot see an event; "" if it can."""
        if why := event_lack(event):
            return why
        if event.name in self._narrowed:
            return "conditions of --events keep it in the kernel; start the run again"
        by_map = event.is_syscall and event.hook == SYS_EXIT and event.name not in ON_PROCESSES and self._sees_calls
        if event.name in self._loaded or by_map:
            return ""
        return "this run has no program for it; start it again"

    @property
    def _sees_calls(self) -> bool:
        return any(catalogue().by_name[name].hook == SYS_EXIT for name in self._loaded)

    def now(self) -> None:
        """Reload the signatures. On error, logs the reason and keeps the current set."""
        try:
            self._offer(self._read())
        except (ReloadRefused, NoSharedMemory, OSError) as error:
            self._refuse(str(error))
        else:
            self.count, self.refusal = self.count + 1, ""

    def _refuse(self, why: str) -> None:
        self.refused, self.refusal = self.refused + 1, why
        logger("supervisor").error("supervisor.signatures_refused", reason=why)

    def _offer(self, held: SignatureSet, is_former: bool = False) -> None:
        """Offer a set to the workers. If a worker cannot load it, offer the last set that all workers used again."""
        self._ask(_union(self._asked, held.asked), self._wider or held.wider)
        self._ask_policies(self._settled, held)

        def taken() -> None:
            self._settled = held
            self._ask(held.asked, held.wider)
            self._ask_policies(held)

        def refused(worker: int) -> None:
            if is_former:
                return  # the workers that can load it use it
            self.count -= 1
            self._refuse(f"worker {worker} could not load them (the run's log says why); the set before holds again")
            self._offer(self._settled, is_former=True)

        self._generations.offer(held.ruleset.rules, rule_masks(held.claims), taken, refused)
        for bell in self._bells:
            bell.ring()
        self._changes = difference(self._held.ruleset.rules, held.ruleset.rules)
        self._held = held
        self._tell_coverage(held.ruleset)

    def _tell_coverage(self, ruleset: Ruleset) -> None:
        self._not_covered = 0
        for rule in ruleset.rules:
            state = coverage(rule, catalogue(), self.lack)
            if state.word != "full" and coverage(rule, catalogue(), event_lack) != state:
                self._not_covered += 1
                logger("supervisor").warning("supervisor.signature_not_covered", id=rule.id, reason=state.reason)

    def _ask(self, events: tuple[Event, ...], wider: bool) -> None:
        """Ask the kernel for events. `wider`: pass all their records, not only those that the initial set can match."""
        if wider:
            self._programs.let_pass(True)
        self._programs.ask(events)
        if not wider:
            self._programs.let_pass(False)
        self._asked, self._wider = events, wider

    def _read(self) -> SignatureSet:
        """Read the current set from the files. Converts every error to ReloadRefused, so that the run continues."""
        try:
            assert self._request.read_again is not None
            again = self._request.read_again()
            ruleset = again.ruleset
            for what in unread(ruleset, self._request.settings).values():
                raise TuningError(f"a signature asks for {what}, which this run does not read; start it again")
            self._check_unchanged(again)
            self._generations.make_room()
            asked = self._request.beside(ruleset, self.lack)
            return SignatureSet(ruleset, asked, self._request.narrowed(ruleset) != self._narrowing, again.claims)
        except (Failure, TuningError, TooSoon) as error:
            raise ReloadRefused(str(error)) from error
        except Exception as error:  # decision 31
            raise ReloadRefused(f"{type(error).__name__}: {error}") from error

    def _check_unchanged(self, again: Request) -> None:
        """ReloadRefused if something has changed that needs a new run."""
        now, then = again.settings, self._request.settings
        # policies are compared by what they ask for: their places in the file may have moved
        compared = [key for key in now.__struct_fields__ if key not in IN_PLACE and key != POLICY]
        changed = [key for key in compared if getattr(now, key) != getattr(then, key)]
        places = {**self._request.places, **again.places}
        named = [f"{key} ({places[key]})" if key in places else key for key in changed]
        if again.sinks != self._request.sinks and not named:
            named.append("the outputs")
        if [replace(claim, rules=()) for claim in again.claims] != [replace(c, rules=()) for c in self._request.claims]:
            named.append("the policies")
        if named:
            raise ReloadRefused(f"a reload cannot take these changes: {', '.join(named)}; start the run again")

    def _ask_policies(self, *sets: SignatureSet) -> None:
        """Ask the kernel for the events of these sets, by policy."""
        masks: dict[int, int] = {}
        for each in sets:
            for event, mask in self._request.policy_masks(event_lack, each.ruleset, each.claims).items():
                masks[event] = masks.get(event, 0) | mask
        if masks:
            self._programs.policies.ask(masks)

    def add_to(self, ledger: Ledger) -> None:
        """Add the state of the signatures to the ledger."""
        counts = {"generation": self._generations.latest, "loaded": len(self._held.ruleset.rules)}
        counts |= {"left_out": len(self._held.ruleset.left_out), "not_covered": self._not_covered}
        ledger.signatures = counts | {"reloads": self.count, "refused": self.refused}
        ledger.refusal = self.refusal
        ledger.changes = self._changes
        ledger.reloading = not self._generations.settled


def _union(first: Sequence[Event], second: Sequence[Event]) -> tuple[Event, ...]:
    return tuple({event.id: event for event in (*first, *second)}.values())


def ask(pid: int | None) -> Ledger:
    """Make a run reload its configuration, and return its ledger afterwards, whether they were accepted or refused.

    Raises live.NoRun if there is no such run or it has no signatures, TimeoutError after PATIENCE_S.
    """
    path, before = live.find(pid)
    if not before.signatures:
        raise live.NoRun(f"the run {path.stem} has no signatures")
    tried = _tries(before)
    os.kill(int(path.stem), signal.SIGHUP)
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        after = live.ask(path)
        if after is None:
            raise live.NoRun(f"the run {path.stem} has ended")
        if _tries(after) > tried and not after.reloading:
            return after
        time.sleep(0.02)
    raise TimeoutError(
        f"the run {path.stem} has not read its signatures, or not in all workers, within {PATIENCE_S:.0f} s"
    )


def _tries(ledger: Ledger) -> int:
    return ledger.signatures["reloads"] + ledger.signatures["refused"]
