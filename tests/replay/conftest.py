"""The recording that `make demo` shows, replayed once with each number of workers, side by side."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HEADRACE = str(Path(sys.executable).with_name("headrace"))
RECORDING = Path(__file__).parents[2] / "pipeline" / "command" / "demo.hrc"
WORKERS = (1, 2, 3, 7)
DEADLINE_S = 60


@dataclass
class Replayed:
    """What a replay left."""

    status: int
    out: bytes
    errors: str


def start(*args: str, before: Sequence[str] = (), **options: Any) -> subprocess.Popen[bytes]:
    """`headrace replay ARGS`, going."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*before, HEADRACE, "replay", *args], **(pipes | options))


def end(process: subprocess.Popen[bytes]) -> Replayed:
    """Its end."""
    try:
        out, errors = process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Replayed(process.returncode, out or b"", (errors or b"").decode())


@pytest.fixture(scope="session")
def replays(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], Replayed]:
    """Every (workers, format): JSON on standard output, the table in a file."""
    folder = tmp_path_factory.mktemp("replays")
    tables = {workers: folder / f"table-{workers}" for workers in WORKERS}
    running = {
        workers: start(str(RECORDING), "--workers", str(workers), "-o", "json:-", "-o", f"table:{table}")
        for workers, table in tables.items()
    }
    found = {}
    for workers, process in running.items():
        found[workers, "json"] = done = end(process)
        found[workers, "table"] = Replayed(done.status, tables[workers].read_bytes(), done.errors)
    return found


@pytest.fixture(scope="session")
def shown() -> Replayed:
    """The table, as it is shown when nothing else is asked for."""
    return end(start(str(RECORDING), "--workers", "3"))
