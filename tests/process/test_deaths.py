"""kill -9 of each stage during a flood: it is started again and the books still close."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.live import Running, let_go, start_load, wait_for

pytestmark = pytest.mark.kernel
STAGES = ("publisher", "worker-0", "worker-1", "reader")


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
    running = Running("--workers", "2", "-s", f"pid={load.pid}", "-e", "getppid", "-o", f"json:{output}")
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


def test_a_signal_to_the_process_group_ends_in_flow_order(binaries: dict[str, Path]) -> None:
    load = start_load(binaries["load"], "getppid", 0)
    running = Running("-s", f"pid={load.pid}", "-e", "getppid", "-o", "none", start_new_session=True)
    assert running.ready
    let_go(load)
    os.killpg(running.process.pid, signal.SIGTERM)
    status, ledger, errors = running.end(deadline_s=10)
    load.communicate()
    assert (status, ledger["balanced"], ledger["restarts"]) == (0, True, {}), errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_in_flow_order_and_leaves_nothing(number: int, binaries: dict[str, Path]) -> None:
    load = start_load(binaries["load"], "getppid", 0)
    running = Running("--workers", "2", "-s", f"pid={load.pid}", "-e", "getppid", "-o", "none")
    assert running.ready
    let_go(load)
    stages, segments = running.stages(), running.segments()
    assert stages.keys() == {"nursery", *STAGES}
    assert segments
    running.process.send_signal(number)
    status, ledger, errors = running.end(deadline_s=10)
    load.communicate()
    assert (status, ledger["balanced"]) == (0, True), errors
    nursery = stages.pop("nursery")
    assert not [pid for pid in stages.values() if Path(f"/proc/{pid}").exists()]
    # it ends by itself, when it sees that there is no supervisor
    wait_for(lambda: not Path(f"/proc/{nursery}").exists(), "the nursery's end")
    assert not segments & set(os.listdir("/dev/shm"))


def test_a_killed_supervisor_takes_its_stages_along(binaries: dict[str, Path]) -> None:
    load = start_load(binaries["load"], "getppid", 0)
    running = Running("-s", f"pid={load.pid}", "-e", "getppid", "-o", "none")
    assert running.ready
    stages, segments = running.stages(), running.segments()
    running.kill()
    load.communicate("")
    wait_for(lambda: not [p for p in stages.values() if Path(f"/proc/{p}").exists()], "the stages' end")
    wait_for(lambda: not segments & set(os.listdir("/dev/shm")), "the segments' removal")
