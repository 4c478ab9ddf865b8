"""Commands, outputs and what can go wrong with them, as a user meets it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import socket
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import zmq

from headrace.bpf.host.btf import VMLINUX
from headrace.pipeline.transport.wire import read_columns
from tests.live import HEADRACE, Running, arguments, headrace, start_load, trace, wait_for

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).parents[2]
PIPE_BYTES = 65536


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("sh", "-c", "exit 0"), 0),
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -TERM $$"), 128 + 15),
        (("/nonexistent/command",), 127),
        (("NOT EXECUTABLE",), 126),
    ],
)
def test_the_commands_status_is_passed_on(command: tuple[str, ...], status: int, tmp_path: Path) -> None:
    if status == 126:
        (tmp_path / "plain").write_text("no program")
        command = (str(tmp_path / "plain"),)
    run = trace(command, "-e", "execve,sched_process_exec")
    assert run.status == status
    assert run.ledger["balanced"]
    if status in (126, 127):
        failed = [e for e in run.events if e["eventName"] == "execve"]
        assert [arguments(e)["pathname"] for e in failed] == [command[0]]
        assert failed[0]["error"] == {127: "ENOENT", 126: "EACCES"}[status]


def test_nothing_of_the_launcher_shows() -> None:
    run = trace(["true"], "-e", "syscalls,sched_process_exec")
    assert run.events[0]["eventName"] == "sched_process_exec"
    assert {e["processName"] for e in run.events} == {"true"}


def test_the_tree_is_waited_for() -> None:
    run = trace(
        ["sh", "-c", "(sleep 0.2; exec ls / >/dev/null) & exit 4"], "-e", "sched_process_exec,sched_process_exit"
    )
    assert run.status == 4
    assert run.events[-1]["processName"] == "ls"


def test_a_reader_that_goes_ends_the_run_while_its_command_goes_on(tmp_path: Path) -> None:
    ledger, end = tmp_path / "ledger", tmp_path / "end"
    first, second = tmp_path / "first", tmp_path / "second"
    for fifo in (first, second):
        os.mkfifo(fifo)
    script = (
        f"import os\nfor f in ({str(first)!r}, {str(second)!r}): os.getppid(); open(f).close()\nopen({str(end)!r}, 'w')"
    )
    command = [
        "run",
        "-e",
        "getppid",
        "-o",
        "json:-",
        "--ledger",
        str(ledger),
        "--",
        sys.executable,
        "-S",
        "-c",
        script,
    ]
    errors = tmp_path / "errors"
    with (
        errors.open("w") as file,
        subprocess.Popen([HEADRACE, *command], stdout=subprocess.PIPE, stderr=file) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        # the next event meets a pipe without a reader
        first.write_text("")
        assert process.wait(60) == 141, errors.read_text()
    assert "Traceback" not in errors.read_text()
    assert json.loads(ledger.read_text())["balanced"]
    second.write_text("")
    wait_for(end.exists, "the command, which goes on")


def test_a_closed_pipe_ends_the_run_quietly() -> None:
    line = f"{HEADRACE} run -o json:- -- sh -c 'for i in 1 2 3 4 5 6 7 8 9; do ls / >/dev/null; done' | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["eventName"] == "security_bprm_check"
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


def test_a_full_disk_is_said_and_counted(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    done = headrace("run", "-o", "json:/dev/full", "-o", "none", "--ledger", str(ledger), "--", "ls", "/")
    books = json.loads(ledger.read_text())
    assert done.returncode == 74
    assert "ENOSPC" in done.stderr
    assert books["balanced"]
    assert books["sinks"][0]["dropped"] == books["produced"]
    assert books["sinks"][1]["written"] == books["produced"]


def test_a_full_disk_under_a_recording_is_said(tmp_path: Path) -> None:
    done = headrace("run", "-o", "none", "--record", "/dev/full", "--", "true")
    assert done.returncode == 74
    assert "recorder" in done.stderr
    assert "No space left" in done.stderr


def test_an_output_that_cannot_be_opened_is_named() -> None:
    done = headrace("run", "-o", "json:/nonexistent/events", "--", "true")
    assert done.returncode == 74
    assert "/nonexistent/events: No such file or directory" in done.stderr


def test_an_endpoint_already_taken_is_refused(tmp_path: Path) -> None:
    taken = tmp_path / "taken.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(taken))
        other.listen()
        done = headrace("run", "-o", f"zmq:ipc://{taken}", "--", "true")
    assert done.returncode == 74
    assert "already in use" in done.stderr


def test_without_privilege_it_says_what_is_missing() -> None:
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    line = [*without, HEADRACE, "run", "-o", "none", "--", "true"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 69
    assert "CAP_BPF" in done.stderr
    assert "run as root" in done.stderr


def subscriber(endpoint: str, topic: bytes = b"all/") -> Any:
    found = zmq.Context.instance().socket(zmq.SUB)
    found.connect(endpoint)
    found.setsockopt(zmq.SUBSCRIBE, topic)
    found.set(zmq.RCVTIMEO, 10000)
    return found


def connected(endpoint: str, running: Running, topic: bytes = b"all/") -> Any:
    """A subscriber that is known to receive: it has seen an event."""
    found = subscriber(endpoint, topic)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        subprocess.run(["true"], check=True)
        if found.poll(50):
            return found
    raise AssertionError(f"no event arrived: {running.process.poll()}")


def test_a_lone_event_on_any_cpu_arrives_in_time(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/lone.sock"
    running = Running("-s", f"tree={os.getpid()}", "-e", "getppid", "-o", f"zmq:{endpoint},format=columns")
    assert running.ready
    found = subscriber(endpoint)
    worst: dict[int, float] = {}
    usable = sorted(os.sched_getaffinity(0))
    try:
        # the subscription is in force once a first event came through
        wait_for(lambda: (os.getppid(), found.poll(20))[1], "a first event")
        for cpu in usable * 10:
            while found.poll(30):
                found.recv_multipart()
            os.sched_setaffinity(0, {cpu})
            before = time.time()
            os.getppid()
            columns = read_columns(found.recv_multipart()[2])
            took = time.time() - before
            # one of the first calls may come along
            assert columns["cpu"].tolist()[-1] == cpu
            worst[cpu] = max(worst.get(cpu, 0), took)
    finally:
        os.sched_setaffinity(0, set(usable))
        running.process.terminate()
        status, ledger, errors = running.end()
        found.close()
    assert (status, ledger["balanced"]) == (0, True), errors
    assert set(worst) == set(usable)
    assert max(worst.values()) < 0.25, worst


def test_a_subscriber_that_never_reads_costs_itself_only_and_is_counted(
    tmp_path: Path, binaries: dict[str, Path]
) -> None:
    endpoint = f"ipc://{tmp_path}/slow.sock"
    running = Running(
        "-s", f"tree={os.getpid()}", "-e", "getppid", "-o", f"zmq:{endpoint},format=json,queue=2", "-o", "none"
    )  # fmt: skip
    assert running.ready
    slow = zmq.Context.instance().socket(zmq.SUB)
    slow.set(zmq.RCVHWM, 2)
    slow.connect(endpoint)
    slow.setsockopt(zmq.SUBSCRIBE, b"all/")
    # from the first message on it is known to be subscribed; it is not read
    wait_for(lambda: (os.getppid(), slow.poll(20))[1], "a first message")
    start_load(binaries["load"], "getppid", 1500000).communicate("x")
    running.process.terminate()
    status, ledger, errors = running.end()
    slow.close(linger=0)
    assert (status, ledger["balanced"]) == (0, True), errors
    published, counted = ledger["sinks"]
    assert published["dropped"] > 0
    assert published["offered"] == published["written"] + published["dropped"] + published["filtered"]
    assert counted["written"] == ledger["delivered"] + ledger["announced"]


def test_topics_are_whole_event_names(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/topics.sock"
    running = Running("-s", f"tree={os.getpid()}", "-e", "openat,openat2,execve", "-o", f"zmq:{endpoint}")
    assert running.ready
    found = connected(endpoint, running, b"event/openat/")
    names = set()
    while found.poll(300):
        topic, header, payload = found.recv_multipart()
        assert topic == b"event/openat/"
        lines = [json.loads(line) for line in payload.splitlines()]
        assert json.loads(header)["count"] == len(lines)
        names |= {line["eventName"] for line in lines}
    running.process.terminate()
    status, ledger, _ = running.end()
    found.close()
    assert names == {"openat"}
    assert status == 0
    assert ledger["balanced"]
    assert ledger["sinks"][0]["filtered"] > 0


def test_an_arrow_file_carries_what_json_carries(tmp_path: Path) -> None:
    arrow, lines = tmp_path / "events.arrows", tmp_path / "events.json"
    command = ("--", "sh", "-c", "for i in 1 2 3; do cat /etc/hostname; done")
    outputs = ("-o", f"arrow:{arrow}", "-o", f"json:{lines}")
    done = headrace("run", "-e", "openat,close,sched_process_exec", "--workers", "2", *outputs, *command)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    found = polars.read_ipc_stream(arrow).sort("timestamp", "hostThreadId", maintain_order=True)
    assert found["timestamp"].dt.epoch("ns").to_list() == [event["timestamp"] for event in told]
    for name in ("eventName", "hostThreadId", "processName", "returnValue"):
        assert found[name].to_list() == [event[name] for event in told]


def test_arrow_to_a_terminal_is_refused() -> None:
    ours, theirs = pty.openpty()
    line = [HEADRACE, "run", "-o", "arrow:-", "--", "true"]
    done = subprocess.run(line, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 2
    assert "binary" in done.stderr


def subscribed(events: str, output: str, count: int, cause: list[str]) -> tuple[int, str, str]:
    """(status, output, errors) of `subscribe -n COUNT`, while `cause` is run again and again."""
    endpoint = output.partition(",")[0].removeprefix("zmq:")
    running = Running("-s", f"tree={os.getpid()}", "-e", events, "-o", output)
    assert running.ready
    line = [HEADRACE, "subscribe", endpoint, "-n", str(count)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < until:
        subprocess.run(cause, check=True, stdout=subprocess.DEVNULL)
    out, errors = process.communicate(timeout=5)
    running.process.terminate()
    running.end()
    return process.returncode, out, errors


def test_subscribe_prints_arrow_as_lines(tmp_path: Path) -> None:
    status, out, errors = subscribed("execve", f"zmq:ipc://{tmp_path}/arrow.sock,format=arrow", 1, ["true"])
    assert status == 0, errors
    assert json.loads(out.splitlines()[0])["eventName"] == "execve"


def test_subscribe_ends_after_as_many_events_as_were_asked_for(tmp_path: Path) -> None:
    # ls opens more than three files
    status, out, errors = subscribed("openat", f"zmq:ipc://{tmp_path}/many.sock", 3, ["ls", "/"])
    assert status == 0, errors
    assert len(out.splitlines()) == 3
    assert errors.startswith("subscribed: events 3 ")


def test_columns_carry_what_json_carries(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/columns.sock"
    output = tmp_path / "events"
    running = Running(
        "-s", f"tree={os.getpid()}", "-e", "openat,execve",
        "-o", f"zmq:{endpoint},format=columns", "-o", f"json:{output}",
    )  # fmt: skip
    assert running.ready
    found = connected(endpoint, running)
    rows = []
    while found.poll(300):
        columns = read_columns(found.recv_multipart()[2])
        who = columns["contexts"][columns["context"]]
        rows += list(zip(columns["timestamp"].tolist(), who["tid"].tolist(), columns["retval"].tolist(), strict=True))
    running.process.terminate()
    running.end()
    found.close()
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    shown = {(e["timestamp"], e["hostThreadId"], e["returnValue"]) for e in lines}
    assert rows
    assert set(rows) <= shown
    assert np.all(np.diff([r[0] for r in rows]) >= 0)


def test_a_recording_replays_to_the_same_bytes(tmp_path: Path) -> None:
    recording, live = tmp_path / "run.hrc", tmp_path / "live"
    options = ("--record", str(recording), "--workers", "2", "-o", f"json:{live}")
    assert headrace("run", *options, "--", "sh", "-c", "ls / >/dev/null; cat /etc/hostname").returncode == 0
    for workers in ("1", "3"):
        again = headrace("replay", str(recording), "--workers", workers, "-o", "json:-")
        assert again.stdout == live.read_text()


def _waiting(pipe: Any) -> int:
    """Bytes that stand in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), "little")


