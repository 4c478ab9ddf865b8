"""Signals to a run, its stages and `subscribe`; what the traced command gets of them; outputs that are renamed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.pipeline.transport.shm import FOLDER, NAME
from tests.live import DEADLINE_S, HEADRACE, Running, wait_for

ENDS = ("INT", "TERM", "QUIT", "USR1", "USR2", "ALRM", "PROF", "XCPU", "IO", "PWR", "ABRT", "SYS", "RTMIN", "RTMAX")
GOES_ON = ("PIPE", "XFSZ", "WINCH", "URG", "CONT", "CHLD")


def number(name: str) -> int:
    return int(getattr(signal, f"SIG{name}"))


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def caught(pid: int) -> int:
    """Mask of the signals that a process has a handler for."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("SigCgt:")[2].split()[0], 16)


@pytest.mark.parametrize("name", ["INT", "TERM", "ABRT", "RTMAX"])
def test_a_signal_ends_the_run_in_order(name: str, tmp_path: Path) -> None:
    """Sent to all of its processes, as terminals and service managers do: it is for the supervisor alone. Of those
    that are not sent here, it is the same handler.
    """
    run = Running("-e", "getppid", "-o", "none", "--", "sleep", "60", start_new_session=True)
    segments = run.segments()
    assert [each for each in ENDS if not caught(run.process.pid) >> number(each) - 1 & 1] == []
    os.killpg(run.process.pid, number(name))
    status, ledger, errors = run.end()
    assert (status, ledger["balanced"], ledger.get("restarts", {})) == (128 + number(name), True, {}), errors
    assert "Traceback" not in errors
    assert "leaked" not in errors
    assert segments
    assert not any((FOLDER / name).exists() for name in segments)


