"""`make demo`'s command: the host if it can be traced, else the recording, and the reason."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from headrace.bpf.host.btf import VMLINUX, Btf
from tests.live import DEADLINE_S, HEADRACE

FIRST_EVENT_S = 5
"""What the second run of `make demo` promises, on a machine that parses a kernel's BTF in BTF_S (bpf/host/btf.py)."""
BTF_S = 0.2


def demo(prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"COLUMNS": "200"}
    command = [*prefix, HEADRACE, "demo"]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False, env=env)


@pytest.mark.kernel
def test_the_workload_is_traced_and_its_ledger_shown() -> None:
    done = demo()
    assert done.returncode == 0, done.stderr
    assert "/etc/hostname" in done.stdout
    assert "SIGTERM" in done.stdout
    for name in ("sched_process_fork", "sched_process_exec", "sched_process_exit", "openat", "unlinkat"):
        assert name in done.stdout
    assert "recording" not in done.stderr
    assert "lost 0  dropped 0  rejected 0  balanced" in done.stderr


def seconds_to_the_first_event() -> float:
    begin = time.monotonic()
    with subprocess.Popen([HEADRACE, "demo"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        header, first = process.stdout.readline(), process.stdout.readline()
        took = time.monotonic() - begin
        process.stdout.read()
    assert header
    assert first
    return took


@pytest.mark.kernel
def test_the_first_event_comes_soon() -> None:
    """From the second run on, whose programs are compiled; the quickest of some, since other tests run beside it."""
    seconds_to_the_first_event()
    took = min(seconds_to_the_first_event() for _ in range(3))
    began = time.monotonic()
    Btf(VMLINUX.read_bytes())
    # another test may have the other core
    slowness = max(2.0 if "PYTEST_XDIST_WORKER" in os.environ else 1.0, (time.monotonic() - began) / BTF_S)
    assert took < FIRST_EVENT_S * slowness


def test_without_the_right_to_trace_the_recording_is_shown() -> None:
    prefix = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.getuid() == 0 else ()
    done = demo(prefix)
    assert done.returncode == 0, done.stderr
    assert "showing a recording instead of this host" in done.stderr
    assert "remedy:" in done.stderr
    assert "sched_process_exec" in done.stdout
    assert "balanced" in done.stderr
