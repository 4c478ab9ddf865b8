"""The command line."""

from __future__ import annotations

import fcntl
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from headrace import __version__
from headrace.bpf.load.loader import LoadError
from headrace.bpf.programs.scope import ScopeError
from headrace.bpf.tables.catalogue import UnknownName, catalogue
from headrace.config import capture, filters, outputs, runtimes, settings
from headrace.config.settings import SettingsError
from headrace.config.tuning import TuningError
from headrace.pipeline.capture.store import StoreError
from headrace.pipeline.command.analyze import analyze
from headrace.pipeline.command.explain import explain
from headrace.pipeline.command.groups import CLOSED, Suggesting
from headrace.pipeline.command.keys import keys
from headrace.pipeline.command.listing import check, list_
from headrace.pipeline.command.options import output_options, trace_options
from headrace.pipeline.command.signatures import signatures
from headrace.pipeline.host.features import event_lack, findings
from headrace.pipeline.process import logs
from headrace.pipeline.process.failure import EX_DATAERR, EX_IOERR, EX_USAGE, Failure, say
from headrace.pipeline.publish.curve import CurveError
from headrace.pipeline.publish.sinks import SinkError
from headrace.pipeline.run import app, live, reload
from headrace.pipeline.run import replay as recorded
from headrace.pipeline.run.request import Outcome, Request
from headrace.pipeline.run.stage import PipelineFailed
from headrace.pipeline.signatures import detection
from headrace.pipeline.stages.recording import RecordingError
from headrace.pipeline.transport.shm import NoSharedMemory, UnorderedMemory
from headrace.workers.conditions.filters import check_words
from headrace.workers.detect.rules.rulesets import Ruleset

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Suggesting, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="headrace")
def main() -> None:
    """Runtime security and tracing for Linux hosts, with eBPF.

    No event is lost without being counted: every run ends with a ledger.

    \b
    Examples:
      headrace run -- ls /tmp                     run signatures over a command and its children
      headrace run -e 'set=fs' -- ls /tmp         trace its file system calls
      headrace run -e 'open*,!openat2' -s uid=33  trace the files that user 33 opens
      headrace run -s tree=1234 -o json:out.json  trace a running process and its children, as JSON
      headrace list events openat                 describe an event and its arguments
      headrace check                              check what this host supports
    """


def _resolve(
    config: Path | None,
    flags: dict[str, Any],
    command: tuple[str, ...] = (),
    ready_fd: int = -1,
    recording: Path | None = None,
) -> Request:
    """Resolve settings, events, signatures and outputs into a request. Raises Failure on any error."""
    try:
        resolved = settings.resolve(config, flags)
        quiet = detection.only_findings(resolved, recording is not None)
        out = outputs.Outputs((), {}) if quiet else outputs.parse(resolved.output or ["table:-"])
        if out.switches:
            resolved = settings.resolve(config, flags | out.switches)
        lack = event_lack if recording is None else filters.no_hook
        selection = filters.Selection()
        if not quiet:
            selection = filters.parse([resolved.events or "default"], catalogue(), lack)
        check_words(selection.conditions)
        findings_to = detection.sinks(resolved, quiet)
        ruleset = detection.ruleset(resolved) if findings_to else Ruleset()
        unread = detection.unread(ruleset, resolved)
        hidden = ("env",) if "exec_environment" in unread else ()
        resolved = msgspec.structs.replace(resolved, **dict.fromkeys(unread, True))
        asks = resolved.containers or (resolved.crs and flags.get("containers") is not False)
        asked = runtimes.endpoints(resolved.crs) if asks else ()
        if any(sink.enriched_ms for sink in out.sinks) and not asked:
            raise outputs.OutputError("enriched=: there are no names to wait for without --containers")
        if not resolved.findings and {s.target for s in out.sinks} & {s.target for s in findings_to}:
            remedy = "send one of them elsewhere, as with --findings table:/dev/stderr"
            raise outputs.OutputError(f"events and findings would both go to standard output: {remedy}")
        _check_files(resolved, (*out.sinks, *findings_to), recording)
        captured = _capture(resolved, recording)
        if recording and out.switches.get("exec_hash"):
            raise outputs.OutputError("option:exec-hash: files are hashed on the host that runs them, not in a replay")
    except (SettingsError, outputs.OutputError, filters.FilterError, UnknownName, TuningError) as error:
        raise Failure(str(error), EX_USAGE) from error
    if not selection.events and not ruleset.events(catalogue(), lack):
        raise Failure("no event is left to trace", EX_USAGE)
    if 1 in CLOSED and (resolved.ledger == "-" or any(s.target == "-" for s in (*out.sinks, *findings_to))):
        raise Failure("standard output is closed", EX_IOERR)
    if sys.stdout.isatty() and any((s.format, s.target) == ("arrow", "-") for s in out.sinks):
        raise Failure("output arrow:-: binary, and standard output is a terminal; redirect it", EX_USAGE)
    return Request(
        resolved,
        selection,
        out,
        ruleset,
        findings_to,
        command,
        ready_fd,
        endpoints=asked,
        capture=captured,
        fold_s=resolved.fold_s,
        hidden=hidden,
        read_rules=functools.partial(detection.ruleset, resolved),
    )


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


