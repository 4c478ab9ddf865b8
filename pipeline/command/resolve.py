"""Resolves the command line, environment and configuration of a run into a Request."""

from __future__ import annotations

import fcntl
import functools
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec

from headrace.bpf.tables.catalogue import UnknownName, catalogue
from headrace.config import capture, filters, layers, outputs, runtimes, settings
from headrace.config.outputs import STDERR, STDOUT, STORY_EVENTS
from headrace.config.policies.policy import PolicyError
from headrace.config.settings import SettingsError
from headrace.config.tuning import TuningError
from headrace.pipeline.command.policies import RunSelection, policed, policies_of
from headrace.pipeline.host.features import event_lack
from headrace.pipeline.process.failure import EX_IOERR, EX_USAGE, Failure
from headrace.pipeline.run.request import Request
from headrace.pipeline.shell.groups import CLOSED
from headrace.pipeline.signatures import detection
from headrace.workers.conditions.filters import check_words
from headrace.workers.detect.rules.rulesets import Lack, Ruleset

DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?")
UNITS_S = {"ms": 0.001, None: 1, "s": 1, "m": 60, "h": 3600}
MAX_DURATION_S = 366 * 86400
FORMAT = outputs.FORMAT


class RunLimits(NamedTuple):
    """How long a run lasts, and what it tells a person, as the command line says."""

    quiet: bool = False
    lines: int = 0
    """Lines after which an output has enough; 0: no limit."""
    duration_s: float = 0
    profile: str = ""


NO_LIMITS = RunLimits()


