"""Signatures over recorded events: JSON lines of Tracee's flat format, and recordings; and why they match."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.live import headrace, trace

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "finding.schema.json").read_text())
INET = {"sa_family": "AF_INET", "sin_addr": "10.0.0.2", "sin_port": "53"}


def event(name: str, retval: int = 0, **more: Any) -> str:
    """One line; what is no argument begins with a capital."""
    given = {key[0].lower() + key[1:]: value for key, value in more.items() if key[0].isupper()}
    args = [{"name": k, "type": "unknown", "value": v} for k, v in more.items() if not k[0].isupper()]
    return json.dumps({"timestamp": 1, "processId": 5, "eventName": name, "returnValue": retval, "args": args} | given)


def findings(lines: list[str], *options: str) -> tuple[int, list[dict[str, Any]], str]:
    done = headrace("analyze", *options, "-", stdin=None, input="".join(f"{line}\n" for line in lines))
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for finding in found:
        jsonschema.validate(finding, SCHEMA)
    return done.returncode, found, done.stderr


def analyzed(lines: list[str], *options: str) -> tuple[int, list[tuple[str, int]], str]:
    status, found, errors = findings(lines, *options)
    return status, [(f["signatureID"], f["eventIndex"]) for f in found], errors


def test_findings_name_the_line_that_completed_them() -> None:
    lines = [
        event("ptrace", request=16),
        event("ptrace", request="PTRACE_TRACEME"),
        event("security_file_open", pathname="/x/release_agent", flags="O_WRONLY|O_CREAT", ContainerId="abc"),
        event("security_file_open", pathname="/x/release_agent", flags=str(0o101), ContainerId="abc"),
        event("security_file_open", pathname="/x/release_agent", flags=1),
        event("something_else"),
        event("magic_write", pathname="/tmp/x", bytes="f0VMRgIB", ContainerId="abc"),
    ]
    status, found, errors = analyzed(lines)
    assert (status, found) == (0, [("TRC-102", 1), ("TRC-1010", 2), ("TRC-1010", 3), ("TRC-1022", 6)])
    assert "lines 7  rejected 0" in errors


def test_a_container_that_has_not_started_is_none() -> None:
    flags = {"containerStarted": False, "isCompat": False}
    opened = {"pathname": "/x/release_agent", "flags": 1, "ContainerId": "abc"}
    assert analyzed([event("security_file_open", ContextFlags=flags, **opened)])[1] == []


@pytest.mark.parametrize(
    "line", ["", "garbage", "[]", "{}", '{"eventName": 5}', '{"eventName":"ptrace","args":5}', "\x00"]
)
def test_a_malformed_line_is_said_and_the_rest_goes_on(line: str) -> None:
    status, found, errors = analyzed([line, event("ptrace", request=0)])
    assert (status, found) == (3, [("TRC-102", 1)])
    assert "headrace: -:1: " in errors
    assert "rejected 1" in errors


def test_descriptors_are_followed_through_the_events() -> None:
    connect = event("security_socket_connect", sockfd=5, remote_addr=INET)
    onto = event("dup2", oldfd=5, newfd=0)
    assert analyzed([connect, onto], "--rules", "TRC-1")[1] == [("TRC-1", 1)]
    assert analyzed([connect, event("dup", 1, fildes=5)], "--rules", "TRC-1")[1] == [("TRC-1", 1)]
    chain = [connect, event("dup", 7, fildes=5), event("close", fd=5), event("dup3", oldfd=7, newfd=2, flags=0)]
    assert analyzed(chain, "--rules", "TRC-1")[1] == [("TRC-1", 3)]
    near_misses = [
        [onto],
        [connect, event("close", fd=5), onto],
        [connect, event("sched_process_exit", exit_code=0), onto],
        [connect, event("dup2", -9, oldfd=5, newfd=0)],
        [connect, event("dup2", oldfd=5, newfd=9)],
        [connect, event("dup2", oldfd=5, newfd=0, ProcessId=6)],
    ]
    for lines in near_misses:
        assert analyzed(lines, "--rules", "TRC-1")[1] == [], lines
    told = event("socket_dup", oldfd=5, newfd=0, remote_addr=INET)
    assert analyzed([connect, told, onto], "--rules", "TRC-1")[1] == [("TRC-1", 1)]


def test_state_of_a_container_reaches_over_its_processes() -> None:
    run = event("sched_process_exec", pathname="/x", env=["KUBERNETES_SERVICE_HOST=10.0.0.2"], ContainerId="c")
    connect = event("security_socket_connect", sockfd=3, remote_addr=INET, ContainerId="c", ProcessId=9)
    status, found, _ = findings([run, event("getppid"), connect])
    assert (status, [(f["signatureID"], f["eventIndex"]) for f in found]) == (0, [("TRC-1013", 2)])
    assert found[0]["events"] == [json.loads(run), json.loads(connect)]


MINE = "from headrace.signature import Signature\n\n\nclass Mine(Signature):\n    id, name = 'MINE', 'mine'\n"


def test_code_sees_when_events_were(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        MINE + "    events = {'getppid': None}\n\n"
        "    def on_event(self, event, state):\n        return {'time': event.time_ns}\n"
    )
    _, found, _ = findings([event("getppid", Timestamp=t) for t in (17, 10**18)], "--signatures", str(tmp_path))
    assert [f["data"] for f in found] == [{"time": 17}, {"time": 10**18}]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("while True: pass", "did not return; it is off now"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("return 'text'", "TypeError: what is found is a mapping, True or None, not str"),
        ("return {'x': object()}", "TypeError: Encoding objects of type object is unsupported"),
    ],
)
def test_code_that_holds_or_ends_the_analysis_is_contained(tmp_path: Path, body: str, why: str) -> None:
    (tmp_path / "mine.py").write_text(
        MINE + f"    events = {{'getppid': None}}\n\n    def on_event(self, event, state):\n        {body}\n"
    )
    status, found, errors = analyzed([event("getppid"), event("ptrace", request=0)], "--signatures", str(tmp_path))
    assert (status, found) == (0, [("TRC-102", 1)])
    assert why in errors


@pytest.mark.kernel
def test_a_recording_gives_the_findings_of_the_live_run_with_any_number_of_workers(tmp_path: Path) -> None:
    recording, live = tmp_path / "x.hrc", tmp_path / "live"
    script = "for i in 1 2 3; do cat /proc/sys/kernel/randomize_va_space; done; LD_PRELOAD= ls /; exec 3</proc/self/mem"
    done = headrace(
        *("run", "--record", str(recording), "--findings", f"json:{live}", "--fold", "0", "--", "sh", "-c", script)
    )
    assert done.returncode == 0, done.stderr
    found = live.read_text().splitlines()
    assert len(found) == 5
    for workers in ("1", "2", "3", "7"):
        again = headrace("analyze", "--workers", workers, str(recording))
        assert again.returncode == 0, again.stderr
        assert again.stdout.splitlines() == found, workers


@pytest.mark.kernel
def test_the_events_that_headrace_writes_can_be_analyzed_and_explained(tmp_path: Path) -> None:
    code = "open('/proc/sys/kernel/randomize_va_space')"
    done = trace([sys.executable, "-S", "-c", code], "-e", "security_file_open")
    path = tmp_path / "events.json"
    path.write_text("".join(json.dumps(e) + "\n" for e in done.events))
    status, found, _ = analyzed(path.read_text().splitlines())
    line = next(i for i, e in enumerate(done.events) if e["args"][0]["value"].endswith("randomize_va_space"))
    assert (status, found) == (0, [("TRC-109", line)])
    why = headrace("signatures", "explain", "TRC-109", f"{path}:{line + 1}")
    assert (why.returncode, why.stderr) == (0, "")
    assert "true     pathname is '/proc/sys/kernel/randomize_va_space'" in why.stdout
    other = headrace("signatures", "explain", "aslr_inspection", f"{path}:1")
    assert other.returncode == 1
    assert "false    pathname is" in other.stdout
    none = headrace("signatures", "explain", "TRC-102", str(path))
    assert none.returncode == 1
    assert "not requested: TRC-102 looks at ptrace" in none.stdout


def test_what_is_found_is_told_before_the_input_ends() -> None:
    command = [str(Path(sys.executable).with_name("headrace")), "analyze", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for index in (0, 2):
            process.stdin.write(event("ptrace", request=0) + "\n" + event("getppid") + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["eventIndex"] == index
        process.stdin.close()
        assert process.stdout.read() == ""
    assert process.returncode == 0


def test_a_line_without_end_is_rejected() -> None:
    lines = ["{" + "x" * (17 << 20), event("ptrace", request=0)]
    status, found, errors = analyzed(lines)
    assert (status, found) == (3, [("TRC-102", 1)])
    assert "-:1: longer than 16 MiB" in errors
    assert len(errors) < 10_000


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = headrace("analyze", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "No such file" in done.stderr
