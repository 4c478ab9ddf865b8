"""Fifty Sigma rules, and fifty real execs and opens that each of them is for, next to as many that are nearly that."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.live import DEADLINE_S, HEADRACE

pytestmark = pytest.mark.kernel
PROCESS = {"product": "linux", "category": "process_creation"}
FILE = {"product": "linux", "category": "file_event"}
AUDIT = {"product": "linux", "service": "auditd"}
HALF_WAY = 99
TOOLS = ["nc", "wget", "curl", "base64", "chattr", "crontab", "nmap", "socat", "tcpdump", "xxd"]


class Case(NamedTuple):
    """A rule, what it is for, and what is nearly that: lines of a shell in the folder of tools."""

    source: dict[str, str]
    detection: dict[str, Any]
    hit: str
    miss: str


def cases() -> list[Case]:
    found: list[Case] = []
    for number, tool in enumerate(TOOLS):
        image = {"Image|endswith": f"/{tool}"}
        found += [
            Case(PROCESS, {"s": image | {"CommandLine|contains": f" -o {number}x"}, "condition": "s"},
                 f"./{tool} -o {number}x", f"./{tool} -o {number}"),
            Case(PROCESS, {"s": image | {"CommandLine|contains": f"--run{number}"},
                           "f": {"CommandLine|contains|all": ["--safe", "--also"]}, "condition": "s and not f"},
                 f"./{tool} --run{number} --safe", f"./{tool} --run{number} --safe --also"),
            Case(PROCESS, {"s": {"ParentImage|endswith": "/sh", "CommandLine|re": f"^\\./{tool} [0-9]+q{number}$"},
                           "condition": "s"}, f"./{tool} 12q{number}", f"./{tool} q{number}"),
            Case(FILE, {"s": {"TargetFilename|endswith": f"/made-{number}.php"}, "condition": "s"},
                 f": > made-{number}.php", f": < made-{number}.txt"),
            Case(AUDIT, {"s": {"type": "EXECVE", "a0": f"./{tool}", "a1|startswith": f"=au{number}"}, "condition": "s"},
                 f"./{tool} =au{number}!", f"./{tool} x =au{number}"),
        ]  # fmt: skip
    return found


def test_fifty_rules_fire_for_what_they_are_for_and_for_nothing_else(tmp_path: Path) -> None:
    tools, rules = tmp_path / "tools", tmp_path / "rules"
    tools.mkdir()
    rules.mkdir()
    true = shutil.which("true")
    assert true is not None
    for number, tool in enumerate(TOOLS):
        shutil.copy(true, tools / tool)
        (tools / f"made-{number}.txt").touch()
    all_cases = cases()
    assert len(all_cases) == 50
    for number, case in enumerate(all_cases):
        rule = {"title": f"Rule {number}", "id": str(uuid.UUID(int=number)), "level": "medium", "status": "test"}
        (rules / f"{number}.yml").write_text(
            yaml.safe_dump(rule | {"logsource": case.source, "detection": case.detection})
        )
    marker = {"title": "Half-way", "id": str(uuid.UUID(int=HALF_WAY)), "level": "low", "status": "test"}
    detection = {"s": {"CommandLine": "./nc half-way"}, "condition": "s"}
    (rules / "marker.yml").write_text(yaml.safe_dump(marker | {"logsource": PROCESS, "detection": detection}))
    output = tmp_path / "found"
    script = "\n".join([*(case.miss for case in all_cases), "./nc half-way", *(case.hit for case in all_cases)])
    line = [HEADRACE, "run", "--sigma", str(rules), "--rules", "00000000-*", "--fold", "0", "--workers", "2"]
    line += ["--findings", f"json:{output}", "--", "sh", "-c", script]
    done = subprocess.run(
        line, cwd=tools, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "  balanced" in done.stderr
    found = [uuid.UUID(json.loads(text)["signatureID"]).int for text in output.read_text().splitlines()]
    assert found[0] == HALF_WAY
    assert sorted(set(found[1:])) == list(range(50))
