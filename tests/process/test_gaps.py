"""Findings say what may be missing: losses that are forced, before and within what they reach back to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.live import Running, headrace, wait_for

pytestmark = pytest.mark.kernel
RULES = """
id: GAP-1
name: single
description: An open of its own.
severity: low
events: {openat: {pathname: /gap/single}}
examples: {match: [{event: openat, args: {pathname: /gap/single}}], near_miss: [{event: openat, args: {pathname: /x}}]}
"""
SEEN = """
id: GAP-0
name: seen
description: An open that says that events come through again.
severity: low
events: {openat: {pathname: /gap/seen}}
"""
CODE = """
from headrace.signature import Event, Signature, State


class Twice(Signature):
    id, name, description, severity = "GAP-2", "twice", "The second open of a process.", "low"
    events = {"openat": {"pathname": "/gap/state"}}
    fields = ("pathname",)
    state = "process"

    def on_event(self, event: Event, state: State) -> bool:
        state["times"] = state.get("times", 0) + 1
        return state["times"] > 1
"""
PROGRAM = """
import os, sys
def opened(path, times=1):
    for _ in range(times):
        try: os.open(path, 0)
        except OSError: pass
def forked(times):
    for _ in range(times):
        pid = os.fork()
        if not pid: os._exit(0)
        os.waitpid(pid, 0)
for line in sys.stdin:
    what, *rest = line.split()
    forked(int(rest[0])) if what == "fork" else opened(what, int(rest[0]) if rest else 1)
    print(flush=True)
"""
GAP_0 = '"signatureID":"GAP-0"'
FLOOD, FORKS = 30_000, 4_000


class Actor:
    """A process that does what it is told, on one CPU: on another there would be room again, and another gap."""

    def __init__(self) -> None:
        line = [sys.executable, "-S", "-c", PROGRAM]
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        os.sched_setaffinity(self.process.pid, {min(os.sched_getaffinity(0))})

    def do(self, *what: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, what)) + "\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def end(self) -> None:
        self.process.communicate()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[dict[str, Any]]], Path]:
    """Findings by the process that made them, and the recording of the run."""
    folder = tmp_path_factory.mktemp("gaps")
    (folder / "rules").mkdir()
    (folder / "rules" / "single.yaml").write_text(RULES)
    (folder / "rules" / "seen.yaml").write_text(SEEN)
    (folder / "rules" / "twice.py").write_text(CODE)
    findings, recording = folder / "findings", folder / "run.hrc"
    before = Actor()
    running = Running(
        *("-s", f"tree={os.getpid()}", "--signatures", str(folder / "rules"), "--rules", "GAP-*", "--fold", "0"),
        *("--workers", "2", "--perf-pages", "8", "--findings", f"json:{findings}", "--record", str(recording)),
    )
    assert running.ready, running.end()
    reader = running.stage("reader")

    def while_nobody_reads(*what: object) -> None:
        os.kill(reader, signal.SIGSTOP)
        before.do(*what)
        os.kill(reader, signal.SIGCONT)

        def comes_through() -> bool:
            before.do("/gap/seen")
            return GAP_0 in findings.read_text()[already:]

        already = len(findings.read_text())
        wait_for(comes_through, "what comes after the gap")

    def count() -> int:
        return sum(GAP_0 not in line for line in findings.read_text().splitlines())

    before.do("/gap/state")
    while_nobody_reads("/flood", FLOOD)
    before.do("/gap/state")
    before.do("/gap/single")
    wait_for(lambda: count() == 2, "findings after a flood")
    after = Actor()
    after.do("/gap/state", 2)
    wait_for(lambda: count() == 3, "a finding of a process that was not there yet")
    while_nobody_reads("fork", FORKS)
    before.do("/gap/single")
    wait_for(lambda: count() == 4, "a finding after lost forks")
    pids = {before.process.pid: "before", after.process.pid: "after"}
    before.end()
    after.end()
    running.process.send_signal(signal.SIGINT)
    _, ledger, errors = running.end()
    assert ledger["balanced"], errors
    assert ledger["lost"]
    by_actor: dict[str, list[dict[str, Any]]] = {"before": [], "after": []}
    for line in findings.read_text().splitlines():
        if GAP_0 in line:
            continue
        finding = json.loads(line)
        by_actor[pids[finding["process"]["pid"]]].append(finding)
    return by_actor, recording


def test_state_that_reaches_back_behind_a_gap_of_its_shard_is_not_complete(found: Any) -> None:
    twice, single, _ = found[0]["before"]
    assert (twice["signatureID"], twice["complete"]) == ("GAP-2", False)
    assert {gap["lost"] for gap in twice["gaps"]} == {"shard"}
    assert sum(gap["events"] for gap in twice["gaps"]) > FLOOD // 4
    assert (single["signatureID"], single["complete"], single["gaps"]) == ("GAP-1", True, [])


def test_state_that_began_after_a_gap_is_complete(found: Any) -> None:
    (twice,) = found[0]["after"]
    assert (twice["signatureID"], twice["complete"], twice["gaps"]) == ("GAP-2", True, [])


def test_an_ancestry_with_lost_forks_is_not_complete(found: Any) -> None:
    single = found[0]["before"][-1]
    assert (single["signatureID"], single["complete"]) == ("GAP-1", False)
    assert [gap["lost"] for gap in single["gaps"]] == ["lifecycle"]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_recording_tells_the_same(found: Any, tmp_path: Path, workers: int) -> None:
    by_actor, recording = found
    again = tmp_path / "again"
    rules = recording.parent / "rules"
    options = ["--signatures", str(rules), "--fold", "0", "--workers", str(workers)]
    options += ["--rules", "GAP-1", "--rules", "GAP-2"]
    done = headrace("replay", str(recording), *options, "--findings", f"json:{again}")
    assert done.returncode == 0, done.stderr
    told = {(f["timestamp"], f["signatureID"], f["complete"]) for f in map(json.loads, again.read_text().splitlines())}
    assert told == {(f["timestamp"], f["signatureID"], f["complete"]) for each in by_actor.values() for f in each}
