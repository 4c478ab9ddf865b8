"""Events that are tracepoints of their own, on the live kernel."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.bpf.host import cgroups
from tests.live import arguments, trace

pytestmark = pytest.mark.kernel


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_every_call_is_told_by_number_at_entry_and_exit() -> None:
    run = trace(
        python("import os\nfor _ in range(1000): os.getppid()\nos._exit(0)"), "-e", "sys_enter,sys_exit,getppid"
    )
    numbers = {
        name: Counter(arguments(e)["syscall"] for e in run.events if e["eventName"] == name)
        for name in ("sys_enter", "sys_exit")
    }
    assert numbers["sys_enter"]["getppid"] == numbers["sys_exit"]["getppid"] == 1000
    assert len([e for e in run.events if e["eventName"] == "getppid"]) == 1000
    # these two do not return; the command's own execve was entered before it was in scope
    assert numbers["sys_enter"]["exit_group"] == 1
    assert numbers["sys_exit"]["exit_group"] == 0
    assert numbers["sys_exit"]["execve"] - numbers["sys_enter"]["execve"] == 1
    entry = next(e for e in run.events if e["eventName"] == "sys_enter")
    assert (entry["returnValue"], entry["entryTime"]) == (None, entry["timestamp"])
    assert run.ledger["balanced"]
    assert run.ledger["produced"] == len(run.events)


def test_a_switch_names_who_goes_and_who_comes() -> None:
    code = (
        "import os\nr, w = os.pipe()\nif os.fork():\n os.read(r, 1); os.wait()\nelse:\n os.write(w, b'x'); os._exit(0)"
    )
    run = trace(python(code), "-e", "sched_switch,sched_process_fork")
    switches = [e for e in run.events if e["eventName"] == "sched_switch"]
    assert switches
    for event in switches:
        found = arguments(event)
        # the event is of the thread that goes
        assert found["prev_tid"] == event["hostThreadId"]
        assert found["prev_comm"] == event["processName"]
        assert (found["cpu"], event["returnValue"]) == (event["processorId"], 0)
        assert found["next_tid"] != found["prev_tid"]
        assert found["next_comm"]
    # who waits for its child's byte is switched away from
    assert next(e for e in run.events if e["eventName"] == "sched_process_fork")["hostThreadId"] in {
        e["hostThreadId"] for e in switches
    }
    assert run.ledger["balanced"]


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group's path that is not there yet, in the hierarchy that containers are told apart by."""
    found = cgroups.hierarchy()
    assert found is not None
    path = found.path / f"hr-made-{os.getpid()}"
    yield path
    if path.exists():
        path.rmdir()


def test_control_groups_that_come_and_go_and_who_enters_them(group: Path) -> None:
    found = cgroups.hierarchy()
    assert found is not None
    code = f"""
import os
os.mkdir({str(group)!r})
print(os.stat({str(group)!r}).st_ino)
child = os.fork()
if not child:
    import time
    os.read(0, 1)
    os._exit(0)
for path in ({str(group)!r}, {str(group.parent)!r}):
    with open(path + "/cgroup.procs", "w") as procs:
        procs.write(str(child))
print(child)
os.kill(child, 9)
os.wait()
os.rmdir({str(group)!r})
"""
    run = trace(python(code), "-e", "cgroup_mkdir,cgroup_rmdir,cgroup_attach_task", stdin="")
    assert run.status == 0, run.errors
    inode, child = map(int, run.out.split())
    names = [e["eventName"] for e in run.events]
    assert names == ["cgroup_mkdir", "cgroup_attach_task", "cgroup_attach_task", "cgroup_rmdir"]
    there, entered, left, gone = map(arguments, run.events)
    path = "/" + str(group.relative_to(found.path))
    assert there == gone == {"cgroup_id": inode, "cgroup_path": path, "hierarchy_id": found.id}
    assert entered["cgroup_path"] == path
    assert left["cgroup_path"] == "/"
    assert [a["pid"] for a in (entered, left)] == [child, child]
    assert run.ledger["balanced"]


def test_a_rename_names_both_names_and_the_call() -> None:
    run = trace(["sh", "-c", "printf one >/proc/self/comm"], "-e", "task_rename")
    renamed = [arguments(e) for e in run.events if arguments(e)["new_name"] == "one"]
    assert [(a["old_name"], a["syscall"]) for a in renamed] == [("sh", "write")]
