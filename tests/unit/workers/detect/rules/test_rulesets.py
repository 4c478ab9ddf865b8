"""Whatever a file of rules holds, it is refused by file and reason, and the rest loads: one test over all loaders."""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.bpf.tables.catalogue import catalogue
from headrace.config import layers
from headrace.config.rules import MAX_VALUES, RuleError
from headrace.config.settings import SettingsError
from headrace.workers.detect.engine.engine import Engine
from headrace.workers.detect.rules import rulesets
from headrace.workers.detect.rules.rulesets import Ruleset, build

DEADLINE_S = 60
OWN = {
    "id": "BAD-1",
    "name": "bad",
    "title": "t",
    "severity": "low",
    "mitre": {"tactic": "x", "id": "T1"},
    "tags": ["a"],
    "events": {"openat": {"pathname|endswith": ["/a", "/b"], "flags|has": "O_RDWR", "not": {"process.uid": 0}}},
    "condition": {"any": [{"process.name": "x"}]},
    "threshold": {"count": 3, "within": 5, "by": ["process.path"]},
    "data": {"where": "pathname"},
    "enabled": True,
    "references": ["r"],
    "examples": {"match": [{"event": "openat", "args": {"pathname": "/a"}, "process": {"name": "x"}}]},
}
SIGMA = {
    "title": "Bad",
    "id": "11111111-1111-4111-8111-111111111111",
    "status": "test",
    "level": "low",
    "tags": ["attack.t1059"],
    "references": ["r"],
    "author": "a",
    "logsource": {"product": "linux", "category": "process_creation"},
    "detection": {
        "s": {"CommandLine|contains|all": ["a", "b"], "User": "root"},
        "k": ["x"],
        "condition": "s and not k",
    },
}
GOOD_SIGMA = copy.deepcopy(SIGMA) | {"title": "Good", "id": "22222222-2222-4222-8222-222222222222"}
EXCEPTIONS = [{"id": "GOOD-1", "unless": {"process.name": ["x"], "any": [{"process.uid": 1}]}}]


def own(folder: Path) -> Ruleset:
    return build(catalogue(), [str(folder)], shipped=False)


def sigma(folder: Path) -> Ruleset:
    return build(catalogue(), shipped=False, sigma=[str(folder)])


def exceptions(folder: Path) -> Ruleset:
    bad = next(path for path in folder.iterdir() if path.name.startswith("bad"))
    good = folder.parent / "good"
    good.mkdir(exist_ok=True)
    (good / "good.yaml").write_text("id: GOOD-1\nname: good\nevents: {getppid: null}\n")
    return build(catalogue(), [str(good)], shipped=False, exceptions=str(bad))


