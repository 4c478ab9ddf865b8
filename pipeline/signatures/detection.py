"""Which signatures are on in a run, and where their findings go."""

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
"""Fields that are read only if a setting says so: the setting, and what it is about."""


def unread(rules: Ruleset, settings: Settings) -> dict[str, str]:
    """Settings that are off and that signatures need, with what each is about."""
    return {
        setting: what
        for prefix, (setting, what) in READ_FOR.items()
        if rules.needs(prefix) and not getattr(settings, setting)
    }


def only_findings(settings: Settings, is_replay: bool) -> bool:
    """Whether a run shows findings and no events: it was asked for neither events nor an output of them."""
    asked = settings.events not in ("", "*") if is_replay else bool(settings.events)
    named = any(not spec.startswith("option:") for spec in settings.output)
    return not asked and not named and (not is_replay or bool(settings.findings))


def sinks(settings: Settings, quiet: bool) -> tuple[outputs.Output, ...]:
    """Where findings go; nowhere if signatures are off."""
    wanted = settings.signatures or settings.sigma or settings.rules or settings.exclude or settings.exceptions
    specs = settings.findings or (("table:-",) if quiet or wanted else ())
    return outputs.parse_findings(specs)


def ruleset(settings: Settings) -> Ruleset:
    """The rules of a run. Failure if one of them cannot be used: a set is taken whole or not at all."""
    found = build(
        catalogue(),
        settings.signatures,
        settings.rules,
        settings.exclude,
        settings.min_severity,
        settings.exceptions,
        sigma=sigma_paths(settings.sigma),
        keywords=settings.sigma_keywords,
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
    """Those paths; Failure if there are some and no pySigma."""
    if paths and find_spec("sigma") is None:
        raise Failure("Sigma rules need pySigma, which is not installed: pip install 'headrace[sigma]'", EX_USAGE)
    return paths
