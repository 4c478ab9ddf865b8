"""`headrace list` and `headrace check`: what can be traced, and what this host supports."""

from __future__ import annotations

import fnmatch
import os
import sys
from pathlib import Path

import click
import msgspec

from headrace.bpf.programs.scope import KEYS
from headrace.bpf.tables.catalogue import HOOK, Event, catalogue, did_you_mean
from headrace.config import outputs, settings
from headrace.pipeline.host.features import Finding, event_state, findings, hooked_function, trial
from headrace.pipeline.host.proof import prove
from headrace.pipeline.process.failure import EX_USAGE, Failure, say
from headrace.pipeline.shell import complete
from headrace.pipeline.shell.groups import Suggesting, btf_option
from headrace.workers.decode import described


@click.group(name="list", cls=Suggesting)
def list_() -> None:
    """List events, sets, filters and outputs.

    \b
    Examples:
      headrace list events              list all events with their arguments
      headrace list events 'open*'      list the events with such names
      headrace list events openat       describe one event: types, sets, source on this host
      headrace list sets default        list the events of a set
    """


def _matching(names: list[str], wanted: str | None, kind: str) -> list[str]:
    if wanted is None:
        return names
    if any(mark in wanted for mark in "*?[") and (found := fnmatch.filter(names, wanted)):
        return found
    if wanted not in names:
        raise Failure(f"no such {kind}: {wanted}" + did_you_mean(wanted, names), EX_USAGE)
    return [wanted]


@list_.command(name="events")
@click.argument("name", required=False, shell_complete=complete.events)
def list_events(name: str | None) -> None:
    """List events with their arguments, all or those that match a glob, or describe one event."""
    known = catalogue()
    for each in _matching(sorted(known.by_name), name, "event"):
        event = known.by_name[each]
        if name != each:
            mark = "  (not on this host)" if _lack(event) else ""
            say(f"{each}({', '.join(a.name for a in event.arguments)}){mark}")
        else:
            _show_event(event)


def _lack(event: Event) -> str:
    """Why this host does not support an event; "" if it does."""
    ok, detail = event_state(event)
    return "" if ok else detail


def _show_event(event: Event) -> None:
    say(f"{event.name}  (id {event.id})")
    for index, argument in enumerate(event.arguments):
        if not event.is_syscall:
            say(f"  {argument.type} {argument.name}")
            continue
        say(f"  {argument.type} {argument.name}  ({argument.width}; {described.of_argument(event, index)})")
        for command, text in described.by_command(event, index):
            say(f"      {command}: {text}")
    say(f"  sets: {', '.join(sorted(event.sets)) or 'none'}")
    lack = _lack(event)
    say(f"  not on this host: {lack}" if lack else f"  provided: by {_source(event)}")


def _source(event: Event) -> str:
    """The sources of an event on this host."""
    function = hooked_function(event)
    if event.hook and event.hook.startswith(f"{HOOK}:"):
        return f"kprobe:{function}"
    rest = f"; what no call reports by kprobe:{function} (--kernel-checks)" if function else ""
    return f"{event.hook}{rest}"


@list_.command(name="sets")
@click.argument("name", required=False, shell_complete=complete.sets)
def list_sets(name: str | None) -> None:
    """List sets of events. Events that this host does not support are marked."""
    sets = catalogue().sets()
    for each in _matching(sorted(sets), name, "set"):
        if name is None:
            missing = sum(bool(_lack(event)) for event in sets[each])
            say(f"{each:<16} {len(sets[each]):>4} events" + (f", {missing} not on this host" if missing else ""))
        else:
            for event in sets[each]:
                say(event.name + (f"  (not on this host: {_lack(event)})" if _lack(event) else ""))


@list_.command(name="filters")
@click.argument("name", required=False)
def list_filters(name: str | None) -> None:
    """List scopes (--scope) and conditions on events (--events)."""
    for each in _matching(sorted(KEYS), name, "scope"):
        say(f"{each:<8} {KEYS[each]}")
    if name is None:
        say("EVENT.args.NAME=VALUE   EVENT.args.NAME!=VALUE   globs for text, < > <= >= for numbers")
        say("EVENT.retval<0          a range of results is decided in the kernel")


@list_.command(name="outputs")
@click.argument("name", required=False)
def list_outputs(name: str | None) -> None:
    """List output formats and their options."""
    for each in _matching(sorted(outputs.FORMATS), name, "output"):
        say(f"{each:<8} {outputs.FORMATS[each]}")
    if name is None:
        for option, text in outputs.OPTIONS.items():
            say(f"  ,{option}=  {text}")


@click.command()
@btf_option
@click.option("--live", is_flag=True, help="Trigger every event and check that it arrives.")
@click.option("-o", "--output", type=click.Choice(("text", "json")), default="text", show_default=True)
def check(live: bool, output: str) -> None:
    """Check what this host supports, and how to fix what is missing.

    Loads the programs of all events without attaching them. The exit status is 0 if tracing works here, 69 if not.
    With --live, also triggers every event that this host supports, in namespaces of its own: the exit status is 69
    as well if an event does not arrive, or if the ledger does not balance.

    \b
    Examples:
      headrace check
      headrace check --live
      headrace check --live -o json | jq .live.arrived
      headrace check || echo "tracing does not work here"
    """
    found, proved = findings(), None
    if all(f.ok or f.optional for f in found):
        defaults = settings.Settings()
        tried, refused = trial(Path(defaults.cache), defaults.workers)
        found += tried
        if live and all(f.ok or f.optional for f in tried):
            if sys.stderr.isatty():
                say("headrace: causing every event, below a run: this takes a minute", err=True)
            proved = prove(refused)
            found += proved.findings()
    if output == "json":
        say(msgspec.json.encode({"findings": found, "live": proved}).decode())
    else:
        _show(found)
    raise SystemExit(0 if all(f.ok or f.optional for f in found) else os.EX_UNAVAILABLE)


def _show(found: list[Finding]) -> None:
    width = max(len(f.name) for f in found)
    for finding in found:
        mark = "ok" if finding.ok else "--" if finding.optional else "NO"
        say(f"{mark:>2}  {finding.name:<{width}}  {finding.detail}", *_remedy(finding))


def _remedy(finding: Finding) -> list[str]:
    return [] if finding.ok or not finding.remedy else [f"      remedy: {finding.remedy}"]
