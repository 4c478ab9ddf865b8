"""The rules of a run: loaded, checked, chosen, and what this host can give them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from headrace.bpf.tables.catalogue import Catalogue, Event
from headrace.config.conditions import asked, tests
from headrace.config.files import FileError
from headrace.config.rules import (
    MAX_CODE,
    MAX_RULES,
    MAX_TEXT,
    MAX_VALUES,
    SHIPPED,
    Example,
    Loaded,
    Rule,
    RuleError,
    files_of,
    load,
    shown_path,
    taken,
    text_of,
)
from headrace.config.tuning import TuningError, chosen, read_exceptions, with_exceptions
from headrace.workers.detect.code import old_name
from headrace.workers.detect.code.bounds import load_code
from headrace.workers.detect.rules.compiled import check_rule, has_field

Lack = Callable[[Event], str]
"""Why this host cannot give an event; "" if it can."""


@dataclass(frozen=True)
class Coverage:
    """What of a rule can fire here: `full`, `partial` or `none`, and why not all of it."""

    word: str
    reason: str = ""


@dataclass
class Ruleset:
    """Rules that can be used, and those that cannot."""

    rules: tuple[Rule, ...] = ()
    examples: dict[str, tuple[Example, ...]] = field(default_factory=dict)
    refused: tuple[RuleError, ...] = ()
    left_out: tuple[RuleError, ...] = ()
    """Sigma rules that cannot be used: of a collection of others, some may be for something else."""

    def warnings(self) -> list[str]:
        """What their authors should change before the next release."""
        files = {rule.file: rule.source for rule in self.rules if rule.code}
        return [text for file, source in files.items() if (text := old_name.warning(file, source))]

    def events(self, catalogue: Catalogue, lack: Lack) -> tuple[Event, ...]:
        """What must be traced for them."""
        names = {name for rule in self.rules for name in rule.events}
        return tuple(event for name in sorted(names) if not lack(event := catalogue.by_name[name]))

    def needs(self, prefix: str) -> bool:
        """Whether a rule asks for a field of that name, or one that begins with it and a dot."""
        return any(
            name == prefix or name.startswith((f"{prefix}.", f"{prefix}["))
            for rule in self.rules
            for name in _fields(rule)
        )


def _fields(rule: Rule) -> list[str]:
    """All that a rule asks for."""
    tested = [name for node in rule.events.values() for name in asked(node)]
    return [*tested, *rule.data.values(), *(rule.threshold.by if rule.threshold else ())]


def coverage(rule: Rule, catalogue: Catalogue, lack: Lack) -> Coverage:
    """What of a rule this host can provide."""
    missing = {name: why for name in rule.events if (why := lack(catalogue.by_name[name]))}
    reasons = [f"{name}: {why}" for name, why in missing.items()] + list(rule.dead)
    if rule.lacking:
        return Coverage("none", rule.lacking)
    if len(missing) == len(rule.events):
        return Coverage("none", "; ".join(reasons))
    return Coverage("partial" if reasons else "full", "; ".join(reasons))


def _code_files(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        with contextlib.suppress(FileError):  # said already
            yield from files_of(folder, code=True)


def _add_sigma(usable: list[Rule], paths: Sequence[str], catalogue: Catalogue, keywords: bool) -> list[RuleError]:
    """Sigma rules beside others; what is left out."""
    from headrace.workers.detect.rules.sigma_files import load_sigma  # an extra

    found, left_out = load_sigma(list(map(Path, paths)), catalogue, keywords)
    known = {rule.id: rule for rule in usable}
    usable += [rule for rule in found if rule.id not in known]
    return left_out + [RuleError(r.file, 0, r.id, taken(known[r.id])) for r in found if r.id in known]


def _as_sent(rule: Rule) -> Rule:
    """A rule as workers get it; RuleError if it cannot be sent."""
    try:
        return msgspec.msgpack.decode(msgspec.msgpack.encode(rule), type=Rule)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, TypeError) as error:
        raise RuleError(rule.file, rule.line, rule.id, f"not a signature: {error}") from error


def _texts(rule: Rule) -> list[str]:
    return [str(value) for node in rule.events.values() for test in tests(node) for value in test.values]


def _checked(rules: Sequence[Rule], catalogue: Catalogue) -> tuple[list[Rule], list[RuleError]]:
    """Those whose tests can be decided, and the others."""
    fit: list[Rule] = []
    unfit: list[RuleError] = []
    for rule in rules:
        try:
            check_rule(rule, catalogue)
            fit.append(rule)
        except RuleError as error:
            unfit.append(error)
    return fit, unfit


def within_bounds(rules: Sequence[Rule]) -> tuple[list[Rule], list[RuleError]]:
    """Those that a set may have, and those beyond. What ships does not count, so that `check` says what `run` does."""
    code = files_of(SHIPPED, code=True)
    own = {shown_path(path) for path in (*files_of(SHIPPED), *code)} | set(map(str, code))
    most = {"signatures": MAX_RULES, "values": MAX_VALUES, "bytes of values": MAX_TEXT}
    most["signatures in Python"] = MAX_CODE - len(code)
    kept: list[Rule] = []
    refused: list[RuleError] = []
    taken_up = dict.fromkeys(most, 0)
    for rule in rules:
        texts = _texts(rule) if rule.file not in own else []
        counts = (rule.file not in own, len(texts), sum(map(len, texts)), bool(rule.code))
        after = {name: taken_up[name] + count for name, count in zip(most, counts, strict=True)}
        beyond = [name for name, count in after.items() if count > most[name]]
        if beyond:
            why = f"more than {most[beyond[0]]} {beyond[0]} in all that are loaded"
            refused.append(RuleError(rule.file, rule.line, rule.id, why))
        else:
            taken_up = after
            kept.append(rule)
    return kept, refused


Refusal = Callable[[Path, str], RuleError | None]
"""Of a file and its text: why it may not be run here, None if it may."""


def _add_code(loaded: Loaded, path: Path, catalogue: Catalogue, refusal: Refusal | None) -> None:
    if refusal and not path.resolve().is_relative_to(SHIPPED) and (error := refusal(path, text_of(path))):
        raise error
    for rule, examples in load_code(path, catalogue):
        for other in loaded.rules:
            if rule.id == other.id:
                raise RuleError(str(path), 0, rule.id, taken(other))
        loaded.rules.append(rule)
        loaded.examples[rule.id] = examples


def build(
    catalogue: Catalogue,
    folders: Sequence[str] = (),
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    least: str = "info",
    exceptions: str = "",
    shipped: bool = True,
    sigma: Sequence[str] = (),
    keywords: bool = False,
    also_off: bool = False,
    refusal: Refusal | None = None,
) -> Ruleset:
    """The rules that ship and those of some folders, tuned. TuningError; what cannot be used is in `refused`.
    `also_off`: those as well that say they are not enabled; `refusal`: why a file in Python, which is not headrace's,
    may not be run here.
    """
    loaded = load([*([SHIPPED] if shipped else []), *map(Path, folders)])
    refused, usable = list(loaded.refused), []
    for path in _code_files([*([SHIPPED] if shipped else []), *map(Path, folders)]):
        try:
            _add_code(loaded, path, catalogue, refusal)
        except RuleError as error:
            refused.append(error)
    for rule in loaded.rules:
        try:
            usable.append(_as_sent(rule))
        except RuleError as error:
            refused.append(error)
    # before each value is looked at, which takes long if there are too many
    usable, too_many = within_bounds(usable)
    refused += too_many
    usable, unfit = _checked(usable, catalogue)
    refused += unfit
    left_out: list[RuleError] = []
    if sigma:
        left_out = _add_sigma(usable, sigma, catalogue, keywords)
        # what was named itself must be there; in a folder of others' rules, some may be for something else
        refused += [error for error in left_out if error.file in sigma and not error.rule]
        left_out = [error for error in left_out if error.file not in sigma or error.rule]
    usable, too_many = within_bounds(usable)
    refused += too_many
    try:
        rules = chosen(usable, only, exclude, least, also_off)
    except TuningError:
        if not refused:
            raise
        rules = ()  # the one that was named may be among those refused, which says more
    if exceptions:
        try:
            rules = with_exceptions(
                rules,
                read_exceptions(Path(exceptions)),
                lambda event, name: has_field(catalogue.by_name[event], name),
                usable,
            )
        except RuleError as error:
            refused.append(error)
        # without its exceptions it was right
        refused += [RuleError(exceptions, e.line, e.rule, e.why) for e in _checked(rules, catalogue)[1]]
    return Ruleset(rules, loaded.examples, tuple(refused), tuple(left_out))
