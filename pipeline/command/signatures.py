"""`headrace signatures`: lists, describes, validates and tests signatures."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from headrace.bpf.programs.uring import evades
from headrace.bpf.tables.catalogue import UnknownName, catalogue, nearest
from headrace.config.conditions import Node, Test
from headrace.config.rules import SHIPPED, Example, Rule, RuleError, taken
from headrace.config.tree import Fold
from headrace.pipeline.command.options import sigma_option
from headrace.pipeline.host.features import event_lack
from headrace.pipeline.process.failure import EX_USAGE, Failure, say
from headrace.pipeline.shell.groups import Suggesting
from headrace.pipeline.signatures.detection import sigma_paths
from headrace.pipeline.signatures.rehearsal import refusal
from headrace.workers.detect.offline.analysis import Analysis
from headrace.workers.detect.offline.flat import of_example
from headrace.workers.detect.rules.fields import FieldError
from headrace.workers.detect.rules.rulesets import Coverage, Ruleset, build, coverage


@click.group(cls=Suggesting)
def signatures() -> None:
    """List, check, test and explain signatures.

    \b
    Examples:
      headrace signatures list
      headrace signatures show TRC-107
      headrace signatures check ./my-signatures
      headrace signatures test
    """


PATHS = click.argument("paths", nargs=-1, metavar="[PATH]...")


def rules_of(paths: tuple[str, ...], sigma: tuple[str, ...] = ()) -> Ruleset:
    """The signatures in files and folders; without any paths, those that ship with headrace."""
    return build(
        catalogue(), paths, shipped=not paths and not sigma, sigma=sigma_paths(sigma), also_off=True, refusal=refusal
    )


def _refusals(found: Ruleset) -> None:
    for error in (*found.refused, *found.left_out):
        say(f"refused  {error}", err=True)


@signatures.command(name="list")
@PATHS
@sigma_option
def list_signatures(paths: tuple[str, ...], sigma: tuple[str, ...]) -> None:
    """List signatures with their severity and whether they can fire on this host."""
    found = rules_of(paths, sigma)
    for rule in found.rules:
        state = coverage(rule, catalogue(), event_lack)
        note = "" if state.word == "full" else f"  ({state.word}: {state.reason})"
        off = "" if rule.enabled else "  (off)"
        say(f"{rule.id:<10} {rule.severity:<8} {rule.name:<30} {rule.title}{off}{note}")
    _refusals(found)
    raise SystemExit(1 if found.refused or found.left_out else 0)


def named(found: Ruleset, name: str) -> Rule:
    """Find a signature by id or name. Raises Failure if there is none."""
    for rule in found.rules:
        if name in (rule.id, rule.name):
            return rule
    known = [word for rule in found.rules for word in (rule.id, rule.name)]
    raise Failure(str(UnknownName("signature", name, nearest(name, known))), EX_USAGE)


@signatures.command()
@click.argument("rule_id", metavar="ID")
@PATHS
@sigma_option
def show(rule_id: str, paths: tuple[str, ...], sigma: tuple[str, ...]) -> None:
    """Describe one signature: its events, conditions and background."""
    rule = named(rules_of(paths, sigma), rule_id)
    state = coverage(rule, catalogue(), event_lack)
    mitre = "  ".join(part for part in (rule.mitre.id, rule.mitre.tactic, rule.mitre.technique) if part)
    lines = [
        f"{rule.id}  {rule.name}",
        f"  {rule.title}" if rule.title else "",
        f"  {rule.description}" if rule.description else "",
        f"  severity: {rule.severity}" + (f"   scope: {rule.scope}" if rule.scope != "any" else ""),
        f"  MITRE ATT&CK: {mitre}" if mitre else "",
        f"  on this host: {state.word}" + (f" ({state.reason})" if state.reason else ""),
        f"  io_uring can do unseen: {', '.join(missed)}" if (missed := evaded(rule)) else "",
        *(f"  {name}: {describe(node)}" for name, node in rule.events.items()),
        f"  {rule.threshold.text}" if rule.threshold else "",
        "" if rule.enabled else "  off: not enabled",
        f"  from {rule.file}" + (f":{rule.line}" if rule.line else ""),
    ]
    say(*filter(None, lines))


def evaded(rule: Rule) -> tuple[str, ...]:
    """Events of a rule that can be evaded with io_uring."""
    return tuple(name for name in rule.events if evades(catalogue().by_name[name]))


def _seen(rule: Rule) -> Coverage:
    """Coverage of a rule on this host; at most partial if io_uring can evade some of its events."""
    state, unseen = coverage(rule, catalogue(), event_lack), evaded(rule)
    if state.word == "none" or not unseen:
        return state
    return Coverage("partial", "; ".join(filter(None, (state.reason, f"by io_uring unseen: {', '.join(unseen)}"))))


def describe(node: Node) -> str:
    """A condition as text."""

    def joined(parts: list[str], word: str, empty: str) -> str:
        text = f" {word} ".join(parts) or empty
        return f"({text})" if len(parts) > 1 else text

    return Fold[Test, str](
        leaf=lambda test: f"{test.field} {test.wanted}",
        all_of=lambda parts: joined(parts, "and", "always"),
        any_of=lambda parts: joined(parts, "or", "never"),
        negate=lambda part: f"not ({part})",
        certain=lambda part: f"({part})",
    )(node)


class Checked(msgspec.Struct):
    """One line of `check --json`."""

    id: str
    title: str
    file: str
    coverage: str
    reason: str = ""
    io_uring: tuple[str, ...] = ()
    """Its events that can be evaded with io_uring."""


@signatures.command()
@PATHS
@sigma_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per signature.")
def check(paths: tuple[str, ...], sigma: tuple[str, ...], as_json: bool) -> None:
    """Check whether files are valid, and which signatures can fire here.

    The exit status is 1 if one was refused.

    \b
    Examples:
      headrace signatures check ./my-signatures
      headrace signatures check --json | jq 'select(.coverage != "full")'
    """
    found = rules_of(paths, sigma)
    shipped = {rule.id: rule for rule in rules_of(()).rules} if paths else {}
    own = {place for rule in shipped.values() for place in (rule.file, str(SHIPPED / Path(rule.file).name))}
    others = [r for r in found.rules if r.id in shipped and not {r.file, str(Path(r.file).resolve())} & own]
    both = [RuleError(rule.file, rule.line, rule.id, taken(shipped[rule.id])) for rule in others]
    refused = (*found.refused, *found.left_out, *both)
    for warning in found.warnings():
        say(f"warning  {warning}", err=True)
    lines = []
    for rule in found.rules:
        if rule in others:
            continue
        state = _seen(rule)
        title = rule.title or rule.name
        lines.append(Checked(rule.id, title, rule.file, state.word, state.reason, evaded(rule)))
    lines += [Checked(e.rule, "", e.file, "refused", f"line {e.line}: {e.why}" if e.line else e.why) for e in refused]
    for line in lines:
        if as_json:
            click.echo(msgspec.json.encode(line))
        elif line.coverage == "refused":
            say(f"refused  {line.file}: {f'{line.id}: ' if line.id else ''}{line.reason}")
        elif line.coverage != "full":
            say(f"{line.coverage:<8} {line.id or line.file}  {line.reason}")
    if not as_json:
        counts = {word: sum(x.coverage == word for x in lines) for word in ("full", "partial", "none", "refused")}
        say("  ".join(f"{word} {count}" for word, count in counts.items()))
        missed = sum(bool(line.io_uring) for line in lines)
        if missed:
            say(f"{missed} look at events that io_uring can do unseen (`signatures show ID`, or --json)")
    raise SystemExit(1 if refused else 0)


@signatures.command()
@PATHS
def test(paths: tuple[str, ...]) -> None:
    """Test signatures against their own examples. Exit status 1 if one fails."""
    found = rules_of(paths)
    failures, held = [], 0
    for rule in found.rules:
        for example in found.examples.get(rule.id, ()):
            problem = _against(rule, example)
            held += not problem
            if problem:
                failures.append(f"{rule.file}:{example.line}: {rule.id}: {problem}")
    for failure in failures:
        say(failure, err=True)
    _refusals(found)
    bare = sum(not found.examples.get(rule.id) for rule in found.rules)
    say(f"{held} examples hold, {len(failures)} do not; {bare} signatures have none")
    raise SystemExit(1 if failures or found.refused else 0)


def _against(rule: Rule, example: Example) -> str:
    """Why an example fails; "" if it passes."""
    problems: list[str] = []
    try:
        events = [of_example(given, catalogue()) for given in example.events]
    except (ValueError, UnknownName, FieldError) as error:
        return f"not an example: {error}"
    matches = rule.id in Analysis((rule,), catalogue(), problems.append).of_examples(events)
    if problems:
        return problems[0]
    if matches == example.matches:
        return ""
    return "an example does not match" if example.matches else "a near miss matches"
