"""Signature files: what cannot be used is refused with its file, the rest is loaded, compiled and evaluated.

An input is one file. Its rules go the whole way: read, checked, encoded for workers, asked about events, held against
their own examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import msgspec

from headrace.bpf.programs.early import c_source
from headrace.bpf.tables.catalogue import catalogue
from headrace.pipeline.command.signatures import _against, describe
from headrace.workers.conditions.narrowing import narrowed
from headrace.workers.detect.detector import Detector, SentRules
from headrace.workers.detect.offline.analysis import Analysis, Indexed
from headrace.workers.detect.rules.rulesets import Ruleset, build, coverage
from tests.fuzz.files import sound, unhinted, written
from tests.fuzz.lines import seeds as line_seeds
from tests.fuzz.seeds import SIGNATURES

FORM = "yaml"
EACH = 1
TOKENS = (
    b"events:",
    b"condition:",
    b"|re:",
    b"|cidr:",
    b"|glob:",
    b"|has:",
    b"|gt:",
    b"|hex:",
    b"|nocase",
    b"|all",
    b"threshold:",
    b"examples:",
    b"!!binary ",
    b"!!timestamp ",
    b"&a ",
    b"*a",
    b"<<: ",
    b"---\n",
    b"\n  - ",
    b"null",
    b"1e999",
    b".inf",
    b"0x_",
    b"2001-01-01",
    b"99999999999999999999",
    b"\\ud800",
    b"args.",
    b"(?P<",
    b"[[:alpha:]]",
    b"{0,99999}",
)


def seeds() -> Iterator[bytes]:
    """Some files."""
    return (text.encode() for text in SIGNATURES)


@cache
def events() -> list[Indexed]:
    """Some events of every kind that rules of the seeds look at."""
    reader = Analysis((), catalogue())
    read = (reader.read(i, line) for i, line in enumerate(list(line_seeds())[::9]))
    return [event for event in read if event is not None]


def used(found: Ruleset) -> None:
    """What is done with rules that were not refused."""
    for refusal in (*found.refused, *found.left_out):
        assert refusal.why, "a rule is refused with a reason"
    rules = found.rules
    for rule in rules:
        coverage(rule, catalogue(), lambda event: "")
        for node in rule.events.values():
            describe(node)
        for example in found.examples.get(rule.id, ()):
            _against(rule, example)
    if rules:
        sound(c_source(narrowed(rules, catalogue(), ())))
        encoded = msgspec.msgpack.encode(SentRules(rules))
        Detector.of(encoded, catalogue(), lambda text: None)
        list(map(msgspec.json.encode, Analysis(rules, catalogue()).findings(events())))


@unhinted()
def target(data: bytes) -> None:
    with written(data, ".yaml") as path:
        used(build(catalogue(), (path,), shipped=False, also_off=True))