LOADERS: dict[str, tuple[Callable[[Path], Ruleset], Any]] = {
    "own": (own, OWN),
    "sigma": (sigma, SIGMA),
    "exceptions": (exceptions, EXCEPTIONS),
}


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """Nothing here may wait."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it did not end"))
    timer = signal.setitimer(signal.ITIMER_REAL, DEADLINE_S)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    signal.setitimer(signal.ITIMER_REAL, *timer)


@pytest.fixture(params=LOADERS)
def loader(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "rules"
    made.mkdir()
    return made


def loads(loader: str, folder: Path) -> tuple[bool, list[RuleError]]:
    """Whether the bad one is there, and what was refused; a good one beside it is always there."""
    if loader == "own":
        (folder / "good.yaml").write_text("id: GOOD-1\nname: good\nevents: {getppid: null}\n")
    elif loader == "sigma":
        (folder / "good.yml").write_text(yaml.safe_dump(GOOD_SIGMA))
    found = LOADERS[loader][0](folder)
    names = {rule.title or rule.id for rule in found.rules}
    assert names & {"Good", "GOOD-1"}
    Engine(found.rules, catalogue())
    return len(names) > 1, [*found.refused, *found.left_out]


def must_refuse(loader: str, folder: Path, name: str, about: str = "") -> None:
    there, refused = loads(loader, folder)
    assert not there, about
    assert refused
    assert all(name in error.file and error.why for error in refused), [str(error) for error in refused]


BYTES = {
    "nothing": b"",
    "NUL": b"id: a\0b\n",
    "not UTF-8": b"id: \xff\xfe\n",
    "UTF-16": "id: BAD-1\n".encode("utf-16"),
    "control characters": b"id: \x07\x1b[2J\n",
    "no YAML": b"a: [1, 2\nb: }",
    "tabs": b"a:\n\t- b\n",
    "a word": b"word\n",
    "a number": b"1\n",
    "only a comment": b"# nothing\n",
    "empty documents": b"---\n---\n---\n",
    "many documents": b"---\nx\n" * 3000,
    "lists deep": b"[" * 200_000,
    "lists deep and closed": b"[" * 5000 + b"]" * 5000,
    "mappings deep": b"a: {" * 5000 + b"}" * 5000,
    "blocks deep": b"".join(b" " * i + b"a:\n" for i in range(1500)),
    "dashes deep": b"- " * 5000 + b"x",
    "a bomb": b"a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"a%d: &a%d [%s]\n" % (i, i, b",".join([b"*a%d" % (i - 1)] * 10)) for i in range(1, 10)),
    "a cycle": b"&a [*a]\n",
    "a cycle of mappings": b"&a {id: *a, events: *a, detection: *a}\n",
    "a merge of itself": b"&a {<<: *a, id: x}\n",
    "an anchor that is not there": b"id: *nowhere\n",
    "Python objects": b"!!python/object/apply:os.system ['true']\n",
    "binary": b"id: !!binary AAAA\nname: !!set {a, b}\nevents: !!omap [a: b]\n",
    "keys that are lists": b"? [a, b]\n: c\n",
    "keys that are nothing": b"null: 1\n~: 2\n",
    "a directive": b"%YAML 9.9\n---\nid: x\n",
    "a long word": b"id: " + b"x" * 3_000_000,
    "a long number": b"id: " + b"9" * 6000,
    "strange numbers": b"{id: .inf, name: .nan, title: 1e999, events: 0x" + b"f" * 4000 + b"}\n",
    "dates": b"{id: 2001-01-01, events: 9999-99-99, detection: 2001-01-01T25:61:61Z}\n",
    "surrogates": b'{id: "\\ud800", name: "\\udfff"}\n',
}


@pytest.mark.parametrize("data", BYTES.values(), ids=BYTES)
def test_bytes_that_are_no_rule(loader: str, folder: Path, data: bytes) -> None:
    (folder / "bad.yml").write_bytes(data)
    if loader == "exceptions" and data in (BYTES["nothing"], BYTES["only a comment"]):
        assert loads(loader, folder) == (False, [])  # no exception is one way to have none
    elif loader == "sigma" and data in (BYTES["nothing"], BYTES["only a comment"], BYTES["empty documents"]):
        assert not loads(loader, folder)[0]
    else:
        must_refuse(loader, folder, "bad.yml")


def _socket(path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX)
    here = os.open(path.parent, os.O_RDONLY)
    listening.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)
    listening.close()


PLACES: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "the memory of a process": lambda path: path.symlink_to("/proc/self/mem"),
    "nothing there": lambda path: path.symlink_to("nowhere"),
    "itself": lambda path: path.symlink_to(path),
    "a file of many GiB": lambda path: (path.touch(), os.truncate(path, 1 << 40))[1],
}


@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES)
def test_places_that_are_no_file(loader: str, folder: Path, make: Callable[[Path], None]) -> None:
    make(folder / "bad.yml")
    must_refuse(loader, folder, "bad.yml")


def test_a_folder_called_like_a_file_and_links_in_circles_are_walked_once(loader: str, folder: Path) -> None:
    (folder / "bad.yml").mkdir()
    for name in ("a", "b", "c"):
        (folder / "bad.yml" / name).symlink_to(folder)
    if loader == "exceptions":
        must_refuse(loader, folder, "bad.yml")
    else:
        assert loads(loader, folder) == (False, [])


ODD = (
    None,
    [],
    {},
    0,
    -1,
    10**30,
    -(10**400),
    1.5,
    float("nan"),
    True,
    "",
    "\0",
    "x" * 200_000,
    "a|b|c|d",
    [None],
    [[]],
    {"x": None},
    {"list": "nowhere"},
    {1: 2},
    [[[[[["x"]]]]]],
)


THIRDS = 3
"""Each part is changed to every third of them, one after the other."""


def places(tree: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield here
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield from places(tree[key], (*here, key))


def changed(tree: Any, where: tuple[Any, ...], what: Any) -> Any:
    if not where:
        return what
    found = copy.copy(tree)
    found[where[0]] = changed(tree[where[0]], where[1:], what)
    return found


def renamed(tree: Any, where: tuple[Any, ...], what: str) -> Any:
    """The same with a key of that name."""
    above = where[:-1]
    part = tree
    for key in above:
        part = part[key]
    if not isinstance(part, dict):
        return changed(tree, where, what)
    return changed(tree, above, {what if key == where[-1] else key: value for key, value in part.items()})


def test_every_part_of_a_rule_may_be_anything(loader: str, folder: Path) -> None:
    tree = LOADERS[loader][1]
    refusals = 0
    for number, where in enumerate(places(tree)):
        trees = [changed(tree, where, odd) for odd in ODD[number % THIRDS :: THIRDS]]
        if where:
            names = ("", "x|y", "not", "all", "a|re|contains", "\0", "<<")
            trees += [renamed(tree, where, name) for name in names[number % THIRDS :: THIRDS]]
        for bad in trees:
            (folder / "bad.yml").write_text(yaml.safe_dump(bad))
            there, refused = loads_quickly(loader, folder)
            assert there or refused or loader != "own", (where, bad)
            assert all("bad.yml" in error.file and error.why for error in refused)
            refusals += bool(refused)
    assert refusals > 50


def loads_quickly(loader: str, folder: Path) -> tuple[bool, list[RuleError]]:
    found = LOADERS[loader][0](folder)
    return bool(found.rules), [*found.refused, *found.left_out]


HEAD = "from headrace.signature import Signature\n"
SOURCES = {
    "no Python": "class (",
    "NUL": "x = 1\0",
    "nothing": "",
    "no signature": "x = 1",
    "a signature without an id": HEAD + "class A(Signature):\n    events = {'getppid': None}",
    "an error": "1 / 0",
    "a module that is not there": "import nowhere_at_all",
    "an end": "import sys\nsys.exit(0)",
    "an endless recursion": "def f(): f()\nf()",
    "a deep nest": "(" * 500 + ")" * 500,
    "much of it": "x = 1\n" * 1_000_000,
}
BODIES = {
    "id": ["5", "'a b'", "'\\ud800'", "b'x'", "['x']"],
    "name": ["5", "''", "'\\ud800'"],
    "title": ["5", "'\\ud800'", "None"],
    "severity": ["5", "'x'", "[]"],
    "mitre": ["5", "{'x': 'y'}", "{'id': 5}", "[1]"],
    "tags": ["5", "[5]"],
    "scope": ["5", "{}"],
    "events": [
        *("5", "[]", "{}", "[1]", "{'getppid': 5}", "{'getppid': object()}", "{'no_such': None}", "{5: None}"),
        *(
            "deep(2000)",
            "cycle",
            "{'openat': {'pathname|contains': 'x' * 1_000_000}}",
            "{'openat': {'pathname': b'x'}}",
        ),
    ],
    "fields": ["5", "[5]", "['nothing']"],
    "state": ["5", "'x'", "[]"],
    "threshold": ["5", "{'x': 1}", "{'count': 10**30, 'within': 1}"],
    "shared": ["5", "['openat']"],
    "examples": ["5", "{'x': []}", "{'match': 5}"],
}
CLASS = (
    HEAD
    + "cycle = {}\ncycle['openat'] = cycle\ncycle['not'] = cycle\n"
    + "def deep(n):\n    d = {'process.uid': 0}\n    for _ in range(n): d = {'not': d}\n    return {'openat': d}\n"
    + "class A(Signature):\n    id, name, events = 'BAD-1', 'bad', {'getppid': None}\n"
)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_code_that_is_no_signature(folder: Path, source: str) -> None:
    (folder / "bad.py").write_text(source)
    must_refuse("own", folder, "bad.py")


@pytest.mark.parametrize("name", BODIES)
def test_signatures_in_python_whose_parts_are_anything(folder: Path, name: str) -> None:
    for value in BODIES[name]:
        (folder / "bad.py").write_text(f"{CLASS}    {name} = {value}\n")
        must_refuse("own", folder, "bad.py", value)


def test_lists_that_multiply_or_are_nested_too_deeply(folder: Path) -> None:
    grows = {"a0": ["x"] * 10} | {f"a{i}": [{"list": f"a{i - 1}"}] * 10 for i in range(1, 12)}
    nested = {"b0": ["x"]} | {f"b{i}": [{"list": f"b{i - 1}"}] for i in range(1, 3000)}
    for lists in (grows, dict(reversed(nested.items()))):
        (folder / "bad.yaml").write_text(json.dumps({"lists": lists}))
        must_refuse("own", folder, "bad.yaml")


@pytest.mark.parametrize(
    "condition",
    [
        {"pathname|contains": "x" * (1 << 20)},
        {"pathname|glob": "*".join("ab" for _ in range(30_000))},
        {"pathname|re": "(a|b){1000}" * 2000},
        {"pathname": [f"/opt/{i}" for i in range(MAX_VALUES + 1)]},
        {"retval|gt": 10**30},
    ],
    ids=["a long value", "a wild glob", "a large expression", "many values", "a large number"],
)
def test_what_workers_could_not_load_is_refused_when_it_is_checked(folder: Path, condition: Any) -> None:
    bad = {"id": "BAD-1", "name": "bad", "events": {"openat": condition}}
    (folder / "bad.yaml").write_text(json.dumps(bad))
    must_refuse("own", folder, "bad.yaml")


def test_values_are_counted_before_any_of_them_is_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is looked at once for each event: some hundred of these times some thousand values take minutes."""
    events = [event.name for event in catalogue().by_id.values()][:100]
    many = {"process.name|re": [f"x{i}.*y" for i in range(MAX_VALUES // 100 + 1)]}
    bad = {"id": "BAD-1", "name": "bad", "events": events, "condition": many}
    (folder / "bad.yaml").write_text(json.dumps(bad))
    looked_at: list[str] = []
    monkeypatch.setattr(rulesets, "check_rule", lambda rule, catalogue: looked_at.append(rule.id))
    found = build(catalogue(), [str(folder)], shipped=False)
    assert [error.rule for error in found.refused] == ["BAD-1"]
    assert f"more than {MAX_VALUES} values" in str(found.refused[0])
    assert "BAD-1" not in looked_at


@pytest.mark.parametrize(
    "data",
    [
        *(b"\xff", b"\0", b"x", b"a = [" * 3000, b"workers = " + b"9" * 6000, b"workers = 1e999", b"workers = []"),
        *(b"events = 5", b"output = [5]", b"[workers]\nx = 1", b"workers = 2001-01-01", b"a.b.c.d = 1"),
        b"a = " + b"[" * 3000 + b"]" * 3000,
    ],
)
def test_settings_that_are_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(data)
    with pytest.raises(SettingsError) as raised:
        layers.resolve(path, {})
    assert "bad.toml" in str(raised.value)