def _check_ready_fd(fd: int | None) -> int:
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


def _listed(flags: dict[str, Any], *names: str) -> None:
    """Convert repeatable options to lists; None if they were not given."""
    for name in names:
        flags[name] = list(flags[name]) or None


def _joined(parts: tuple[str, ...]) -> str | None:
    return ",".join(parts) if parts else None


def _finish(outcome: Outcome, path: str = "", quiet: bool = False) -> None:
    """Print the ledger to standard error unless `quiet`, write it to `path`, then exit with the run's status."""
    if not quiet:
        say(*outcome.ledger.text(), err=True)
    status = outcome.status
    if path:
        try:
            app.write_ledger(outcome.ledger, path)
        except OSError as error:
            say(f"headrace: ledger {path}: {error.strerror}", err=True)
            status = status or EX_IOERR
    sys.stderr.flush()
    raise SystemExit(status)


@main.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@output_options
@trace_options
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARG]...]")
def run(config: Path | None, command: tuple[str, ...], ready_fd: int | None, quiet: bool, **flags: Any) -> None:
    """Trace a command, running processes, or the host.

    With COMMAND, headrace runs it and traces its whole process tree until the last process ends; the exit
    status is the command's. Without, it traces what the scope selects until Ctrl-C, SIGTERM, or until the
    processes that the scope names are gone.

    \b
    Examples:
      headrace run -- sh -c 'cat /etc/hostname'
      headrace run -e default -- sh -c 'cat /etc/hostname'
      headrace run -e 'openat,openat.args.pathname=/etc/*,openat.retval<0' -- ls /nonexistent
      headrace run -e execve,connect -o json:- -o zmq:ipc:///run/headrace.sock -s uid!=0
      headrace run --record web.hrc -s 'tree=4711'
    """
    flags["events"] = _joined(flags["events"])
    flags["scope"] = list(flags["scope"]) or None
    _listed(
        flags, "output", "findings", "signatures", "sigma", "rules", "exclude", "crs", "container_labels", "capture"
    )
    request = _resolve(config, flags, command, _check_ready_fd(ready_fd))
    logs.configure(request.settings.log_level)
    asked = request.settings.events
    if request.selection.skipped and asked not in ("", "default"):
        names = ", ".join(e.name for e in request.selection.skipped[:5])
        say(f"headrace: not provided on this host, left out: {names}", err=True)
    try:
        outcome = app.live(request)
    except (ScopeError, CurveError) as error:
        raise Failure(str(error), EX_USAGE) from error
    except (SinkError, StoreError) as error:
        raise Failure(str(error), EX_IOERR) from error
    except PipelineFailed as error:
        raise Failure(str(error), error.status) from error
    except (LoadError, UnorderedMemory, NoSharedMemory, TimeoutError) as error:
        hints = [f"  {f.name}: {f.detail}; {f.remedy}" for f in findings() if not f.ok and f.remedy]
        raise Failure(str(error), app.EX_UNAVAILABLE, *hints) from error
    if not outcome.ledger.produced and request.settings.scope:
        scopes = ", ".join(request.settings.scope)
        say(f"headrace: no event matched the scope {scopes} while it was traced", err=True)
    _finish(outcome, request.settings.ledger, quiet)


