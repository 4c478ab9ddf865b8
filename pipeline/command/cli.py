"""The command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import click
from click.shell_completion import CompletionItem

from headrace import __version__
from headrace.bpf.load.loader import LoadError
from headrace.bpf.programs.terms import ScopeError
from headrace.bpf.tables.catalogue import did_you_mean
from headrace.pipeline.capture.store import StoreError
from headrace.pipeline.command.analyze import analyze
from headrace.pipeline.command.configuration import config
from headrace.pipeline.command.explain import explain
from headrace.pipeline.command.keys import keys
from headrace.pipeline.command.listing import check, list_
from headrace.pipeline.command.narrate import Narrator, shortened
from headrace.pipeline.command.options import output_options, trace_options
from headrace.pipeline.command.resolve import RunLimits, check_ready_fd, given, resolve
from headrace.pipeline.command.signatures import signatures
from headrace.pipeline.host.features import event_lack, findings
from headrace.pipeline.process import logs
from headrace.pipeline.process.failure import EX_DATAERR, EX_IOERR, EX_USAGE, Failure, say
from headrace.pipeline.publish.curve import CurveError
from headrace.pipeline.publish.sinks import SinkError
from headrace.pipeline.reports.suggest import suggest
from headrace.pipeline.reports.summary import summary
from headrace.pipeline.reports.top import top
from headrace.pipeline.run import app, live, reload
from headrace.pipeline.run import replay as recorded
from headrace.pipeline.run.request import Outcome
from headrace.pipeline.run.stage import PipelineFailed
from headrace.pipeline.shell.complete import completion
from headrace.pipeline.shell.groups import RunCommand, Suggesting
from headrace.pipeline.stages.recording import RecordingError
from headrace.pipeline.transport.shm import NoSharedMemory, UnorderedMemory

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _commands(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in main.commands if name.startswith(incomplete)]


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


@main.command(cls=RunCommand, context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@output_options
@trace_options
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARG]...]")
def run(
    config: Path | None,
    profile: str,
    command: tuple[str, ...],
    ready_fd: int | None,
    quiet: bool,
    pids: tuple[str, ...],
    count: int | None,
    duration: float | None,
    **flags: Any,
) -> None:
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
    limits = RunLimits(quiet, count or 0, duration or 0, profile)
    request = resolve(config, given(flags, pids), command, check_ready_fd(ready_fd), limits=limits)
    logs.configure(request.settings.log_level)
    asked = request.settings.events
    if request.selection.skipped and asked not in ("", "default"):
        names = ", ".join(e.name for e in request.selection.skipped[:5])
        say(f"headrace: not provided on this host, left out: {names}", err=True)
    try:
        outcome = app.live(request, Narrator(request, event_lack, sys.stderr.isatty() and not quiet))
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
def replay(config: Path | None, profile: str, recording: Path, quiet: bool, **flags: Any) -> None:
    """Replay a recording through the same workers, at full speed.

    The output depends only on the recording, not on this host or on the number of workers.

    \b
    Examples:
      headrace replay web.hrc
      headrace replay web.hrc -e openat -o json:- | jq .args
    """
    flags["events"] = flags["events"] or ("*",)
    request = resolve(config, given(flags), recording=recording, limits=RunLimits(profile=profile))
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
    """Reload the configuration of a running headrace.

    Replaces the signatures and the settings that select them. If the configuration is invalid, or has other changes,
    which need a new run, nothing is replaced and the exit status is 65. PID is the process ID of `headrace run`;
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
    for what, names in ledger.changes.items():
        if names:
            say(f"  {what}: {shortened(names)}")


@main.command(name="help")
@click.argument("command", nargs=-1, shell_complete=_commands)
@click.pass_context
def help_(context: click.Context, command: tuple[str, ...]) -> None:
    """Show the help of headrace, or of a command."""
    at, found, above = context.find_root(), cast(click.Command, main), ""
    for name in command:
        known = found.commands if isinstance(found, click.Group) else {}
        if name not in known:
            raise Failure(f"no such command: {above}{name}" + did_you_mean(name, known), EX_USAGE)
        found, above = known[name], f"{above}{name} "
        at = click.Context(found, info_name=name, parent=at, **found.context_settings)
    click.echo(found.get_help(at))


@main.command()
def version() -> None:
    """Print the version of headrace."""
    click.echo(f"headrace, version {__version__}")


main.add_command(completion)
main.add_command(config)
main.add_command(suggest)
main.add_command(summary)
main.add_command(top)
main.add_command(list_)
main.add_command(check)
main.add_command(signatures)
main.add_command(analyze)
main.add_command(keys)
signatures.add_command(explain)
