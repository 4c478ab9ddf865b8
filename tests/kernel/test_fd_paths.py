"""`--fd-paths`: what a call's descriptor stands for when the call ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.live import Traced, arguments, details, headrace, trace

pytestmark = pytest.mark.kernel
PROGRAM = """
import os, socket, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.lseek(fd, 1, 0)
os.dup2(fd, 40)
os.lseek(40, 2, 0)
os.close(fd)
folder = os.open(os.path.dirname(sys.argv[1]), os.O_PATH)
os.close(os.open(os.path.basename(sys.argv[1]), os.O_RDONLY, dir_fd=folder))
reading, writing = os.pipe()
os.write(writing, b"x")
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.1", 9))
os.write(os.memfd_create("named"), b"x")
try:
    os.lseek(999, 3, 0)
except OSError:
    pass
"""
EVENTS = "lseek,dup2,write,connect,close,openat"


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    target = tmp_path_factory.mktemp("fd") / "a file"
    target.write_text("text")
    line = [sys.executable, "-S", "-E", "-c", PROGRAM, str(target)]
    found = trace(line, "-e", EVENTS, "--fd-paths", "--record", str(target.parent / "fd.hrc"))
    found.out = str(target)
    return found


def shown(traced: Traced, event: str, argument: str, **others: object) -> object:
    chosen = [e for e in traced.events if e["eventName"] == event and others.items() <= arguments(e).items()]
    assert len(chosen) == 1, chosen
    return details(chosen[0], argument)


def test_a_file_by_its_path(traced: Traced) -> None:
    target = traced.out
    found = shown(traced, "lseek", "fd", offset=1)
    assert isinstance(found, dict)
    assert (found["type"], found["source"]) == ("string", "kernel")
    assert found["value"] == f"{found['raw']}={target}"
    again = shown(traced, "lseek", "fd", offset=2)
    assert again == found | {"value": f"40={target}", "raw": 40}
    assert shown(traced, "dup2", "oldfd", newfd=40) == found | {"name": "oldfd"}


def test_a_directory_that_a_path_starts_from(traced: Traced) -> None:
    found = shown(traced, "openat", "dirfd", pathname="a file")
    assert isinstance(found, dict)
    assert found["value"] == f"{found['raw']}={os.path.dirname(traced.out)}"


def test_what_has_no_path_by_its_kind(traced: Traced) -> None:
    def kinds(event: str, argument: str) -> set[str]:
        shown = [str(arguments(e)[argument]) for e in traced.events if e["eventName"] == event]
        return {text.partition("=")[2] for text in shown}

    assert {"pipe", "memfd:named"} <= kinds("write", "fd")
    assert kinds("connect", "sockfd") == {"UDP"}


def test_what_is_gone_or_never_was_is_a_number(traced: Traced) -> None:
    assert shown(traced, "lseek", "fd", offset=3) == {"name": "fd", "type": "int", "value": 999}
    assert all(isinstance(arguments(e)["fd"], int) for e in traced.events if e["eventName"] == "close")


def test_a_recording_has_them_too(traced: Traced) -> None:
    done = headrace("replay", str(Path(traced.out).parent / "fd.hrc"), "-o", "json:-")
    assert [line for line in done.stdout.splitlines() if '"lseek"' in line and f"40={traced.out}" in line]
