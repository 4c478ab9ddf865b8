"""A first look at walked paths leaves out only those that hold no test."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.conditions import Test
from headrace.workers.decode import paths
from headrace.workers.detect.columns.reading import column_of
from headrace.workers.detect.columns.view import View, listed
from headrace.workers.detect.engine.engine import Classes
from headrace.workers.detect.engine.prefilter import Prefilter, best
from headrace.workers.detect.engine.steps import State, bits
from headrace.workers.detect.rules.compiled import compile_rules
from headrace.workers.detect.rules.fields import Field, field_of
from headrace.workers.detect.rules.matching import Matcher
from headrace.workers.detect.rules.rulesets import build
from headrace.workers.detect.rules.values import TextValue
from headrace.workers.enrich.tree import ProcessTree
from headrace.workers.records.blobs import argument_counts
from headrace.workers.records.rows import Contexts, read_frames
from tests.unit.frames import Record, frame, view
from tests.unit.workers.detect.engine.test_scan import OPENS
from tests.unit.workers.records.test_blocks import block_of

Test.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it
OPENED = field_of(catalogue().by_name["security_file_open"], "pathname")
NAMES = ["etc", "ETC", "et", "tc", "a", "b", "ab", "abc", "x.sh", ".sh", "é", "K", "k", "\u212a", "lib", "x*", ".."]
SLASHED = some.lists(some.sampled_from(["", *NAMES]), min_size=1, max_size=4).map("/".join)
GLOBS = some.lists(some.sampled_from(["*", "?", "/", "[ab]", "\\*", *NAMES]), min_size=1, max_size=6).map("".join)
REGULAR = some.lists(some.sampled_from(["^", "/", "(a|b)", "x?", ".*", r"\.", *NAMES[:7]]), min_size=1).map("".join)
TESTS = some.one_of(
    some.builds(
        lambda operator, values, each, nocase: Test("pathname", operator, tuple(values), each=each, nocase=nocase),
        some.sampled_from(["equals", "contains", "startswith", "endswith"]),
        some.lists(SLASHED, min_size=1, max_size=2),
        some.booleans(),
        some.booleans(),
    ),
    some.builds(lambda value, nocase: Test("pathname", "glob", (value,), nocase=nocase), GLOBS, some.booleans()),
    some.builds(lambda value, nocase: Test("pathname", "re", (value,), nocase=nocase), REGULAR, some.booleans()),
    some.sampled_from([Test("pathname", "exists", (True,)), Test("pathname", "exists", (False,))]),
)
WALKED = some.builds(
    lambda names, end: b"".join(name.encode() + b"\0" for name in names) + end,
    some.lists(some.sampled_from([*NAMES, "", "a/b", "/"]), max_size=4),
    some.sampled_from([b"/\0", b"/", b"", b"\0"]),
)


@settings(deadline=None, max_examples=400)
@given(some.lists(TESTS, min_size=1, max_size=4), some.lists(WALKED, min_size=1, max_size=8))
@example([Test("pathname", "startswith", ("/etc/",))], [b"x\0etc\0/\0", b"etc\0/\0", b"etc\0x\0/\0"])
@example([Test("pathname", "equals", ("/\u212a",), nocase=True)], [b"k\0/\0"])
def test_what_holds_a_test_is_looked_at(tests: list[Test], walked: list[bytes]) -> None:
    prefilter = Prefilter.of(tests)
    if prefilter is None:
        return
    maybe = prefilter.maybe(block_of(walked)).tolist()
    matcher = Matcher(OPENED, tests)
    for data, may in zip(walked, maybe, strict=True):
        assert may or matcher.verdicts(TextValue((paths.walked(data),))).true == matcher.present, data


@settings(deadline=None)
@given(some.lists(TESTS, min_size=1, max_size=4), OPENS)
def test_rows_get_the_verdicts_of_their_values(tests: list[Test], records: list[Record]) -> None:
    contexts = Contexts()
    rows = read_frames([view(frame(records))], contexts).rows
    seen = View(rows, contexts, ProcessTree(catalogue()), argument_counts(catalogue()))
    column, matcher, chosen = column_of(OPENED), Matcher(OPENED, tests), np.arange(len(rows))
    classes = Classes(column, range(len(tests)), matcher)
    found = [classes.known[each] for each in classes.of(seen, chosen).tolist()]
    values = [column.value(key) for key in listed(column.keys(seen, chosen))]
    assert found == [State(*map(bits, matcher.verdicts(value))) for value in values]


@pytest.mark.parametrize(
    ("operator", "value", "sought"),
    [
        ("equals", "/etc/shadow", b"\0shadow\0etc\0/\0"),
        ("startswith", "/etc/cron.d/", b"\0cron.d\0etc\0/\0"),
        ("startswith", "/etc/cron", b"\0cron"),
        ("endswith", "/.ssh/id_rsa", b"\0id_rsa\0.ssh\0"),
        ("endswith", ".sh", b".sh\0"),
        ("contains", "/tmp/", b"\0tmp\0"),
        ("contains", "passwd/x", b"passwd\0"),
        ("glob", "*/release_agent", b"\0release_agent\0"),
        ("re", "^/proc/([0-9]+|self)/mem$", b"\0proc\0"),
        ("contains", "/.", b"\0."),
        ("equals", "/", None),
        ("contains", "x", None),
        ("glob", "*", None),
        ("re", "a|b", None),
        ("equals", "/x\0/etc", None),
    ],
)
def test_the_longest_piece_that_every_such_path_has(operator: str, value: str, sought: bytes | None) -> None:
    assert best(Test("pathname", operator, (value,)), value) == sought


def test_signatures_that_ship_look_at_few_of_the_paths_that_programs_open() -> None:
    rules = compile_rules(build(catalogue()).rules, catalogue())[OPENED.event.id]
    asked: list[Test] = [test for field, test in rules.tests if isinstance(field, Field) and field.name == "pathname"]
    prefilter = Prefilter.of(asked)
    assert prefilter is not None
    opened = [b"libc.so.6\0x86_64-linux-gnu\0lib\0usr\0/\0", b"passwd\0etc\0/\0", b"x.dat\0data\0srv\0/\0"]
    found = [b"mem\0001\0proc\0/\0", b"docker.sock\0run\0var\0/\0", "ü\0/\0".encode()]
    assert prefilter.maybe(block_of([*opened, *found])).tolist() == [False] * 3 + [True] * 3
    assert np.array_equal(prefilter.maybe(block_of([])), np.zeros(0, bool))
