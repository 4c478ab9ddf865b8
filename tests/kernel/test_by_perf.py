"""Where raw tracepoints can be preempted, system calls are seen by perf events: they show the same."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bpf import probes
from tests.live import Running

pytestmark = pytest.mark.kernel
AS_IF = """from bpf import probes
probes.can_be_preempted = lambda btf: {}
from pipeline.cli import main
main(prog_name="headrace")"""
EVENTS = "syscalls,sys_enter,sys_exit,security_*,sched_process_fork,sched_process_exec,sched_process_exit,task_rename"
WORK = "ls / >one; mv one two; ln two three; cat two three >/dev/null; (exec /bin/true); ! cat nowhere; rm two three"


def seen(folder: Path, preempted: bool) -> tuple[Counter[Any], dict[str, Any]]:
    folder.mkdir()
    out = folder / "events"
    program = (sys.executable, "-P", "-c", AS_IF.format(preempted))
    command = ("-e", EVENTS, "-o", f"json:{out}", "--", "sh", "-c", f"cd {folder}; {WORK}")
    status, ledger, errors = Running(*command, program=program).end()
    assert (status, ledger["balanced"], ledger["lost"]) == (0, True, 0), errors
    events = [json.loads(line) for line in out.read_text().splitlines()]
    return Counter((e["processName"], e["eventName"], (e["returnValue"] or 0) < 0) for e in events), ledger


def test_both_see_the_same(tmp_path: Path) -> None:
    raw, _ = seen(tmp_path / "raw", preempted=False)
    perf, _ = seen(tmp_path / "perf", preempted=True)
    assert perf == raw
    assert {name for _, name, _ in perf} >= {"openat", "sys_exit", "security_inode_rename", "sched_process_exec"}


@pytest.mark.parametrize(
    ("version", "name", "preempted"),
    [
        ("#1 SMP PREEMPT_DYNAMIC Debian", b"tracepoint_srcu_srcu_data", True),
        ("#1 SMP PREEMPT_RT Debian", b"tracepoint_srcu_srcu_data", True),
        ("#1 SMP PREEMPT_DYNAMIC Debian", b"tracepoint_srcu", False),
        ("#1 SMP Debian", b"tracepoint_srcu_srcu_data", False),
    ],
)
def test_it_is_told_by_what_the_kernel_is_made_of(
    version: str, name: bytes, preempted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Uname:
        pass

    uname, btf = Uname(), Uname()
    uname.version = version  # type: ignore[attr-defined]
    btf.has_name = lambda wanted: wanted.encode() == name  # type: ignore[attr-defined]
    monkeypatch.setattr(probes.os, "uname", lambda: uname)
    assert probes.can_be_preempted(btf) is preempted  # type: ignore[arg-type]