def test_a_command_that_makes_the_output_non_blocking_ends_nothing() -> None:
    code = "import os; os.set_blocking(1, False)\nfor _ in range(5000): os.getppid()"
    line = [HEADRACE, "run", "-e", "getppid", "-o", "json:-", "--", sys.executable, "-S", "-c", code]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        wait_for(lambda: _waiting(process.stdout) > PIPE_BYTES - 4096, "a full pipe")
        lines = sum(1 for _ in process.stdout)
        errors = process.stderr.read()
    assert (process.returncode, lines) == (0, 5000), errors


def test_what_this_kernel_has_not_is_left_out_of_a_glob_and_refused_by_name() -> None:
    absent = [n for n in ("module_load", "module_free") if f"\0btf_trace_{n}\0".encode() not in VMLINUX.read_bytes()]
    run = trace(["true"], "-e", "*")
    assert (run.status, run.ledger["balanced"]) == (0, True), run.errors
    for name in absent:
        done = headrace("run", "-e", name, "-o", "none", "--", "true")
        assert (done.returncode, done.stderr) == (2, f"headrace: {name}: not in this kernel\n")


def test_relative_times_count_from_the_start_of_the_run(tmp_path: Path) -> None:
    recording = tmp_path / "run.hrc"
    options = ("-e", "execve,exit_group", "-o", "json:-", "--relative-time")
    done = headrace("run", "--record", str(recording), *options, "--", "/bin/true")
    times = [json.loads(line)["timestamp"] for line in done.stdout.splitlines()]
    assert times == sorted(times)
    assert 0 < times[0] <= times[-1] < 60 * 10**9
    assert headrace("replay", str(recording), "-o", "json:-", "-o", "option:relative-time").stdout == done.stdout
    table = headrace("replay", str(recording), "-o", "table:-", "--relative-time").stdout.splitlines()
    assert [float(line.split()[0]) for line in table[1:]] == pytest.approx([t / 1e9 for t in times], abs=1e-6)


