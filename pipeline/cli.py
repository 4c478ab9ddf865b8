"""The command line."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from pathlib import Path
from typing import Any

import click

from bpf.catalogue import Event, UnknownName, catalogue, nearest
from bpf.loader import LoadError
from bpf.scope import KEYS, ScopeError
from config import filters, outputs, settings
from config.settings import SettingsError
from pipeline import VERSION, app, logs
from pipeline.host import Finding, findings, hook_state
from pipeline.recording import RecordingError
from pipeline.shm import UnorderedMemory
from pipeline.sinks import SinkError
from pipeline.supervise import PipelineFailed
from workers.filters import check_words

EX_USAGE, EX_DATAERR = 2, 65
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Failure(click.ClickException):
    """A message and an exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    def show(self, file: Any = None) -> None:
        click.echo(f"headrace: {self.format_message()}", err=True)

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # click has it as a class variable
        return self.status


_closed: set[int] = set()
"""Standard descriptors that were closed when headrace began."""


def _hold_standard_descriptors() -> None:
    """Put /dev/null where a standard descriptor is closed, so that no other file comes to stand there."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            _closed.add(os.open(os.devnull, os.O_RDWR))
            os.set_inheritable(fd, True)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115  (they stay open)
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115


class Suggesting(click.Group):
    """A group that suggests the command that was probably meant."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """A standard output that cannot be written is an I/O error like any other."""
        _hold_standard_descriptors()
        try:
            return super().main(*args, **extra)
        except OSError as error:
            with contextlib.suppress(OSError):
                click.echo(f"headrace: standard output: {error.strerror}", err=True)
            os._exit(app.EX_IOERR)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0] if args else ""
        if name and self.get_command(ctx, name) is None:
            near = nearest(name, self.list_commands(ctx))
            raise Failure(f"no such command: {name}" + (f"; did you mean {near}?" if near else ""), EX_USAGE)
        return super().resolve_command(ctx, args)


@click.group(cls=Suggesting, context_settings=CONTEXT)
@click.version_option(VERSION, prog_name="headrace")
def main() -> None:
    """See what processes do: eBPF events, decoded and published without losing one uncounted.

    \b
    Examples:
      headrace run -- ls /tmp                     trace a command and all that it starts
      headrace run -e 'open*,!openat2' -s uid=33  what user 33 opens
      headrace run -s tree=1234 -o json:out.json  a running process and its children, as JSON
      headrace list events openat                 what an event carries
      headrace check                              what this host can do
    """


def _output_options(function: Any) -> Any:
    options = [
        click.option(
            "-o", "--output", multiple=True, metavar="SPEC", help="table:-, json:FILE, none, zmq:ENDPOINT; repeatable."
        ),
        click.option("-e", "--events", multiple=True, metavar="LIST", help="Names, sets, globs, !name, conditions."),
        click.option("--parse-arguments/--no-parse-arguments", default=None, help="Flags in words (the default)."),
        click.option("--workers", type=int, metavar="N", help="Worker processes (1 to 64)."),
        click.option("--ring-bytes", type=int, metavar="N", help="Size of each worker's ring."),
        click.option("--ledger", metavar="FILE", help="Write the ledger as JSON."),
        click.option("--log-level", type=click.Choice(logs.LEVELS), help="Default: warning."),
        click.option("-c", "--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings, as TOML."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _resolve(
    config: Path | None,
    flags: dict[str, Any],
    command: tuple[str, ...] = (),
    ready_fd: int = -1,
    recording: Path | None = None,
) -> app.Request:
    """Settings, events and outputs; a Failure names what is wrong."""
    try:
        resolved = settings.resolve(config, flags)
        out = outputs.parse(resolved.output)
        if out.switches:
            resolved = settings.resolve(config, flags | out.switches)
        selection = filters.parse([resolved.events], catalogue())
        check_words(selection.conditions)
        _check_files(resolved, out, recording)
    except (SettingsError, outputs.OutputError, filters.FilterError, UnknownName) as error:
        raise Failure(str(error), EX_USAGE) from error
    if not selection.events:
        raise Failure("no event is left to trace", EX_USAGE)
    if 1 in _closed and (resolved.ledger == "-" or any(s.target == "-" for s in out.sinks)):
        raise Failure("standard output is closed", app.EX_IOERR)
    return app.Request(resolved, selection, out, command, ready_fd)


def _check_files(resolved: settings.Settings, out: outputs.Outputs, recording: Path | None) -> None:
    """No file may be written by two, or written while it is read."""
    found = [(s.name, s.target) for s in out.sinks if s.target]
    found += [(f"--record {resolved.record}", resolved.record)] if resolved.record else []
    found += [(f"--ledger {resolved.ledger}", resolved.ledger)] if resolved.ledger not in ("", "-") else []
    found += [(f"the recording {recording}", str(recording))] if recording else []
    outputs.check_distinct(found)


def _check_ready_fd(fd: int | None) -> int:
    """A descriptor that can be written, or -1; Failure if it is none."""
    if fd is None:
        return -1
    try:
        writable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except (OSError, ValueError, OverflowError):
        raise Failure(f"--ready-fd: {fd} is not an open descriptor", EX_USAGE) from None
    if not writable:
        raise Failure(f"--ready-fd: {fd} cannot be written", EX_USAGE)
    return fd


def _joined(parts: tuple[str, ...]) -> str | None:
    return ",".join(parts) if parts else None


def _finish(outcome: app.Outcome, path: str) -> None:
    """Ledger to standard error and to its file, and out with the status."""
    click.echo(outcome.ledger.text(), err=True)
    status = outcome.status
    if path:
        try:
            app.write_ledger(outcome.ledger, path)
        except OSError as error:
            click.echo(f"headrace: ledger {path}: {error.strerror}", err=True)
            status = status or app.EX_IOERR
    sys.stderr.flush()
    raise SystemExit(status)


@main.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@_output_options
@click.option(
    "-s", "--scope", "--trace", "scope", multiple=True, metavar="EXPR", help="Who is traced; repeatable, ANDed."
)
@click.option("--record", metavar="FILE", help="Also record, to replay later.")
@click.option("--perf-pages", type=int, metavar="N", help="Perf buffer per CPU, in pages (a power of two).")
@click.option(
    "--exec-env/--no-exec-env", "exec_environment", default=None, help="Carry the environment of exec events."
)
@click.option("--capture-bytes", type=int, metavar="N", help="First bytes of what is read and written.")
@click.option("--interval-ms", type=int, metavar="N", help="How long an event may wait to be read.")
@click.option("--order-bound-ms", type=int, metavar="N", help="How long order is waited for.")
@click.option("--ready-fd", type=int, metavar="N", help="Write a byte there when everything is attached.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARG]...]")
def run(config: Path | None, command: tuple[str, ...], ready_fd: int | None, **flags: Any) -> None:
    """Trace.

    With COMMAND: its process tree from its exec on, until the last of it has ended; its exit status is
    passed on. Without: until SIGINT or SIGTERM, or until the processes that the scope names are gone.

    \b
    Examples:
      headrace run -- sh -c 'cat /etc/hostname'
      headrace run -e 'openat,openat.args.pathname=/etc/*,openat.retval<0' -- ls /nonexistent
      headrace run -e execve,connect -o json:- -o zmq:ipc:///run/headrace.sock -s uid!=0
      headrace run --record web.hrc -s 'tree=4711'
    """
    flags["events"] = _joined(flags["events"])
    flags["scope"] = list(flags["scope"]) or None
    flags["output"] = list(flags["output"]) or None
    request = _resolve(config, flags, command, _check_ready_fd(ready_fd))
    logs.configure(request.settings.log_level)
    asked = request.settings.events
    if request.selection.skipped and asked != "default":
        names = ", ".join(e.name for e in request.selection.skipped[:5])
        click.echo(f"headrace: not provided on this host, left out: {names}", err=True)
    try:
        outcome = app.live(request)
    except ScopeError as error:
        raise Failure(str(error), EX_USAGE) from error
    except SinkError as error:
        raise Failure(str(error), app.EX_IOERR) from error
    except PipelineFailed as error:
        raise Failure(str(error), error.status) from error
    except (LoadError, UnorderedMemory, TimeoutError) as error:
        hint = "\n".join(f"  {f.name}: {f.detail}; {f.remedy}" for f in findings() if not f.ok and f.remedy)
        raise Failure(f"{error}" + (f"\n{hint}" if hint else ""), app.EX_UNAVAILABLE) from error
    if not outcome.ledger.produced and request.settings.scope:
        scopes = ", ".join(request.settings.scope)
        click.echo(f"headrace: no event matched the scope {scopes} while it was traced", err=True)
    _finish(outcome, request.settings.ledger)


@main.command()
@_output_options
@click.argument("recording", type=click.Path(path_type=Path), metavar="FILE")
def replay(config: Path | None, recording: Path, **flags: Any) -> None:
    """Run a recording through the same workers, as fast as they go.

    The output depends on the recording alone: not on the number of workers, nor on this host.

    \b
    Examples:
      headrace replay web.hrc
      headrace replay web.hrc -e openat -o json:- | jq .args
    """
    flags["events"] = _joined(flags["events"]) or "*"
    flags["output"] = list(flags["output"]) or None
    request = _resolve(config, flags, recording=recording)
    logs.configure(request.settings.log_level)
    try:
        outcome = app.replay(request, recording)
    except RecordingError as error:
        raise Failure(str(error), EX_DATAERR) from error
    except SinkError as error:
        raise Failure(str(error), app.EX_IOERR) from error
    _finish(outcome, request.settings.ledger)


@main.command()
@click.argument("endpoint")
@click.option("-t", "--topic", multiple=True, default=("all/",), show_default=True, help="Topic prefix; repeatable.")
@click.option("-n", "--count", type=int, default=0, metavar="N", help="End after N events.")
def subscribe(endpoint: str, topic: tuple[str, ...], count: int) -> None:
    """Print what a publisher sends, and count gaps.

    \b
    Examples:
      headrace subscribe ipc:///run/headrace.sock
      headrace subscribe ipc:///run/headrace.sock -t event/openat/ -t event/loss/
    """
    from pipeline.subscribe import run as subscribe_run

    try:
        raise SystemExit(subscribe_run(endpoint, topic, count))
    except BrokenPipeError:
        raise SystemExit(app.SIGPIPE_STATUS) from None


@main.group(name="list", cls=Suggesting)
def list_() -> None:
    """Show what can be asked for.

    \b
    Examples:
      headrace list events              every event with its arguments
      headrace list events openat       one event: types, sets, where it comes from on this host
      headrace list sets default        members of a set
    """


def _matching(names: list[str], wanted: str | None, kind: str) -> list[str]:
    if wanted is None:
        return names
    if wanted not in names:
        near = nearest(wanted, names)
        raise Failure(f"no such {kind}: {wanted}" + (f"; did you mean {near}?" if near else ""), EX_USAGE)
    return [wanted]


@list_.command(name="events")
@click.argument("name", required=False)
def list_events(name: str | None) -> None:
    """Events with their arguments; one event with types and hook."""
    known = catalogue()
    for each in _matching(sorted(known.by_name), name, "event"):
        event = known.by_name[each]
        if name is None:
            mark = "  (not on this host)" if _lack(event) else ""
            click.echo(f"{each}({', '.join(a.name for a in event.arguments)}){mark}")
        else:
            _show_event(event)


def _lack(event: Event) -> str:
    """Why this host cannot give an event; "" if it can."""
    if event.hook is None:
        return event.missing
    ok, detail = hook_state(event.hook)
    return "" if ok else detail


def _show_event(event: Event) -> None:
    click.echo(f"{event.name}  (id {event.id})")
    for argument in event.arguments:
        click.echo(f"  {argument.type} {argument.name}")
    click.echo(f"  sets: {', '.join(sorted(event.sets)) or 'none'}")
    lack = _lack(event)
    click.echo(f"  not on this host: {lack}" if lack else f"  provided: by {event.hook}")


@list_.command(name="sets")
@click.argument("name", required=False)
def list_sets(name: str | None) -> None:
    """Sets of events; members that this host cannot give are marked."""
    sets = catalogue().sets()
    for each in _matching(sorted(sets), name, "set"):
        if name is None:
            missing = sum(bool(_lack(event)) for event in sets[each])
            click.echo(f"{each:<16} {len(sets[each]):>4} events" + (f", {missing} not on this host" if missing else ""))
        else:
            for event in sets[each]:
                click.echo(event.name + (f"  (not on this host: {_lack(event)})" if _lack(event) else ""))


@list_.command(name="filters")
@click.argument("name", required=False)
def list_filters(name: str | None) -> None:
    """Scopes (--scope) and conditions on events (--events)."""
    for each in _matching(sorted(KEYS), name, "scope"):
        click.echo(f"{each:<8} {KEYS[each]}")
    if name is None:
        click.echo("EVENT.args.NAME=VALUE   EVENT.args.NAME!=VALUE   globs for text, < > <= >= for numbers")
        click.echo("EVENT.retval<0          a range of results is decided in the kernel")


@list_.command(name="outputs")
@click.argument("name", required=False)
def list_outputs(name: str | None) -> None:
    """Output formats and their options."""
    for each in _matching(sorted(outputs.FORMATS), name, "output"):
        click.echo(f"{each:<8} {outputs.FORMATS[each]}")
    if name is None:
        for option, text in outputs.OPTIONS.items():
            click.echo(f"  ,{option}=  {text}")


@main.command()
def demo() -> None:
    """Trace a small workload of headrace's own; where BPF is not to be had, show a recording."""
    from pipeline.demo import run as run_demo

    _finish(run_demo(), "")


@main.command()
def check() -> None:
    """What this host offers and lacks, with the remedy. Status 0 if tracing works here, 69 if not.

    \b
    Examples:
      headrace check
      headrace check || echo "tracing does not work here"
    """
    found = findings()
    width = max(len(f.name) for f in found)
    for finding in found:
        mark = "ok" if finding.ok else "--" if finding.optional else "NO"
        click.echo(f"{mark:>2}  {finding.name:<{width}}  {finding.detail}" + _remedy(finding))
    raise SystemExit(0 if all(f.ok or f.optional for f in found) else app.EX_UNAVAILABLE)


def _remedy(finding: Finding) -> str:
    return "" if finding.ok or not finding.remedy else f"\n      remedy: {finding.remedy}"
