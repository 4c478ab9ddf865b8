"""Files of exceptions, on the signatures that ship: refused with a reason, or applied and evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import msgspec

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.rules import Rule, RuleError
from headrace.config.tuning import read_exceptions, with_exceptions
from headrace.workers.detect.offline.analysis import Analysis
from headrace.workers.detect.rules.compiled import check_rule, has_field
from headrace.workers.detect.rules.rulesets import build
from tests.fuzz import reasoned
from tests.fuzz.files import Path, unhinted, written
from tests.fuzz.seeds import EXCEPTIONS
from tests.fuzz.signatures import TOKENS, events

__all__ = ["EACH", "FORM", "TOKENS", "seeds", "target"]
FORM = "yaml"
EACH = 1


def seeds() -> Iterator[bytes]:
    """Some files."""
    return (text.encode() for text in EXCEPTIONS)


@cache
def _rules() -> tuple[Rule, ...]:
    return build(catalogue()).rules


def _has(event: str, name: str) -> bool:
    return has_field(catalogue().by_name[event], name)


@unhinted()
def target(data: bytes) -> None:
    with written(data, ".yaml") as path:
        try:
            given = read_exceptions(Path(path))
            rules = with_exceptions(_rules(), given, _has, _rules())
            changed = [rule for rule, before in zip(rules, _rules(), strict=True) if rule is not before]
            for rule in changed:
                check_rule(rule, catalogue())
        except RuleError as error:
            reasoned(error.why)
            return
    some = tuple(changed[:2])
    msgspec.msgpack.encode(some)
    list(map(msgspec.json.encode, Analysis(some, catalogue()).findings(events())))
