"""The kernel's own tables: a module changes them, and hides. Needs the headers of the kernel (`make test-kernels`)."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from headrace.bpf.host.btf import Btf
from headrace.bpf.tables.catalogue import CHECK, catalogue
from headrace.pipeline.host.features import event_lack
from tests.live import HEADRACE, Traced, arguments, trace, wait_for

pytestmark = pytest.mark.kernel
HEADERS = Path(f"/usr/src/linux-headers-{platform.release()}")
CHECKED = [e for e in catalogue().by_id.values() if (e.hook or "").startswith(f"{CHECK}:")]
THERE = [event.name for event in CHECKED if not event_lack(event)]
CALL, CALL_NUMBER = "getpgid", 121
OWNERS = ("rootkit", "hidden")
"""A look can come between what the module does to the tables and its hiding: then both are told."""
FOUND = {
    "hooked_syscall",
    "hooked_syscalls",
    "hooked_seq_ops",
    "hooked_proc_fops",
    "hidden_kernel_module",
    "ftrace_hook",
}


@pytest.fixture(scope="module")
def before() -> Traced:
    """What is told of tables that nobody has changed yet."""
    if not THERE:
        pytest.skip("nothing of this kernel's tables can be looked at")
    return trace(["/bin/true"], "-e", ",".join(THERE))


def test_of_tables_that_are_as_they_should_be_nothing_is_told(before: Traced) -> None:
    assert (before.status, before.ledger["balanced"]) == (0, True)
    assert [e for e in before.events if e["eventName"] != "ftrace_hook"] == []


@pytest.fixture(scope="module")
def module(before: Traced, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module, built."""
    if not HEADERS.is_dir():
        pytest.skip("the headers of this kernel are not here")
    folder = tmp_path_factory.mktemp("rootkit")
    for name in ("rootkit.c", "Kbuild"):
        shutil.copy(Path(__file__).parent / "rootkit" / name, folder)
    if subprocess.run([HEADERS / "scripts/mod/modpost", "-V"], capture_output=True, check=False).returncode > 1:
        pytest.skip("what builds modules for this kernel does not run here")
    done = subprocess.run(
        ["make", "-C", str(HEADERS), f"M={folder}", "CC=gcc", "modules"], capture_output=True, text=True, check=False
    )
    said = done.stdout[-2000:] + done.stderr[-2000:]
    if "unrecognized command-line option" in said:
        pytest.skip("the compiler here is older than this kernel's")
    assert done.returncode == 0, said
    return folder / "rootkit.ko"


@pytest.fixture(scope="module")
def told(module: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Arguments of what was told while the module came, by event."""
    folder = tmp_path_factory.mktemp("told")
    events, fifo = folder / "events", folder / "fifo"
    os.mkfifo(fifo)
    place = Btf.of_kernel().offset("proc_dir_entry", "proc_dir_ops")
    script = f"insmod {module} number={CALL_NUMBER} proc_ops={place} && read line <{fifo}"
    line = ("-e", ",".join(sorted(FOUND)), "-o", f"json:{events}", "--ledger", str(folder / "ledger"))
    load = subprocess.Popen([HEADRACE, "run", *line, "--", "sh", "-c", script])
    try:
        wait_for(lambda: {e["eventName"] for e in _read(events)} >= FOUND, "every event", 300)
    finally:
        load.terminate()
        load.wait(60)
    assert json.loads((folder / "ledger").read_text())["balanced"] is True
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in FOUND}
    for event in _read(events):
        found[event["eventName"]].append(arguments(event))
    return found


def _read(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def test_a_call_that_is_hooked_is_told_with_its_owner(told: dict[str, list[dict[str, Any]]]) -> None:
    *_, call = told["hooked_syscall"]
    assert call["syscall"] == CALL
    assert call["owner"] in OWNERS
    *_, calls = told["hooked_syscalls"]
    assert calls == {"hooked_syscalls": [f"{CALL} {call['address']} {call['owner']}"]}


def test_operations_that_are_hooked_are_told(told: dict[str, list[dict[str, Any]]]) -> None:
    [[sequence], [operation]] = (
        told["hooked_seq_ops"][0]["hooked_seq_ops"],
        told["hooked_proc_fops"][0]["hooked_fops_pointers"],
    )
    assert sequence.startswith("tcp4_seq_ops.show ffffffff")
    assert operation.startswith("proc_dir_ops.iterate_shared ffffffff")
    assert sequence.rpartition(" ")[2] in OWNERS
    assert operation.rpartition(" ")[2] in OWNERS


def test_a_module_that_hides_is_found_by_the_other_ways(told: dict[str, list[dict[str, Any]]]) -> None:
    [found] = told["hidden_kernel_module"]
    assert found["name"] == "rootkit"
    assert int(found["address"], 16) >> 63 == 1
    assert found["srcversion"]


def test_a_function_that_is_hooked_by_ftrace_is_told(told: dict[str, list[dict[str, Any]]]) -> None:
    hooked = [hook for hook in told["ftrace_hook"] if hook["symbol"] == "do_sys_openat2"]
    assert [hook["count"] for hook in hooked] == [1]
