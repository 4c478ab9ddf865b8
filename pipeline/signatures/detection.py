"""Determines which signatures are enabled in a run, and where their findings go."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from headrace.bpf.tables.catalogue import catalogue
from headrace.config import outputs
from headrace.config.settings import Settings
from headrace.config.tuning import TuningError
from headrace.pipeline.process.failure import EX_USAGE, Failure, say
from headrace.pipeline.signatures.rehearsal import refusal
from headrace.workers.detect.rules.rulesets import Ruleset, build

READ_FOR = {
    "env": ("exec_environment", "the environment of processes"),
    "descriptor": ("fd_paths", "what descriptors stand for"),
}
"""Prefixes of fields that are read only if a setting is enabled: the setting, and the data that it adds."""


def unread(rules: Ruleset, settings: Settings) -> dict[str, str]:
    """Disabled settings that signatures need, with the data that each adds."""
    return {
        setting: what
        for prefix, (setting, what) in READ_FOR.items()
        if rules.needs(prefix) and not getattr(settings, setting)
    }


def only_findings(settings: Settings, is_replay: bool) -> bool:
    """Whether a run shows only findings, because neither events nor an output for events were requested."""
    asked = settings.events not in ("", "*") if is_replay else bool(settings.events)
    named = any(not spec.startswith("option:") for spec in settings.output)
    return not asked and not named and (not is_replay or bool(settings.findings))


def sinks(settings: Settings, quiet: bool) -> tuple[outputs.Output, ...]:
    """Outputs of findings; none if signatures are disabled."""
    wanted = settings.signatures or settings.sigma or settings.rules or settings.exclude or settings.exceptions
    specs = settings.findings or (("table:-",) if quiet or wanted else ())
    return outputs.parse_findings(specs)


def ruleset(settings: Settings, also_off: bool = False) -> Ruleset:
    """The rules of a run. Warns about rules that are left out. `also_off`: include those that are not enabled.

    Raises Failure if any rule is refused, and TuningError if no rule remains: a set is used completely or not at all.
    """
    found = build(
        catalogue(),
        settings.signatures,
        settings.rules,
        settings.exclude,
        settings.min_severity,
        settings.exceptions,
        sigma=sigma_paths(settings.sigma),
        keywords=settings.sigma_keywords,
        also_off=also_off,
        refusal=refusal,
    )
    for error in found.left_out:
        say(f"headrace: left out: {error}", err=True)
    for warning in found.warnings():
        say(f"headrace: warning: {warning}", err=True)
    if found.refused:
        raise Failure(str(found.refused[0]), EX_USAGE, *map(str, found.refused[1:]))
    if not found.rules:
        raise TuningError("no signature is left")
    return found


def sigma_paths(paths: Sequence[str]) -> Sequence[str]:
    """Return `paths`. Raises Failure if there are any and pySigma is not installed."""
    if paths and find_spec("sigma") is None:
        raise Failure("Sigma rules need pySigma, which is not installed: pip install 'headrace[sigma]'", EX_USAGE)
    return paths
