"""The engine on rows against conditions evaluated one event at a time, and what rules can say."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.conditions import Node, Test
from headrace.config.rules import SHIPPED, Rule, load
from headrace.config.tree import And, Not, Or
from headrace.workers.detect.engine import engine as engine_module
from headrace.workers.detect.engine import steps
from headrace.workers.detect.engine.engine import Engine
from headrace.workers.detect.engine.memory import MemoCache
from headrace.workers.detect.offline.flat import FlatEvent, FlatRules, of_example
from headrace.workers.detect.rules.compiled import IN_SCOPE, check_rule
from headrace.workers.enrich.tree import ProcessTree
from headrace.workers.records.rows import Contexts, read_frames
from tests.unit.frames import FAULT, NULL, OK, Blob, Record, Who, frame, view
from tests.unit.trees import trees

OPENAT, CONNECT, PTRACE, EXECVE, RENAME = 257, 42, 101, 59, 82
Test.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it


@pytest.fixture(autouse=True, scope="module", params=["usual", "tight"])
def bounds(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything holds with bounds that are met all the time, too."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "tight":
            patch.setattr(steps, "MAX_CELLS", 16)
            for name, most in {"MAX_ROWS": 2, "MIN_ROWS": 1, "MAX_TABLES": 64, "MAX_BYTES": 64}.items():
                patch.setattr(engine_module, name, most)
        yield


def rule(name: str, **events: Node) -> Rule:
    found = Rule(id=name, name=name, events=events)
    check_rule(found, catalogue())
    return found


def matched(rules: list[Rule], records: list[Record], engine: Engine | None = None) -> list[set[str]]:
    """Rules that each record matches."""
    contexts = Contexts()
    rows = read_frames([view(frame(records))], contexts).rows
    assert len(rows) == len(records)
    engine = engine or Engine(rules, catalogue())
    found = engine.match(rows, contexts, ProcessTree(catalogue()))
    sets: list[set[str]] = [set() for _ in records]
    for row, positions in zip(found.rows.tolist(), found.rules, strict=True):
        sets[row] = {rules[p].id for p in positions}
    return sets


def test_two_fields_of_many_values_do_not_outgrow_the_bound() -> None:
    """Each record is another pair of sets of words: a table of all states and classes would have millions of cells."""
    words, chosen = range(12), Random(1)
    both = [(Test("oldpath", "contains", (f"o{i:02}",)), Test("newpath", "contains", (f"n{i:02}",))) for i in words]
    rules = [rule(str(i), rename=And(tests)) for i, tests in enumerate(both)]
    sets = [[{i for i in words if chosen.random() < 0.5} for _ in "on"] for _ in range(2000)]
    texts = [
        [b"".join(b"%c%02d/" % (kind, i) for i in some) for kind, some in zip(b"on", two, strict=True)] for two in sets
    ]
    engine = Engine(rules, catalogue())
    for start in range(0, len(sets), 100):
        part = slice(start, start + 100)
        records = [
            Record(RENAME, args=(1, 2), blobs=tuple(Blob(arg, text + b"\0", OK) for arg, text in enumerate(two)))
            for two in texts[part]
        ]
        assert matched(rules, records, engine) == [{str(i) for i in old & new} for old, new in sets[part]]
        [of_renames] = engine.events.values()
        assert all(step.to.size <= max(steps.MAX_CELLS, 64 * 16) for step in of_renames._steps)


def openat(path: bytes, status: int = OK, **more: Any) -> Record:
    data = path + b"\0" if status == OK else b""
    return Record(OPENAT, blobs=(Blob(1, data, status),), **more)


def test_a_path_is_tested_in_every_way() -> None:
    ways = {
        "equals": "/etc/passwd",
        "contains": "tc/pa",
        "startswith": "/etc/",
        "endswith": "wd",
        "glob": "/*/pass??",
        "re": "^/etc/(passwd|group)$",
    }
    rules = [rule(op, openat=Test("pathname", op, (value,))) for op, value in ways.items()]
    found = matched(rules, [openat(b"/etc/passwd"), openat(b"/ETC/PASSWD"), openat(b"/etc/passwd/x"), openat(b"")])
    assert found[0] == set(ways)
    assert found[1] == set()
    assert found[2] == {"contains", "startswith"}
    assert found[3] == set()


def test_without_case_small_and_large_letters_are_the_same() -> None:
    rules = [rule(op, openat=Test("pathname", op, ("/Etc/É",), nocase=True)) for op in ("equals", "endswith")]
    assert matched(rules, [openat("/eTC/é".encode())]) == [{"equals", "endswith"}]


def test_what_could_not_be_read_matches_neither_a_test_nor_its_negation() -> None:
    test = Test("pathname", "equals", ("/x",))
    rules = [
        rule("plain", openat=test),
        rule("negated", openat=Not(test)),
        rule("either", openat=Or((Not(test), Test("flags", "has", ("O_CREAT",))))),
        rule("absent", openat=Test("pathname", "exists", (False,))),
    ]
    found = matched(rules, [openat(b"", FAULT), openat(b"", NULL, args=(0, 0, 0o100)), openat(b"/y")])
    assert found == [{"absent"}, {"absent", "either"}, {"negated", "either"}]


def test_of_a_text_that_was_cut_only_its_beginning_is_certain() -> None:
    ways = {"startswith": "/a", "contains": "b/c", "endswith": "c", "equals": "/a/b/c"}
    rules = [rule(op, openat=Test("pathname", op, (value,))) for op, value in ways.items()]
    rules.append(rule("not", openat=Not(Test("pathname", "contains", ("zzz",)))))
    record = Record(OPENAT, blobs=(Blob(1, b"/a/b/c\0", 1),))
    assert matched(rules, [record]) == [{"startswith", "contains"}]


def test_all_of_the_values_and_one_of_them() -> None:
    one, each = (Test("pathname", "contains", ("a", "b"), each=e) for e in (False, True))
    found = matched([rule("one", openat=one), rule("each", openat=each)], [openat(b"a"), openat(b"xbxa"), openat(b"c")])
    assert found == [{"one"}, {"one", "each"}, set()]


def test_flags_and_numbers() -> None:
    rules = [
        rule("write", openat=Test("flags", "has", ("O_WRONLY", "O_RDWR"))),
        rule("read", openat=Test("flags", "has", ("O_RDONLY",))),
        rule("failed", openat=Test("retval", "lt", (0,))),
        rule("cwd", openat=Test("dirfd", "equals", ("AT_FDCWD",))),
    ]
    cwd = 2**64 - 100
    records = [openat(b"x", args=(3, 0, 0o101), retval=-2), openat(b"x", args=(cwd, 0, 2)), openat(b"x", args=(cwd,))]
    assert matched(rules, records) == [{"write", "failed"}, {"write", "cwd"}, {"read", "cwd"}]


def test_an_address_by_its_parts() -> None:
    net = Test("addr.ip", "cidr", ("10.0.0.0/8",))
    rules = [rule("net", connect=net), rule("port", connect=Test("addr.port", "equals", (80,)))]
    inet = bytes([2, 0, 0, 80, 10, 1, 2, 3]) + bytes(8)
    mapped = bytes([10, 0, 0, 81, 0, 0, 0, 0]) + bytes(10) + b"\xff\xff\x0a\x00\x00\x01" + bytes(4)
    unix = bytes([1, 0]) + b"/run/x\0"
    records = [Record(CONNECT, blobs=(Blob(1, data),)) for data in (inet, mapped, unix)]
    names = {a.name: a.type for a in catalogue().by_name["connect"].arguments}
    assert "struct sockaddr*" in names.values()
    assert matched(rules, records) == [{"net", "port"}, {"net"}, set()]


def test_the_process_and_its_container_are_fields_too() -> None:
    rules = [
        rule("name", openat=Test("process.name", "equals", ("nginx",))),
        rule("root", openat=Test("process.uid", "equals", (0,))),
        rule("boxed", openat=Test("container", "equals", (True,))),
    ]
    inside = Who(comm=b"nginx", uid=0, container=bytes(range(1, 33)), runtime=1, container_state=2)
    starting = Who(container=bytes(range(1, 33)), runtime=1, container_state=1)
    found = matched(rules, [openat(b"x", who=inside), openat(b"x", who=starting), openat(b"x")])
    assert found == [{"name", "root", "boxed"}, set(), set()]


def test_memory_is_bounded_and_what_it_forgets_is_worked_out_again() -> None:
    rules = [rule("x", openat=Test("flags", "equals", tuple(range(7, 40, 10))))]
    engine = Engine(rules, catalogue())
    memory = engine.events[OPENAT].columns[0].memory
    memory._most = 10
    for _ in range(3):
        found = matched(rules, [openat(b"/", args=(3, 0, i)) for i in range(40)], engine)
        assert [bool(f) for f in found] == [i % 10 == 7 for i in range(40)]
    assert len(memory) <= 10
    assert memory.evicted
    assert memory.looked_up == 120


def test_states_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.workers.detect.engine.engine.MAX_TABLES", 10_000)
    rules = [rule(str(i), openat=Test("pathname", "contains", (f"<{i}>",))) for i in range(30)]
    engine = Engine(rules, catalogue())
    for i in range(30):
        assert matched(rules, [openat(b"<%d>" % i)], engine) == [{str(i)}]
    assert engine.events[OPENAT].evicted


def test_all_events_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.workers.detect.engine.engine.MAX_BYTES", 30_000)
    rules = [rule(str(i), openat=Test("pathname", "contains", (f"<{i}>",)), connect=And()) for i in range(30)]
    engine = Engine(rules, catalogue())
    for i in range(200):
        assert matched(rules, [openat(b"<%d>" % (i % 30)), Record(CONNECT)], engine)[0] == {str(i % 30)}
        assert sum(each.held for each in engine.events.values()) <= 30_000
    assert engine.events[OPENAT].evicted


def test_long_values_are_not_remembered_without_a_bound() -> None:
    memory = MemoCache(lambda keys: [len(key[0]) for key in keys], most_bytes=10_000)
    for i in range(300):
        assert memory.numbers([(b"x" * i, False), (b"y" * 900, True)]).tolist() == [i, 900]
        assert memory.held <= 20_000
    assert memory.evicted
    assert memory.numbers([(b"z" * 50_000, False)]).tolist() == [50_000]


PATHS = [b"/etc/passwd", b"/tmp/x", b"", b"/ETC/shadow", b"a\xff\xfeb", "/é/x".encode()]
TESTS = st.one_of(
    st.builds(
        Test,
        field=st.just("pathname"),
        operator=st.sampled_from(["equals", "contains", "startswith", "endswith", "glob"]),
        values=st.lists(st.sampled_from(["/etc", "x", "/tmp/x", "a", "*", "S", "é"]), min_size=1, max_size=3).map(
            tuple
        ),
        each=st.booleans(),
        nocase=st.booleans(),
    ),
    st.builds(Test, field=st.just("flags"), operator=st.just("has"), values=st.just(("O_CREAT", "O_RDWR"))),
    st.builds(Test, field=st.just("retval"), operator=st.sampled_from(["lt", "gte"]), values=st.just((0,))),
    st.builds(Test, field=st.just("process.uid"), operator=st.just("equals"), values=st.just((0, 5))),
    st.builds(Test, field=st.just("pathname"), operator=st.just("exists"), values=st.tuples(st.booleans())),
)
NODES: st.SearchStrategy[Node] = trees(TESTS, max_leaves=6)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from([*PATHS, None]),
        st.sampled_from([0, 2, 0o100, 0o102]),
        st.sampled_from([-1, 0, 3]),
        st.sampled_from([0, 5, 9]),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(NODES, min_size=1, max_size=6), EVENTS)
def test_the_engine_says_what_a_plain_evaluation_says(nodes: list[Node], events: list[Any]) -> None:
    rules = [rule(str(i), openat=node) for i, node in enumerate(nodes)]
    records = [
        openat(path or b"", OK if path is not None else FAULT, args=(3, 0, flags), retval=retval, who=Who(uid=uid))
        for path, flags, retval, uid in events
    ]
    plain = FlatRules()
    expected = []
    for path, flags, retval, uid in events:
        shown = None if path is None else path.decode("utf-8", "surrogateescape")
        event = FlatEvent(
            catalogue().by_name["openat"], {"pathname": shown, "flags": flags}, retval, {"process.uid": uid}
        )
        expected.append({str(i) for i, node in enumerate(nodes) if plain.verdict(node, event)})
    assert matched(rules, records) == expected


SHIPPED_RULES = load([SHIPPED])


@pytest.mark.parametrize("shipped", SHIPPED_RULES.rules, ids=lambda r: r.id)
def test_examples_of_what_ships(shipped: Rule) -> None:
    assert not SHIPPED_RULES.refused
    check_rule(shipped, catalogue())
    examples = SHIPPED_RULES.examples[shipped.id]
    assert {e.matches for e in examples} == {True, False}
    plain = FlatRules()
    for example in examples:
        event = of_example(example.events[-1], catalogue())
        node = shipped.events.get(event.event.name)
        verdict = node is not None and plain.verdict(And((IN_SCOPE[shipped.scope], node)), event)
        assert (verdict is True) == example.matches, example


def test_numbers_of_rows_and_rules_stand_in_order() -> None:
    rules = [rule("b", openat=And(), connect=And()), rule("a", openat=And())]
    contexts = Contexts()
    rows = read_frames([view(frame([openat(b"x"), Record(CONNECT), openat(b"y"), Record(PTRACE)]))], contexts).rows
    found = Engine(rules, catalogue()).match(rows, contexts, ProcessTree(catalogue()))
    assert np.array_equal(found.rows, [0, 1, 2])
    assert found.rules == [(0, 1), (0,), (0, 1)]
