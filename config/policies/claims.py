"""Parses the parts of all policies into claims. A claim's position is its bit in every mask of policies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from headrace.bpf.programs import scope
from headrace.bpf.programs.terms import ScopeError
from headrace.bpf.tables.catalogue import Catalogue, Event, UnknownName
from headrace.config.filters import FilterError, Selection, parse
from headrace.config.policies.policy import Policy, PolicyError
from headrace.config.rules import Rule
from headrace.config.tuning import TuningError, chosen


@dataclass(frozen=True)
class Claim:
    """A part of a policy, parsed."""

    policy: str
    scope: tuple[str, ...] = ()
    selection: Selection = field(default_factory=Selection)
    """The events, with the conditions on them. Ranges of results are conditions, too."""
    ranges: tuple[tuple[str, int, int], ...] = ()
    """(event, least, most): results for the kernel side, as in Selection.retval."""
    rules: tuple[str, ...] = ()
    """Ids of the signatures."""


def claims_of(
    policies: Sequence[Policy], catalogue: Catalogue, lack: Callable[[Event], str], rules: Sequence[Rule]
) -> tuple[Claim, ...]:
    """The claims of all policies. `rules`: all signatures that are loaded. PolicyError names the file and line."""
    found = []
    for policy in policies:
        for part in policy.parts:
            try:
                given = parse(part.events, catalogue, lack) if part.events else Selection()
                scope.parse(part.scope, 0)
                named = chosen(rules, part.signatures, (), "info") if part.signatures else ()
            except TuningError as error:
                raise PolicyError(f"{part.place}: policy {policy.name}: {error}, and no event has that name") from error
            except (FilterError, UnknownName, ScopeError) as error:
                raise PolicyError(f"{part.place}: policy {policy.name}: {error}") from error
            whole = given.beside(given.events)
            found.append(Claim(policy.name, part.scope, whole, given.retval, tuple(rule.id for rule in named)))
    return tuple(found)


def union(claims: Sequence[Claim]) -> Selection:
    """The events of all claims. A range of results stays if every claim on the event has one: the widest."""
    events = {event.name: event for claim in claims for event in claim.selection.events}
    skipped = {event.name: event for claim in claims for event in claim.selection.skipped if event.name not in events}
    ranges: dict[str, list[tuple[int, int]]] = {}
    for claim in claims:
        for name, low, high in claim.ranges:
            ranges.setdefault(name, []).append((low, high))
    asked = {name: sum(event.name == name for c in claims for event in c.selection.events) for name in ranges}
    return Selection(
        tuple(sorted(events.values(), key=lambda event: event.id)),
        tuple(skipped.values()),
        tuple(
            (name, min(low for low, _ in spans), max(high for _, high in spans))
            for name, spans in ranges.items()
            if len(spans) == asked[name]
        ),
    )


def names_of(claims: Sequence[Claim], mask: int) -> tuple[str, ...]:
    """The names of the policies in a mask, each once."""
    return tuple(dict.fromkeys(claim.policy for bit, claim in enumerate(claims) if mask >> bit & 1))


def mask_of(claims: Sequence[Claim], policies: Iterable[str]) -> int:
    """The mask of all claims of these policies."""
    wanted = set(policies)
    return sum(1 << bit for bit, claim in enumerate(claims) if claim.policy in wanted)


def event_masks(claims: Sequence[Claim], rules: Mapping[str, Rule] | None = None) -> dict[str, int]:
    """The claims on each event, by name. With `rules` by id: also those whose signatures look at it."""
    known = rules or {}
    return _masks(
        {
            *(event.name for event in claim.selection.events),
            *(name for rule in claim.rules if rule in known for name in known[rule].events),
        }
        for claim in claims
    )


def rule_masks(claims: Sequence[Claim]) -> dict[str, int]:
    """The claims on each signature, by id."""
    return _masks(claim.rules for claim in claims)


def _masks(of_claims: Iterable[Iterable[str]]) -> dict[str, int]:
    """For each name, the mask of the claims that have it."""
    found: dict[str, int] = {}
    for bit, names in enumerate(of_claims):
        for name in names:
            found[name] = found.get(name, 0) | 1 << bit
    return found
