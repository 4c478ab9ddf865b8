"""Resolves the policies of a run: what they trace, their signatures, and where events and findings go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from headrace.bpf.tables.catalogue import Event, catalogue, did_you_mean
from headrace.config import outputs
from headrace.config.filters import FilterError, Selection
from headrace.config.outputs import STDERR, STDOUT, Output, OutputError, Outputs
from headrace.config.policies.claims import Claim, claims_of, union
from headrace.config.policies.files import read_policies
from headrace.config.policies.policy import Policy, PolicyError
from headrace.config.settings import Settings
from headrace.pipeline.signatures import detection
from headrace.workers.conditions.filters import check_words
from headrace.workers.detect.rules.rulesets import Ruleset


class RunSelection(NamedTuple):
    """What a run traces, and where events and findings go."""

    claims: tuple[Claim, ...]
    selection: Selection
    outputs: Outputs
    findings: tuple[Output, ...]
    ruleset: Ruleset


def policies_of(settings: Settings, recording: Path | None) -> tuple[Policy, ...]:
    """The policies of a run; none if it has none. PolicyError if they cannot be used, or not together with the rest."""
    if not settings.policy:
        return ()
    if recording is not None:
        raise PolicyError("--policy: policies have scopes, which the kernel decides; in a replay there is no kernel")
    for name, given in (("--events", settings.events), ("--rules", settings.rules)):
        if given:
            raise PolicyError(f"{name}: with --policy, the policies say what is traced; write it into one of them")
    return read_policies(settings.policy, catalogue())


def policed(settings: Settings, policies: Sequence[Policy], lack: Callable[[Event], str]) -> RunSelection:
    """Resolve the policies. PolicyError, OutputError, Failure or TuningError if something is wrong."""
    detects = any(part.signatures for policy in policies for part in policy.parts)
    traces = any(part.events for policy in policies for part in policy.parts)
    loaded = detection.ruleset(settings, also_off=True) if detects else Ruleset()
    claims = claims_of(policies, catalogue(), lack, loaded.rules)
    for claim in claims:
        try:
            check_words(claim.selection.conditions)
        except FilterError as error:
            raise PolicyError(f"policy {claim.policy}: {error}") from error
    chosen = {rule for claim in claims for rule in claim.rules}
    ruleset = replace(loaded, rules=tuple(rule for rule in loaded.rules if rule.id in chosen))
    out = outputs.parse(settings.output or ["table:-"])
    findings = outputs.parse_findings(settings.findings or (f"table:{STDERR if traces else STDOUT}",))
    own_outputs = _own((policy, policy.output) for policy in policies)
    own_findings = _own(((policy, policy.findings) for policy in policies), of_findings=True)
    # without an output that the run asked for, the default takes the policies that have none of their own
    left = [p.name for p in policies if not p.output and any(part.events for part in p.parts)]
    sinks = out.sinks if settings.output else _rest(out.sinks, left, policies)
    left = [p.name for p in policies if not p.findings and any(part.signatures for part in p.parts)]
    found = findings if settings.findings else _rest(findings, left, policies)
    names = [policy.name for policy in policies]
    all_findings = (*found, *own_findings) if detects else ()
    for sink in (*sinks, *own_outputs, *all_findings):
        for name in sink.policies:
            if name not in names:
                raise OutputError(f"output {sink.name}: there is no policy {name}{did_you_mean(name, names)}")
    return RunSelection(
        claims,
        union(claims),
        Outputs((*sinks, *own_outputs) if traces else (), out.switches),
        all_findings,
        ruleset,
    )


def _own(given: Iterable[tuple[Policy, tuple[str, ...]]], of_findings: bool = False) -> tuple[Output, ...]:
    """The outputs of single policies. Those that are alike become one, which takes all of these policies."""
    found: dict[Output, tuple[str, ...]] = {}
    for policy, specs in given:
        if not specs:
            continue
        try:
            sinks = outputs.parse_findings(specs) if of_findings else outputs.parse(specs).sinks
        except OutputError as error:
            raise PolicyError(f"{policy.place}: policy {policy.name}: {error}") from error
        for sink in sinks:
            found[sink] = (*found.get(sink, ()), policy.name)
    return tuple(replace(sink, policies=names) for sink, names in found.items())


def _rest(sinks: tuple[Output, ...], left: list[str], policies: Sequence[Policy]) -> tuple[Output, ...]:
    """The default outputs, for the policies that are left."""
    if len(left) == len(policies):
        return sinks
    return tuple(replace(sink, policies=tuple(left)) for sink in sinks) if left else ()
