"""kill -9 of each stage during a flood: it is started again and the books still close."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import zmq

from headrace.bpf.tables.catalogue import catalogue
from headrace.pipeline.transport.wire import read_columns
from tests.live import Running, let_go, start_load, wait_for

pytestmark = pytest.mark.kernel
OPENAT = catalogue().by_name["openat"].id
STAGES = ("publisher", "worker-0", "worker-1", "reader")


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_is_started_again_and_the_ledger_balances(
    stage: str, binaries: dict[str, Path], tmp_path: Path
) -> None:
    load = start_load(binaries["load"], "getppid", 0, threads=2)
    output = tmp_path / "events"
    running = Running("--workers", "2", "-s", f"tree={load.pid}", "-e", "getppid", "-o", "none", "-o", f"json:{output}")
    assert running.ready, running.end()
    let_go(load)
    wait_for(lambda: output.stat().st_size > 1 << 20, "events")
    for _ in range(2):
        before = running.stages()[stage]
        os.kill(before, signal.SIGKILL)
        wait_for(lambda seen=before: running.stages().get(stage, seen) != seen, "a new process")
        size = output.stat().st_size
        wait_for(lambda at=size: output.stat().st_size > at, "events after the death")
    calls = int(load.communicate()[0].split()[0])
    status, ledger, errors = running.end()
    assert status == 0, errors
    assert ledger["restarts"] == {stage: 2}
    assert ledger["balanced"], ledger
    assert ledger["by_event"]["getppid"]["produced"] == calls
    lines = output.read_bytes().count(b"\n")
    json_sink = next(s for s in ledger["sinks"] if s["name"].startswith("json"))
    announced = ledger["announced"]
    assert ledger["delivered"] + announced == json_sink["offered"]
    if "publisher" not in ledger["restarts"]:
        assert lines == json_sink["written"]
    else:
        assert lines >= json_sink["written"]


def test_a_killed_nursery_takes_its_stages_along_and_all_are_started_again(
    binaries: dict[str, Path], tmp_path: Path
) -> None:
    load = start_load(binaries["load"], "getppid", 0, threads=2)
    output = tmp_path / "events"
    running = Running("--workers", "2", "-s", f"tree={load.pid}", "-e", "getppid", "-o", f"json:{output}")
    assert running.ready, running.end()
    let_go(load)
    wait_for(lambda: output.stat().st_size > 1 << 20, "events")
    before = running.stages()
    os.kill(before["nursery"], signal.SIGKILL)
    wait_for(lambda: len({*running.stages().values()} - {*before.values()}) == 5, "all new")
    size = output.stat().st_size
    wait_for(lambda: output.stat().st_size > size, "events after the death")
    calls = int(load.communicate()[0].split()[0])
    status, ledger, errors = running.end()
    assert status == 0, errors
    assert ledger["restarts"] == dict.fromkeys(STAGES, 1)
    assert ledger["balanced"], ledger
    assert ledger["by_event"]["getppid"]["produced"] == calls


def test_a_worker_that_cannot_be_kept_ends_the_run_with_all_counted() -> None:
    """Nothing happens in the traced process, so the worker makes no progress between its deaths."""
    running = Running("--workers", "2", "-e", "getppid", "-o", "none", "--", "sleep", "60")
    assert running.ready, running.end()
    killed: set[int] = set()

    def is_over() -> bool:
        found = running.stages().get("worker-0")
        if found and found not in killed:
            killed.add(found)
            os.kill(found, signal.SIGKILL)
        return running.process.poll() is not None

    wait_for(is_over, "the end of the run")
    status, ledger, errors = running.end()
    assert status != 0
    assert "worker-0" in errors
    assert ledger["restarts"]["worker-0"] == len(killed) - 1


CLOSES = """
import os
for number in range(1000000, 1030000):
    try:
        os.close(number)
    except OSError:
        pass
