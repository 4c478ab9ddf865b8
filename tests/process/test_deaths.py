"""kill -9 of each stage during a flood: it is started again and the books still close."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.live import Running, let_go, start_load, wait_for

pytestmark = pytest.mark.kernel
STAGES = {"publisher": 0, "worker-0": 1, "worker-1": 2, "reader": 3}


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_is_started_again_and_the_ledger_balances(
    stage: str, binaries: dict[str, Path], tmp_path: Path
) -> None:
    load = start_load(binaries["load"], "getppid", 0, threads=2)
    output = tmp_path / "events"
    running = Running("--workers", "2", "-s", f"pid={load.pid}", "-e", "getppid", "-o", "none", "-o", f"json:{output}")
    assert running.ready, running.end()
    let_go(load)
    wait_for(lambda: output.stat().st_size > 1 << 20, "events")
    for _ in range(2):
        before = running.stages()
        os.kill(before[STAGES[stage]], signal.SIGKILL)
        wait_for(lambda seen=before: len(running.stages()) == 4 and running.stages() != seen, "a new process")
        size = output.stat().st_size
        wait_for(lambda at=size: output.stat().st_size > at, "events after the death")
    calls = int(load.communicate()[0].split()[0])
    status, ledger, errors = running.end()
    assert status == 0, errors
    # a killed stage of the first round has moved to the end of the list by its pid: any stage may die twice
    assert sum(ledger["restarts"].values()) == 2
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_in_flow_order_and_leaves_nothing(number: int, binaries: dict[str, Path]) -> None:
    load = start_load(binaries["load"], "getppid", 0)
    running = Running("--workers", "2", "-s", f"pid={load.pid}", "-e", "getppid", "-o", "none")
    assert running.ready
    let_go(load)
    stages, segments = running.stages(), running.segments()
    assert len(stages) == 4
    assert segments
    running.process.send_signal(number)
    status, ledger, errors = running.end(deadline_s=10)
    load.communicate()
    assert (status, ledger["balanced"]) == (0, True), errors
    assert not [pid for pid in stages if Path(f"/proc/{pid}").exists()]
    assert not segments & set(os.listdir("/dev/shm"))


def test_a_killed_supervisor_takes_its_stages_along(binaries: dict[str, Path]) -> None:
    load = start_load(binaries["load"], "getppid", 0)
    running = Running("-s", f"pid={load.pid}", "-e", "getppid", "-o", "none")
    assert running.ready
    stages, segments = running.stages(), running.segments()
    running.kill()
    load.communicate("")
    wait_for(lambda: not [p for p in stages if Path(f"/proc/{p}").exists()], "the stages' end")
    wait_for(lambda: not segments & set(os.listdir("/dev/shm")), "the segments' removal")
