"""Completion of values in a shell: events, sets, signatures, formats, scopes and processes.

`headrace completion SHELL` prints what a shell loads once. Everything else is click's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from headrace.bpf.programs.scope import FLAGS, KEYS
from headrace.bpf.tables.catalogue import catalogue
from headrace.config.outputs import FINDING_FORMATS, FORMATS

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_HEADRACE_COMPLETE"
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _beginning(words: Iterable[tuple[str, str]], incomplete: str) -> list[CompletionItem]:
    """Items for the last part of a comma-separated list. The parts before it stay."""
    before, comma, last = incomplete.rpartition(",")
    mark = "!" if last.startswith("!") else ""
    lead = f"{before}{comma}{mark}"
    return [CompletionItem(lead + word, help=text) for word, text in words if word.startswith(last.removeprefix("!"))]


def events(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Events and sets."""
    known = catalogue()
    words = [(name, ", ".join(a.name for a in event.arguments)) for name, event in sorted(known.by_name.items())]
    return _beginning([*words, *((f"set={name}", "a set of events") for name in known.sets())], incomplete)


def sets(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Sets of events."""
    return _beginning(((name, "") for name in catalogue().sets()), incomplete)


def outputs(_context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Formats of outputs."""
    known = FINDING_FORMATS if parameter.name == "findings" else FORMATS
    return [CompletionItem(f"{name}:", help=text) for name, text in known.items() if name.startswith(incomplete)]


def scopes(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Keys and flags of scopes, and processes after `pid=` and `tree=`."""
    key, equals, value = incomplete.partition("=")
    if equals and key in ("pid", "tree"):
        return _beginning(((f"{key}={pid}", comm) for pid, comm in _processes()), f"{key}={value}")
    words = [(name if name in FLAGS else f"{name}=", text) for name, text in KEYS.items()]
    return [CompletionItem(word, help=text) for word, text in words if word.startswith(incomplete)]


def pids(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Running processes."""
    return _beginning(_processes(), incomplete)


def signatures(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Ids of the signatures that ship."""
    from headrace.workers.detect.rules.rulesets import build  # takes a while to import

    return _beginning(((rule.id, rule.title) for rule in build(catalogue()).rules), incomplete)


def _processes() -> list[tuple[str, str]]:
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                found.append((path.name, (path / "comm").read_text(errors="replace").strip()))
            except OSError:
                continue
    return sorted(found, key=lambda each: int(each[0]))


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what a shell needs to complete headrace's commands and values.

    \b
    Examples:
      source <(headrace completion bash)
      headrace completion zsh > ~/.zfunc/_headrace
      headrace completion fish > ~/.config/fish/completions/headrace.fish
    """
    root: Any = context.find_root().command
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(root, {}, "headrace", VARIABLE).source())
