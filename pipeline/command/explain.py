"""`headrace signatures explain`: explains why a signature matches an event or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.conditions import Node, Test
from headrace.config.rules import Rule
from headrace.config.tree import And, Certain, Not, Or, conjunction
from headrace.pipeline.command.options import sigma_option
from headrace.pipeline.command.signatures import PATHS, named, rules_of
from headrace.pipeline.host.features import event_lack
from headrace.pipeline.process.failure import EX_DATAERR, EX_USAGE, Failure, say
from headrace.workers.detect.findings.data import shown
from headrace.workers.detect.offline.analysis import Analysis, Indexed, LineError
from headrace.workers.detect.offline.flat import FlatRules
from headrace.workers.detect.rules.compiled import IN_SCOPE
from headrace.workers.detect.rules.fields import Field, field_of
from headrace.workers.detect.rules.rulesets import coverage

WORDS = {True: "true", False: "false", None: "unknown"}


@click.command()
@click.argument("rule_id", metavar="ID")
@click.argument("source", metavar="FILE[:LINE]")
@PATHS
@sigma_option
def explain(rule_id: str, source: str, paths: tuple[str, ...], sigma: tuple[str, ...]) -> None:
    """Explain why a signature matches an event or not: each test, with the value it saw.

    FILE has events as JSON lines, headrace's or Tracee's; LINE counts from 1, and without it all lines are looked at.
    Status 0 if one matches, 1 if none does.

    \b
    Examples:
      headrace signatures explain TRC-107 events.json:12
      headrace signatures explain MY-1 events.json ./my-signatures
    """
    rule = named(rules_of(paths, sigma), rule_id)
    state = coverage(rule, catalogue(), event_lack)
    if state.word != "full":
        say(f"{rule.id} is covered {state.word} on this host: {state.reason}")
    path, line = _place(source)
    if rule.threshold:
        say(f"{rule.id}: {rule.threshold.text}; each is explained alone")
    matched, last = False, 0
    for event in _events(path):
        last = event.line + 1
        if line in (0, event.line + 1):
            matched |= _explained(rule, event, event.line + 1)
    if line > last:
        raise Failure(f"{path} has no event in line {line}, nor behind it", EX_USAGE)
    if rule.code:
        matched = _by_code(rule, path, line)
    raise SystemExit(0 if matched else 1)


def _place(source: str) -> tuple[Path, int]:
    name, _, number = source.rpartition(":")
    if name and number.isdecimal() and not Path(source).exists():
        return Path(name), int(number)
    return Path(source), 0


def _events(path: Path) -> Iterator[Indexed]:
    reader = Analysis((), catalogue())
    try:
        with path.open("rb") as file:
            for index, text in enumerate(file):
                try:
                    event = reader.read(index, text)
                except LineError as error:
                    raise Failure(f"{path}:{index + 1}: {error}", EX_DATAERR) from error
                if event is not None:
                    yield event
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}", EX_USAGE) from error


def _explained(rule: Rule, one: Indexed, line: int) -> bool:
    name = one.event.event.name
    node = rule.events.get(name)
    if node is None:
        say(f"line {line}: {name}: not requested: {rule.id} looks at {', '.join(rule.events)}")
        return False
    plain = FlatRules()
    whole = conjunction(IN_SCOPE[rule.scope], node)
    say(f"line {line}: {name}: {WORDS[plain.verdict(whole, one.event)]}")
    for text in _tree(whole, one, plain, 1):
        say(text)
    return plain.verdict(whole, one.event) is True


def _tree(node: Node, one: Indexed, plain: FlatRules, depth: int) -> Iterator[str]:
    lead, word = "  " * depth, WORDS[plain.verdict(node, one.event)]
    if isinstance(node, Test):
        field = field_of(one.event.event, node.field)
        seen = [f"{each.name} is {_known(each, one)}" for each in field.pair or (field,)]
        yield f"{lead}{word:<8} {', '.join(seen)}: {node.field if field.pair else node.wanted}"
        return
    names = {And: "all of", Or: "one of", Not: "not", Certain: "certainly"}
    parts = (node.part,) if isinstance(node, Not | Certain) else node.parts
    yield f"{lead}{word:<8} {names[type(node)]}" + ("" if parts else " nothing")
    for part in parts:
        yield from _tree(part, one, plain, depth + 1)


def _known(field: Field, one: Indexed) -> str:
    value = one.event.value(field)
    return "not known" if value is None else repr(shown(field, value))


def _by_code(rule: Rule, path: Path, line: int) -> bool:
    """Run the code of a Python signature over all lines. Returns whether it has a finding in the wanted lines."""
    analysis = Analysis((rule,), catalogue(), lambda text: say(text, err=True))
    found = [one["eventIndex"] + 1 for one in analysis.findings(list(_events(path)))]
    wanted = [number for number in found if line in (0, number)]
    say(f"its code finds something in lines {', '.join(map(str, wanted))}" if wanted else "its code finds nothing")
    return bool(wanted)