class Duration(click.ParamType[float]):
    """Seconds, as 10, 1.5s, 500ms, 5m or 1h."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = DURATION.fullmatch(str(value))
        seconds = float(found[1]) * UNITS_S[found[2]] if found else 0.0
        if not 0 < seconds <= MAX_DURATION_S:
            self.fail(f"{value!r} is not a duration such as 10, 500ms, 5m or 1h", param, ctx)
        return seconds


def given(flags: Mapping[str, Any], pids: Sequence[str] = ()) -> dict[str, Any]:
    """The options of a command as values of settings; None if an option was not given. Raises Failure."""
    found = dict(flags)
    if pids:
        found["scope"], found["output"] = _split_pids(pids, found["scope"], found["output"])
    found["events"] = ",".join(found["events"]) or None
    return {key: (list(value) or None) if isinstance(value, tuple | list) else value for key, value in found.items()}


def _split_pids(given: Sequence[str], scope: Sequence[str], output: Sequence[str]) -> tuple[list[str], list[str]]:
    """The scope and the outputs, with what `-p` gave: process ids, as for strace, or formats, as for Falco."""
    formats = [text for text in given if "%" in text]
    pids = [text for text in given if "%" not in text]
    for text in pids:
        if not re.fullmatch(r"[0-9]+(,[0-9]+)*", text):
            raise Failure(f"-p {text}: neither process ids nor a format such as '%{{time}} %{{comm}}'", EX_USAGE)
    added = [f"pid={','.join(pids)}"] if pids else []
    return [*scope, *added], [*output, *(f"{FORMAT}{text}" for text in formats)]


def of_command(resolved: settings.Settings, quiet: bool) -> settings.Settings:
    """The settings of a run that traces a command.

    A command keeps its standard output: what headrace shows without being asked goes to standard error. On a terminal,
    that is a story and the findings; otherwise the findings.
    """
    if resolved.findings or not detection.only_findings(resolved, is_replay=False):
        return resolved
    found = msgspec.structs.replace(resolved, findings=(f"table:{STDERR}",))
    if quiet or not sys.stderr.isatty():
        return found
    return msgspec.structs.replace(found, events=STORY_EVENTS, output=(*resolved.output, f"story:{STDERR}"))


def _unpoliced(resolved: settings.Settings, is_replay: bool, lack: Lack) -> RunSelection:
    """What a run without policies does, by its settings."""
    quiet = detection.only_findings(resolved, is_replay)
    out = outputs.Outputs((), {}) if quiet else outputs.parse(resolved.output or ["table:-"])
    selection = filters.Selection()
    if not quiet:
        selection = filters.parse([resolved.events or "default"], catalogue(), lack)
    check_words(selection.conditions)
    findings_to = detection.sinks(resolved, quiet)
    for sink in (*out.sinks, *findings_to):
        if sink.policies:
            raise outputs.OutputError(f"output {sink.name}: policies= needs policies: --policy FILE")
    return RunSelection((), selection, out, findings_to, detection.ruleset(resolved) if findings_to else Ruleset())


def resolve(
    config: Path | None,
    flags: dict[str, Any],
    command: tuple[str, ...] = (),
    ready_fd: int = -1,
    recording: Path | None = None,
    limits: RunLimits = NO_LIMITS,
) -> Request:
    """Resolve settings, events, signatures and outputs into a request. Raises Failure on any error."""
    found: layers.Merged | None = None
    try:
        found = layers.resolve(config, flags, limits.profile)
        resolved = found.settings
        policies = policies_of(resolved, recording)
        if command and not policies:
            resolved = of_command(resolved, limits.quiet)
        lack = event_lack if recording is None else filters.no_hook
        asked = policed(resolved, policies, lack) if policies else _unpoliced(resolved, recording is not None, lack)
        selection, out, findings_to, ruleset = asked.selection, asked.outputs, asked.findings, asked.ruleset
        resolved = msgspec.structs.replace(resolved, **out.switches)
        unread = detection.unread(ruleset, resolved)
        hidden = ("env",) if "exec_environment" in unread else ()
        resolved = msgspec.structs.replace(resolved, **dict.fromkeys(unread, True))
        asks = resolved.containers or (resolved.crs and flags.get("containers") is not False)
        endpoints = runtimes.endpoints(resolved.crs) if asks else ()
        if any(sink.enriched_ms for sink in out.sinks) and not endpoints:
            raise outputs.OutputError("enriched=: there are no names to wait for without --containers")
        if not resolved.findings and {s.target for s in out.sinks} & {s.target for s in findings_to}:
            remedy = "send one of them elsewhere, as with --findings table:/dev/stderr"
            raise outputs.OutputError(f"events and findings would both go to standard output: {remedy}")
        _check_files(resolved, (*out.sinks, *findings_to), recording)
        captured = _capture(resolved, recording)
        if recording and out.switches.get("exec_hash"):
            raise outputs.OutputError("option:exec-hash: files are hashed on the host that runs them, not in a replay")
    except (SettingsError, outputs.OutputError, filters.FilterError, UnknownName, TuningError, PolicyError) as error:
        raise Failure(layers.located(str(error), found.places) if found else str(error), EX_USAGE) from error
    if not selection.events and not ruleset.events(catalogue(), lack):
        raise Failure("no event is left to trace", EX_USAGE)
    _check_standard_output((*out.sinks, *findings_to), resolved.ledger)
    return Request(
        resolved,
        selection,
        outputs.Outputs(outputs.limited(out.sinks, limits.lines), out.switches),
        ruleset,
        outputs.limited(findings_to, limits.lines),
        command,
        ready_fd,
        duration_s=limits.duration_s,
        endpoints=endpoints,
        capture=captured,
        fold_s=resolved.fold_s,
        hidden=hidden,
        claims=asked.claims,
        places=found.places,
        read_again=functools.partial(resolve, config, flags, command, ready_fd, recording, limits),
    )


def _check_standard_output(sinks: Sequence[outputs.Output], ledger: str) -> None:
    """Raises Failure if something goes to standard output that it cannot take."""
    if 1 in CLOSED and STDOUT in {ledger, *(sink.target for sink in sinks)}:
        raise Failure("standard output is closed", EX_IOERR)
    if sys.stdout.isatty() and any((s.format, s.target) == ("arrow", STDOUT) for s in sinks):
        raise Failure("output arrow:-: binary, and standard output is a terminal; redirect it", EX_USAGE)


def _capture(resolved: settings.Settings, recording: Path | None) -> capture.Capture | None:
    """The artifacts to keep. Raises SettingsError."""
    found = capture.parse(resolved.capture)
    if found and recording:
        raise SettingsError("--capture: artifacts are on the host that was recorded, not in a replay")
    if found and not resolved.capture_dir:
        raise SettingsError("--capture: needs a directory for the artifacts: --capture-dir DIR")
    return found


def _check_files(resolved: settings.Settings, sinks: Sequence[outputs.Output], recording: Path | None) -> None:
    """Check that no file is written twice, or both written and read. Events and findings may share an endpoint."""
    outputs.check_shared(sinks)
    shared = {s.target for s in sinks if s.format == "zmq" and not s.of_findings}
    found = [(s.name, s.target) for s in sinks if s.target and not (s.of_findings and s.target in shared)]
    found += [(f"--record {resolved.record}", resolved.record)] if resolved.record else []
    found += [(f"--ledger {resolved.ledger}", resolved.ledger)] if resolved.ledger not in ("", "-") else []
    found += [(f"the recording {recording}", str(recording))] if recording else []
    outputs.check_distinct(found)


def check_ready_fd(fd: int | None) -> int:
    """Return a writable descriptor, or -1 if none was given. Raises Failure if it is not writable."""
    if fd is None:
        return -1
    try:
        writable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except (OSError, ValueError, OverflowError):
        raise Failure(f"--ready-fd: {fd} is not an open descriptor", EX_USAGE) from None
    if not writable:
        raise Failure(f"--ready-fd: {fd} cannot be written", EX_USAGE)
    return fd
