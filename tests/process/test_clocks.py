"""Times of events are those of the wall clock, in a time namespace as well."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.live import HEADRACE

pytestmark = pytest.mark.kernel
MILLISECOND_NS = 10**6


@pytest.mark.parametrize("before", [(), ("unshare", "--time", "--boottime", "864000", "--monotonic", "5", "--fork")])
def test_an_event_has_the_time_that_the_host_shows(before: tuple[str, ...], tmp_path: Path) -> None:
    output, ledger = tmp_path / "events", tmp_path / "ledger"
    line = (*before, HEADRACE, "run", "-e", "getpgid")
    calls = "import os,time\nfor _ in range(20):\n a=time.time_ns();os.getpgid(0);b=time.time_ns();print(a,b)"
    done = subprocess.run(
        (*line, "-o", f"json:{output}", "--ledger", str(ledger), "--", "python3", "-c", calls),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(ledger.read_text())["balanced"] is True
    events = [json.loads(text) for text in output.read_text().splitlines()]
    times = [event["timestamp"] for event in events if event["eventName"] == "getpgid"]
    spans = [tuple(map(int, text.split())) for text in done.stdout.splitlines()]
    assert len(times) == len(spans) == 20
    for (first, last), found in zip(spans, times, strict=True):
        assert first - MILLISECOND_NS <= found <= last + MILLISECOND_NS
    assert abs(times[-1] - time.time_ns()) < 60 * 10**9


def test_a_time_namespace_is_named_by_check() -> None:
    line = ("unshare", "--time", "--boottime", "864000", "--fork", HEADRACE, "check")
    done = subprocess.run(line, capture_output=True, text=True, timeout=90, check=False)
    assert "CLOCK_BOOTTIME is +864000.0 s here, taken off" in done.stdout


ACROSS = """
import os, sys
libc = __import__("ctypes").CDLL(None, use_errno=True)
assert libc.unshare(0x80) == 0, "CLONE_NEWTIME"
open("/proc/self/timens_offsets", "w").write("boottime 100 0")
sys.argv = ["headrace", "run", "-o", "none", "--", "true"]
from headrace.pipeline.command.cli import main
main()
"""


def test_where_stages_would_have_another_clock_than_the_supervisor_it_refuses() -> None:
    python = str(Path(HEADRACE).with_name("python"))
    done = subprocess.run((python, "-c", ACROSS), capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 69, done.stderr
    assert "time namespace: this process is in another one than those that it starts" in done.stderr
    assert os.path.exists("/proc/self/ns/time")