"""


def test_a_worker_that_dies_in_front_of_a_full_ring_neither_loses_nor_repeats(tmp_path: Path) -> None:
    # every event has a number of its own, the rings are small, and nobody reads until both workers have died
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    sizes = ("--workers", "2", "--ring-bytes", str(1 << 23))
    wanted = ("-e", "close,close.args.fd>=1000000", "-o", f"json:{pipe}")
    small = os.environ | {"HEADRACE_RESULT_BYTES": str(1 << 22)}
    running = Running(*sizes, *wanted, "--", sys.executable, "-S", "-c", CLOSES, env=small)
    assert running.ready, running.end()
    busy = f"worker-{running.command() % 2}"
    for _ in range(3):
        wait_for(lambda: running.has_full_ring(1 << 22), "a full ring of results")
        # the command is one process, so one of the two has work
        before = next(pid for name, pid in running.stages().items() if name == busy)
        os.kill(before, signal.SIGKILL)
        wait_for(lambda seen=before: running.stages().get(busy, seen) != seen, "a new process")
    os.set_blocking(reading, True)
    with open(reading, "rb") as lines:
        numbers = [int(next(a for a in json.loads(line)["args"] if a["name"] == "fd")["value"]) for line in lines]
    status, ledger, errors = running.end()
    assert (status, ledger["balanced"]) == (0, True), (errors, ledger)
    assert ledger["restarts"] == {busy: 3}
    assert len(numbers) == len(set(numbers)) == ledger["sinks"][0]["written"] == ledger["delivered"]
    assert numbers == sorted(numbers)


def test_a_signal_to_the_process_group_ends_in_flow_order(binaries: dict[str, Path]) -> None:
    load = start_load(binaries["load"], "getppid", 0)
    running = Running("-s", f"tree={load.pid}", "-e", "getppid", "-o", "none", start_new_session=True)
    assert running.ready
    let_go(load)
    os.killpg(running.process.pid, signal.SIGTERM)
    status, ledger, errors = running.end(deadline_s=10)
    load.communicate()
    assert (status, ledger["balanced"], ledger["restarts"]) == (0, True, {}), errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_in_flow_order_and_leaves_nothing(number: int, binaries: dict[str, Path]) -> None:
    load = start_load(binaries["load"], "getppid", 0)
    running = Running("--workers", "2", "-s", f"tree={load.pid}", "-e", "getppid", "-o", "none")
    assert running.ready
    let_go(load)
    stages, segments = running.stages(), running.segments()
    assert stages.keys() == {"nursery", "tracker", *STAGES}
    assert segments
    running.process.send_signal(number)
    status, ledger, errors = running.end(deadline_s=10)
    load.communicate()
    assert (status, ledger["balanced"]) == (0, True), errors
    by_themselves = stages.pop("nursery"), stages.pop("tracker")
    assert not [pid for pid in stages.values() if Path(f"/proc/{pid}").exists()]
    # these end when they see that there is no supervisor
    wait_for(lambda: not [pid for pid in by_themselves if Path(f"/proc/{pid}").exists()], "the nursery's end")
    assert not segments & set(os.listdir("/dev/shm"))


def test_a_killed_supervisor_takes_its_stages_along(binaries: dict[str, Path]) -> None:
    load = start_load(binaries["load"], "getppid", 0)
    running = Running("-s", f"tree={load.pid}", "-e", "getppid", "-o", "none")
    assert running.ready
    stages, segments = running.stages(), running.segments()
    running.kill()
    load.communicate("")
    wait_for(lambda: not [p for p in stages.values() if Path(f"/proc/{p}").exists()], "the stages' end")
    wait_for(lambda: not segments & set(os.listdir("/dev/shm")), "the segments' removal")


def test_a_reader_that_was_held_up_gives_turns_that_are_larger_than_any_ring(
    binaries: dict[str, Path], tmp_path: Path
) -> None:
    endpoint, calls = f"ipc://{tmp_path}/held.sock", 60_000
    load = start_load(binaries["load"], "absent", calls)
    running = Running(
        *("-s", f"tree={os.getpid()}", "-e", "openat,getppid", "-o", f"zmq:{endpoint},format=columns,policy=block"),
        env=os.environ | {"HEADRACE_RESULT_BYTES": str(1 << 22)},
    )
    assert running.ready, running.end()
    found = zmq.Context.instance().socket(zmq.SUB)
    found.connect(endpoint)
    found.subscribe(b"")
    wait_for(lambda: (os.getppid(), found.poll(20))[1], "a first event")
    reader = running.stage("reader")
    os.kill(reader, signal.SIGSTOP)
    let_go(load)
    load.communicate()
    os.kill(reader, signal.SIGCONT)
    opened = 0
    while opened < calls and found.poll(20_000):
        columns = read_columns(found.recv_multipart()[2])
        by_load = columns["contexts"]["tgid"][columns["context"]] == load.pid
        opened += int((by_load & (columns["event"] == OPENAT)).sum())
    running.process.terminate()
    status, ledger, errors = running.end()
    found.close()
    assert (status, ledger["balanced"], ledger["lost"]) == (0, True, 0), errors
    assert opened == calls


PLANTED = """
import os