@main.command()
@output_options
@click.argument("recording", type=click.Path(path_type=Path), metavar="FILE")
def replay(config: Path | None, recording: Path, quiet: bool, **flags: Any) -> None:
    """Replay a recording through the same workers, at full speed.

    The output depends only on the recording, not on this host or on the number of workers.

    \b
    Examples:
      headrace replay web.hrc
      headrace replay web.hrc -e openat -o json:- | jq .args
    """
    flags["events"] = _joined(flags["events"]) or "*"
    _listed(flags, "output", "findings", "signatures", "sigma", "rules", "exclude")
    request = _resolve(config, flags, recording=recording)
    logs.configure(request.settings.log_level)
    try:
        outcome = recorded.replay(request, recording)
    except RecordingError as error:
        raise Failure(str(error), EX_DATAERR) from error
    except (UnorderedMemory, NoSharedMemory, TimeoutError) as error:
        raise Failure(str(error), app.EX_UNAVAILABLE) from error
    except CurveError as error:
        raise Failure(str(error), EX_USAGE) from error
    except SinkError as error:
        raise Failure(str(error), EX_IOERR) from error
    _finish(outcome, request.settings.ledger, quiet)


@main.command()
@click.argument("endpoint")
@click.option("-t", "--topic", multiple=True, default=("all/",), show_default=True, help="Topic prefix; repeatable.")
@click.option("-n", "--count", type=int, default=0, metavar="N", help="Exit after N events.")
@click.option(
    "--server-key", default="", metavar="KEY|FILE", help="Public key of the publisher, or a file that contains it."
)
@click.option("--key", default="", metavar="FILE", help="Your secret key (see `headrace keys`). Default: a new one.")
def subscribe(endpoint: str, topic: tuple[str, ...], count: int, server_key: str, key: str) -> None:
    """Print the messages of a publisher, and count missing ones.

    \b
    Examples:
      headrace subscribe ipc:///run/headrace.sock
      headrace subscribe ipc:///run/headrace.sock -t event/openat/ -t event/loss/
      headrace subscribe tcp://192.0.2.1:5555 --server-key headrace.key --key alice.key_secret
    """
    from headrace.pipeline.command.subscribe import run as subscribe_run

    if key and not server_key:
        raise Failure("--key: the publisher's public key is needed too: --server-key", EX_USAGE)
    raise SystemExit(subscribe_run(endpoint, topic, count, server_key, key))


@main.command()
def demo() -> None:
    """Trace a small built-in workload. Where BPF is not available, replay a recording of it."""
    from headrace.pipeline.command.demo import run as run_demo

    _finish(run_demo())


@main.command()
@click.argument("pid", type=int, required=False)
@click.option("-i", "--interval", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, metavar="SECONDS")
@click.option("-n", "--count", type=click.IntRange(0), default=0, metavar="N", help="Exit after N lines.")
@click.option("-o", "--output", "form", type=click.Choice(("table", "json")), default="table", show_default=True)
@click.option("--rules", is_flag=True, help="Print what each signature has cost so far, and exit.")
def stat(pid: int | None, interval: float, count: int, form: str, rules: bool) -> None:
    """Show the ledger of a running headrace.

    Prints rates since the previous line or, as JSON, the whole ledger. PID is the process ID of `headrace run`; it
    may be omitted if only one of your runs is active. The command exits when the run ends.

    \b
    Examples:
      headrace stat
      headrace stat 4711 -i 5
      headrace stat -n 1 -o json | jq .by_event
      headrace stat --rules | head
    """
    try:
        if rules:
            say(*live.rules(live.find(pid)[1]))
            return
        live.watch(pid, interval, count, form == "json")
    except live.NoRun as error:
        raise Failure(str(error), app.EX_UNAVAILABLE) from error


@main.command(name="reload")
@click.argument("pid", type=int, required=False)
def reload_(pid: int | None) -> None:
    """Reload the signatures of a running headrace.

    If one of them is invalid, none is replaced and the exit status is 65. PID is the process ID of `headrace run`;
    it may be omitted if only one of your runs is active. SIGHUP does the same.

    \b
    Examples:
      headrace reload
      headrace reload 4711 && headrace stat 4711 -n 1 -o json | jq .signatures
    """
    try:
        ledger = reload.ask(pid)
    except (live.NoRun, TimeoutError) as error:
        raise Failure(str(error), app.EX_UNAVAILABLE) from error
    if ledger.refusal:
        raise Failure(ledger.refusal, EX_DATAERR)
    told = ledger.signatures
    short = [f"{told[key]} {words}" for key, words in reload.SHORT.items() if told[key]]
    why = f", {', '.join(short)} (the run's log says why)" if short else ""
    say(f"generation {told['generation']}: {told['loaded']} signatures{why}")


main.add_command(list_)
main.add_command(check)
main.add_command(signatures)
main.add_command(analyze)
main.add_command(keys)
signatures.add_command(explain)
