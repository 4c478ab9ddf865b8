"""What the processes of a run may do: as /proc says, and as they find out who try."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from headrace.pipeline.capture import collector
from headrace.pipeline.process import confine, privilege
from tests.live import HEADRACE, Running, headrace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose privilege is given up")
STAGES = [kind for kind in confine.OF_KIND if kind != "nursery"]


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().split("\n")
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@pytest.mark.kernel
def test_every_process_but_the_supervisor_is_unprivileged(tmp_path: Path) -> None:
    kept = {"hasher": privilege.CAP_DAC_READ_SEARCH, "enricher": privilege.CAP_DAC_OVERRIDE}
    options = ("--exec-hash", "--containers", "--crs", "docker:/nonexistent.sock", "--record", f"{tmp_path}/r")
    rules = ("--findings", f"json:{tmp_path}/f", "-o", f"zmq:ipc://{tmp_path}/z", "-o", f"json:{tmp_path}/o")
    running = Running("-e", "getppid", *options, *rules, "--workers", "2", "-s", f"tree={os.getpid()}")
    stages = running.stages()
    ids = privilege.stage_ids()
    assert ids is not None
    try:
        names = {"nursery", "tracker", "publisher", "worker-0", "worker-1", "reader", "recorder", "hasher", "enricher"}
        assert set(stages) == names
        for name, pid in stages.items():
            found = status(pid)
            assert found["Uid"].split() == [str(ids[0])] * 4, name
            assert found["Gid"].split() == [str(ids[1])] * 4, name
            assert found["Groups"] == "", name
            assert [int(found[key], 16) for key in ("CapInh", "CapBnd", "CapAmb")] == [0, 0, 0], name
            permitted = int(found["CapPrm"], 16)
            assert permitted == int(found["CapEff"], 16)
            assert bool(permitted) is (name in kept), name
            if name in kept:
                assert permitted >> kept[name] & 1
                assert bin(permitted).count("1") <= 2
            assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2"), name
            assert "Max core file size        0                    0" in Path(f"/proc/{pid}/limits").read_text()
        supervisor = int(status(running.process.pid)["CapEff"], 16)
        assert supervisor & ~sum(1 << capability for capability in privilege.SUPERVISOR) == 0
    finally:
        running.stop()
    assert (tmp_path / "o").exists()
    assert not (tmp_path / "z").exists()


AS_IF = """from headrace.pipeline.process import privilege
privilege.descriptors_need_right = lambda lookup: True
from headrace.pipeline.command.cli import main
main(prog_name="headrace")"""


@pytest.mark.kernel
def test_where_descriptors_need_the_right_supervisor_and_reader_keep_it() -> None:
    """Kernels before 5.19 are like that."""
    program = (sys.executable, "-P", "-c", AS_IF)
    running = Running("-e", "getppid", "-o", "none", "-s", f"tree={os.getpid()}", program=program)
    right = 1 << privilege.CAP_BPF
    try:
        held = {name: int(status(pid)["CapEff"], 16) for name, pid in running.stages().items()}
        assert {name: mask for name, mask in held.items() if mask} == {"reader": right}
        allowed = sum(1 << capability for capability in privilege.SUPERVISOR)
        assert int(status(running.process.pid)["CapEff"], 16) == allowed | right
    finally:
        running.stop()


FORBIDDEN = """
import ctypes, os, signal, socket
libc = ctypes.CDLL(None, use_errno=True)
def called(number, *args):
    if libc.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), "refused")
ATTEMPTS = {
    "read secrets": lambda: open("/etc/shadow").close(),
    "make a job": lambda: open("/etc/cron.d/headrace-test", "w").close(),
    "write here": lambda: open("/tmp/headrace-test-written", "w").close(),
    "set what a core dump runs": lambda: open("/proc/sys/kernel/core_pattern", "r+").close(),
    "signal init": lambda: os.kill(1, 0),
    "signal its parent": lambda: os.kill(os.getppid(), 0),
    "run a program": lambda: os.execv("/bin/true", ["true"]),
    "fork": os.fork,
    "make a socket": lambda: socket.socket().close(),
    "trace": lambda: called(101, 16, os.getppid(), 0, 0),
    "mount": lambda: called(165, b"x", b"/", b"tmpfs", 0, 0),
    "make a namespace": lambda: called(272, 0x10000000),
    "load a program into the kernel": lambda: called(321, 5, 0, 0),
    "become root": lambda: os.setresuid(0, 0, 0),
    "remove a file": lambda: os.unlink("/tmp/headrace-test-victim"),
    "change a file": lambda: os.chmod("/tmp/headrace-test-victim", 0o777),
    "open a pipe for writing": lambda: os.close(os.open("/proc/self/fd/0", os.O_WRONLY)),
    "type into a terminal": lambda: called(16, 0, 0x5412, b"x"),
}
def tried():
    done = []
    for name, attempt in ATTEMPTS.items():
        try:
            attempt()
            done.append(name)
        except OSError:
            pass
    return done
