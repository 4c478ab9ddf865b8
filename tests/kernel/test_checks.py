"""Security checks by kprobes beside the ends of calls (`--kernel-checks`): sources of the same events, compared.

This needs kprobes: kernels without them are left out (`make test-kernels`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.bpf.host.btf import Btf
from headrace.bpf.load import loader
from headrace.bpf.programs import scope, source
from headrace.bpf.syscall import KPROBES
from headrace.bpf.tables.catalogue import CHECKS_ALL, CHECKS_NONE, CHECKS_REST, catalogue
from headrace.pipeline.host.features import hooked_function
from tests.live import Event, Traced, arguments, compile_c, trace

pytestmark = pytest.mark.kernel
needs_kprobes = pytest.mark.skipif(not KPROBES.exists(), reason="this kernel has no kprobes")
CHECKS = [e for e in catalogue().by_id.values() if e.is_check]
WORK = """
import os, socket, sys
folder = sys.argv[1]
os.chdir(folder)
os.close(os.open("made", os.O_CREAT | os.O_WRONLY))
os.symlink("made", "link")
os.close(os.open("link", os.O_RDONLY))
os.link("made", "second")
os.rename("second", "./sub/../third")
os.mkfifo("fifo", 0o600)
os.unlink("third")
one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
one.bind(("127.0.0.1", 0))
one.listen(3)
two = socket.create_connection(one.getsockname())
three, _ = one.accept()
four = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
four.bind("local")
os.spawnv(os.P_WAIT, "/bin/true", ["true"])
"""
HOW = {"returnValue", "source"}
UNLIKE = {"security_file_open": {"syscall_pathname", "flags"}}
"""Arguments that only the end of a call has: what the caller passed."""


@pytest.mark.parametrize("checks", [CHECKS_REST, CHECKS_ALL])
def test_every_check_has_a_program_that_loads(checks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel verifies a program whether or not it can attach it."""
    monkeypatch.setattr(source, "KPROBES", Path("/"))
    btf = Btf.of_kernel()
    wanted = source.WantedPrograms(events=tuple(CHECKS), scope=scope.Scope(), shards=1, checks=checks)
    programs = loader.Programs(wanted, btf, whole=True)
    try:
        there = {f"hook_{event.name}" for event in CHECKS if any(map(btf.has_name, event.functions))}
        assert len(there) == len(CHECKS) == 12
        assert there <= {*programs._functions}
    finally:
        programs.close()


def traced_with(checks: str, folder: Path, name: str) -> Traced:
    work = folder / name
    (work / "sub").mkdir(parents=True)
    events = ",".join(event.name for event in CHECKS)
    found = trace([sys.executable, "-S", "-c", WORK, str(work)], "-e", events, "--kernel-checks", checks)
    assert (found.status, found.ledger["balanced"]) == (0, True), found.errors
    return found


@pytest.fixture(scope="module")
def by_source(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Traced]:
    folder = tmp_path_factory.mktemp("checks")
    return {checks: traced_with(checks, folder, checks) for checks in (CHECKS_NONE, CHECKS_REST, CHECKS_ALL)}


def own(traced: Traced, checks: str) -> list[tuple[str, dict[str, Any]]]:
    """What the work did: events with the arguments that both sources have."""
    found = []
    for event in traced.events:
        values = {k: v for k, v in arguments(event).items() if k not in UNLIKE.get(event["eventName"], ())}
        text = repr(values)
        is_own = f"/{checks}/" in text or event["eventName"].startswith("security_socket")
        if is_own and "/local" not in text and event["eventName"] != "security_socket_create":
            found.append((event["eventName"], plain(values, checks)))
    return found


def plain(values: dict[str, Any], checks: str) -> dict[str, Any]:
    """Without what differs from run to run: the folder, inodes, times, ports."""
    ran = {k: v for k, v in values.items() if k not in ("inode", "ctime")}
    for name, value in ran.items():
        if isinstance(value, str):
            ran[name] = value.replace(f"/{checks}/", "/")
        if isinstance(value, dict):
            ran[name] = value | ({"sin_port": ""} if "sin_port" in value else {})
    return ran


@needs_kprobes
def test_both_sources_tell_the_same_work(by_source: dict[str, Traced]) -> None:
    by_calls, by_checks = (own(by_source[checks], checks) for checks in (CHECKS_NONE, CHECKS_ALL))
    assert {name for name, _ in by_calls} == {e.name for e in CHECKS} - {"security_socket_create"}
    assert by_checks == by_calls
    assert {e["source"] for e in by_source[CHECKS_NONE].events} == {"syscall_exit"}
    assert {e["source"] for e in by_source[CHECKS_ALL].events} == {"kprobe"}
    assert all(e["returnValue"] is None for e in by_source[CHECKS_ALL].events)


@needs_kprobes
def test_by_default_nothing_is_told_twice(by_source: dict[str, Traced]) -> None:
    rest = by_source[CHECKS_REST]
    calls = [event for event in rest.events if event["source"] == "syscall_exit"]
    assert own(Traced(calls, rest.ledger, 0, "", ""), CHECKS_REST) == own(by_source[CHECKS_NONE], CHECKS_NONE)
    others = [event for event in rest.events if event["source"] == "kprobe"]
    # an exec opens its program, and a bind of a unix socket makes a file
    assert {event["eventName"] for event in others} == {"security_file_open", "security_inode_mknod"}
    values = [arguments(event) for event in others]
    assert str(Path("/bin/true").resolve()) in [each.get("pathname") for each in values]
    (made,) = (str(each["file_name"]) for each in values if "file_name" in each)
    assert made.endswith(f"/{CHECKS_REST}/local")
    assert not [each for each in values if f"/{CHECKS_REST}/" in str(each.get("pathname"))]


@needs_kprobes
@pytest.mark.parametrize("options", [(), ("sqpoll",)])
def test_io_uring_is_checked_like_calls(tmp_path: Path, options: tuple[str, ...]) -> None:
    program = compile_c(Path(__file__).with_name("uring.c"), tmp_path / "uring")
    names = "security_file_open,security_inode_rename,security_inode_unlink,security_socket_connect"
    traced = trace([str(program), str(tmp_path), *options], "-e", names)
    assert (traced.status, traced.ledger["balanced"]) == (0, True), traced.errors
    told = [event for event in traced.events if event["source"] == "kprobe"]

    def of(name: str, test: Callable[[Event], bool] = bool) -> list[dict[str, Any]]:
        return [arguments(event) for event in told if event["eventName"] == name and test(event)]

    assert [a for a in of("security_file_open") if str(a["pathname"]).startswith(str(tmp_path))]
    assert all(str(a["pathname"]).startswith(str(tmp_path)) for a in of("security_inode_unlink"))
    assert of("security_inode_unlink")
    assert of("security_inode_rename")
    assert all(a["sockfd"] == -1 for a in of("security_socket_connect"))
    assert hooked_function(catalogue().by_name["security_file_open"]) == "security_file_open"
