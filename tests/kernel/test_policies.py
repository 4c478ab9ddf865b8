"""Policies in one real run: which of them an event belongs to, as the kernel and the workers decide it."""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.live import Running, in_process

pytestmark = pytest.mark.kernel
DEMO = Path(__file__).parents[2] / "pipeline" / "command" / "demo.hrc"
NAMES = ("a", "ab", "abc", "aXbc", "abcabc", "abcdefghijklmno", "cat", "caat", "c", "ct", "x-cat", "catx", "日本", "")
GLOBS = (
    *("*", "a*", "*c", "a*c", "*b*", "a?c", "?", "??", "?*?", "*abc*abc*", "c*t", "*cat", "cat*", "*o", "a*o"),
    *("abcdefghijklmno*", "*abcdefghijklmno", "ab*ab*", "*??????????????*", "c*a*t", "*日*"),
)
WORK = """
import ctypes, os, socket, subprocess, sys
say = ctypes.CDLL(None).prctl
sys.stdin.readline()
for name in sys.argv[1:]:
    say(15, name.encode(), 0, 0, 0)
    os.getppid()
say(15, b"parent", 0, 0, 0)
subprocess.run(["true"])
say(15, b"other", 0, 0, 0)
subprocess.run(["true"])
for path in ("/etc/hostname", "/nowhere", "/etc/nowhere"):
    try:
        open(path).close()
    except OSError:
        pass
os.setuid(65534)
os.getppid()
open("/proc/self/stat").close()
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()
"""
CONDITIONS = [
    {"name": "by-path", "scope": "comm=other", "events": "openat.args.pathname=/etc/*"},
    {"name": "by-result", "scope": "comm=other", "events": "openat.retval<0"},
    {"name": "both", "scope": "comm=other", "events": ["openat.args.pathname=/etc/*", "openat.retval=-ENOENT"]},
    {"name": "not", "scope": "comm=other", "events": ["openat.args.pathname!=/etc/*", "openat.retval<0"]},
    {"name": "family", "events": "socket.domain=AF_NETLINK"},
]
SCOPES = [
    {"name": "nobody", "scope": "uid=nobody", "events": "getppid,openat"},
    {"name": "follower", "scope": ["comm=parent", "follow"], "events": "sched_process_exec"},
    {"name": "new", "scope": "new", "events": "sched_process_exec"},
    {"name": "host", "scope": "!container", "events": "sched_process_exec"},
    {"name": "container", "scope": "container", "events": "sched_process_exec"},
    {"name": "exits", "events": "sched_process_exit"},
]


class PolicedRun:
    """What came of a run: its events, its ledger, and the process that did the work."""

    def __init__(self, events: list[dict[str, Any]], ledger: dict[str, Any], pid: int) -> None:
        self.events, self.ledger, self.pid = events, ledger, pid

    def policies(self, event: str, comm: str) -> list[list[str]]:
        """`matchedPolicies` of the events of tasks with this name."""
        found = [e for e in self.events if e["eventName"] == event and e["processName"] == comm]
        return [e["matchedPolicies"] for e in found]


def run_with(folder: Path, policies: list[dict[str, Any]], *options: str) -> PolicedRun:
    work = subprocess.Popen([sys.executable, "-c", WORK, *NAMES], stdin=subprocess.PIPE, text=True)
    try:
        file, out = folder / "policies.yaml", folder / "events.json"
        file.write_text(yaml.safe_dump(policies).replace("PID", str(work.pid)))
        running = Running("-s", f"tree={work.pid}", "--policy", str(file), "-o", f"json:{out}", *options)
        assert running.ready, running.end()
        assert work.stdin is not None
        work.stdin.write("\n")
        work.stdin.close()
        assert work.wait(60) == 0
        status, ledger, errors = running.end()
        assert status == 0, errors
        return PolicedRun([json.loads(line) for line in out.read_text().splitlines()], ledger, work.pid)
    finally:
        work.kill()


@pytest.fixture(scope="module")
def policed(tmp_path_factory: pytest.TempPathFactory) -> PolicedRun:
    globs = [{"name": f"glob-{i}", "scope": f"comm={glob}", "events": "getppid"} for i, glob in enumerate(GLOBS)]
    trees = [
        {"name": "tree", "scope": "tree=PID", "events": "sched_process_exec"},
        {"name": "other-tree", "scope": "tree!=PID", "events": "sched_process_exec"},
    ]
    return run_with(tmp_path_factory.mktemp("policed"), [*globs, *CONDITIONS, *SCOPES, *trees])


def test_nothing_is_lost_and_nobody_is_asked_twice(policed: PolicedRun) -> None:
    assert policed.ledger["balanced"] is True
    assert policed.ledger["lost"] == policed.ledger["dropped"] == policed.ledger["rejected"] == 0
    assert len(policed.events) == policed.ledger["delivered"]
    assert all(event["matchedPolicies"] for event in policed.events)
    calls = Counter(e["processName"] for e in policed.events if e["eventName"] == "getppid" and e["userId"] == 0)
    assert max(calls.values()) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_glob_of_a_name_means_what_it_means_in_a_shell(policed: PolicedRun, name: str) -> None:
    wanted = [f"glob-{i}" for i, glob in enumerate(GLOBS) if fnmatch.fnmatchcase(os.fsencode(name), os.fsencode(glob))]
    assert policed.policies("getppid", name)[:1] == ([wanted] if wanted else [])


def test_an_event_has_the_policies_whose_conditions_hold(policed: PolicedRun) -> None:
    found = {
        event["args"][1]["value"]: event["matchedPolicies"]
        for event in policed.events
        if event["eventName"] == "openat" and event["processName"] == "other" and event["userId"] == 0
    }
    assert found == {
        "/etc/hostname": ["by-path"],
        "/nowhere": ["by-result", "not"],
        "/etc/nowhere": ["by-path", "by-result", "both"],
    }
    assert policed.policies("socket", "other") == [["family"]]


