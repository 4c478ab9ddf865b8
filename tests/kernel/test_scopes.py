"""Scopes and results, decided in the kernel: what passes, what is counted, and nothing else."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import Running, arguments, in_process, let_go, start_load, trace

pytestmark = pytest.mark.kernel
CALLS = 1000
NAMESPACES = {"mntns": "mnt", "pidns": "pid"}


@pytest.fixture
def load(binaries: dict[str, Path]) -> Iterator[subprocess.Popen[str]]:
    """A load of CALLS getppid calls on each of two threads, waiting to be let go; its pid is known."""
    process = start_load(binaries["load"], "getppid", CALLS, threads=2)
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def counted(load: subprocess.Popen[str], *scopes: str) -> int:
    """getppid calls that were produced under these scopes while the load ran."""
    options = [part for scope in scopes for part in ("-s", scope)]
    running = Running(*options, "-e", "getppid", "-o", "none")
    assert running.ready, running.end()
    let_go(load)
    load.wait(timeout=30)
    if running.process.poll() is None:
        running.process.terminate()
    status, ledger, errors = running.end()
    assert status == 0, errors
    assert ledger["balanced"] is True
    assert ledger["delivered"] == ledger["produced"]
    return int(ledger["by_event"].get("getppid", {}).get("produced", 0))


def test_pid_takes_all_threads_of_the_process(load: subprocess.Popen[str]) -> None:
    assert counted(load, f"pid={load.pid}") == 2 * CALLS


def test_tree_of_a_running_process(load: subprocess.Popen[str]) -> None:
    assert counted(load, f"tree={load.pid}") == 2 * CALLS


def test_tid_takes_one_thread_only(load: subprocess.Popen[str]) -> None:
    # the main thread makes none of the calls
    assert counted(load, f"pid={load.pid}", f"tid={load.pid}") == 0


def test_what_every_term_lets_pass_passes(load: subprocess.Popen[str], binaries: dict[str, Path]) -> None:
    assert os.getuid() == 0
    lines = Path(f"/proc/{load.pid}/cgroup").read_text().splitlines()
    group = next(line for line in lines if line.startswith("0::")).removeprefix("0::")
    terms = {
        f"pid={load.pid}",
        *("comm=load", "uid=0", "uid<1", "!new", f"exe={binaries['load']}", f"uts={os.uname().nodename}"),
        *(f"{key}={os.stat(f'/proc/{load.pid}/ns/{name}').st_ino}" for key, name in NAMESPACES.items()),
        f"cgroup={group}",
    }
    assert counted(load, *terms) == 2 * CALLS


@pytest.mark.parametrize("term", ["comm!=load", "uid!=0", "uid>0", "new", "exe=/bin/true", "mntns=1", "uts!=HOST"])
def test_what_one_term_stops_does_not_pass(load: subprocess.Popen[str], term: str) -> None:
    assert counted(load, f"pid={load.pid}", term.replace("HOST", os.uname().nodename)) == 0


def test_follow_takes_children_that_no_longer_match() -> None:
    run = trace(
        ["sh", "-c", "sh -c 'exec cat /dev/null'; :"],
        "-s", "comm=sh", "-s", "follow", "-e", "sched_process_exec",
    )  # fmt: skip
    assert "cat" in {e["processName"] for e in run.events}


def test_headrace_is_never_traced() -> None:
    # the scope holds the test's own tree, of which headrace is a part
    running = Running("-s", f"tree={os.getpid()}", "-e", "getppid,close,openat,write", "-o", "none")
    assert running.ready
    done = subprocess.run(["sh", "-c", "exit 0"], check=False)
    assert done.returncode == 0
    running.process.terminate()
    status, ledger, _ = running.end()
    assert status == 0
    assert ledger["balanced"]
    # headrace's own stages make thousands of calls in that time; the shell some dozens
    assert 0 < ledger["produced"] < 2000


def test_results_are_filtered_in_the_kernel() -> None:
    run = trace(["sh", "-c", "cat /nonexistent /dev/null; :"], "-e", "openat.retval<0")
    assert run.events
    assert all(e["returnValue"] < 0 for e in run.events)
    assert run.ledger["filtered"] == 0
    assert run.ledger["produced"] == len(run.events)


def test_arguments_are_filtered_in_the_worker_and_counted() -> None:
    run = trace(["cat", "/etc/hostname"], "-e", "openat.args.pathname=/etc/host*")
    assert [arguments(e)["pathname"] for e in run.events] == ["/etc/hostname"]
    assert run.ledger["filtered"] == run.ledger["produced"] - 1
    assert run.ledger["balanced"]


def test_an_unread_argument_matches_neither_way(binaries: dict[str, Path]) -> None:
    for condition in ("openat.args.pathname=*", "openat.args.pathname!=/nothing"):
        run = trace([str(binaries["quirks"])], "-e", condition, "-s", "comm=fault")
        assert run.events == []
        assert run.ledger["filtered"] == 2


@pytest.mark.parametrize("cpu", ["-1", "0"])
def test_a_known_number_of_calls_on_several_threads_and_cpus(cpu: str, binaries: dict[str, Path]) -> None:
    run = trace([str(binaries["load"]), "getppid", "20000", cpu, "4"], "-e", "getppid", "--workers", "2", stdin="x")
    assert run.ledger["lost"] == 0, run.ledger["lost_by_reason"]
    assert Counter(e["eventName"] for e in run.events) == {"getppid": 80000}
    assert run.ledger["by_event"]["getppid"] == {"produced": 80000, "delivered": 80000}
    assert sum(row["produced"] for row in run.ledger["by_cpu"].values()) == 80000
    by_thread: dict[int, int] = {}
    for event in run.events:
        assert event["timestamp"] >= by_thread.get(event["hostThreadId"], 0)
        by_thread[event["hostThreadId"]] = event["timestamp"]
    assert len(by_thread) == 4


@pytest.mark.parametrize(
    ("arguments_", "message"),
    [
        (("-s", "pid=4194303"), "no such process"),
        (("-s", "tree=4194303"), "no such process"),
        (("-s", "pid=1", "-s", "pid=2"), "contradict"),
        (("-s", "uid>5", "-s", "uid<3"), "contradict"),
        (("-s", "comm=a-name-that-is-too-long"), "can never match"),
        (("-s", "exe=/nonexistent"), "No such file"),
        (("-s", "cgrup=1"), "did you mean cgroup?"),
        (("-e", "opennat"), "did you mean openat?"),
        (("-e", "openat.args.pathnam=/x"), "did you mean pathname?"),
        (("-e", "sched_switch.retval<0"), "has no result"),
        (("-e", "openat.retval<0,openat.retval>0"), "contradict"),
        (("-e", "dns_request"), "does not look into packets"),
        (("-o", "jsn:-"), "no such format"),
        (("--workers", "0"), "workers"),
        (("--workers", "65"), "workers"),
        (("--perf-pages", "1000"), "power of two"),
        (("--no-such-option",), "No such option"),
    ],
)
def test_what_can_never_work_is_refused_with_a_reason(arguments_: tuple[str, ...], message: str) -> None:
    done = in_process("run", *arguments_, "-o", "none", "--", "true")
    assert done.returncode == 2
    assert message in done.stderr
