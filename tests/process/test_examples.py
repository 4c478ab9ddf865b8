"""The subscribers in examples/, run as their readers would."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from headrace.pipeline.command.demo import RECORDING
from tests.live import Running

pytestmark = pytest.mark.kernel
EXAMPLES = Path(__file__).parents[2] / "examples"
COUNT = 3
DEADLINE_S = 30


def printed(example: Sequence[str | Path], folder: Path, event: str, options: str = "") -> str:
    """What an example prints of `COUNT` events, which go on to come until it has ended."""
    endpoint = f"ipc://{folder}/example.sock"
    running = Running("-s", f"tree={os.getpid()}", "-e", event, "-o", f"zmq:{endpoint}{options}")
    assert running.ready
    out = folder / "out"  # a pipe would fill up
    with out.open("w") as file:
        process = subprocess.Popen([*example, endpoint, str(COUNT)], stdout=file)
    until = time.monotonic() + DEADLINE_S
    while process.poll() is None and time.monotonic() < until:
        subprocess.run(["true"], check=True)
    running.process.terminate()
    running.end()
    assert process.wait(timeout=5) == 0
    return out.read_text()


def test_plain_pyzmq(tmp_path: Path) -> None:
    out = printed([sys.executable, EXAMPLES / "subscriber.py"], tmp_path, "execve")
    events = [json.loads(line) for line in out.splitlines()]
    assert len(events) >= COUNT
    assert {e["eventName"] for e in events} == {"execve"}


def test_polars_reads_arrow(tmp_path: Path) -> None:
    out = printed([sys.executable, EXAMPLES / "frames.py"], tmp_path, "execve", ",format=arrow")
    rows = list(csv.DictReader(out.splitlines()))
    assert any(os.path.basename(row["value"]) == "true" and int(row["len"]) >= 1 for row in rows), out


@pytest.mark.parametrize("name", ["subscribe", "asynchronous"])
def test_the_python_api_gives_events(name: str, tmp_path: Path) -> None:
    out = printed([sys.executable, EXAMPLES / "python" / f"{name}.py"], tmp_path, "execve")
    rows = [line.split() for line in out.splitlines()]
    assert len(rows) == COUNT
    assert all(int(time_ns) > 0 and comm and int(result) <= 0 for time_ns, comm, result in rows)


def test_the_python_api_gives_batches(tmp_path: Path) -> None:
    out = printed([sys.executable, EXAMPLES / "python" / "batches.py"], tmp_path, "execve", ",format=columns")
    assert sum(int(line.split()[1]) for line in out.splitlines()) >= COUNT


def test_the_python_api_reads_recordings() -> None:
    example = [sys.executable, EXAMPLES / "python" / "recording.py", RECORDING]
    out = subprocess.run(example, capture_output=True, text=True, check=True).stdout
    assert "cat,/etc/hostname,1\n" in out
    assert "openat failed 0 of 20\n" in out


def test_the_python_api_traces() -> None:
    example = [sys.executable, EXAMPLES / "python" / "trace.py", "cat", "/etc/hostname"]
    done = subprocess.run(example, capture_output=True, text=True, check=True)
    assert done.stdout == Path("/etc/hostname").read_text()
    lines = done.stderr.splitlines()
    assert "cat openat /etc/hostname 3" in lines
    assert lines[-1] == "lost 0 balanced True"


@pytest.mark.skipif(
    not (EXAMPLES / "node/node_modules/zeromq").exists(), reason="npm could not install zeromq (setup.sh tests)"
)
def test_node(tmp_path: Path) -> None:
    out = printed(["node", EXAMPLES / "node" / "subscriber.mjs"], tmp_path, "execve")
    assert any(" execve pathname=" in line and "true" in line for line in out.splitlines()), out
