"""What headrace reads of long arguments, environments and paths, and what it says where that ends."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.live import NEEDS_LOOPS, trace

pytestmark = pytest.mark.kernel
PROGRAM = """
import os, shutil, sys
def run(name, variables, arguments):
    env = {f"FILLER{i}": "x" * 1000 for i in range(variables)} | {"LD_PRELOAD": "/nowhere.so"}
    if not os.fork():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.execve("/bin/true", [name, *["y" * 1000] * arguments, "needle"], env)
    os.wait()
run("short", 1, 1)
run("long", 100, 100)
run("toolong", 140, 140)
folder = sys.argv[1]
os.chdir(folder)
for _ in range(60):
    os.mkdir("d")
    os.chdir("d")
shutil.copy("/bin/true", "program")
if not os.fork():
    os.execve("./program", ["deep"], {})
os.wait()
"""
RULES = """
{id: T-ARGUMENT, name: argument, events: {sched_process_exec: {argv|contains: needle}}}
---
{id: T-VARIABLE, name: variable, events: {sched_process_exec: {env|startswith: LD_PRELOAD=}}}
---
{id: T-PATH, name: path, events: {sched_process_exec: {pathname|startswith: FOLDER, pathname|endswith: /d/program}}}
"""
Found = tuple[Any, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("limits")
    rules, findings, work = folder / "rules.yaml", folder / "findings", folder / "work"
    work.mkdir()
    rules.write_text(RULES.replace("FOLDER", str(work)))
    options = ("--signatures", str(rules), "--rules", "T-*", "--findings", f"json:{findings}", "--fold", "0")
    command = [sys.executable, "-S", "-E", "-c", PROGRAM, str(work)]
    traced = trace(command, "-e", "sched_process_exec,execve", "--exec-env", "--workers", "2", *options)
    assert traced.status == 0, traced.errors
    return traced, [json.loads(line) for line in findings.read_text().splitlines()]


def ids(found: Found, name: str) -> dict[str, Any]:
    """Findings of an exec by its first argument: their data by signature."""
    own = [f for f in found[1] if (f["process"]["commandLine"] or "").split(" ")[0] == name]
    return {finding["signatureID"]: finding["data"] for finding in own}


def test_arguments_and_variables_are_found_wherever_they_stand(found: Found) -> None:
    assert found[0].ledger["balanced"]
    assert ids(found, "short").keys() == ids(found, "long").keys() == {"T-ARGUMENT", "T-VARIABLE"}
    for event in found[0].events:
        shown = {arg["name"]: arg for arg in event["args"]}
        argv = shown["argv"]["value"] or []
        if argv[:1] == ["long"]:
            variables = shown.get("env", shown.get("envp"))["value"]
            assert (len(argv), argv[-1], len(variables), variables[-1]) == (
                102,
                "needle",
                101,
                "LD_PRELOAD=/nowhere.so",
            )


@NEEDS_LOOPS
def test_beyond_the_limit_signatures_are_said_to_be_undecided(found: Found) -> None:
    data = [finding["data"] for finding in found[1] if finding["signatureID"] == "HR-UNDECIDED"]
    assert data == [{"signatures": ["T-ARGUMENT", "T-VARIABLE"], "fields": ["argv", "env"]}]
    by_rule = found[0].ledger["by_rule"]
    assert [by_rule[name]["undecided"] for name in ("T-ARGUMENT", "T-VARIABLE", "T-PATH")] == [1, 1, 0]
    assert found[0].ledger["findings"]["undecided"] == 2


@NEEDS_LOOPS
def test_a_path_of_many_folders_is_whole(found: Found) -> None:
    assert ids(found, "deep").keys() == {"T-PATH"}
