"""Blocks of texts against the same texts one by one: what a scan finds, and what columns make of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from headrace.bpf.layout import HEAD_OWN_ROOT, ROOT_NOT_MET
from headrace.bpf.tables.catalogue import catalogue
from headrace.config.conditions import Test
from headrace.workers.detect.columns.reading import column_of
from headrace.workers.detect.columns.view import View, listed
from headrace.workers.detect.engine.scan import MAX_WILD, Scan, ends, required
from headrace.workers.detect.rules.fields import field_of
from headrace.workers.detect.rules.matching import Matcher
from headrace.workers.detect.rules.values import TextValue
from headrace.workers.enrich.tree import ProcessTree
from headrace.workers.records.blobs import argument_counts
from headrace.workers.records.blocks import gather
from headrace.workers.records.rows import Contexts, read_frames
from tests.unit.frames import CUT, FAULT, OK, Blob, Record, frame, view

Test.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it
CATALOGUE = catalogue()
PATHNAME = field_of(CATALOGUE.by_name["openat"], "pathname")
WORDS = ["/etc", "x", "/tmp/x", "a", "A", "*", "S", "é", "a*x", "?x", "*/[a-e]*", "kK", "\\*", "0"]
REGULAR = ["^/tmp", "x$", "a+", "(a|b)x", "", "[^/]x", "/e(tc)?", "É", "[[:alpha:]]x", r"\d\d"]
TEXTS = [
    b"/etc/passwd",
    b"/tmp/x",
    b"",
    b"/ETC/shadow",
    b"a\xff\xfeb",
    "/é/x".encode(),
    b"K",
    b"00",
    b"*",
    b"abx",
]
PLAIN = ["equals", "contains", "startswith", "endswith", "glob"]
TESTS = some.one_of(
    some.builds(
        lambda operator, values, each, nocase: Test("pathname", operator, tuple(values), each=each, nocase=nocase),
        some.sampled_from(PLAIN),
        some.lists(some.sampled_from(WORDS), min_size=1, max_size=3),
        some.booleans(),
        some.booleans(),
    ),
    some.builds(
        lambda values, nocase: Test("pathname", "re", tuple(values), nocase=nocase),
        some.lists(some.sampled_from(REGULAR), min_size=1, max_size=2),
        some.booleans(),
    ),
    some.just(Test("pathname", "exists", (True,))),
)


def block_of(texts: list[bytes]) -> Any:
    data = bytes(8) + b"".join(text + bytes(-len(text) % 8) for text in texts)
    sizes = np.array([len(text) for text in texts], np.int64)
    padded = (sizes + 7) & ~7
    return gather(np.frombuffer(data, np.uint8), 8 + np.cumsum(padded) - padded, sizes)


@settings(deadline=None)
@given(
    some.lists(TESTS, min_size=1, max_size=6),
    some.lists(some.tuples(*[some.sampled_from(TEXTS)] * 2), min_size=1, max_size=10),
)
def test_a_scan_says_what_a_matcher_says(tests: list[Test], pairs: list[tuple[bytes, bytes]]) -> None:
    for most in (MAX_WILD, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("headrace.workers.detect.engine.scan.MAX_WILD", most)
            says_the_same(tests, pairs, any(test.operator == "glob" for test in tests) and not most)


def says_the_same(tests: list[Test], pairs: list[tuple[bytes, bytes]], doubts: bool) -> None:
    matcher, scan = Matcher(PATHNAME, tests), Scan.of(PATHNAME, tests)
    if scan is None:
        return
    seen = scan.look([block_of([pair[i] for pair in pairs]) for i in range(2)])
    regular = any(test.operator == "re" for test in tests)
    by_fingerprint: dict[int, set[int]] = {}
    for row, pair in enumerate(pairs):
        if seen.doubt[row]:
            assert regular or doubts or not b"".join(pair).isascii()
            continue
        true = set(matcher.verdicts(TextValue(tuple(filter(None, pair)))).true) - matcher.present
        assert set(seen.tests(row)) == true
        assert by_fingerprint.setdefault(int(seen.fingerprint[row]), true) == true
    assert by_fingerprint.get(0, set()) == set()


@pytest.mark.parametrize(
    ("regular", "text"),
    [
        (r"^/proc/(\d+|self)(/task/\d+)?/mem$", "/proc/"),
        (r"(?i)ab?cde[xy]", "cde"),
        ("ab|ac", "a"),
        ("ab|cd", None),
        ("x*", None),
        ("é", None),
        ("[[:alpha:]]+x]", None),
        (r"\pN+abc", None),
        (r"\Qa.b\E", None),
    ],
)
def test_what_a_regular_expression_cannot_do_without(regular: str, text: str | None) -> None:
    assert required(regular) == text


@pytest.mark.parametrize(
    ("regular", "begin", "end", "whole"),
    [
        (r"^/proc/(\d+|self)(/task/\d+)?/mem$", "/proc/", "/mem", False),
        ("^/etc/passwd$", "/etc/passwd", "/etc/passwd", True),
        ("^(?:/etc)$", "/etc", "/etc", True),
        ("^/a$|^/b$", "/", "", False),
        ("^ab", "ab", "", False),
        ("ab$", "", "ab", False),
        ("^aa*a$", "a", "a", False),
        ("^$", "", "", False),
        ("(?i)^ab$", "", "", False),
        ("(?m)^ab$", "", "", False),
        ("^é$", "", "", False),
        (r"\Aab\z", "", "", False),
    ],
)
def test_what_all_that_it_matches_begins_and_ends_with(regular: str, begin: str, end: str, whole: bool) -> None:
    assert ends(regular) == (begin, end, whole)


def test_tests_that_no_block_can_meet_are_not_scanned() -> None:
    for values in [("",), ("a", "")], [("x" * 5000,)]:
        assert all(Scan.of(PATHNAME, [Test("pathname", "equals", each)]) is None for each in values)
    assert Scan.of(PATHNAME, [Test("pathname", "glob", ("*",))]) is None
    assert Scan.of(field_of(CATALOGUE.by_name["openat"], "flags"), [Test("flags", "equals", (1,))]) is None


def walked_path(parts: list[bytes]) -> bytes:
    return b"".join(part + b"\0" for part in reversed(parts)) + b"/\0"


WALKED = some.lists(some.sampled_from([b"etc", b"a", "é".encode(), b"..."]), max_size=4).map(walked_path)
PLAIN_TEXT = some.sampled_from(
    [b"/bin/sh\0", b"sh\0", b"/a//b\0", b"/a/./b\0", b"/a/\0", b"/\0", b"\0", b"./x\0", b"/usr/bin/x\0"]
)
VECTOR = some.lists(some.sampled_from([b"a", b"", b"-c", b"x y"]), max_size=4).map(
    lambda p: b"".join(t + b"\0" for t in p)
)
STATUS = some.sampled_from([OK, OK, OK, CUT, FAULT])


def _blob(arg: int, data: some.SearchStrategy[bytes]) -> some.SearchStrategy[Blob]:
    whole = some.sampled_from([0, 0, 1, 2, 4, 5, 8, ROOT_NOT_MET])
    return some.builds(lambda d, s, w: Blob(arg, d if s != FAULT else b"", s, w), data, STATUS, whole)


def _records(event: str, arguments: dict[str, some.SearchStrategy[bytes]]) -> some.SearchStrategy[list[Record]]:
    found = CATALOGUE.by_name[event]
    blobs = [_blob(found.index(name) or 0, data) for name, data in arguments.items()]
    some_of = some.tuples(*[some.one_of(some.none(), b, b, b) for b in blobs]).map(lambda bs: tuple(b for b in bs if b))
    flags = some.sampled_from([0, HEAD_OWN_ROOT])
    record = some.builds(lambda b, f: Record(found.id, blobs=b, flags=f, args=(0,) * found.cells), some_of, flags)
    return some.lists(record, min_size=1, max_size=6)


OPENS = _records("security_file_open", {"pathname": WALKED, "syscall_pathname": PLAIN_TEXT})
EXECS = _records("sched_process_exec", {"pathname": WALKED, "interp": PLAIN_TEXT, "pwd": WALKED, "argv": VECTOR})
READS = _records("openat", {"pathname": PLAIN_TEXT})


@settings(deadline=None)
@given(some.one_of(OPENS, EXECS, READS))
def test_texts_of_rows_at_once_are_those_of_each_row(records: list[Record]) -> None:
    contexts = Contexts()
    rows = read_frames([view(frame(records))], contexts).rows
    assert len(rows) == len(records)
    event = CATALOGUE.by_id[records[0].event]
    names = {
        "security_file_open": ["pathname", "syscall_pathname"],
        "sched_process_exec": ["pathname", "process.image", "process.command_line", "process.cwd", "argv", "argv[1]"],
        "openat": ["pathname"],
    }[event.name]
    chosen = np.arange(len(rows))
    for name in names:
        column = column_of(field_of(event, name))
        at_once = View(rows, contexts, ProcessTree(CATALOGUE), argument_counts(CATALOGUE))
        bulk = column.bulk(at_once, chosen)
        assert bulk is not None
        parts = [block.texts() for block in bulk.blocks]
        keys = column.keys(View(rows, contexts, ProcessTree(CATALOGUE), argument_counts(CATALOGUE)), chosen)
        for row, key in enumerate(listed(keys)):
            value = column.value(key)
            if bulk.single[row]:
                continue
            assert bulk.unread[row] == (value is None)
            if value is not None:
                assert isinstance(value, TextValue)
                assert not value.cut
                found = {part for texts in parts for part in texts[row].split(b"\0")}
                assert found - {b""} == {part for whole in value.parts for part in whole.split(b"\0")} - {b""}
