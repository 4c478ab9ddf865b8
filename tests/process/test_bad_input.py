"""What a user can get wrong at the command line, end to end: a precise word, a status, and nothing lost uncounted."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
from pathlib import Path

import pytest
import zmq

from headrace.bpf.host import probes
from headrace.pipeline.host import features as host
from tests.live import HEADRACE, Running, headrace, in_process, let_go, start_load, trace, wait_for

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["run", "--wrokers", "2"], "(Did you mean one of: '--rules', '--workers'?)"),
        (["run", "--workers", "0"], "--workers: at least 1"),
        (["run", "--workers", "65"], "--workers: at most 64"),
        (["run", "--perf-pages", "9"], "--perf-pages: 9 is not a power of two"),
        (["run", "-e", "openatt"], "did you mean openat"),
        (["run", "-e", "openat.args.pathnam=/x"], "did you mean pathname?"),
        (["run", "-e", "openat.args.flags=O_RDONYL"], "flags has no O_RDONYL; did you mean O_RDONLY?"),
        (["run", "-e", "openat.args.dirfd=99999999999"], "99999999999 can never match, dirfd is a int"),
        (["run", "-e", "openat.args.mode<5,openat.args.mode>10"], "contradict each other"),
        (["run", "-e", "openat.args.pathname=/a,openat.args.pathname=/b"], "contradict each other"),
        (["run", "-e", "openat.args.pathname=/a,openat.args.pathname!=/a"], "contradict each other"),
        (["run", "-e", "openat.retval<0,openat.retval>0"], "contradict each other"),
        (["run", "-s", "cmm=x"], "did you mean comm?"),
        (["run", "-s", "tid=4194000"], "no such process"),
        (["run", "-s", "exe=/tmp"], "not a file that can be executed"),
        (["run", "-s", "pid>4194303"], "nothing can match"),
        (["run", "-s", "!new"], "a COMMAND is new, nothing can match"),
        (["run", "-s", f"pid={os.getpid()}"], "a process that runs already cannot match"),
        (["run", "-s", f"tree={os.getpid()}"], "with a COMMAND it is its own tree that is traced"),
        (["run", "-o", "jsn:x"], "did you mean json?"),
        (["run", "-o", "json:x", "-o", "table:./x"], "json:x and table:./x go to the same destination"),
        (["run", "-o", "json:x", "--record", "x"], "go to the same destination"),
        (["run", "-o", "json:x", "--ledger", "x"], "go to the same destination"),
        (["run", "--ready-fd", "77"], "--ready-fd: 77 is not an open descriptor"),
        (["run", "--ready-fd", "-5"], "--ready-fd: -5 is not an open descriptor"),
    ],
)
def test_a_wrong_option_is_named_with_status_2(line: list[str], words: str, tmp_path: Path) -> None:
    done = in_process(*line, "--", "true", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "nothing was begun"


def test_a_set_of_the_name_of_an_event_is_asked_for_as_a_set() -> None:
    assert in_process("list", "sets", "time").returncode == 0
    run = trace(["true"], "-e", "set=fs_dir_ops,!getcwd")
    assert {e["eventName"] for e in run.events} <= {"getdents64", "chdir", "mkdir", "getdents", "mkdirat"}


def test_a_scope_that_nothing_was_in_is_said() -> None:
    run = trace(["true"], "-s", "comm=nosuch", "-e", "openat")
    assert (run.status, run.ledger["produced"]) == (0, 0)
    assert "no event matched the scope comm=nosuch" in run.errors


def test_a_recording_is_not_written_while_it_is_read(tmp_path: Path) -> None:
    recording = tmp_path / "x.hrc"
    assert trace(["true"], "--record", str(recording)).status == 0
    before = recording.read_bytes()
    done = headrace("replay", str(recording), "-o", f"json:{tmp_path}/../{tmp_path.name}/x.hrc")
    assert done.returncode == 2
    assert "go to the same destination" in done.stderr
    assert recording.read_bytes() == before


def test_standard_output_that_is_closed_or_full_is_an_io_error() -> None:
    closed = subprocess.run(
        f"{HEADRACE} run -e openat -- true >&-", shell=True, capture_output=True, text=True, timeout=60
    )
    assert (closed.returncode, closed.stderr) == (74, "headrace: standard output is closed\n")
    full = subprocess.run(f"{HEADRACE} list events >/dev/full", shell=True, capture_output=True, text=True, timeout=60)
    assert full.returncode == 74
    assert "No space left on device" in full.stderr
    assert "Traceback" not in full.stderr


def test_a_foreign_publisher_is_told_from_ours(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/foreign"
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    publisher = context.socket(zmq.XPUB)
    publisher.bind(endpoint)
    line = [HEADRACE, "subscribe", endpoint]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as subscriber:
        assert publisher.recv() == b"\x01all/"
        publisher.send_multipart([b"all/", b"{]", b"x"])
        _, errors = subscriber.communicate(timeout=60)
    context.destroy(linger=0)
    assert subscriber.returncode == 76
    assert "not a publisher of headrace" in errors
    assert "Traceback" not in errors


def test_below_the_hosts_pid_namespace_it_refuses() -> None:
    line = ["unshare", "--pid", "--fork", "--mount-proc", HEADRACE, "run", "--", "true"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 69
    assert "PID namespace: not the host's" in done.stderr


def test_tracefs_that_only_root_may_read_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    assert host.tracefs() == probes.TRACEFS[0]


def test_a_recording_on_a_full_disk_counts_what_stands_in_the_file(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], check=True)
    try:
        ledger = tmp_path / "ledger"
        done = headrace(
            *("run", "-o", "none", "--record", f"{disk}/full.hrc", "--ledger", str(ledger)),
            *("--", "sh", "-c", "i=0; while [ $i -lt 100 ]; do ls / >/dev/null; i=$((i+1)); done"),
        )
        assert done.returncode == 74
        assert f"{disk}/full.hrc" in done.stderr
        assert "No space left on device" in done.stderr
        books = json.loads(ledger.read_text())
        line = next(s for s in books["sinks"] if s["name"].startswith("record:"))
        replayed = headrace("replay", f"{disk}/full.hrc", "-o", "none", "--ledger", str(tmp_path / "replayed"))
        assert replayed.returncode == 65, "its end is missing"
        assert json.loads((tmp_path / "replayed").read_text())["produced"] == line["written"] > 0
        assert line["offered"] == line["written"] + line["dropped"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_output_that_is_stuck_is_given_up_and_the_books_still_close(
    binaries: dict[str, Path], tmp_path: Path
) -> None:
    stuck = tmp_path / "stuck"
    os.mkfifo(stuck)
    reading = os.open(stuck, os.O_RDONLY | os.O_NONBLOCK)
    load = start_load(binaries["load"], "getppid", 300_000)
    running = Running("-s", f"tree={load.pid}", "-e", "getppid", "-o", f"json:{stuck}", "-o", "none")
    assert running.ready, running.end()
    let_go(load)
    load.communicate(timeout=60)
    running.process.send_signal(signal.SIGTERM)
    status, ledger, errors = running.end(deadline_s=30)
    os.close(reading)
    assert status == 70
    assert "drain_abandoned" in errors
    assert ledger["balanced"] is True, ledger
    assert ledger["produced"] == ledger["delivered"] + ledger["lost"] + ledger["dropped"]
    assert 0 < ledger["abandoned"] <= ledger["dropped"]
    assert all(s["offered"] == s["written"] + s["filtered"] + s["dropped"] for s in ledger["sinks"])


def test_the_socket_of_an_endpoint_is_taken_away_at_the_end(tmp_path: Path) -> None:
    endpoint = tmp_path / "left.sock"
    running = Running("-o", f"zmq:ipc://{endpoint}", "-e", "getppid", "--", "sleep", "30")
    assert running.ready
    wait_for(endpoint.exists, "the socket")
    running.process.send_signal(signal.SIGTERM)
    running.end()
    assert not endpoint.exists()


def _on_a_terminal(columns: int, *line: str) -> list[str]:
    """Lines of a headrace command on a terminal of that width."""
    pid, fd = pty.fork()
    if pid == 0:
        os.read(0, 1)  # until it has its width
        # os.environ, since readline, which pytest loads, puts a width into the environment of C
        os.execve(HEADRACE, [HEADRACE, *line], dict(os.environ))
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    os.write(fd, b"\n")
    out = b""
    try:
        while piece := os.read(fd, 65536):
            out += piece
    except OSError:
        pass  # the other side is closed
    os.waitpid(pid, 0)
    os.close(fd)
    return out.decode().splitlines()[1:]  # without the echo


@pytest.mark.parametrize("columns", [80, 150])
def test_a_table_fits_its_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = _on_a_terminal(columns, "run", "-q", "-e", "sched_process_exec,openat", "--", "true")
    table = [line for line in lines if line]
    assert table[0].startswith("TIME")
    assert ("TID" in table[0]) == (columns > 140)
    assert max(map(len, table)) == columns
    assert any(line.endswith("…") for line in table)


def test_errors_are_red_on_a_terminal_and_nowhere_else() -> None:
    lines = _on_a_terminal(132, "run", "-e", "openat,openat.retval<0", "--", "ls", "/nonexistent")
    assert any("\x1b[31m" in line and "ENOENT" in line for line in lines)
    assert "\x1b" not in headrace("run", "-e", "openat,openat.retval<0", "--", "ls", "/nonexistent").stdout


def test_version_check_and_subscribe_say_what_they_should(tmp_path: Path) -> None:
    assert headrace("--version").stdout.startswith("headrace, version ")
    check = headrace("check")
    assert check.returncode == 0
    assert "raw tracepoint sys_enter " in check.stdout
    endpoint = f"ipc://{tmp_path}/events"
    running = Running(
        "-o", f"zmq:{endpoint},policy=block", "-e", "getpid,kill", "--", "sh", "-c", "while :; do kill -0 $$; done"
    )
    assert running.ready
    done = headrace("subscribe", endpoint, "-n", "5", "-t", "event/kill/")
    running.process.send_signal(signal.SIGINT)
    running.end()
    assert done.returncode == 0
    assert {json.loads(line)["eventName"] for line in done.stdout.splitlines()} == {"kill"}
    assert "messages missed 0" in done.stderr
