"""What the kernel side need not tell of: its very C, compiled for user space, against the engine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from headrace.bpf.programs.early import MAX_LEAVES
from headrace.bpf.tables.catalogue import catalogue
from headrace.config.conditions import Node, Test
from headrace.config.rules import Rule
from headrace.config.tree import And, Certain, Not, Or
from headrace.workers.conditions.narrowing import MAX_MEASURED, MAX_PATTERNS, narrowed
from headrace.workers.detect.engine.engine import Engine
from headrace.workers.detect.rules.compiled import check_rule
from headrace.workers.detect.rules.rulesets import build
from headrace.workers.enrich.tree import ProcessTree
from headrace.workers.records.rows import Contexts, read_frames
from tests.unit.frames import COMPAT, CUT, FAULT, Blob, Record, frame, view
from tests.unit.workers.conditions.test_early import FILE_OPEN, KERNEL, OWN_ROOT, Passes, built, walked

Test.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it
FLAGS = {"O_RDONLY": 0, "O_WRONLY": 1, "O_WRONLY|O_CREAT": 0o101, "O_RDWR": 2}
PLAIN = "/usr/lib/x86_64-linux-gnu/libc.so.6"


def path(operator: str, *values: str, **more: bool) -> Test:
    return Test("pathname", operator, values, **more)


def flag(operator: str, *values: str | int) -> Test:
    return Test("flags", operator, values)


WRITES = flag("has", "O_WRONLY", "O_RDWR")
SETS: dict[str, tuple[Node, ...]] = {
    "exact": (path("equals", "/a/b", "/etc/shadow"),),
    "beginning and end": (path("startswith", "/a/", "/etc/sh"), path("endswith", "b", "/a/b")),
    "glob": (path("glob", "/a/*b", "*/shadow"),),
    "regular": (path("re", "^/a/[ab]+/b$"), path("re", "adow$")),
    "a text as a regular expression": (path("re", "^/a/b$"), path("re", "^(?:/ab)$")),
    "a component measured twice": (path("glob", "/a*b"), path("startswith", "/ab"), path("glob", "/a*a")),
    "the same the other way round": (path("startswith", "/ab"), path("glob", "/a/a*b"), path("glob", "/a/ab*")),
    "both": (And((path("startswith", "/a"), WRITES)),),
    "either": (Or((path("equals", "/a/b"), And((WRITES, path("endswith", "/b"))))),),
    "exception": (And((path("startswith", "/a/"), Not(Certain(path("endswith", "b"))))),),
    "surely": (Certain(And((flag("equals", "O_RDWR"), path("startswith", "/")))),),
    "numbers": (flag("has", 2), And((flag("equals", 1), path("equals", "/b")))),
    "of two texts": (And((path("endswith", "b"), Test("syscall_pathname", "equals", ("x",)))),),
    "of the process as well": (And((path("endswith", "b"), Test("process.name", "equals", ("x",)))),),
    "each": (path("startswith", "/a", "/a/b", each=True),),
    "shipped": (),
}
UNTOLD: dict[str, Node] = {
    "within": path("contains", "shadow"),
    "without case": path("equals", "/a/b", nocase=True),
    "not": Not(path("equals", "/a/b")),
    "of the process": Test("process.name", "equals", ("x",)),
    "either of them": Or((path("equals", "/a/b"), Test("process.name", "equals", ("x",)))),
    "a class": path("glob", "/[ab]"),
    "the start of a word": path("re", "(?i)^/a$"),
    "nothing in common": flag("equals", "O_RDONLY"),
    "always": And(),
    "too many beginnings": path("startswith", *(f"/x/{i}" for i in range(MAX_MEASURED + 1))),
    "too many": path("equals", *(f"/{i}" for i in range(MAX_PATTERNS + 1))),
}


def rules_of(*nodes: Node) -> list[Rule]:
    rules = [Rule(id=f"R-{i}", name="r", events={"security_file_open": node}) for i, node in enumerate(nodes)]
    for rule in rules:
        check_rule(rule, catalogue())
    return rules


RULES = {name: rules_of(*nodes) if nodes else list(build(catalogue()).rules) for name, nodes in SETS.items()}


@pytest.fixture(scope="session")
def passes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Passes]:
    """Of each set of rules, what the C that is generated for it says of a record."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("narrowing")
    found = {}
    for i, (name, rules) in enumerate(RULES.items()):
        tests = narrowed(rules, catalogue(), ())
        assert any(test.event.id == FILE_OPEN for test in tests), name
        found[name] = built(tests, folder / str(i))
    return found