def test_an_event_of_several_policies_comes_once_with_all_names(policed: PolicedRun) -> None:
    (found,) = [e for e in policed.events if e["eventName"] == "getppid" and e["userId"] == 65534]
    assert "nobody" in found["matchedPolicies"]
    assert len(found["matchedPolicies"]) > 1


def test_each_policy_follows_and_has_trees_of_its_own(policed: PolicedRun) -> None:
    first, second = policed.policies("sched_process_exec", "true")
    assert first == ["follower", "new", "host", "tree"]
    assert second == ["new", "host", "tree"]


def test_a_lifecycle_event_that_no_policy_of_the_process_asks_for_is_a_fact(policed: PolicedRun) -> None:
    # the workers know the executable of a process although no policy got its exec
    assert all(e["executable"]["path"] for e in policed.events)
    assert policed.policies("sched_process_exit", "true") == [["exits"]] * 2


def test_outputs_and_signatures_belong_to_policies(tmp_path: Path) -> None:
    own, rest, found = tmp_path / "own.json", tmp_path / "rest.json", tmp_path / "found.json"
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "- {id: T-1, name: opened, title: Opened, events: [openat], condition: {pathname: /etc/hostname}}\n"
        "- {id: T-2, name: unnamed, title: Unnamed, events: [openat], condition: {pathname: /etc/nowhere}}\n"
    )
    policies: list[dict[str, Any]] = [
        {"name": "paths", "events": "openat.args.pathname=/etc/*", "output": [f"json:{own}"]},
        {"name": "detects", "scope": "comm=other", "signatures": "T-1", "findings": f"json:{found}"},
        {"name": "elsewhere", "scope": "comm=nobody", "signatures": "T-*"},
        {"name": "sockets", "events": "socket"},
    ]
    run = run_with(
        tmp_path,
        policies,
        "-o",
        f"json:{rest},policies=sockets",
        "-o",
        f"zmq:ipc://{tmp_path}/unread.sock,policies=paths",
        "--signatures",
        str(rules),
        "--findings",
        "none",
    )
    opened = [json.loads(line) for line in own.read_text().splitlines()]
    assert {"/etc/hostname", "/etc/nowhere"} <= {event["args"][1]["value"] for event in opened}
    assert {tuple(event["matchedPolicies"]) for event in opened} == {("paths",)}
    assert {json.loads(line)["eventName"] for line in rest.read_text().splitlines()} == {"socket"}
    assert len(run.events) == run.ledger["delivered"]
    findings = [json.loads(line) for line in found.read_text().splitlines()]
    assert [(f["signatureID"], f["matchedPolicies"]) for f in findings] == [("T-1", ["detects"])]
    assert findings[0]["events"][0]["matchedPolicies"] == ["detects"]
    assert run.ledger["unoffered"] == 0
    lines = {line["name"]: line for line in run.ledger["sinks"]}
    assert lines[f"json:{own}"]["offered"] == run.ledger["delivered"]
    assert lines[f"json:{own}"]["written"] == len(opened)
    assert lines[f"json:{own}"]["filtered"] == run.ledger["delivered"] - len(opened)


def test_sixty_four_policies_fit(tmp_path: Path) -> None:
    policies: list[dict[str, Any]] = [
        {"name": f"p{i}", "scope": [f"uid={i}", "comm=*o*er"], "events": ["openat", "close.retval<0", "getppid"]}
        for i in range(64)
    ]
    run = run_with(tmp_path, policies)
    assert run.ledger["balanced"] is True
    assert {tuple(e["matchedPolicies"]) for e in run.events} == {("p0",)}


@pytest.mark.parametrize(
    ("policies", "options", "says"),
    [
        ([{"name": f"p{i}", "events": "openat"} for i in range(65)], [], "65 policies: there can be 64"),
        ([{"name": "a", "events": "openat"}], ["-e", "close"], "--events: with --policy, the policies say"),
        ([{"name": "a", "events": "openat"}], ["--rules", "TRC-1"], "--rules: with --policy, the policies say"),
        ([{"name": "a", "events": "openat"}], ["-o", "none", "-o", "json:-,policies=b"], "there is no policy b"),
        (
            [{"name": "a", "events": "openat.args.flags=O_WRONG"}],
            [],
            "args.flags=O_WRONG: flags has no",
        ),
        ([{"name": "a", "events": "openat", "output": "xml:-"}], [], "policy a: output 'xml:-': no such format"),
        (
            [{"name": "a", "scope": "tree=4194303", "events": "openat"}],
            [],
            "scope tree=4194303: no such process",
        ),
    ],
)
def test_what_is_wrong_is_refused_by_name(
    tmp_path: Path, policies: list[dict[str, Any]], options: list[str], says: str
) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text(yaml.safe_dump(policies))
    done = in_process("run", "--policy", str(file), *options, "--", "true")
    assert done.returncode == 2
    assert says in done.stderr


def test_an_output_of_a_policy_needs_one_and_a_replay_has_none(tmp_path: Path) -> None:
    done = in_process("run", "-e", "openat", "-o", f"json:{tmp_path / 'out'},policies=a", "--", "true")
    assert (done.returncode, "policies= needs policies: --policy FILE" in done.stderr) == (2, True)
    done = in_process("replay", str(DEMO), "-c", str(_config(tmp_path)))
    assert (done.returncode, "in a replay there is no kernel" in done.stderr) == (2, True)


def _config(folder: Path) -> Path:
    (folder / "headrace.yaml").write_text("policy: [{name: a, events: openat}]\n")
    return folder / "headrace.yaml"
