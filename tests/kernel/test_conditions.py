"""Conditions in the kernel (bpf/programs/early.py), with real calls: what is taken back is not produced."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.live import Traced, arguments, trace

pytestmark = pytest.mark.kernel
FILES = ("plain", "plain.conf", "deep/plain.conf", "deep/other", "deeper/plain", "é", "long" * 30)
OPENER = """
import os, sys
for name in sys.argv[2:]:
    os.close(os.open(os.path.join(sys.argv[1], name), os.O_RDWR | os.O_CREAT, 0o600))
"""
FLOOD = """
import os, sys
here, there = os.path.join(sys.argv[1], "here"), os.path.join(sys.argv[1], "there")
os.close(os.open(here, os.O_CREAT))
for i in range(int(sys.argv[2])):
    try:
        os.close(os.open(here if i % 10 == 0 else there, os.O_RDONLY))
    except FileNotFoundError:
        pass
"""
NUMBERS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for fd in (-1, -7, 1000, 1001):
    libc.dup(fd)
    libc.listen(fd, 0)
    libc.shutdown(fd, 0)
libc.openat(-100, None, 0)
libc.openat(-100, b"/no/such/file", os.O_DIRECTORY)
"""


def python(code: str, *args: str) -> list[str]:
    return [sys.executable, "-S", "-E", "-c", code, *args]


def produced(traced: Traced, expected: int, name: str | None = None) -> bool:
    """Whether so many events were delivered, and no others produced, unless this kernel has said that it does not take
    the conditions: then all are.
    """
    ledger = traced.ledger["by_event"][name] if name else traced.ledger
    if ledger["delivered"] != expected:
        return False
    return bool(ledger["produced"] == expected or "not_narrowed" in traced.errors)


def paths(traced: Traced, name: str) -> list[str]:
    return [arguments(event)["pathname"] for event in traced.events if event["eventName"] == name]


CONDITIONS = (
    ("openat.args.pathname", "={}/plain", {"plain"}),
    ("truncate.args.path", "={}/deep/*", {"deep/plain.conf", "deep/other"}),
    ("getxattr.args.pathname", "={}/deep*", {"deep/plain.conf", "deep/other", "deeper/plain"}),
    ("lchown.args.pathname", "={}/*.conf", {"plain.conf", "deep/plain.conf"}),
    ("readlink.args.pathname", "={}/plain,{}/é", {"plain", "é"}),
    ("listxattr.args.pathname", "={}/" + "long" * 30, {"long" * 30}),
    ("setxattr.args.path", "={}/longlong*", {"long" * 30}),
    ("removexattr.args.pathname", "={}/*/plain", {"deeper/plain"}),
)
EACH_CALL = """
import contextlib, os, sys
for name in sys.argv[2:]:
    path = os.path.join(sys.argv[1], name)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    os.truncate(path, 1)
    for call in (lambda: os.setxattr(path, "user.x", b""), lambda: os.getxattr(path, "user.x"),
                 lambda: os.listxattr(path), lambda: os.removexattr(path, "user.x")):
        with contextlib.suppress(OSError):  # a file system may have none
            call()
    os.lchown(path, 0, 0)
    with contextlib.suppress(OSError):
        os.readlink(path)
"""


def folders(tmp_path: Path) -> None:
    for folder in ("deep", "deeper"):
        (tmp_path / folder).mkdir()