def opened(name: str, mode: int, status: int = KERNEL, flags: int = 0, asked: bytes = b"x") -> Record:
    blobs = (Blob(5, asked), Blob(0, walked(name.encode()) if status & 15 != FAULT else b"", status))
    return Record(FILE_OPEN, args=(0, mode, 0, 0, 0, 0, 257), flags=flags, blobs=blobs)


def matches(rules: list[Rule], record: Record) -> bool:
    contexts = Contexts()
    rows = read_frames([view(frame([record]))], contexts).rows
    return bool(len(Engine(rules, catalogue()).match(rows, contexts, ProcessTree(catalogue()))))


PATHS = some.one_of(
    some.lists(some.text("ab", min_size=1, max_size=3), min_size=1, max_size=4).map(
        lambda names: "/" + "/".join(names)
    ),
    some.sampled_from(
        ["/", "/etc/shadow", "/etc/shadowed", "/b", "/a", "/proc/1/mem", "/etc/ld.so.preload", "memfd:x/b"]
    ),
    some.sampled_from(["/proc/self/task/1/mem", "/run/docker.sock", "/home/a/.bashrc", "/etc/rc.local", PLAIN]),
)
RECORDS = some.builds(
    opened,
    PATHS,
    some.sampled_from(list(FLAGS.values())),
    some.sampled_from([KERNEL, KERNEL, KERNEL, KERNEL | CUT, KERNEL | FAULT]),
    some.sampled_from([0, 0, 0, COMPAT, OWN_ROOT]),
    some.sampled_from([b"x", b"y"]),
)


@pytest.mark.parametrize("name", SETS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(record=RECORDS)
def test_what_a_signature_matches_passes(passes: dict[str, Passes], name: str, record: Record) -> None:
    assert passes[name](record) or not matches(RULES[name], record)


@pytest.mark.parametrize(
    ("name", "path", "mode", "wanted"),
    [
        ("exact", "/a/bb", 0, False),
        ("beginning and end", "/etc/passwd", 0, False),
        ("both", "/a/b", 0, False),
        ("both", "/a/b", 1, True),
        ("either", "/x/b", 0, False),
        ("exception", "/b/a", 0, False),
        ("exception", "/a/b", 0, True),
        ("regular", "/a/c/b", 0, True),
        ("regular", "/a/b/c", 0, False),
        ("of two texts", "/b", 0, True),
        ("of the process as well", "/a", 0, False),
        ("shipped", PLAIN, 0, False),
        ("shipped", "/etc/passwd", 0, False),
        ("shipped", "/proc/1/mem", 0, True),
        ("shipped", "/proc/sys/kernel/core_pattern", 0, False),
        ("shipped", "/proc/sys/kernel/core_pattern", 1, True),
    ],
)
def test_what_none_can_match_stays_in_the_kernel(
    passes: dict[str, Passes], name: str, path: str, mode: int, wanted: bool
) -> None:
    assert passes[name](opened(path, mode)) == wanted


@pytest.mark.parametrize("name", UNTOLD)
def test_what_the_kernel_cannot_tell_passes(name: str) -> None:
    assert narrowed(rules_of(UNTOLD[name]), catalogue(), ()) == ()
    assert narrowed(rules_of(path("equals", "/a"), UNTOLD[name]), catalogue(), ()) == ()


def test_what_outputs_show_passes() -> None:
    rules = rules_of(path("equals", "/a"))
    assert [test.event.name for test in narrowed(rules, catalogue(), ())] == ["security_file_open"]
    assert narrowed(rules, catalogue(), {"security_file_open"}) == ()


def test_more_tests_than_there_are_bits_narrow_by_some() -> None:
    nodes = [path("equals", f"/{i}") for i in range(MAX_LEAVES + 1)]
    assert narrowed(rules_of(*nodes), catalogue(), ()) == ()
    for enough in (nodes[:-1], [And((WRITES, node)) for node in nodes]):
        [test] = narrowed(rules_of(*enough), catalogue(), ())
        assert len(test.leaves) == MAX_LEAVES


def test_all_pass_when_signatures_have_changed(tmp_path: Path) -> None:
    tests = narrowed(RULES["exact"], catalogue(), ())
    assert built(tests, tmp_path / "changed", let_pass=True)(opened("/x", 0))
    assert not built(tests, tmp_path / "same")(opened("/x", 0))
