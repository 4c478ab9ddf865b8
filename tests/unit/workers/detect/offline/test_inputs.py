"""What of signatures an input cannot answer: said for each, with what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.rules import Rule
from headrace.workers.detect.offline.analysis import Analysis
from headrace.workers.detect.offline.inputs import CoverageGap, Recorded
from headrace.workers.detect.rules.rulesets import build

EXEC = "sched_process_exec"
EVERY = ("exec_environment", "fd_paths")


def rules(folder: Path, *conditions: dict[str, Any]) -> tuple[Rule, ...]:
    """A rule for each, on its events."""
    for number, events in enumerate(conditions):
        rule = {"id": f"R-{number}", "name": "r", "severity": "low", "events": events}
        (folder / f"{number}.yaml").write_text(yaml.safe_dump(rule))
    found = build(catalogue(), (str(folder),), shipped=False)
    assert not found.refused
    return found.rules


def of_recording(
    found: tuple[Rule, ...],
    *events: str,
    reads: tuple[str, ...] = (),
    users: bool = True,
    seen: tuple[str, ...] = (),
    **narrowed: str,
) -> list[CoverageGap]:
    return Recorded(events, reads, narrowed, users).gaps(found, catalogue(), seen)


def test_events_that_were_not_recorded_are_named(tmp_path: Path) -> None:
    found = rules(tmp_path, {"ptrace": {"request": 0}}, {"ptrace": {"request": 0}, "openat": {"pathname": "/x"}})
    assert of_recording(found, "openat") == [
        CoverageGap("R-0", "none", ("no event ptrace",)),
        CoverageGap("R-1", "partial", ("no event ptrace",)),
    ]
    assert of_recording(found, "openat", "ptrace") == []


@pytest.mark.parametrize(
    ("condition", "word"),
    [
        ({"env|startswith": "A="}, "none"),
        ({"pathname": "/x", "env|startswith": "A="}, "none"),
        ({"any": [{"pathname": "/x"}, {"env|startswith": "A="}]}, "partial"),
        ({"pathname": "/x", "not": {"env|startswith": "A="}}, "none"),
        ({"env|exists": False}, "partial"),
        ({"env|exists": True}, "none"),
    ],
)
def test_a_condition_on_what_was_not_read_covers_what_can_be_true(
    condition: dict[str, Any], word: str, tmp_path: Path
) -> None:
    found = rules(tmp_path, {EXEC: condition})
    assert of_recording(found, EXEC) == [CoverageGap("R-0", word, (f"{EXEC} without env",))]
    assert of_recording(found, EXEC, reads=EVERY) == []


def test_descriptors_and_users_are_known_if_they_were_read(tmp_path: Path) -> None:
    found = rules(tmp_path, {"close": {"descriptor.path": "/x"}}, {"close": {"process.user": "root"}})
    lacking = [
        CoverageGap("R-0", "none", ("close without descriptor.path",)),
        CoverageGap("R-1", "none", ("close without process.user",)),
    ]
    assert of_recording(found, "close", users=False) == lacking
    assert of_recording(found, "close", reads=EVERY) == []


def test_what_the_kernel_kept_back_is_said(tmp_path: Path) -> None:
    found = rules(tmp_path, {"openat": {"pathname": "/x"}})
    assert of_recording(found, "openat", openat="openat.pathname=/y") == [
        CoverageGap("R-0", "partial", ("openat only where openat.pathname=/y",))
    ]


def test_a_recording_that_does_not_say_what_it_has_has_what_is_seen_in_it(tmp_path: Path) -> None:
    found = rules(tmp_path, {"openat": {"pathname": "/x"}}, {"close": {"fd": 1}})
    assert Recorded(None, (), {}, False).gaps(found, catalogue(), ("openat",)) == [
        CoverageGap("R-1", "none", ("no event close",))
    ]


def of_lines(found: tuple[Rule, ...], *lines: dict[str, Any]) -> list[str]:
    analysis = Analysis(found, catalogue())
    for index, line in enumerate(lines):
        analysis.read(index, json.dumps(line).encode())
    return analysis.remarks()


def event(name: str, *args: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"eventName": name, "args": list(args), "returnValue": 0} | more


def test_lines_say_what_none_of_them_has(tmp_path: Path) -> None:
    found = rules(
        tmp_path,
        {EXEC: {"env|startswith": "A="}},
        {EXEC: {"process.euid": 0}, "openat": {"pathname": "/x"}},
        {"openat": {"parent.path": "/x"}},
        {EXEC: {"pathname": "/x"}},
    )
    tracee = event(EXEC, {"name": "pathname", "value": "/x"}, userId=0)
    assert of_lines(found, tracee) == [
        "not covered by this input: 3 of 4 signatures",
        f"  {EXEC} without env: R-0",
        "  no event openat: R-1, R-2",
        f"  {EXEC} without process.euid: R-1",
    ]
    ids = {"gid": 0, "euid": 0, "loginUid": 0, "sessionId": 0, "utsNamespace": 1, "capEffective": 0}
    hidden = {"name": "env", "value": None, "reason": "not read"}
    own = event(EXEC, {"name": "pathname", "value": "/x"}, hidden, context=ids)
    opened = event("openat", {"name": "pathname", "value": "/x"}, context=ids, hostProcessId=1, processStartTime=1)
    assert of_lines(found, own, opened) == [
        "not covered by this input: 2 of 4 signatures",
        f"  {EXEC} without env: R-0",
        "  openat without parent.path: R-2",
    ]
    shown = event(EXEC, {"name": "pathname", "value": "/x"}, {"name": "env", "value": []}, context=ids)
    told = opened | {"lineage": {"ancestors": [{"image": {"path": "/y"}}]}}
    assert of_lines(found, shown, told) == []


def test_the_event_of_a_duplicate_is_made_of_it(tmp_path: Path) -> None:
    found = rules(tmp_path, {"socket_dup": {"remote_addr.family": "AF_INET"}})
    assert of_lines(found, event("dup2")) == []
    assert of_lines(found, event("close")) == [
        "not covered by this input: 1 of 1 signatures",
        "  no event socket_dup: R-0",
    ]