def test_other_signals_change_nothing_and_a_hangup_without_signatures_neither(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = Running("-e", "execve", "-o", f"json:{out}", "--", "sh", "-c", "read x; /bin/true", stdin=subprocess.PIPE)
    for name in ("HUP", *GOES_ON, "HUP"):
        run.process.send_signal(number(name))
    assert run.process.stdin
    run.process.stdin.write("\n")
    run.process.stdin.flush()
    status, ledger, errors = run.end()
    assert (status, ledger["balanced"]) == (0, True), errors
    assert lines(out) == ledger["delivered"] > 0


@pytest.mark.parametrize("told", [True, False], ids=["by a signal", "by its name"])
def test_a_renamed_output_is_reopened(told: bool, tmp_path: Path) -> None:
    """Every line stands in one of the two files, and none in both."""
    out, old = tmp_path / "out", tmp_path / "old"
    script = "while read x; do /bin/true $x; done"
    run = Running("-e", "sched_process_exec", "-o", f"json:{out}", "--", "sh", "-c", script, stdin=subprocess.PIPE)
    assert run.process.stdin
    print("one", file=run.process.stdin, flush=True)
    wait_for(lambda: b'"one"' in out.read_bytes(), "the first")
    out.rename(old)
    if told:
        run.process.send_signal(signal.SIGHUP)
    wait_for(out.exists, "the new file")
    # the publisher has the new one once something is there
    print("two", file=run.process.stdin, flush=True)
    wait_for(lambda: b'"two"' in out.read_bytes() + old.read_bytes(), "the second")
    print("three", file=run.process.stdin, flush=True)
    status, ledger, errors = run.end()
    assert (status, ledger["balanced"]) == (0, True), errors
    assert b'"three"' in out.read_bytes()
    assert lines(out) + lines(old) == ledger["delivered"] == ledger["sinks"][0]["written"]


def test_an_output_that_cannot_be_reopened_keeps_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    script = "read x; /bin/true"
    options = ("-e", "sched_process_exec", "-o", f"json:{folder}/out", "--", "sh", "-c", script)
    run = Running(*options, stdin=subprocess.PIPE)
    moved = folder.rename(tmp_path / "moved")
    run.process.send_signal(signal.SIGHUP)
    status, ledger, errors = run.end()
    assert (status, ledger["balanced"]) == (0, True), errors
    assert lines(moved / "out") == ledger["delivered"] > 0
    assert "supervisor.output_not_reopened" in errors


@pytest.mark.parametrize("ignored", ["", "INT PIPE HUP XFSZ QUIT USR1"])
def test_the_command_gets_the_dispositions_that_headrace_was_started_with(ignored: str, tmp_path: Path) -> None:
    look = "sh -c 'grep SigIgn /proc/self/status; env | grep HEADRACE_IGNORED || :'"
    trap = f"trap '' {ignored}; " if ignored else ""
    plain, traced = (
        subprocess.run(
            ["sh", "-c", f"{trap}exec {before} {look}"], capture_output=True, text=True, timeout=DEADLINE_S, check=True
        ).stdout
        for before in ("", f"{HEADRACE} run -e getppid -o none --")
    )
    assert plain == traced


def test_ctrl_c_during_imports_has_no_traceback() -> None:
    """Sent as soon as the process is Python's, and again and again."""
    for _ in range(3):
        process = subprocess.Popen([HEADRACE, "list", "events"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
        assert process.communicate()[1] == b""
        assert process.returncode in (0, -signal.SIGINT, 130)


def test_further_signals_to_subscribe_have_no_traceback(tmp_path: Path) -> None:
    command = [HEADRACE, "subscribe", f"ipc://{tmp_path}/none"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: _handles(process.pid, signal.SIGTERM), "the subscriber")
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == "subscribed: events 0  messages missed 0\n"


def _handles(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def test_what_a_killed_run_leaves_is_removed_by_the_next(tmp_path: Path) -> None:
    """All of its processes at once, as when a control group is killed: nobody is left to remove the segments."""
    run = Running("-e", "getppid", "-o", "none", "-s", f"tree={os.getpid()}", start_new_session=True)
    segments = run.segments()
    assert segments
    assert all(NAME.fullmatch(name) for name in segments)
    os.killpg(run.process.pid, signal.SIGKILL)
    run.kill()
    left = {name for name in segments if (FOLDER / name).exists()}
    other = Running("-e", "getppid", "-o", "none", "-s", f"tree={os.getpid()}")
    assert left
    assert not any((FOLDER / name).exists() for name in left)
    kept = other.segments()
    third = Running("-e", "getppid", "-o", "none", "-s", f"tree={os.getpid()}")
    assert all((FOLDER / name).exists() for name in kept)
    for each in (other, third):
        each.stop()


SMALL = """
import os, sys
from types import SimpleNamespace
from headrace.pipeline.transport import shm
shm.os.statvfs = lambda path: SimpleNamespace(f_bavail=16384, f_frsize=4096)
sys.argv[0] = "headrace"
from headrace.pipeline.command.cli import main
main()
"""


def test_a_small_dev_shm_is_an_error_that_names_what_is_needed() -> None:
    """As in a container with Docker's 64 MiB; a mount of that size needs a namespace that not all machines give."""
    command = [sys.executable, "-c", SMALL, "run", "-e", "getppid", "-o", "none", "--workers", "4", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 69
    assert "/dev/shm has 64 MiB free, and this run needs 192 MiB" in done.stderr.replace("193", "192")
    assert "--shm-size" in done.stderr
    assert "ring_bytes" in done.stderr


def test_a_limit_on_the_size_of_files_is_for_outputs(tmp_path: Path) -> None:
    """Above what the segments need where nobody may lift it: the output ends with a whole line, and is counted so."""
    out = tmp_path / "out"
    limit = 512  # KiB, in dash's units of 512 bytes
    script = f"ulimit -S -f {2 * limit}; exec {HEADRACE} run -e openat,newfstatat,getdents64 -o json:{out} -o none"
    script += f" --ledger {tmp_path}/ledger -- find /usr/lib -maxdepth 4"
    done = subprocess.run(["sh", "-c", f"{script} >/dev/null"], stderr=subprocess.PIPE, text=True, check=False)
    ledger = json.loads((tmp_path / "ledger").read_text())
    written = next(sink for sink in ledger["sinks"] if sink["name"].startswith("json"))
    assert done.returncode == 74, done.stderr
    assert f"sink=json:{out}" in done.stderr
    assert "standard output" not in done.stderr
    assert ledger["balanced"]
    assert out.read_bytes().endswith(b"\n")
    assert lines(out) == written["written"] > 0
    assert written["dropped"] > 0
