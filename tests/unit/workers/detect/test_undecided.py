"""What a limit of ours leaves undecided is counted, and is a finding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.bpf.layout import BLOB_BASE, BLOB_RACED, ROOT_NOT_MET, SOURCE_KERNEL
from headrace.bpf.tables.catalogue import catalogue
from headrace.config.conditions import Node, Test
from headrace.config.rules import Rule
from headrace.config.tree import And, Not, Or
from headrace.workers.detect.detector import Detector
from headrace.workers.detect.findings.undecided import MAX_NAMED, UNDECIDED, what
from headrace.workers.detect.offline.analysis import Analysis
from headrace.workers.detect.rules.compiled import check_rule
from headrace.workers.enrich.tree import ProcessTree
from headrace.workers.records.rows import Contexts, read_frames
from tests.unit.frames import CUT, FAULT, NULL, OK, Blob, Record, frame, view

EXECVE = 59
Test.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it
RENAMED = catalogue().by_name["security_inode_rename"].id
OPENED = catalogue().by_name["security_file_open"].id


def found(record: Record, *nodes: Node, event: str = "execve") -> tuple[set[str], list[Any]]:
    """Of rules r0, r1, ...: those that match a record, and the data of what was left undecided."""
    rules = [Rule(id=f"r{i}", name=f"r{i}", events={event: node}) for i, node in enumerate(nodes)]
    for rule in rules:
        check_rule(rule, catalogue())
    detector, contexts = Detector(rules, catalogue()), Contexts()
    rows = read_frames([view(frame([record]))], contexts).rows
    matches = detector.match(rows, contexts, ProcessTree(catalogue()))
    ids = {detector.rules[p].id for positions in matches.rules for p in positions}
    data = [matches.data[0, p] for positions in matches.rules for p in positions if detector.rules[p] is UNDECIDED]
    counts = np.zeros(len(rules), [(n, "i8") for n in ("evaluated", "matched", "undecided", "time_ns")])
    detector._engine.tally.write(counts)
    left = {name for each in data for name in each["signatures"]}
    assert {f"r{i}" for i in np.flatnonzero(counts["undecided"])} == left
    return ids - {UNDECIDED.id}, data


def execve(argv: bytes, status: int, name: bytes = b"/bin/x\0") -> Record:
    return Record(EXECVE, args=(1, 2, 3), blobs=(Blob(0, name, OK), Blob(1, argv, status)))


ARGV = Test("argv", "contains", ("needle",))
NAME = Test("pathname", "endswith", ("/x",))


def test_a_rule_on_what_was_cut_is_undecided_unless_what_is_there_is_enough() -> None:
    left = [{"signatures": ["r0"], "fields": ["argv"]}]
    assert found(execve(b"a\0b\0", CUT), ARGV) == (set(), left)
    assert found(execve(b"a\0needle\0", CUT), ARGV) == ({"r0"}, [])
    assert found(execve(b"a\0b\0", OK), ARGV) == (set(), [])
    assert found(execve(b"a\0b\0", CUT), Not(ARGV)) == (set(), left)


def test_another_test_may_decide_it() -> None:
    other = Test("pathname", "endswith", ("/y",))
    assert found(execve(b"a\0", CUT), And((ARGV, NAME))) == (set(), [{"signatures": ["r0"], "fields": ["argv"]}])
    assert found(execve(b"a\0", CUT), And((ARGV, other))) == (set(), [])
    assert found(execve(b"a\0", CUT), Or((ARGV, NAME))) == ({"r0"}, [])
    both = found(execve(b"a\0", CUT), And((NAME, ARGV)), NAME, Or((other, ARGV)))
    assert both == ({"r1"}, [{"signatures": ["r0", "r2"], "fields": ["argv"]}])


@pytest.mark.parametrize("status", [FAULT, NULL])
def test_what_the_event_itself_does_not_have_is_no_limit_of_ours(status: int) -> None:
    assert found(execve(b"", status), ARGV) == (set(), [])


def test_a_path_that_changed_while_it_was_walked_is_undecided() -> None:
    record = Record(OPENED, args=(0,) * 8, blobs=(Blob(0, b"", BLOB_RACED | SOURCE_KERNEL),))
    tests = [Test("pathname", op, ("/etc/x",)) for op in ("equals", "startswith", "endswith", "contains")]
    assert found(record, *tests, event="security_file_open")[1][0]["signatures"] == ["r0", "r1", "r2", "r3"]


def renamed(new: bytes, followed: bool) -> Record:
    whole = len(new) - len(new.split(b"/")[-1]) + 1 if followed else 0
    names = Blob(0, b"a", OK), Blob(1, new, OK, whole)
    folders = (Blob(BLOB_BASE | arg, b"home\0/\0", OK | SOURCE_KERNEL, ROOT_NOT_MET) for arg in (0, 1))
    return Record(RENAMED, args=(0, 0), blobs=(*names, *folders))


def test_a_name_that_was_not_followed_matches_as_it_was_passed_or_is_undecided() -> None:
    test = Test("new_path", "startswith", ("/home/link/",))
    left = [{"signatures": ["r0"], "fields": ["new_path"]}]
    assert found(renamed(b"link/x", False), test, event="security_inode_rename") == ({"r0"}, [])
    assert found(renamed(b"other/x", False), test, event="security_inode_rename") == (set(), left)
    assert found(renamed(b"other/x", False), Not(test), event="security_inode_rename") == (set(), left)
    assert found(renamed(b"other/x", True), test, event="security_inode_rename") == (set(), [])


def test_a_finding_names_some_of_many() -> None:
    names = [str(i) for i in range(MAX_NAMED + 3)]
    assert what(names, ["argv"]) == {"signatures": names[:MAX_NAMED], "fields": ["argv"], "more": 3}


def test_lines_of_json_say_the_same() -> None:
    rules = [Rule(id="r0", name="r0", events={"security_inode_rename": Test("new_path", "contains", ("cron",))})]
    line = (
        b'{"eventName":"security_inode_rename","args":[{"name":"old_path","type":"const char*","value":"/a"},'
        b'{"name":"new_path","type":"const char*","value":"/b","source":"%s"}]}'
    )
    for source, expected in ((b"lexical", [UNDECIDED.id]), (b"kernel", [])):
        analysis = Analysis(rules, catalogue())
        event = analysis.read(0, line % source)
        assert event is not None
        assert [finding["signatureID"] for finding in analysis.findings([event])] == expected
