"""Replays: kill -9 of the process that reads the recording, and rings that are smaller than a recording needs."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from pathlib import Path

import pytest

from tests.live import HEADRACE, descendants, headrace, wait_for

pytestmark = pytest.mark.kernel
EVENTS = 1_200_000
DEATHS = 3
FEW_RESULTS = {"HEADRACE_RESULT_BYTES": str(1 << 22)}
SMALL = ("--ring-bytes", str(1 << 18))


@pytest.fixture(scope="module")
def recording(binaries: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flood that no ring has room for."""
    path = tmp_path_factory.mktemp("recording") / "flood.hrc"
    load = (str(binaries["load"]), "getppid", str(EVENTS // 2), "-1", "2")
    done = headrace("run", "--record", str(path), "-e", "getppid", "-o", "none", "--", *load, stdin=None, input="x")
    assert done.returncode == 0, done.stderr
    assert path.stat().st_size > 16 << 20
    return path


def readers(parent: int) -> set[int]:
    """Processes below a replay that read its recording: one, or none while it is started again."""
    found = set()
    for pid in descendants(parent):
        with contextlib.suppress(OSError):
            name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
            if name == "hr-reader" and not rest.startswith(" Z"):
                found.add(pid)
    return found


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_killed_replayer_goes_on_where_it_was(workers: str, recording: Path, tmp_path: Path) -> None:
    whole, pipe, ledger = tmp_path / "whole", tmp_path / "pipe", tmp_path / "ledger"
    line = ("replay", str(recording), *SMALL, "--workers", workers)
    assert headrace(*line, "-o", f"table:{whole}").returncode == 0
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    running = subprocess.Popen(
        [HEADRACE, *line, "-q", "-o", f"table:{pipe}", "--ledger", str(ledger)], env=os.environ | FEW_RESULTS
    )
    assert select.select([reading], [], [], 60)[0], "no events"
    killed: set[int] = set()
    for _ in range(DEATHS):  # nobody reads, so that all rings are full, and it cannot end
        wait_for(lambda: readers(running.pid) - killed, "a replayer")
        (pid,) = readers(running.pid) - killed
        killed.add(pid)
        os.kill(pid, signal.SIGKILL)
    os.set_blocking(reading, True)
    with open(reading, "rb") as file:
        shown = file.read()
    assert running.wait(60) == 0
    found = json.loads(ledger.read_text())
    assert found["restarts"] == {"reader": DEATHS}
    assert found["balanced"], found
    assert found["produced"] == found["delivered"] + found["announced"]
    assert shown == whole.read_bytes()


def test_rings_that_are_too_small_for_a_recording_are_made_larger(recording: Path, tmp_path: Path) -> None:
    done = headrace("replay", str(recording), *SMALL, "-o", "none", "--ledger", str(tmp_path / "ledger"))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "ledger").read_text())["balanced"]
