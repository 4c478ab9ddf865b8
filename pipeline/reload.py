"""Signatures of a run, read again while it goes on (SIGHUP, `headrace reload`): taken whole, or refused, with why."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

from bpf.catalogue import ON_PROCESSES, SYS_EXIT, Event, catalogue
from bpf.loader import Programs
from config.tuning import TuningError
from pipeline import live
from pipeline.books import Ledger
from pipeline.detection import unread
from pipeline.generations import Generations, TooSoon
from pipeline.groups import Failure
from pipeline.host import event_lack
from pipeline.logs import logger
from pipeline.request import Request
from workers.detect.rulesets import Ruleset, coverage

PATIENCE_S = 30.0
SHORT = {"left_out": "left out", "not_covered": "not covered"}
"""What a set may fall short by, as the books count it, in words."""


class Reloader:
    """Reads them again, asks the kernel for what they look at, and lets the workers have them."""

    def __init__(self, request: Request, generations: Generations, programs: Programs) -> None:
        self._request, self._generations, self._programs = request, generations, programs
        traced = request.traced(event_lack)
        self._loaded = {event.name for event in traced.events}
        self._narrowed = {c.event.name for c in request.early(traced)} | {name for name, _, _ in traced.retval}
        self._asked, self._narrowing, self._wider = traced.events, programs.wanted.narrowed, False
        self.count = self.refused = 0
        self.rules, self.refusal = len(request.rules), ""
        self._left_out, self._not_covered = len(request.ruleset.left_out), 0

    def lack(self, event: Event) -> str:
        """Why signatures that come now cannot see an event; "" if they can."""
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
        """Read them. What is wrong is said in the log, and the signatures stay what they were."""
        try:
            ruleset = self._read()
            self._generations.make_room()
            asked = self._request.beside(ruleset, self.lack)
            wider = self._request.narrowed(ruleset) != self._narrowing
            self._ask(_union(self._asked, asked), self._wider or wider)
            self._generations.offer(ruleset.rules, lambda: self._ask(asked, wider))
        except (Failure, TuningError, TooSoon) as error:
            self.refused += 1
            self.refusal = str(error)
            logger("supervisor").error("supervisor.signatures_refused", reason=self.refusal)
            return
        self.count, self.refusal = self.count + 1, ""
        self.rules, self._left_out, self._not_covered = len(ruleset.rules), len(ruleset.left_out), 0
        for rule in ruleset.rules:
            state = coverage(rule, catalogue(), self.lack)
            if state.word != "full" and coverage(rule, catalogue(), event_lack) != state:
                self._not_covered += 1
                logger("supervisor").warning("supervisor.signature_not_covered", id=rule.id, reason=state.reason)

    def _ask(self, events: tuple[Event, ...], wider: bool) -> None:
        """`wider`: all records of what is asked for, not those alone that the first signatures can match."""
        if wider:
            self._programs.let_pass(True)
        self._programs.ask(events)
        if not wider:
            self._programs.let_pass(False)
        self._asked, self._wider = events, wider

    def _read(self) -> Ruleset:
        assert self._request.read_rules is not None
        ruleset = self._request.read_rules()
        for what in unread(ruleset, self._request.settings).values():
            raise TuningError(f"a signature asks for {what}, which this run does not read; start it again")
        return ruleset

    def add_to(self, ledger: Ledger) -> None:
        """What the books say of them."""
        counts = {"generation": self._generations.latest, "loaded": self.rules}
        counts |= {"left_out": self._left_out, "not_covered": self._not_covered}
        ledger.signatures = counts | {"reloads": self.count, "refused": self.refused}
        ledger.refusal = self.refusal


def _union(first: Sequence[Event], second: Sequence[Event]) -> tuple[Event, ...]:
    return tuple({event.id: event for event in (*first, *second)}.values())


def ask(pid: int | None) -> Ledger:
    """Have a run read its signatures again; its ledger once it has. live.NoRun; TimeoutError."""
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
        if _tries(after) > tried:
            return after
        time.sleep(0.02)
    raise TimeoutError(f"the run {path.stem} has not read its signatures within {PATIENCE_S:.0f} s")


def _tries(ledger: Ledger) -> int:
    return ledger.signatures["reloads"] + ledger.signatures["refused"]
