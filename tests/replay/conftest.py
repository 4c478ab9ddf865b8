"""The recording that `make demo` shows, replayed once with each number of workers, side by side."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HEADRACE = str(Path(sys.executable).with_name("headrace"))
RECORDING = Path(__file__).parents[2] / "examples" / "demo.hrc"
WORKERS = (1, 2, 3, 7)
DEADLINE_S = 60


@dataclass
class Replayed:
    """What a replay left."""

    status: int
    out: bytes
    errors: str


def start(*args: str, **options: Any) -> subprocess.Popen[bytes]:
    """`headrace replay ARGS`, going."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([HEADRACE, "replay", *args], **(pipes | options))


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
def replays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[int, str], Replayed]]:
    """Every (workers, format): JSON on standard output and the table in a file, then the other way round."""
    folder = tmp_path_factory.mktemp("replays")
    found = {}
    for workers in WORKERS:
        runs = {}
        for name, other in (("json", "table"), ("table", "json")):
            beside = folder / f"{workers}-{other}"
            outputs = ["-o", f"{name}:-", "-o", f"{other}:{beside}"]
            runs[name] = start(str(RECORDING), "--workers", str(workers), *outputs)
        for name, process in runs.items():
            found[workers, name] = end(process)
    yield found
