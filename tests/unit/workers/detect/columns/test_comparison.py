"""One field against another: in rules of our own, at limits, and names that are no comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.conditions import COMPARED, comparison
from headrace.config.rules import load
from headrace.workers.detect.columns.comparison import UNDECIDED, compared
from headrace.workers.detect.offline.flat import FlatRules, of_example
from headrace.workers.detect.rules.compiled import check_rule
from headrace.workers.detect.rules.fields import FieldError, field_of
from headrace.workers.detect.rules.matching import Matcher
from headrace.workers.detect.rules.values import TextValue, text

RULE = """
id: MY-1
name: own-name
severity: low
events:
  security_inode_unlink:
    {condition}
"""


def rules(folder: Path, condition: str) -> list[Any]:
    path = folder / "rule.yaml"
    path.write_text(RULE.format(condition=condition))
    loaded = load([path])
    if loaded.refused:
        raise loaded.refused[0]
    return loaded.rules


def fires(rule: Any, pathname: str, **process: Any) -> bool:
    event = of_example(
        {"event": "security_inode_unlink", "args": {"pathname": pathname}, "process": process}, catalogue()
    )
    return FlatRules().verdict(rule.events["security_inode_unlink"], event) is True


def test_a_rule_of_our_own_compares_fields(tmp_path: Path) -> None:
    rule = rules(tmp_path, "pathname|endswith|field: process.name")[0]
    check_rule(rule, catalogue())
    assert fires(rule, "/bin/dropper", name="dropper")
    assert not fires(rule, "/bin/Dropper", name="dropper")
    assert not fires(rule, "/bin/dropper")
    either = rules(tmp_path, "pathname|nocase|field: [process.path, process.cwd]")[0]
    assert fires(either, "/BIN/x", path="/y", cwd="/bin/x")
    both = rules(tmp_path, "pathname|startswith|all|field: [process.path, process.cwd]")[0]
    assert fires(both, "/bin/x/y", path="/bin/x", cwd="/bin")
    assert not fires(both, "/bin/x/y", path="/bin/x", cwd="/usr")


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("pathname|re|field: process.name", "compared by"),
        ("pathname|field: 3", "name of a field"),
        ("pathname|field: process.nam", "did you mean process.name"),
        ("pathname|contains|field: process.pid", "only compared by equals"),
    ],
)
def test_what_is_no_comparison_is_refused(tmp_path: Path, condition: str, why: str) -> None:
    with pytest.raises(Exception, match=why):
        check_rule(rules(tmp_path, condition)[0], catalogue())


@pytest.mark.parametrize("name", ["a|b", "|", "pathname|", "pathname|re|process.name", "pathname|equals|all|pathname"])
def test_a_name_that_is_no_comparison_is_no_field(name: str) -> None:
    with pytest.raises(FieldError):
        field_of(catalogue().by_name["security_inode_unlink"], name)


CUT, WHOLE, PASSED = TextValue((b"/a/b",), True), text("/a/b"), TextValue((b"/a/b",), False, True)


@pytest.mark.parametrize(
    ("how", "left", "right", "found"),
    [
        ("equals", WHOLE, WHOLE, 1),
        ("equals", WHOLE, text("/A/B"), 0),
        ("equals|nocase", WHOLE, text("/A/B"), 1),
        ("contains", CUT, text("/a"), 1),
        ("startswith", CUT, text("/a"), 1),
        ("contains", CUT, text("/c"), UNDECIDED),
        ("endswith", CUT, text("/b"), UNDECIDED),
        ("equals", CUT, WHOLE, UNDECIDED),
        ("contains", WHOLE, CUT, UNDECIDED),
        ("equals", PASSED, WHOLE, UNDECIDED),
        ("equals", None, WHOLE, None),
        ("equals", TextValue((b"x", b"y")), TextValue((b"y", b"z")), 1),
        ("equals", 7, 7, 1),
        ("equals", 7, 8, 0),
        ("equals", 7, text("7"), 1),
    ],
)
def test_what_is_not_whole_leaves_it_open(how: str, left: Any, right: Any, found: Any) -> None:
    assert compared(how, left, right) == found


def test_an_open_one_is_reported_as_undecided() -> None:
    test = comparison("pathname", "equals", "process.name", nocase=False)
    matcher = Matcher(field_of(catalogue().by_name["security_inode_unlink"], test.field), [test])
    assert matcher.verdicts(1).true == {0}
    assert matcher.verdicts(0) == (frozenset(), frozenset(), frozenset())
    assert matcher.verdicts(None).limited == frozenset()
    assert matcher.verdicts(UNDECIDED).limited == {0}
    assert COMPARED in test.field