from headrace.workers.detect import detector
from headrace.signature import Event, Signature, State

sound = detector.Detector._matched


def with_a_bug(self, rows, *others):
    if (rows.arg0 == 777777).any():
        os._exit(7)
    return sound(self, rows, *others)


detector.Detector._matched = with_a_bug


class Closes(Signature):
    id, name, severity, events = "PLANTED-1", "closes", "low", {"close": {"fd|gte": 700000}}

    def on_event(self, event: Event, state: State) -> bool:
        return True
"""
DEADLY = "[*range(700000, 700500), 777777, *range(700500, 701500), 777777]"
CLOSES_TWO = CLOSES.replace("range(1000000, 1030000)", DEADLY)


def test_an_event_that_ends_workers_is_given_up_and_counted_and_the_run_goes_on(tmp_path: Path) -> None:
    rule, found, events = tmp_path / "planted.py", tmp_path / "found", tmp_path / "events"
    rule.write_text(PLANTED)
    signatures = ("--signatures", str(rule), "--rules", "PLANTED-1", "--findings", f"json:{found}", "--fold", "0")
    wanted = ("-e", "close,close.args.fd>=700000", "-o", f"json:{events}")
    running = Running(*signatures, *wanted, "--", sys.executable, "-S", "-c", CLOSES_TWO)
    assert running.ready, running.end()
    status, ledger, errors = running.end()
    assert (status, ledger["balanced"]) == (0, True), (errors, ledger)
    assert ledger["given_up"] == ledger["rejected"] == 2, errors
    assert "ended a worker" in errors
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    closed = [next(a["value"] for a in event["args"] if a["name"] == "fd") for event in lines]
    assert closed == list(range(700000, 701500))
    assert len(found.read_text().splitlines()) == ledger["findings"]["found"] == 1500


EACH = "id: EACH\nname: each\nseverity: low\nevents: {close: {fd|gte: 1000000}}\n"


@pytest.mark.parametrize(("form", "fold"), [("json", "0"), ("falco", "0"), ("json", "60")])
def test_findings_that_a_killed_publisher_had_only_queued_come_again(form: str, fold: str, tmp_path: Path) -> None:
    pipe, rule = tmp_path / "pipe", tmp_path / "each.yaml"
    rule.write_text(EACH)
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    wanted = ("--signatures", str(rule), "--rules", "EACH", "--fold", fold, "--findings", f"{form}:{pipe}")
    small = os.environ | {"HEADRACE_RESULT_BYTES": str(1 << 22)}
    running = Running(*wanted, "--", sys.executable, "-S", "-c", CLOSES, env=small)
    assert running.ready, running.end()
    if fold == "0":
        wait_for(lambda: running.has_full_ring(1 << 22), "a full ring of results")
    for _ in range(2):
        before = running.stages()["publisher"]
        os.kill(before, signal.SIGKILL)
        wait_for(lambda seen=before: running.stages().get("publisher", seen) != seen, "a new process")
    os.set_blocking(reading, True)
    times, broken = [], 0
    with open(reading, "rb") as file:
        for line in file:
            try:
                found = json.loads(line)
                times.append(found.get("time") or found["timestamp"])
            except ValueError:
                broken += 1
    assert broken <= 2, "of a pipe, one line a death: what is in it cannot be taken back"
    status, ledger, errors = running.end()
    assert (status, ledger["balanced"]) == (0, True), (errors, ledger)
    found = ledger["findings"]
    assert found["found"] == 30_000
    assert len(set(times)) == found["published"]
    (sink,) = ledger["sinks"]
    assert sink["written"] <= len(times) <= sink["written"] + ledger["redelivered"]