def test_a_path_that_was_passed_is_told_by_its_beginning_and_end(tmp_path: Path) -> None:
    folders(tmp_path)
    conditions = ",".join(field + condition.replace("{}", str(tmp_path)) for field, condition, _ in CONDITIONS)
    traced = trace(python(EACH_CALL, str(tmp_path), *FILES), "-e", conditions)
    for field, _, expected in CONDITIONS:
        call, _, argument = field.split(".")
        found = [arguments(event)[argument] for event in traced.events if event["eventName"] == call]
        assert sorted(found) == sorted(os.path.join(tmp_path, name) for name in expected), field
    ledger = traced.ledger
    assert ledger["balanced"]
    assert produced(traced, sum(len(expected) for _, _, expected in CONDITIONS))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        # each file is some one's of them
        ("={}/plain,{}/longlong*,{}/*/plain", {"plain", "long" * 30, "deeper/plain"}),
        ("={}/deep/*,{}/*n.conf", {"deep/plain.conf", "deep/other", "plain.conf"}),
        ("={}/deep*,{}/é", {"deep/plain.conf", "deep/other", "deeper/plain", "é"}),
    ],
)
def test_a_path_that_was_walked_is_told_by_its_beginning_and_end(
    tmp_path: Path, condition: str, expected: set[str]
) -> None:
    folders(tmp_path)
    condition = f"security_file_open.args.pathname{condition.replace('{}', str(tmp_path))}"
    traced = trace(python(OPENER, str(tmp_path), *FILES), "-e", condition)
    assert set(paths(traced, "security_file_open")) == {os.path.join(tmp_path, name) for name in expected}
    ledger = traced.ledger
    assert ledger["balanced"]
    assert produced(traced, len(expected))


def test_a_suffix_stands_alone(tmp_path: Path) -> None:
    condition = "security_file_open.args.pathname=*n.conf,*/plain"
    (tmp_path / "deep").mkdir()
    traced = trace(python(OPENER, str(tmp_path), "plain", "plain.conf", "xplain", "deep/plain"), "-e", condition)
    own = [path for path in paths(traced, "security_file_open") if path.startswith(str(tmp_path))]
    assert own == [str(tmp_path / name) for name in ("plain", "plain.conf", "deep/plain")]


def test_what_is_negated_goes_too(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    condition = f"openat.args.pathname!=/usr/*,/lib*,/etc/*,/proc/*,/dev/*,{tmp_path}/deep/*"
    traced = trace(python(OPENER, str(tmp_path), "a", "deep/b", "c"), "-e", condition)
    own = [path for path in paths(traced, "openat") if path.startswith(str(tmp_path))]
    assert own == [str(tmp_path / "a"), str(tmp_path / "c")]


def test_in_a_flood_nothing_is_lost_between_what_is_taken_back(tmp_path: Path) -> None:
    calls = 20_000
    condition = f"openat.args.pathname={tmp_path}/here"
    events = f"{condition},security_file_open.args.pathname=*/here"
    traced = trace(python(FLOOD, str(tmp_path), str(calls)), "-e", events, "--workers", "2")
    kept = calls // 10 + 1
    assert (traced.ledger["balanced"], traced.ledger["lost"]) == (True, 0)
    assert produced(traced, kept, "openat")
    assert produced(traced, kept, "security_file_open")
    times = [event["timestamp"] for event in traced.events]
    assert times == sorted(times)


def test_numbers_have_the_width_and_the_sign_of_their_type() -> None:
    traced = trace(python(NUMBERS), "-e", "dup.args.oldfd=-7,1000,listen.args.sockfd<-1,shutdown.args.sockfd>=1000")
    raised = {"dup": [-7, 1000], "listen": [-7], "shutdown": [1000, 1001]}
    for call, numbers in raised.items():
        assert [next(iter(arguments(e).values())) for e in traced.events if e["eventName"] == call] == numbers
    assert traced.ledger["produced"] == sum(map(len, raised.values()))


def test_several_results_are_told_apart() -> None:
    traced = trace(python(NUMBERS), "-e", "dup.retval!=-9,openat.retval=-2,-14,openat.args.flags=O_DIRECTORY")
    assert [event["eventName"] for event in traced.events] == ["openat"]
    assert traced.ledger["by_event"]["openat"]["produced"] == 1


def test_what_could_not_be_read_is_unknown_and_counted() -> None:
    traced = trace(python(NUMBERS), "-e", "openat.retval=-14,openat.args.pathname!=/x")
    assert traced.events == []
    ledger = traced.ledger
    assert (ledger["produced"], ledger["filtered"], ledger["unknown"], ledger["balanced"]) == (1, 1, 1, True)
