"""Where raw tracepoints can be preempted, programs hang on perf events: they show the same."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from headrace.bpf.host import probes
from headrace.bpf.host.btf import Btf
from headrace.bpf.tables.catalogue import catalogue
from headrace.pipeline.host.features import event_lack
from tests.live import Running, arguments, compile_c

pytestmark = pytest.mark.kernel
AS_IF = """from headrace.bpf.host import probes
probes.can_be_preempted = lambda btf: {}
from headrace.pipeline.command.cli import main
main(prog_name="headrace")"""
EVENTS = """syscalls sys_enter sys_exit security_* sched_process_fork sched_process_exec sched_process_exit task_rename
    cap_capable io_uring_create io_uring_submit""".split()
FORMERLY = probes.raw_tracepoint(Btf.of_kernel(), "io_uring_submit_req") != "io_uring_submit_req"
"""Where raw tracepoints cannot be preempted, it may have another name, and perf events are not asked for it."""
ABSENT = ({"io_uring_submit"} if FORMERLY else set()) | {
    name for name in EVENTS if (event := catalogue().by_name.get(name)) and event_lack(event)
}
WORK = """cd {folder}; ls / >one; mv one two; ln two three; cat two three >/dev/null; (exec /bin/true); ! cat nowhere
rm two three; printf '#!/bin/sh\ntrue\n' >script; chmod +x script; ./script arg; {uring} "$PWD" >out"""
SHOWN = {
    "sched_process_exec": ("cmdpath", "pathname", "argv", "interp", "prev_comm", "interpreter_pathname", "pwd"),
    "task_rename": ("old_name", "new_name", "syscall"),
    "cap_capable": ("cap", "syscall"),
    "io_uring_create": ("fd", "sq_entries", "cq_entries", "flags", "polling"),
    "io_uring_submit": ("opcode", "fd", "name", "new_name"),
}
"""Arguments that two runs of the same work have alike."""


OWN = re.compile(r"/(raw|perf)/")
"""What differs between them: the folder."""
WORKER = "iou-wrk-"


def seen(folder: Path, uring: Path, preempted: bool) -> tuple[Counter[Any], list[dict[str, Any]]]:
    (folder / "work").mkdir(parents=True)
    out = folder / "events"
    program = (sys.executable, "-P", "-c", AS_IF.format(preempted))
    work = WORK.format(folder=folder / "work", uring=uring)
    command = (
        "-e",
        ",".join(name for name in EVENTS if name not in ABSENT),
        "-o",
        f"json:{out}",
        "--",
        "sh",
        "-c",
        work,
    )
    status, ledger, errors = Running(*command, program=program).end()
    assert status == 0, errors
    assert (ledger["balanced"], ledger["lost"]) == (True, 0)
    events = [json.loads(line) for line in out.read_text().splitlines()]
    return Counter(shown(event) for event in events if not is_worker(event)), events


def is_worker(event: dict[str, Any]) -> bool:
    """Whether it is about one of io_uring's workers: how many there are is the kernel's business."""
    return WORKER in (event["processName"][:8], str(arguments(event).get("new_name"))[:8])


def shown(event: dict[str, Any]) -> tuple[Any, ...]:
    name, values = event["eventName"], arguments(event)
    told = (str(values[argument]) for argument in SHOWN.get(name, ()) if argument in values)
    alike = (OWN.sub("", text) for text in (event["processName"], *told))
    return name, (event["returnValue"] or 0) < 0, *alike


@pytest.mark.skipif(
    probes.can_be_preempted(Btf.of_kernel()) or not probes.has_raw_tracepoint(Btf.of_kernel(), "sched_prepare_exec"),
    reason="raw tracepoints are not exact where they can be preempted; before 6.10 perf events tell less of an exec",
)
def test_both_see_the_same(tmp_path: Path) -> None:
    uring = compile_c(Path(__file__).with_name("uring.c"), tmp_path / "uring")
    raw, _ = seen(tmp_path / "raw", uring, preempted=False)
    perf, events = seen(tmp_path / "perf", uring, preempted=True)
    assert perf == raw
    assert {name for name, *_ in perf} >= {*SHOWN} - ABSENT | {"openat", "sys_exit", "security_inode_rename"}
    forks = [arguments(event) for event in events if event["eventName"] == "sched_process_fork"]
    ended = {event["threadId"] for event in events if event["eventName"] == "sched_process_exit"}
    assert {fork["child_ns_tid"] for fork in forks} <= ended


GUARDED = {"tracepoint_srcu_srcu_data", "srcu_ctr"}


@pytest.mark.parametrize(
    ("version", "names", "preempted"),
    [
        ("#1 SMP PREEMPT_DYNAMIC Debian", GUARDED, True),
        ("#1 SMP PREEMPT_RT Debian", GUARDED, True),
        ("#1 SMP PREEMPT_DYNAMIC Debian", {"tracepoint_srcu_srcu_data"}, False),
        ("#1 SMP PREEMPT_DYNAMIC Debian", {"srcu_ctr"}, False),
        ("#1 SMP Debian", GUARDED, False),
    ],
)
def test_it_is_told_by_what_the_kernel_is_made_of(
    version: str, names: set[str], preempted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Uname:
        pass

    uname, btf = Uname(), Uname()
    uname.version = version  # type: ignore[attr-defined]
    btf.has_name = names.__contains__  # type: ignore[attr-defined]
    monkeypatch.setattr(probes.os, "uname", lambda: uname)
    assert probes.can_be_preempted(btf) is preempted  # type: ignore[arg-type]