def test_a_host_of_many_cpus_gets_its_stages_spawned() -> None:
    # a fork server takes no more than 253 descriptors for a process: here none
    code = "from headrace.pipeline.command import cli; from headrace.pipeline.run import stage; "
    code += "stage.MAX_DESCRIPTORS = -1; stage.FORKED = None; cli.main()"
    line = ["replay", "pipeline/command/demo.hrc", "--workers", "2", "-o", "json:-"]
    spawned = subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True, cwd=ROOT, check=True)
    assert spawned.stdout == headrace(*line, cwd=ROOT).stdout != ""


def test_losses_are_announced_on_every_output(tmp_path: Path, binaries: dict[str, Path]) -> None:
    # a ring far too small for the flood: the reader must drop, count, and say so
    run = trace(
        [str(binaries["load"]), "getppid", "500000", "-1", "2"],
        "-e", "getppid", "--ring-bytes", str(1 << 18), "--perf-pages", "8",
        stdin="x",
    )  # fmt: skip
    gone = run.ledger["dropped"] + run.ledger["lost"]
    assert gone > 0
    assert run.ledger["balanced"]
    losses = [arguments(e) for e in run.events if e["eventName"] == "loss"]
    assert sum(loss["count"] for loss in losses) == gone
    assert all(loss["first_time"] <= loss["last_time"] for loss in losses)
    checks = run.ledger["cross_checks"]
    assert checks["lost_frames"] == checks["sequence_gaps"] > 0
