"""A replay that is ended by a signal says what is in its outputs."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
from pathlib import Path

from tests.live import wait_for
from tests.replay.conftest import RECORDING, end, start


def test_a_replay_into_a_pipe_that_nobody_reads_counts_what_went_in(tmp_path: Path) -> None:
    fifo, beside, ledger = tmp_path / "fifo", tmp_path / "beside", tmp_path / "ledger"
    os.mkfifo(fifo)
    reading, writing = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), os.open(fifo, os.O_WRONLY)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    replay = start(str(RECORDING), "-o", f"json:{fifo}", "-o", f"json:{beside}", "--ledger", str(ledger))
    wait_for(lambda: not select.select([], [writing], [], 0)[1], "a full pipe")
    replay.send_signal(signal.SIGTERM)
    done = end(replay)
    assert done.status == 128 + signal.SIGTERM, done.errors
    text = os.read(reading, 1 << 20)
    os.close(reading)
    os.close(writing)
    books = json.loads(ledger.read_text())
    stuck, other = books["sinks"]
    # how much of it went in is known once the pipe has been full for a while
    assert stuck["written"] <= text.count(b"\n") <= stuck["written"] + stuck["uncertain"]
    assert books["balanced"] is (stuck["uncertain"] == 0)
    assert other["written"] == beside.read_bytes().count(b"\n")
    assert stuck["offered"] == stuck["written"] + stuck["uncertain"] + stuck["dropped"]
