"""Exceptions that are proposed: what they remove, and what they must never hide."""

from __future__ import annotations

import json
import random
from functools import cache
from typing import Any

import pytest
import yaml

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.rules import Example
from headrace.pipeline.reports.suggestions import Seen, Suggestion, seen, suggestions
from headrace.workers.detect.rules.rulesets import Ruleset, build

DAY, LINES = 33_000, 50
PROGRAMS = ("dpkg", "apt-get", "puppet", "node_exporter", "systemd", "cron", "logrotate", "postgres", "nginx", "java")


@cache
def ruleset() -> Ruleset:
    return build(catalogue(), also_off=True)


def found(
    rule: str, program: str, pathname: str, parent: str = "/sbin/init", user: str = "root", **more: Any
) -> dict[str, Any]:
    return {
        "signatureID": rule,
        "title": rule,
        "process": {"path": f"/usr/bin/{program}", "name": program, "user": user, "commandLine": program, "pid": 1},
        "ancestors": [{"path": parent}],
        "container": {},
        "data": {"pathname": pathname, "flags": "O_RDONLY"},
        **more,
    }


def proposed(findings: list[dict[str, Any]], **examples: list[Example]) -> list[Suggestion]:
    rules = {rule.id: rule for rule in ruleset().rules}
    lines = (seen(json.dumps(each).encode(), rules) for each in findings)
    return suggestions(lines, rules, {**ruleset().examples, **examples}, catalogue())


def hides(one: Suggestion, finding: dict[str, Any]) -> bool:
    """As an exception would: every part of it holds."""
    facts = {
        "process.path": finding["process"]["path"],
        "process.user": finding["process"]["user"],
        "parent.path": finding["ancestors"][0]["path"],
        "pathname": finding["data"]["pathname"],
    }
    if finding["signatureID"] != one.id:
        return False
    for name, wanted in one.unless.items():
        key, _, how = name.partition("|")
        value = facts[key]
        values = wanted if isinstance(wanted, list) else [wanted]
        if not any(value.startswith(each) if how == "startswith" else value == each for each in values):
            return False
    return True


def a_day() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(routine, attacks): what repeats day after day, and what must be found in it."""
    chance = random.Random(7)
    routine = []
    while len(routine) < DAY:
        program = chance.choice(PROGRAMS)
        number = PROGRAMS.index(program)
        kind = chance.random()
        if kind < 0.5:
            routine.append(found("TRC-109", program, "/proc/sys/kernel/randomize_va_space"))
        elif kind < 0.8:
            routine.append(found("TRC-1026", program, f"/etc/rc.d/service{number}"))
        else:
            unit = chance.randrange(10**6)
            routine.append(found("TRC-1027", program, f"/var/spool/cron/crontabs/tmp.{unit}", "/usr/sbin/cron"))
    attacks = [
        found("TRC-109", "xmrig", "/proc/sys/kernel/randomize_va_space"),
        found("TRC-109", "nginx", "/proc/sys/kernel/randomize_va_space", parent="/tmp/.x/sh"),
        found("TRC-1026", "dpkg", "/etc/rc.local"),
        found("TRC-1026", "postgres", "/etc/init.d/backdoor"),
        found("TRC-1027", "cron", "/etc/cron.d/persist", "/usr/sbin/cron"),
        found("TRC-1027", "java", "/var/spool/cron/crontabs/tmp.7", "/opt/tomcat/bin/sh"),
        found("TRC-1028", "vi", "/etc/sudoers"),
    ]
    return routine, attacks


def test_a_day_of_routine_comes_down_to_fifty_lines_without_hiding_an_attack() -> None:
    routine, attacks = a_day()
    mixed = [*routine, *attacks]
    random.Random(3).shuffle(mixed)
    made = proposed(mixed)
    assert len(made) <= LINES
    left = [one for one in mixed if not any(hides(each, one) for each in made)]
    assert all(attack in left for attack in attacks)
    assert len(left) <= LINES
    assert [each.removes for each in made] == sorted((each.removes for each in made), reverse=True)
    assert sum(each.removes for each in made) == len(mixed) - len(left)


def test_a_value_that_occurs_once_is_not_covered() -> None:
    (made,) = proposed([found("TRC-1026", "dpkg", "/etc/rc.d/a")] * 100 + [found("TRC-1026", "dpkg", "/etc/rc.local")])
    assert made.unless["pathname"] == "/etc/rc.d/a"
    assert (made.removes, made.of) == (100, 101)


def test_many_files_in_a_deep_folder_become_the_folder() -> None:
    (made,) = proposed([found("TRC-1027", "cron", f"/var/spool/cron/{n}") for n in range(100)])
    assert made.unless["pathname|startswith"] == "/var/spool/cron/"


def test_a_shallow_folder_is_not_named() -> None:
    made = proposed([found("TRC-1027", "cron", f"/etc/{n}") for n in range(100)])
    assert made == []


def test_repeats_that_were_folded_count() -> None:
    one = found("TRC-109", "cat", "/proc/sys/kernel/randomize_va_space")
    (made,) = proposed([one, one | {"count": 41}])
    assert made.removes == 42


def test_nothing_is_proposed_for_a_few() -> None:
    assert proposed([found("TRC-109", "cat", "/proc/sys/kernel/randomize_va_space")] * 4) == []


def test_nothing_is_proposed_that_would_hide_an_example() -> None:
    process = {"path": "/usr/bin/cat", "user": "root"}
    args = {"pathname": "/proc/sys/kernel/randomize_va_space", "flags": "O_RDONLY"}
    given = {"event": "security_file_open", "args": args, "process": process, "parent": {"path": "/sbin/init"}}
    example = Example(({**given},), matches=True)
    findings = [found("TRC-109", "cat", "/proc/sys/kernel/randomize_va_space")] * 50
    assert len(proposed(findings)) == 1
    assert proposed(findings, **{"TRC-109": [example]}) == []


def test_an_entry_is_a_line_of_an_exceptions_file() -> None:
    (made,) = proposed([found("TRC-109", "a b", "/proc/sys/kernel/randomize_va_space")] * 9)
    (entry,) = yaml.safe_load(made.entry())
    assert entry == {"id": "TRC-109", "unless": made.unless}
    assert "process.path = /usr/bin/a b" in made.changes()


@pytest.mark.parametrize(
    "line", [b"{}", b'{"process": 3}', b"[]", b'{"process": {}, "ancestors": [], "container": {}}']
)
def test_what_is_no_finding_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="not a finding"):
        seen(line, {})


def test_a_finding_is_read_with_the_fields_that_conditions_name() -> None:
    rules = {rule.id: rule for rule in ruleset().rules}
    line = json.dumps(found("TRC-109", "cat", "/p", parent="/b")).encode()
    assert seen(line, rules) == Seen(
        "TRC-109",
        "TRC-109",
        1,
        {"process.path": "/usr/bin/cat", "process.user": "root", "parent.path": "/b"},
        {"pathname": "/p", "flags": "O_RDONLY"},
    )
