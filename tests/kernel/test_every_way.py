"""What signatures look at shows the same, whatever way a call is made (every_way.c): compared with what was done."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.live import Event, Traced, arguments, compile_c, trace

pytestmark = pytest.mark.kernel
OBJECT = {
    **dict.fromkeys(("open", "openat", "creat"), "security_file_open"),
    **dict.fromkeys(("rename", "renameat", "renameat2"), "security_inode_rename"),
    **dict.fromkeys(("link", "linkat"), "security_inode_link"),
    **dict.fromkeys(("symlink", "symlinkat"), "security_inode_symlink"),
    **dict.fromkeys(("unlink", "unlinkat"), "security_inode_unlink"),
    **dict.fromkeys(("mknod", "mknodat"), "security_inode_mknod"),
    **dict.fromkeys(("execve", "execveat"), "sched_process_exec"),
    "truncate": "security_path_truncate",
    "socket": "security_socket_create",
    "connect": "security_socket_connect",
}
"""The event of the object that a call is about."""
CALLS = (*OBJECT, "chmod", "fchmodat", "dup2", "ptrace", "memfd_create")
WAYS = ("pl", "th", "vf", "nr", "ar", "g8", "gu")
NARROW_WAYS = ("pl", "th", "vf")
ENOSYS = -38
REPLACED = -3
"""What every_way.c says of a process that became another program."""


class Done(NamedTuple):
    """What was traced, and by way and call what came of it."""

    traced: Traced
    results: dict[tuple[str, str], int]


@pytest.fixture(scope="module", params=["64", "32"])
def done(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Done:
    folder = tmp_path_factory.mktemp("ways")
    program = compile_c(Path(__file__).with_name("every_way.c"), folder / "ways", f"-m{request.param}")
    files, said = folder / "files", folder / "said"
    files.mkdir()
    shutil.copy("/bin/true", files / "program")
    events = ",".join((*CALLS, *dict.fromkeys(OBJECT.values())))
    command = ["/bin/sh", "-c", f"exec {program} {files} >{said}"]
    traced = trace(command, "-e", events, "--workers", "2")
    assert traced.status == 0, traced.errors
    lines = [line.split() for line in said.read_text().splitlines()]
    return Done(traced, {(way, call): int(result) for way, call, result in lines})


def by_way(done: Done) -> dict[tuple[str, str], list[Event]]:
    found: dict[tuple[str, str], list[Event]] = {}
    for event in done.traced.events:
        shown = arguments(event)
        comm = shown["prev_comm"] if event["eventName"] == "sched_process_exec" else event["processName"]
        way, _, call = (comm or "").partition(" ")
        found.setdefault((way, call), []).append(event)
    return found


def test_nothing_is_lost(done: Done) -> None:
    assert done.traced.ledger["balanced"]
    assert done.traced.ledger["lost"] == 0


def test_every_call_that_was_made_is_told_with_its_object(done: Done) -> None:
    found, ways = by_way(done), NARROW_WAYS if ("g8", "open") not in done.results else WAYS
    assert {way for way, _ in done.results} - {"x3"} == set(ways)
    wrong = []
    for (way, call), result in done.results.items():
        if result == ENOSYS:
            continue
        assert result >= 0 or result == REPLACED, (way, call, result)
        names = Counter(event["eventName"] for event in found.get((way, call), []))
        object_ = OBJECT.get(call)
        told = names[call] >= 1 or object_ == "sched_process_exec"  # that call ends under the new program's name
        if not told or (object_ and names[object_] != 1):
            wrong.append((way, call, dict(names)))
    assert wrong == []


def test_the_object_is_the_same_whatever_the_way(done: Done) -> None:
    found = by_way(done)
    for call, object_ in OBJECT.items():
        shown = {}
        for (way, of), events in found.items():
            if of == call and done.results[way, of] != ENOSYS:
                [event] = [each for each in events if each["eventName"] == object_]
                kept = {k: v for k, v in arguments(event).items() if "path" in k or k in ("remote_addr", "family")}
                shown[way] = {k: v for k, v in kept.items() if k != "interpreter_pathname"}
        assert len({str(each) for each in shown.values()}) == 1, shown
