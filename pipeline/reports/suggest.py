"""`headrace suggest`: exceptions for findings that repeat, the most useful first."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import click
import msgspec

from headrace.bpf.tables.catalogue import catalogue
from headrace.config import filters, outputs, settings
from headrace.config.rules import Rule
from headrace.pipeline.api.errors import Error
from headrace.pipeline.api.tracing import trace
from headrace.pipeline.process.failure import EX_DATAERR, EX_IOERR, EX_USAGE, Failure, say
from headrace.pipeline.reports.suggestions import Seen, Suggestion, seen, suggestions
from headrace.pipeline.run.replay import replay
from headrace.pipeline.run.request import Request
from headrace.pipeline.stages.recording import MAGIC, RecordingError
from headrace.workers.detect.rules.rulesets import Ruleset, build

COMMANDED = "headrace.commanded"
"""Key of a context: whether `--` preceded the arguments."""


def _of_file(path: str, ruleset: Ruleset) -> Iterator[bytes]:
    """The findings in a file, or those that a recording gives."""
    with os.fdopen(os.dup(0), "rb") if path == "-" else open(path, "rb") as file:
        if file.peek(len(MAGIC))[: len(MAGIC)] != MAGIC:
            yield from file
            return
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        found = Path(folder, "findings")
        sinks = outputs.parse_findings([f"json:{found}"])
        given = settings.Settings(fold_s=0, log_level="error")
        try:
            replay(Request(given, filters.Selection(), outputs.Outputs(()), ruleset, sinks), Path(path))
        except RecordingError as error:
            raise Failure(str(error), EX_DATAERR) from error
        with found.open("rb") as file:
            yield from file


def _of_command(command: Sequence[str]) -> Iterator[bytes]:
    with trace(command, findings=True, options=["--fold=0"]) as run:
        yield from run.lines()


def _read(lines: Iterable[bytes], rules: Mapping[str, Rule]) -> Iterator[Seen]:
    rejected = 0
    for line in lines:
        try:
            yield seen(line, rules)
        except (ValueError, msgspec.DecodeError):
            rejected += 1
    if rejected:
        say(f"headrace: {rejected} lines are no findings of headrace (--findings json:FILE)", err=True)


def _show(found: list[Suggestion], whole: int) -> None:
    left = whole - sum(one.removes for one in found)
    for number, one in enumerate(found, 1):
        say(f"{number}. {one.id} {one.title}: removes {one.removes:,} of {one.of:,}; hides none of its own examples")
        say(f"   nothing would be found any more where {one.changes()}")
        say(*(f"     {line}" for line in one.entry().splitlines()), "")
    say(f"{whole:,} findings; {len(found)} suggestions leave {left:,}")


class SuggestCommand(click.Command):
    """Remembers whether `--` preceded the arguments: a command follows then, and not a file."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        context.meta[COMMANDED] = "--" in args
        return super().parse_args(context, args)


@click.command(cls=SuggestCommand, context_settings={"allow_interspersed_args": True})
@click.option("--append", metavar="FILE", help="Append the suggestions to this file of exceptions (--exceptions).")
@click.option("--only", multiple=True, type=int, metavar="N", help="Only the suggestion with this number. Repeatable.")
@click.option("-n", "--count", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="At most N.")
@click.option("--signatures", multiple=True, metavar="PATH", help="More signatures, as the run had them.")
@click.option("--sigma", multiple=True, metavar="PATH", help="Sigma rules, as the run had them.")
@click.option("-o", "--output", "form", type=click.Choice(("table", "json")), default="table", show_default=True)
@click.argument("source", nargs=-1, type=click.UNPROCESSED, metavar="FILE|-|-- COMMAND [ARG]...")
@click.pass_context
def suggest(
    context: click.Context,
    append: str | None,
    only: Sequence[int],
    count: int,
    signatures: Sequence[str],
    sigma: Sequence[str],
    form: str,
    source: Sequence[str],
) -> None:
    """Propose exceptions for findings that repeat.

    FILE has findings as JSON lines, or is a recording. With -- COMMAND, the command is traced. A suggestion names what
    all the findings that it removes have in common. None hides an example of its signature. Read what it would hide
    before you use it.

    \b
    Examples:
      headrace suggest findings.json
      headrace suggest day.hrc -o json | jq '.[].unless'
      headrace suggest findings.json --only 1 --append exceptions.yaml
      headrace suggest -- make
    """
    if not source:
        raise Failure("what has the findings? Give a FILE, or -- COMMAND", EX_USAGE)
    ruleset = build(catalogue(), signatures, sigma=sigma, also_off=True)
    rules = {rule.id: rule for rule in ruleset.rules}
    is_file = len(source) == 1 and not context.meta.get(COMMANDED)
    try:
        lines = _of_file(source[0], ruleset) if is_file else _of_command(source)
        findings = list(_read(lines, rules))
    except OSError as error:
        raise Failure(f"{source[0]}: {error.strerror}", EX_USAGE) from error
    except Error as error:
        raise Failure(str(error), EX_USAGE) from error
    found = suggestions(findings, rules, ruleset.examples, catalogue())[:count]
    if only:
        found = [one for number, one in enumerate(found, 1) if number in only]
    if form == "json":
        say(msgspec.json.encode(found).decode())
    else:
        _show(found, sum(one.count for one in findings))
    if append:
        _append(append, found)


def _append(path: str, found: list[Suggestion]) -> None:
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(one.entry() for one in found)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}", EX_IOERR) from error
    say(f"headrace: appended {len(found)} exceptions to {path}", err=True)
