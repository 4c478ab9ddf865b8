"""The rules of a run: loads, checks and selects them, and determines their coverage on this host."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from headrace.bpf.tables.catalogue import Catalogue, Event
from headrace.config.conditions import asked
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
from headrace.config.tree import leaves
from headrace.config.tuning import TuningError, chosen, read_exceptions, with_exceptions
from headrace.workers.detect.code import old_name
from headrace.workers.detect.code.bounds import load_code
from headrace.workers.detect.rules.compiled import check_rule, has_field

Lack = Callable[[Event], str]
"""Returns why this host cannot provide an event; "" if it can."""


@dataclass(frozen=True)
class Coverage:
    """How much of a rule can match here: `full`, `partial` or `none`, and the reason if it is not full."""

    word: str
    reason: str = ""


@dataclass
class Ruleset:
    """The rules that can be used, and those that were refused."""

    rules: tuple[Rule, ...] = ()
    examples: dict[str, tuple[Example, ...]] = field(default_factory=dict)
    refused: tuple[RuleError, ...] = ()
    left_out: tuple[RuleError, ...] = ()
    """Unusable Sigma rules. They are only skipped: a collection by others may have rules for other products."""

    def warnings(self) -> list[str]:
        """Warnings for authors: changes that their files need before the next release."""
        files = {rule.file: rule.source for rule in self.rules if rule.code}
        return [text for file, source in files.items() if (text := old_name.warning(file, source))]

    def events(self, catalogue: Catalogue, lack: Lack) -> tuple[Event, ...]:
        """The events that must be traced for these rules, without those that this host lacks."""
        names = {name for rule in self.rules for name in rule.events}
        return tuple(event for name in sorted(names) if not lack(event := catalogue.by_name[name]))

    def needs(self, prefix: str) -> bool:
        """Whether a rule uses the field of that name, or a field below it (`PREFIX.` or `PREFIX[`)."""
        return any(
            name == prefix or name.startswith((f"{prefix}.", f"{prefix}["))
            for rule in self.rules
            for name in _fields(rule)
        )


def _fields(rule: Rule) -> list[str]:
    """All fields that a rule uses: in conditions, data and threshold."""
    tested = [name for node in rule.events.values() for name in asked(node)]
    return [*tested, *rule.data.values(), *(rule.threshold.by if rule.threshold else ())]


def coverage(rule: Rule, catalogue: Catalogue, lack: Lack) -> Coverage:
    """How much of a rule this host can provide."""
    missing = {name: why for name in rule.events if (why := lack(catalogue.by_name[name]))}
    reasons = [f"{name}: {why}" for name, why in missing.items()] + list(rule.dead)
    if rule.lacking:
        return Coverage("none", rule.lacking)
    if len(missing) == len(rule.events):
        return Coverage("none", "; ".join(reasons))
    return Coverage("partial" if reasons else "full", "; ".join(reasons))


def _code_files(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        with contextlib.suppress(FileError):  # load() has already reported it
            yield from files_of(folder, code=True)


def _add_sigma(usable: list[Rule], paths: Sequence[str], catalogue: Catalogue, keywords: bool) -> list[RuleError]:
    """Add Sigma rules to `usable`. Returns those that are left out."""
    from headrace.workers.detect.rules.sigma_files import load_sigma  # needs an optional dependency

    found, left_out = load_sigma(list(map(Path, paths)), catalogue, keywords)
    known = {rule.id: rule for rule in usable}
    usable += [rule for rule in found if rule.id not in known]
    return left_out + [RuleError(r.file, 0, r.id, taken(known[r.id])) for r in found if r.id in known]


def _as_sent(rule: Rule) -> Rule:
    """A rule as the workers decode it; RuleError if it cannot be encoded."""
    try:
        return msgspec.msgpack.decode(msgspec.msgpack.encode(rule), type=Rule)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, TypeError) as error:
        raise RuleError(rule.file, rule.line, rule.id, f"not a signature: {error}") from error


def _texts(rule: Rule) -> list[str]:
    return [str(value) for node in rule.events.values() for test in leaves(node) for value in test.values]


def _checked(rules: Sequence[Rule], catalogue: Catalogue) -> tuple[list[Rule], list[RuleError]]:
    """The rules that pass check_rule(), and the errors of the others."""
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
    """The rules that fit within the bounds of a set, and the errors of those beyond.

    The rules that ship do not count against the bounds on rules and values, so `signatures check` gives the same answer
    as a run.
    """
    code = files_of(SHIPPED, code=True)
    own = {shown_path(path) for path in (*files_of(SHIPPED), *code)} | set(map(str, code))
    most = {"signatures": MAX_RULES, "values": MAX_VALUES, "bytes of values": MAX_TEXT}
    most["signatures in Python"] = MAX_CODE - len(code)
    kept: list[Rule] = []
    refused: list[RuleError] = []
    taken_up = dict.fromkeys(most, 0)
    for rule in rules:
        texts = _texts(rule) if rule.file not in own else []
        is_own = rule.file in own
        counts = (not is_own, len(texts), sum(map(len, texts)), bool(rule.code) and not is_own)
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
"""Given a file and its text: why it must not be executed here; None if it may."""


def _add_code(loaded: Loaded, path: Path, catalogue: Catalogue, refusal: Refusal | None) -> None:
    if refusal and not path.resolve().is_relative_to(SHIPPED) and (error := refusal(path, text_of(path))):
        raise error
    for rule, examples in load_code(path, catalogue):
        for other in loaded.rules:
            if rule.id == other.id:
                raise RuleError(str(path), 0, rule.id, taken(other))
        loaded.rules.append(rule)
        loaded.examples[rule.id] = examples


def _enabled(
    usable: Sequence[Rule], only: Sequence[str], exclude: Sequence[str], least: str, also_off: bool, some_refused: bool
) -> tuple[Rule, ...]:
    """The rules that the options choose. TuningError if a name matches none of them, unless some rules were refused:
    the named one may be among those, and its error says more.
    """
    try:
        return chosen(usable, only, exclude, least, also_off)
    except TuningError:
        if not some_refused:
            raise
        return ()


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
    """The rules of a run: those that ship and those from `folders` and `sigma`, filtered and with exceptions.

    `only`, `exclude`, `least`: see chosen() in config/tuning.py. `exceptions`: a file, "" for none. `also_off`: include
    rules that are not enabled. `keywords`: search for keywords of Sigma rules in command lines. `refusal`: asked before
    a file in Python that does not ship with headrace is executed. Unusable rules are in `refused`. TuningError if a
    pattern matches no rule and no rule was refused.
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
    # Before values are checked, which takes long if there are too many.
    usable, too_many = within_bounds(usable)
    refused += too_many
    usable, unfit = _checked(usable, catalogue)
    refused += unfit
    left_out: list[RuleError] = []
    if sigma:
        left_out = _add_sigma(usable, sigma, catalogue, keywords)
        # A path that was named must be usable. A folder of Sigma rules may contain rules for other products.
        refused += [error for error in left_out if error.file in sigma and not error.rule]
        left_out = [error for error in left_out if error.file not in sigma or error.rule]
    usable, too_many = within_bounds(usable)
    refused += too_many
    rules = _enabled(usable, only, exclude, least, also_off, bool(refused))
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
        # Without exceptions these rules passed the check, so the exceptions are the cause.
        refused += [RuleError(exceptions, e.line, e.rule, e.why) for e in _checked(rules, catalogue)[1]]
    return Ruleset(rules, loaded.examples, tuple(refused), tuple(left_out))