"""


def in_a_process(work: Callable[[], object]) -> object:
    """What `work` gives, in a child of this process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(writing, json.dumps(work()).encode())
        except BaseException:
            os.write(writing, json.dumps(traceback.format_exc()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        found = answer.read()
    os.waitpid(pid, 0)
    return json.loads(found)


@pytest.fixture
def forbidden(tmp_path: Path) -> Iterator[str]:
    """What is tried, on a file of its own in a folder that all may write."""
    folder = tmp_path
    folder.chmod(0o1777)
    for above in (folder.parent, folder.parent.parent):
        above.chmod(above.stat().st_mode | 0o111)
    (folder / "victim").write_text("x")
    yield FORBIDDEN.replace("/tmp/headrace-test-", f"{folder}/")
    assert (folder / "victim").stat().st_mode & 0o777 == 0o644
    assert not (folder / "written").exists()
    assert not Path("/etc/cron.d/headrace-test").exists()


@pytest.mark.parametrize("kind", STAGES)
def test_a_stage_can_do_none_of_this(kind: str, forbidden: str, tmp_path: Path) -> None:
    kept = {
        "hasher": (privilege.CAP_DAC_READ_SEARCH, privilege.CAP_SYS_PTRACE),
        "enricher": (privilege.CAP_DAC_OVERRIDE,),
        "collector": collector.KEPT,
    }.get(kind, ())
    space: dict[str, Callable[[], list[str]]] = {}
    exec(forbidden, space)  # its imports are done with this process's rights

    def work() -> list[str]:
        confine.library()
        privilege.drop(*kept)
        confine.confine(kind)
        return space["tried"]()

    allowed = {"hasher": ["read secrets"], "enricher": ["read secrets"]}
    # the collector makes files, where its user may: here, all may
    allowed["collector"] = ["read secrets", "write here", "open a pipe for writing"]
    assert in_a_process(work) == allowed.get(kind, [])
    if kind == "collector":
        (tmp_path / "written").unlink()


def test_an_enricher_reaches_sockets_of_this_host_alone() -> None:
    def work() -> list[str]:
        confine.library()
        privilege.drop()
        confine.confine("enricher")
        done = []
        for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET):
            try:
                socket.socket(family, socket.SOCK_RAW if family == socket.AF_PACKET else socket.SOCK_DGRAM).close()
                done.append(family.name)
            except OSError:
                pass
        return done

    assert in_a_process(work) == ["AF_UNIX"]


SIGNATURE = """
from headrace.signature import Signature


class Nosy(Signature):
    id, name, description, severity = "NOSY", "nosy", "Tries what it must not do.", "low"
    events = {"sched_process_exec": {"process.name": "true"}}
    fields = ("argv",)

    def on_event(self, event, state):
        return {"done": ",".join(tried()), "tried": len(ATTEMPTS)}
"""


@pytest.mark.kernel
def test_a_signature_can_do_none_of_this(tmp_path: Path, forbidden: str) -> None:
    rule, found = tmp_path / "nosy.py", tmp_path / "found"
    rule.write_text(forbidden + SIGNATURE)
    done = headrace(
        *("run", "--signatures", str(rule), "--rules", "NOSY", "--fold", "0", "--findings", f"json:{found}"),
        *("--", "/bin/true"),
    )
    assert done.returncode == 0, done.stderr
    (finding,) = [json.loads(line) for line in found.read_text().splitlines()]
    assert finding["data"]["tried"] == FORBIDDEN.count('": ')
    assert finding["data"]["done"] == ""


UNREADABLE = """
mount --make-rprivate /
mount --bind "$1" "$2"
shift 2
exec "$@"
"""


@pytest.mark.kernel
@pytest.mark.parametrize(
    "options",
    [("-e", "openat,sched_process_exec", "-o", "table:-"), ("-e", "openat", "-o", "json:-"), ("--findings", "json:-")],
    ids=lambda options: " ".join(options),
)
def test_stages_need_no_library_that_only_root_can_read(tmp_path: Path, options: tuple[str, ...]) -> None:
    """As of a checkout in root's home, whose mode is 0700: what is imported late must be there early."""
    library = Path(np.__file__).parent
    shutil.copytree(library, tmp_path / "numpy", symlinks=True)
    (tmp_path / "numpy").chmod(0o700)
    hidden = tmp_path / ".hidden"
    shutil.copy("/bin/true", hidden)
    line = ["unshare", "-m", "sh", "-c", UNREADABLE, "sh", str(tmp_path / "numpy"), str(library)]
    done = subprocess.run(
        [*line, HEADRACE, "run", *options, "--", str(hidden)], capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode == 0, done.stderr
    assert "restarted" not in done.stderr
    assert str(hidden) in done.stdout
